# SPDX-License-Identifier: Apache-2.0
"""Making a domain, where its images may lie, running it, and taking it away."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceMissing, TargetExists
from keepstone.objects import failure
from keepstone.workloads.libvirt.markup import parsed, text_of
from keepstone.workloads.libvirt.virsh import Virsh, document, path_of

__all__ = ["check_free", "define", "destroy", "let_through", "start", "undefine"]

_THROUGH = 0o011  # mode


def define(virsh: Virsh, description: str) -> str:
    """Make a domain of this XML; its UUID. One of its name and its UUID becomes what this says. `TargetExists` where
    another one of its name is there, `Refused`, `Gone`."""
    root = parsed(description, "the description of the machine")
    name = text_of(root, "name")
    check_free(virsh, name, uuid=text_of(root, "uuid"))
    with document(description) as fd:
        virsh.ask("define", path_of(fd), holding=[fd])  # it refuses, too, where somebody was faster
    return _uuid(virsh, name)


def check_free(virsh: Virsh, name: str, *, uuid: str = "") -> None:
    """`TargetExists` where a domain of this name is there, but for that of this UUID."""
    if _uuid(virsh, name) not in ("", uuid):
        raise TargetExists(f"libvirt at {virsh.uri} has a machine {name} already; choose another name")


def let_through(env: Env, folder: Path) -> None:
    """Whoever knows the name of an image in this folder may come to it: QEMU is another user where a libvirt is the
    system's, which gives it the images alone. Others cannot list what is there. `StorageError`, `AccessDenied`."""
    try:
        fd = env.fs.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            env.fs.fchmod(fd, env.fs.fstat(fd).st_mode & 0o7777 | _THROUGH)
        finally:
            env.fs.close(fd)
    except OSError as error:
        raise failure(error, str(folder)) from error


def start(virsh: Virsh, uuid: str, *, paused: bool = False) -> None:
    """Run it; `paused`: up to its first instruction. `SourceMissing`, `Refused`, `Gone`."""
    virsh.ask("start", uuid, *(["--paused"] if paused else []))


def destroy(virsh: Virsh, uuid: str) -> None:
    """End it at once, as a power failure does. `SourceMissing`, `Refused` where it does not run, `Gone`."""
    virsh.ask("destroy", uuid)


def undefine(virsh: Virsh, uuid: str, *, state: bool = False) -> None:
    """Take its description away, and what libvirt knows of its checkpoints; its disks stay. `state`: its NVRAM and the
    state of its TPM go as well. `SourceMissing`, `Refused`, `Gone`."""
    what = ["--checkpoints-metadata", "--managed-save", "--nvram" if state else "--keep-nvram"]
    try:
        virsh.ask("undefine", uuid, *what, "--tpm" if state else "--keep-tpm")
    except KeepstoneError as error:
        if "tpm" not in str(error):
            raise
        virsh.ask("undefine", uuid, *what)  # one before 8.9 knows no TPMs here


def _uuid(virsh: Virsh, name: str) -> str:
    """Of the domain of this name, also where it lacks its disks; empty where there is none."""
    for uuid in virsh.uuids():
        with contextlib.suppress(SourceMissing):
            if virsh.ask("domname", uuid).strip() == name:
                return uuid
    return ""
