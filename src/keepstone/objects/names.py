# SPDX-License-Identifier: Apache-2.0
"""Which names an object may have; the rules of `port.py`, checked before any backend touches anything."""

from __future__ import annotations

import re

from keepstone.errors import UsageError

__all__ = ["TEMPORARY", "check_name", "check_prefix", "folder_of", "is_name"]

TEMPORARY = "tmp"
"""The folder of unfinished uploads; no object can be in it."""

# No leading dot: neither `..` nor the files that NFS keeps for the deleted. 255 bytes fit every disk.
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"
_NAME = re.compile(rf"(?!{TEMPORARY}(?:/|\Z))(?:{_PART}/)*{_PART}")
_START = re.compile(r"[A-Za-z0-9._-]*")
_LONGEST = 1024  # S3's limit


def is_name(name: str) -> bool:
    """Whether an object can be called so."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """`name` itself; `UsageError` where no object can be called so."""
    if not is_name(name):
        raise UsageError(f"{name!r} cannot name an object: use letters, digits, `.`, `_`, `-`, and `/` for folders")
    return name


def check_prefix(prefix: str) -> tuple[str, str]:
    """(folder, start of the names in it) of a listing's prefix; `UsageError` where no object's name starts so."""
    folder, slash, start = prefix.rpartition("/")
    if folder or slash:
        check_name(folder)
    if not _START.fullmatch(start):
        raise UsageError(f"{prefix!r} is the start of no object's name; list a folder such as 'packs/'")
    return folder, start


def folder_of(name: str) -> str:
    """The folder that an object lies in; empty for the outermost."""
    return name.rpartition("/")[0]
