# SPDX-License-Identifier: Apache-2.0
"""What is not surely the record of what changed since the very last point, is none: then all is read, and said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.guest import Guest, make_disk, monitor
from tests.machines.test_backup import same
from tests.machines.yard import Made, Yard, oracle
from tests.unit.files.points import new_store

pytestmark = pytest.mark.vm

_MIB = 1 << 20
_LOST = "disk0 is read in full: QEMU has lost the record of what changed on it, or its image was replaced"
_WHOLE = 24 * _MIB  # and a little more has to be read


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yard")
    make_disk(folder / "d0.qcow2", 48)
    return folder


@pytest.fixture(scope="module")
def guest(place: Path) -> Iterator[Guest]:
    with Guest(place, [("d0", place / "d0.qcow2")]) as guest:
        guest.sh("dd if=/dev/urandom of=/a/old bs=1M count=24 2>/dev/null; sync")
        yield guest


@pytest.fixture(scope="module")
def yard(guest: Guest) -> Yard:
    return Yard(guest, guest.folder)


def checked(yard: Yard, place: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A backup that is compared with QEMU's own copy of the same moment."""
    yard.guest.sh("dd if=/dev/urandom of=/a/old bs=64k seek=40 count=2 conv=notrunc 2>/dev/null; sync")
    with oracle(monkeypatch, yard.guest, place / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, place / "out"), copies)
    assert yard.left() == yard.tokens(made)
    return made


def test_a_bitmap_that_somebody_removed(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token,) = yard.tokens(yard.backup())
    with monitor(yard.guest.qmp) as ask:
        ask("block-dirty-bitmap-remove", node="d0", name=token)

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == [_LOST]
    assert made.report.read > _WHOLE


def test_a_bitmap_of_an_older_point(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image that was put back from a copy: what it has is of the point before the last one."""
    (older,) = yard.tokens(yard.backup())
    (newer,) = yard.tokens(yard.backup())
    with monitor(yard.guest.qmp) as ask:
        ask("block-dirty-bitmap-remove", node="d0", name=newer)
        ask("block-dirty-bitmap-add", node="d0", name=older, persistent=True)

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == [_LOST]
    assert made.report.read > _WHOLE


def test_a_bitmap_that_somebody_stopped(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token,) = yard.tokens(yard.backup())
    with monitor(yard.guest.qmp) as ask:
        ask("block-dirty-bitmap-disable", node="d0", name=token)

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == ["disk0 is read in full: somebody else stopped or uses the record of what changed on it"]
    assert made.report.read > _WHOLE


def test_what_is_not_ours_stays(yard: Yard) -> None:
    """Bitmaps of others, and those of another store that has the same machine."""
    yard.backup()
    with monitor(yard.guest.qmp) as ask:
        ask("block-dirty-bitmap-add", node="d0", name="theirs", persistent=True)
    made = yard.backup()
    elsewhere = Yard(yard.guest, yard.folder, store=new_store(yard.env))
    theirs = elsewhere.backup(owner="another store/vm")
    again = yard.backup()

    assert again.warnings == []
    assert again.report.read < 2 * _MIB
    assert yard.left() == yard.tokens(again)
    assert yard.left("another store/vm") == elsewhere.tokens(theirs)
    assert made.warnings == theirs.warnings == []
    with monitor(yard.guest.qmp) as ask:
        ask("block-dirty-bitmap-remove", node="d0", name="theirs")
        ask("block-dirty-bitmap-remove", node="d0", name=elsewhere.tokens(theirs)[0])


def test_in_full_when_it_is_asked_for(yard: Yard) -> None:
    yard.backup()
    made = yard.backup(full=True)

    assert made.report.read > _WHOLE
    assert made.warnings == []
    assert made.point.record.added < _MIB  # and yet it is in the store already


def test_a_disk_that_grew(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.backup()
    with monitor(yard.guest.qmp) as ask:
        ask("block_resize", node_name="d0", size=80 * _MIB)
    yard.guest.sh("dd if=/dev/urandom of=/dev/vda bs=1M seek=70 count=2 conv=notrunc 2>/dev/null; sync")

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == []
    assert [disk.size for disk in made.machine.about.disks] == [80 * _MIB]
    assert 2 * _MIB <= made.report.read < 8 * _MIB


def test_what_the_image_kept_while_the_machine_was_off(
    yard: Yard, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shut down in good order it keeps its record; after a crash of QEMU it does not vouch for it."""
    yard.backup()
    yard.guest.off()

    with Guest(place, yard.guest.disks) as second:
        again = Yard(second, place, store=yard.store)
        made = checked(again, tmp_path, monkeypatch)
        assert made.warnings == []
        assert made.report.read < 8 * _MIB
        second.off()

    with Guest(place, yard.guest.disks, boots=False) as third, monitor(third.qmp) as ask:
        assert ask("query-block")[0]["inserted"]["dirty-bitmaps"]
    # which was killed

    with Guest(place, yard.guest.disks, boots=False) as fourth:
        after = Yard(fourth, place, store=yard.store)
        made = after.backup()
        quiet = after.backup()
    assert made.warnings == ["disk0 is read in full: QEMU ended without saving the record of what changed on it"]
    assert made.report.read > _WHOLE
    assert quiet.warnings == []
    assert quiet.report.read == 0
