# SPDX-License-Identifier: Apache-2.0
"""What an item is made of: from what a client sends to what a workload reads, for each kind of datasource.

A folder or a file of a machine is an item of kind FileFolder, whose `sourcePath` Azure does not have (there the
machine's own console chooses). With `sourceType` DiskImage, which Azure does not have either, the path is a disk image
or a block device, and is taken as one. What lies on a machine with an agent is not to be seen from here: of its paths
only the form is looked at, that of POSIX or that of Windows.

Virtual machines are in `machines.py`.
"""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from keepstone.errors import InvalidRequest
from keepstone.vault import Resource

__all__ = ["DISKS", "FILES", "IMAGES", "OF_FILES", "Source", "absolute", "item_name", "of_files"]

FILES = "FileFolder"
DISKS = "DiskImage"
IMAGES = "VM"
_LISTS = ("exclude", "include")
_SWITCHES = ("oneFileSystem", "excludeCaches")
_TYPE = "sourceType"
OF_FILES = ("sourcePath", _TYPE, *_LISTS, *_SWITCHES)
"""The properties that `of_files` looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`document`: what the item's row keeps, and the handler of its backups reads. `machine`: for a virtual machine."""

    workload: str
    friendly: str
    document: dict[str, Any]
    machine: Resource | None = field(default=None)


def item_name(path: str) -> str:
    """What the item of a path is called, whatever lies there: a name of ARM has no slashes."""
    return f"{FILES};{blake2b(path.encode('utf-8', 'surrogateescape'), digest_size=12).hexdigest()}"


def absolute(path: object, *, elsewhere: bool) -> str | None:
    """An absolute path as it is kept; None for what is none. `elsewhere`: it is of another machine, which may run
    Windows."""
    if not isinstance(path, str) or "\0" in path:
        return None
    if posixpath.isabs(path):
        return posixpath.normpath(path)
    drive, rest = ntpath.splitdrive(path)
    if not elsewhere or not drive or not rest.startswith(("\\", "/")):
        return None
    return ntpath.normpath(drive.upper() + rest if drive[1:] == ":" else path)


def of_files(properties: Mapping[str, Any], *, elsewhere: bool = False) -> Source:
    """A folder, a file or a disk of a machine; `elsewhere` as in `absolute`. `InvalidRequest`."""
    given = properties.get("sourcePath") or properties.get("friendlyName")
    path = absolute(given, elsewhere=elsewhere)
    if path is None:
        raise InvalidRequest(
            f"properties.sourcePath is {given!r}; name the absolute path of a folder or file of the machine",
            target="properties.sourcePath",
        )
    document: dict[str, Any] = {"path": path}
    kind = properties.get(_TYPE) or FILES
    if kind == DISKS:
        chosen = next((key for key in (*_LISTS, *_SWITCHES) if properties.get(key)), None)
        if chosen is not None:
            raise InvalidRequest(
                f"properties.{chosen} chooses among files, and a disk is taken whole; leave it out",
                target=f"properties.{chosen}",
            )
        return Source(workload=DISKS, friendly=path, document=document | {_TYPE: DISKS})
    if kind != FILES:
        raise InvalidRequest(f"properties.{_TYPE} is {kind!r}; choose {FILES} or {DISKS}", target=f"properties.{_TYPE}")
    for key in _LISTS:
        patterns = properties.get(key) or []
        if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
            raise InvalidRequest(f"properties.{key} has to be a list of patterns", target=f"properties.{key}")
        document[key] = patterns
    for key in _SWITCHES:
        value = properties.get(key, False)
        if not isinstance(value, bool):
            raise InvalidRequest(f"properties.{key} has to be true or false", target=f"properties.{key}")
        document[key] = value
    return Source(workload=FILES, friendly=document["path"], document=document)
