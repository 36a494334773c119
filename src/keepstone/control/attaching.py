# SPDX-License-Identifier: Apache-2.0
"""The script by which another machine attaches the disks of a point. What it does is in `attach.sh`.

It brings a key for this one session, and whoever has it still needs the password, by which the key is locked: the
script is a file in somebody's download folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from keepstone.env import Env
from keepstone.identity import Issued, locked_key

__all__ = ["EXTENSION", "Script", "script"]

EXTENSION = ".sh"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
_PASSWORD = 15  # characters, as az cuts them out of the script's name
_STAMP = 32  # characters before them


@dataclass(frozen=True, slots=True)
class Script:
    """`suffix`: of its name, with the password in it as az expects it: after `_` and 32 characters."""

    suffix: str = field(repr=False)
    content: str = field(repr=False)


def script(
    env: Env, name: str, disks: Sequence[str], host: str, port: int, authority: bytes, session: Issued
) -> Script:
    """One for the disks of a machine (`name`), which are served at this host and port. `authority`: the certificate by
    which that is known; `session`: what it knows the script by."""
    password = "".join(_LETTERS[byte % len(_LETTERS)] for byte in env.random(_PASSWORD))
    values = {
        "NAME": name,
        "HOST": host,
        "PORT": str(port),
        "DISKS": " ".join(disks),
        "AUTHORITY": authority.decode(),
        "CERTIFICATE": session.certificate.decode(),
        "KEY": locked_key(session, password).decode(),
    }
    told = "\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items())
    body = files("keepstone.control").joinpath("attach.sh").read_text(encoding="utf-8")
    stamp = env.random(_STAMP // 2).hex()
    return Script(f"{name}_{stamp}{password}", f"#!/bin/sh\n{told}\n\n{body}")
