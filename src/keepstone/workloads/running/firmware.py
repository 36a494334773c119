# SPDX-License-Identifier: Apache-2.0
"""UEFI firmware of this host, as distributions describe it (QEMU, docs/interop/firmware.json)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import Unsupported

__all__ = ["Firmware", "firmware"]

FOLDERS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
_LARGEST = 1 << 20  # bytes of a description


@dataclass(frozen=True, slots=True)
class Firmware:
    """`code`: what QEMU maps read-only. `template`: an empty NVRAM. `smm`: it needs the machine to have SMM."""

    code: Path
    template: Path
    smm: bool


class _File(msgspec.Struct, frozen=True):
    filename: str
    format: str = "raw"


class _Mapping(msgspec.Struct, frozen=True):
    device: str
    executable: _File | None = None
    template: _File | None = msgspec.field(name="nvram-template", default=None)


class _Target(msgspec.Struct, frozen=True):
    architecture: str
    machines: list[str]


class _Description(msgspec.Struct, frozen=True):
    interfaces: list[str] = msgspec.field(name="interface-types")
    mapping: _Mapping
    targets: list[_Target]
    features: list[str]


def firmware(env: Env, architecture: str, *, secure: bool, nvram: int | None) -> Firmware:
    """That of a machine of the type q35, with Secure Boot or without, whose NVRAM has so many bytes. `Unsupported`
    where this host has none."""
    found = list(_all(env, architecture))
    for wanted in (secure, not secure):  # an NVRAM of the right size starts without Secure Boot too, and the reverse
        for one in found:
            if one.smm == wanted and (nvram is None or _size(env, one.template) == nvram):
                return one
    kind = "" if nvram is None else f" with an NVRAM of {nvram:,} bytes"
    raise Unsupported(f"the machine has UEFI firmware{kind}, and this host has none such; install it (ovmf, edk2-ovmf)")


def _all(env: Env, architecture: str) -> Iterator[Firmware]:
    """A description in the first folder hides one of its name in the second; they come in order of their names."""
    paths: dict[str, Path] = {}
    for folder in reversed(FOLDERS):
        try:
            paths.update((name, folder / name) for name in env.fs.listdir(folder) if name.endswith(".json"))
        except OSError:
            continue
    for _, path in sorted(paths.items()):
        try:
            description = from_json(_Description).decode(_read(env, path))
        except (OSError, msgspec.MsgspecError):
            continue
        mapping = description.mapping
        fits = any(
            target.architecture == architecture and any(fnmatchcase("pc-q35-9.9", name) for name in target.machines)
            for target in description.targets
        )
        files = [mapping.executable, mapping.template]
        if not fits or mapping.device != "flash" or "uefi" not in description.interfaces:
            continue
        if all(file is not None and file.format == "raw" and _size(env, Path(file.filename)) for file in files):
            assert mapping.executable is not None
            assert mapping.template is not None
            smm = "requires-smm" in description.features
            yield Firmware(Path(mapping.executable.filename), Path(mapping.template.filename), smm)


def _read(env: Env, path: Path) -> bytes:
    fd = env.fs.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return env.fs.read(fd, _LARGEST)
    finally:
        env.fs.close(fd)


def _size(env: Env, path: Path) -> int:
    try:
        return env.fs.stat(path).st_size
    except OSError:
        return 0
