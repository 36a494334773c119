# SPDX-License-Identifier: Apache-2.0
"""A linked clone: off and running, back in place, and what changed since; its base and the other clones stay as they
are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.errors import GuardRefused, Unsupported
from keepstone.workloads import Silent
from keepstone.workloads.libvirt import replace_domain
from keepstone.workloads.machines import Replaced, machine_of
from tests.libvirt.daemon import Daemon
from tests.libvirt.images import above, image, shown, states, write
from tests.libvirt.still import Still
from tests.libvirt.yard import Made, Yard, oracle, same

pytestmark = pytest.mark.vm

MIB = 1 << 20
_BLOCK = 256 << 10


class Clones:
    """Of a raw base of 16 MiB with 8 of data, and an image above it: a domain of 24 MiB, and another clone."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.folder = folder
        self.base, self.middle = folder / "base.raw", folder / "middle.qcow2"
        with self.base.open("wb") as file:
            file.write(b"\x11" * (8 * MIB))
            file.truncate(16 * MIB)
        image(self.middle, "16M", *above(self.base, "raw"), writes=("write -P 0x22 6M 4M",))
        self.other = image(folder / "other.qcow2", "16M", *above(self.middle), writes=("write -P 0x33 1M 1M",))
        self.still = Still(daemon, folder, "clone", beneath=self.middle)
        self.yard = Yard(self.still, folder)
        self._before = states(self.base, self.middle, self.other), shown(self.other, folder)

    def unharmed(self) -> bool:
        """What the machine shares with others."""
        return self._before == (states(self.base, self.middle, self.other), shown(self.other, self.folder))

    def is_in(self, made: Made, place: str) -> bool:
        """Whether the disks are those of the point, to the byte."""
        restored = self.yard.restore(made, self.folder / place)
        content = self.still.content(self.folder / f"{place}-now")
        return content == {name: path.read_bytes() for name, path in restored.items()}

    def replace(self, made: Made) -> Replaced:
        with self.yard.store.reader(made.point) as reader:
            point = machine_of(reader)
            return replace_domain(
                self.yard.env, self.yard.virsh, self.still.name, point, Silent(), readable=lambda path: None
            )

    def off(self) -> None:
        self.still.daemon.virsh("destroy", self.still.name)


@pytest.fixture
def clones(daemon: Daemon, tmp_path: Path) -> Iterator[Clones]:
    clones = Clones(daemon, tmp_path)
    yield clones
    clones.still.close()


def in_full(made: Made) -> list[str]:
    """The disks of which that is said."""
    return [text.partition(" ")[0] for text in made.warnings if "is read in full" in text]


def test_off_and_on_and_what_changed(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> None:
    yard, still, folder = clones.yard, clones.still, clones.folder
    still.write("vda", "write -P 1 0 1M")
    ran = yard.backup()
    still.write("vda", "write -z 4M 3M", "write -P 2 20M 64k")
    clones.off()

    off = yard.backup()

    assert off.point.record.parent == ran.point.id
    assert off.warnings == []
    assert clones.is_in(off, "off")
    # In blocks: the 10 MiB of the chain less 3 that are zeros, and 64 KiB; of the raw disk, where QEMU put its start.
    assert off.report.read == 7 * MIB + _BLOCK + _BLOCK
    assert off.tokens == ran.tokens
    with oracle(monkeypatch, folder / "copies") as copies:
        still.again()
        still.write("vda", "write -P 5 9M 64k")
        again = yard.backup()
    same(yard.restore(again, folder / "again"), copies)
    assert in_full(again) == ["vdb"]
    # What was written since the checkpoint: 3 MiB that are zeros now, and twice 64 KiB.
    assert again.report.read - 16 * MIB <= 3 * MIB + 2 * _BLOCK
    assert clones.unharmed()


def test_back_in_place(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros of the point hide what the base has there; what the base has, and the point, is not written."""
    yard, still, folder = clones.yard, clones.still, clones.folder
    still.write("vda", "write -z 4M 3M", "write -P 1 0 1M")
    first = yard.backup()
    still.write("vda", "write -P 2 4M 3M", "write -P 3 20M 1M")
    second = yard.backup()

    report = clones.replace(first)

    assert {done.disk.name: done.changed for done in report.disks} == {"vda": 4 * MIB, "vdb": 0}
    assert (report.running, still.state) == (True, "running")
    assert clones.is_in(first, "first")
    assert clones.unharmed()
    with oracle(monkeypatch, folder / "copies") as copies:
        after = yard.backup()
    same(yard.restore(after, folder / "after"), copies)
    assert after.point.record.parent == second.point.id
    assert in_full(after) == ["vdb"]
    clones.off()
    report = clones.replace(second)
    assert (report.running, still.state) == (False, "shut off")
    assert clones.is_in(second, "second")
    assert clones.is_in(yard.backup(), "off")
    assert clones.unharmed()


def test_what_it_is_above_at_its_next_start(clones: Clones) -> None:
    """Its description says that nothing is beneath its image then, whatever the header says, and QEMU shows it so."""
    yard, still = clones.yard, clones.still
    first = yard.backup()
    nothing = "<backingStore/><target dev='vda'"
    still.daemon.define(still.description().replace("<target dev='vda'", nothing))

    report = clones.replace(first)

    assert (report.disks[0].changed, report.running) == (10 * MIB, True)
    after = yard.backup(full=True)
    same(yard.restore(after, clones.folder / "after"), yard.restore(first, clones.folder / "first"))
    assert clones.unharmed()


def test_what_may_not_be_read(clones: Clones) -> None:
    """Nothing is done to the machine where it is asked for, and its points are of when it runs."""
    yard, still = clones.yard, clones.still
    made = yard.backup()
    before = still.description(), still.daemon.virsh("domid", still.name)

    def readable(path: Path) -> None:
        if path == clones.base:
            raise GuardRefused(f"not {path.name}")

    with yard.store.reader(made.point) as reader:
        point, virsh, progress = machine_of(reader), yard.virsh, Silent()
        with pytest.raises(GuardRefused, match=r"not base\.raw"):
            replace_domain(yard.env, virsh, still.name, point, progress, readable=readable)
        with pytest.raises(Unsupported, match=r"vda is not written to: .* nobody said that it may be read here"):
            replace_domain(yard.env, virsh, still.name, point, progress)
    assert (still.description(), still.daemon.virsh("domid", still.name)) == before
    assert yard.backup(readable=readable).point.record.parent == made.point.id
    clones.off()
    with pytest.raises(GuardRefused, match=r"not base\.raw"):
        yard.backup(readable=readable)
    write(clones.other, "write 0 64k")  # and nothing of it is locked any more
