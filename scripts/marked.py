# SPDX-License-Identifier: Apache-2.0
"""Sections of documents that a program writes, between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ROOT", "settle"]

ROOT = Path(__file__).resolve().parent.parent


def settle(document: Path, name: str, text: str, *, check: bool, again: str) -> int:
    """Write the section, or with `check` compare it; the exit code. `again`: the command that writes it.

    LookupError where the document has no such section.
    """
    old = document.read_text(encoding="utf-8")
    section = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not section.search(old):
        raise LookupError(f"{document} has no section <!-- {name} --> … <!-- /{name} -->")
    new = section.sub(lambda found: f"{found[1]}{text.strip()}\n{found[2]}", old)
    if new == old:
        return 0
    if check:
        print(f"{document.name} is out of date: run `{again}`")
        return 1
    document.write_text(new, encoding="utf-8")
    return 0
