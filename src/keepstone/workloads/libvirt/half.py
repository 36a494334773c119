# SPDX-License-Identifier: Apache-2.0
"""The mark of a domain whose disks are being put back from a point: in its description, where it outlives everybody.

It has two parts. One is in the domain's metadata: what the machine did before, and how far it is. The other one is a
word on the command line of its QEMU that no QEMU knows: as long as it is there the machine does not start, whoever
tries it, by hand, at the start of the host, or because another program wants it to run; and what QEMU says then tells
why. Both come with one request, and so does their end.

Invariants
* Nothing else in the description changes: it is libvirt's own text of it, as `virsh edit` has it.
* It names the disks, and goes only when all of them are whole.
* Between the last byte and the start of the machine the word is gone, and what the machine did is not forgotten yet.

Somebody who wants the machine as it is takes the word away by `virsh edit`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from keepstone.errors import Conflict
from keepstone.workloads.libvirt.domains import Domain
from keepstone.workloads.libvirt.markup import Element, child, parsed, written
from keepstone.workloads.libvirt.virsh import Refused, Virsh, document, path_of

__all__ = ["Before", "Mark", "clear", "forget", "mark", "mark_of", "refuse_half"]

_URI = "urn:keepstone:replacing:1"
_NOTE = "keepstone:replacing"
_WORD = "-keepstone-its-disks-are-half-put-back-run-the-same-restore-again"
_LINE, _ARGUMENT = "qemu:commandline", "qemu:arg"
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


class Before(StrEnum):
    """What the machine did before."""

    RAN = "ran"
    PAUSED = "paused"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Mark:
    """`disks`: the targets of those that are half put back; none where they are whole, and nothing is left but to start
    the machine."""

    before: Before
    disks: frozenset[str]

    @property
    def whole(self) -> bool:
        """Whether nothing is left but to start the machine."""
        return not self.disks


def mark_of(description: str) -> Mark | None:
    """The mark in this XML of a domain."""
    notes = parsed(description, "the description of the machine").find("metadata")
    found = [] if notes is None else _called(notes, _NOTE)
    if not found:
        return None
    note = found[0]
    before = Before(note.get("before", "")) if note.get("before") in set(Before) else Before.OFF
    return Mark(before, frozenset(note.get("disks", "").split()))


def mark(virsh: Virsh, uuid: str, before: Before, disks: Collection[str]) -> None:
    """From now on these disks are neither what they were nor the point, and the machine does not start. `Refused`,
    `Gone`."""
    root = _description(virsh, uuid)
    _take_away(root)
    notes = root.find("metadata")
    notes = child(root, "metadata") if notes is None else notes
    child(notes, _NOTE, None, **{"xmlns:keepstone": _URI, "before": before, "disks": " ".join(sorted(disks))})
    root.set("xmlns:qemu", _QEMU)
    line = next(iter(_called(root, _LINE)), None)
    child(child(root, _LINE) if line is None else line, _ARGUMENT, value=_WORD)
    _define(virsh, root)


def clear(virsh: Virsh, uuid: str, before: Before) -> None:
    """The disks are whole again, and the machine can be started. `Refused`, `Gone`."""
    root = _description(virsh, uuid)
    _take_away(root)
    if before is not Before.OFF:
        notes = root.find("metadata")
        notes = child(root, "metadata") if notes is None else notes
        child(notes, _NOTE, None, **{"xmlns:keepstone": _URI, "before": before})
    _define(virsh, root)


def forget(virsh: Virsh, uuid: str) -> None:
    """The machine does again what it did before: the rest of the mark goes, also from what runs. `Refused`, `Gone`."""
    root = _description(virsh, uuid)
    _take_away(root)
    _define(virsh, root)
    with contextlib.suppress(Refused):  # it does not run any more
        virsh.ask("metadata", uuid, "--uri", _URI, "--remove", "--live")


def refuse_half(virsh: Virsh, domain: Domain) -> None:
    """`Conflict` where the disks of this domain are half put back."""
    if not domain.persistent:
        return
    found = mark_of(_text(virsh, domain.uuid))
    if found is not None and not found.whole:
        raise Conflict(
            f"{domain.name} has disks that are being put back from a point; wait for that restore, or run it again "
            "where it ended early"
        )


def _text(virsh: Virsh, uuid: str) -> str:
    return virsh.ask("dumpxml", uuid, "--inactive", "--security-info")


def _description(virsh: Virsh, uuid: str) -> Element:
    return parsed(_text(virsh, uuid), "the description of the machine")


def _define(virsh: Virsh, root: Element) -> None:
    with document(written(root)) as fd:
        virsh.ask("define", path_of(fd), holding=[fd])


def _take_away(root: Element) -> None:
    for notes in root.findall("metadata"):
        for note in _called(notes, _NOTE):
            notes.remove(note)
        if not len(notes):
            root.remove(notes)
    for line in _called(root, _LINE):
        for word in _called(line, _ARGUMENT):
            if word.get("value") == _WORD:
                line.remove(word)
        if not len(line):
            root.remove(line)


def _called(parent: Element, tag: str) -> list[Element]:
    """The children of this name; `findall` takes what is before a colon for its own."""
    return [element for element in parent if element.tag == tag]
