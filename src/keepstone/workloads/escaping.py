# SPDX-License-Identifier: Apache-2.0
"""Paths of points as text that can be printed, put into JSON, and turned back: names are bytes, of any kind."""

from __future__ import annotations

import os
import re

__all__ = ["escaped", "path_text", "unescaped"]

_ESCAPE = re.compile(rb"\\(\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def path_text(path: bytes) -> str:
    """A path as text; bytes that are not UTF-8 are escaped."""
    return path.decode("utf-8", "backslashreplace")


def escaped(path: bytes) -> str:
    """A path of a point as printable text that no other path has: a backslash is doubled, and what is not printable or
    not UTF-8 stands as in a literal of Python (`\\n`, `\\xff`, `\\u00a0`)."""
    whole = path_text(path.replace(b"\\", b"\\\\"))
    if whole.isprintable():
        return whole
    return "".join(char if char.isprintable() else _escape(char) for char in whole)


def _escape(char: str) -> str:
    if char.isascii():
        return char.encode("unicode_escape").decode()
    return f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"


def unescaped(shown: str) -> bytes:
    """The path that `escaped` shows in this way; what is no escape stands for itself."""

    def meant(found: re.Match[bytes]) -> bytes:
        code = found[1]
        if code[:1] == b"x":
            return bytes.fromhex(code[1:].decode())
        if code[:1] in b"uU":
            return chr(int(code[1:], 16)).encode("utf-8", "surrogatepass")
        return {b"n": b"\n", b"r": b"\r", b"t": b"\t"}.get(code, code)

    return _ESCAPE.sub(meant, os.fsencode(shown))
