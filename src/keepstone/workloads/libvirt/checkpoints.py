# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what libvirt calls the records of changes (bitmaps) of a domain's disks since one moment.

One counts as a record of a disk only if libvirt can say how much changed: where its image lost the bitmap, or QEMU does
not vouch for it, that is missing. Every checkpoint records what changed since its own moment, whatever other ones there
are, so one of ours can go without harm to another.

The bitmaps of all disks have the name of the checkpoint. So where two disks have changed places, each still has one,
and it is of the other. What a point remembers of a disk therefore names the image as well: by its path and its inode.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection

from keepstone.env import Env
from keepstone.workloads.libvirt.domains import OFF, Domain, DomainDisk
from keepstone.workloads.libvirt.markup import Element, parsed, written
from keepstone.workloads.libvirt.virsh import Refused, Virsh, document, path_of

__all__ = ["checkpoint_of", "checkpoints", "drop", "recorded", "token_of", "why_none"]


def why_none(env: Env, domain: Domain, disk: DomainDisk) -> str:
    """Why this disk cannot have a record of changes; empty where it can."""
    if not domain.persistent:
        return "the machine is not persistent, and libvirt keeps no checkpoints of such; define it"
    if disk.format != "qcow2" or disk.read_only:
        return f"its image is {disk.format}, and keeps no record of what changed on it; a qcow2 image would"
    if _header(env, disk)[:8] == b"QFI\xfb\0\0\0\2":  # QEMU, docs/interop/qcow2.txt
        return (
            "its image is qcow2 of an old version; `qemu-img amend -o compat=1.1` lets it keep a record of what changed"
        )
    return ""


def _header(env: Env, disk: DomainDisk) -> bytes:
    """As far as it can be read here."""
    with contextlib.suppress(OSError, ValueError):
        fd = env.fs.open(disk.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return env.fs.pread(fd, 8, 0)
        finally:
            env.fs.close(fd)
    return b""


def token_of(env: Env, checkpoint: str, disk: DomainDisk) -> str:
    """What a point remembers of this disk: the checkpoint, and on which image it is."""
    inode = 0
    with contextlib.suppress(OSError, ValueError):  # of what is no file here, its address has to do
        inode = env.fs.stat(disk.source).st_ino
    image = f"{disk.kind}\0{disk.source}\0{inode}".encode("utf-8", "surrogateescape")
    return f"{checkpoint}:{hashlib.sha256(image).hexdigest()[:16]}"


def checkpoint_of(token: str) -> str:
    """The checkpoint in it."""
    return token.partition(":")[0]


def checkpoints(virsh: Virsh, uuid: str) -> list[str]:
    """The names of all of them. `Refused`, `Gone`."""
    return virsh.names("checkpoint-list", uuid, "--name")


def recorded(virsh: Virsh, uuid: str, name: str) -> set[str]:
    """The targets of disks whose changes since this checkpoint are known; the domain has to run."""
    with contextlib.suppress(Refused):
        described = virsh.ask("checkpoint-dumpxml", uuid, name, "--size", "--no-domain")
        return {
            disk.get("name", "")
            for disk in _disks(parsed(described, f"the checkpoint {name}"))
            if disk.get("size") is not None
        }
    return set()


def drop(virsh: Virsh, uuid: str, names: Collection[str]) -> None:
    """Delete these, and what their disks keep of them; the domain has to run. `Refused`, `Gone`."""
    for name in names:
        try:
            virsh.ask("checkpoint-delete", uuid, name)
        except Refused:
            if virsh.ask("domstate", uuid).strip() == OFF:
                raise  # only QEMU takes it out of the images
            _forget(virsh, uuid, name)


def _forget(virsh: Virsh, uuid: str, name: str) -> None:
    """Delete one of which some disk has lost its bitmap; those of the others have to go all the same."""
    good = recorded(virsh, uuid, name)
    root = parsed(virsh.ask("checkpoint-dumpxml", uuid, name), f"the checkpoint {name}")
    for disk in _disks(root):
        if disk.get("name") not in good:
            disk.set("checkpoint", "no")
            disk.attrib.pop("bitmap", None)
    virsh.ask("checkpoint-delete", uuid, name, "--metadata")
    if good:
        with document(written(root)) as fd:
            virsh.ask("checkpoint-create", uuid, path_of(fd), "--redefine", holding=[fd])
        virsh.ask("checkpoint-delete", uuid, name)


def _disks(root: Element) -> list[Element]:
    return [disk for disk in root.iterfind("disks/disk") if disk.get("checkpoint") == "bitmap"]
