# SPDX-License-Identifier: Apache-2.0
"""A whole Debian is backed up while it writes, comes back in several formats, boots again, and boots out of the store.

The two bars of instant recovery are held here, on the guest that they speak of; the clock is that of the emulator, so
nothing else should run beside it (`make test-slow`).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdServer
from keepstone.disks.writing import FORMATS
from keepstone.env import Env
from keepstone.workloads import Silent
from keepstone.workloads.images import PointDisk, restore_into
from keepstone.workloads.machines import Level, disk_of
from keepstone.workloads.running.disks import Counted
from tests.machines.full import OFFSET, FullGuest, full_disk
from tests.machines.yard import Made, Yard, oracle

pytestmark = [pytest.mark.vm, pytest.mark.slow]

_MIB = 1 << 20
_DISK = "disk0"
_SLOWER = 1.3  # times the boot from a local disk
_SHARE = 0.05  # of the disk that is read until the guest is up
_DIGEST = "find /etc /srv /usr/bin /usr/sbin -xdev -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"
_WRITING = "while [ ! -e /run/stop ]; do dd if=/dev/urandom of=/var/busy bs=64k count=64 2>/dev/null; sync; done"


@dataclass(frozen=True)
class Backed:
    """The guest that was, its points, a copy of its disk by QEMU of the second one's moment, and what it said."""

    yard: Yard
    full: Made
    changed: Made
    copy: Path
    digest: str


@pytest.fixture(scope="module")
def backed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backed]:
    """It writes all the time, and is off in the end."""
    folder = tmp_path_factory.mktemp("full")
    disk = Path(shutil.copyfile(full_disk(), folder / "d0.qcow2"))
    with FullGuest(folder, disk) as guest:
        assert guest.settles() == "running"
        guest.sh("dd if=/dev/urandom of=/srv/first bs=1M count=32 2>/dev/null; sync")
        guest.sh(_WRITING, wait=False)
        yard = Yard(guest, folder)
        full = yard.backup()
        guest.sh("for i in $(seq 20); do mkdir -p /srv/$i; date > /srv/$i/file; done; rm -rf /usr/share/perl5; sync")
        with pytest.MonkeyPatch.context() as patch, oracle(patch, guest, folder / "copies") as copies:
            changed = yard.backup()
        digest = guest.sh(_DIGEST)
        guest.sh("touch /run/stop; sync")
        guest.off()
    disk.unlink()
    yield Backed(yard, full, changed, copies["d0"], digest)
    shutil.rmtree(folder)


def restored(backed: Backed, place: Path, form: str) -> Path:
    path = place / f"disk.{form}"
    with backed.yard.store.reader(backed.changed.point) as reader:
        assert restore_into(Env(), disk_of(reader, _DISK), path, FORMATS[form], Silent()) == []
    return path


def test_it_is_backed_up_while_it_writes(backed: Backed) -> None:
    for made in (backed.full, backed.changed):
        consistency = made.machine.about.consistency
        assert consistency.level is Level.APPLICATION
        assert 0 < consistency.frozen < 10**9
        assert made.warnings == []
    assert backed.full.report.read > 250 * _MIB
    assert backed.changed.report.read < 100 * _MIB
    assert backed.yard.store.verify(deep=True).ok


@pytest.mark.parametrize("form", ["raw", "vhdx", "qcow2"])
def test_it_comes_back_to_the_byte(backed: Backed, tmp_path: Path, form: str) -> None:
    disk = restored(backed, tmp_path, form)

    same = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", form, backed.copy, disk], check=False, capture_output=True, text=True
    )
    assert "Images are identical." in same.stdout, same.stdout + same.stderr
    if form == "raw":
        checked = subprocess.run(["e2fsck", "-fn", f"{disk}?offset={OFFSET}"], check=False, capture_output=True)
        assert checked.returncode == 0, checked.stdout


def test_it_boots_again(backed: Backed, tmp_path: Path) -> None:
    with FullGuest(tmp_path, restored(backed, tmp_path, "qcow2")) as guest:
        assert guest.settles() == "running"
        assert guest.sh(_DIGEST) == backed.digest
        assert guest.sh("ls /var/busy /usr/share/perl5 2>/dev/null || true") == "/var/busy\n"
        guest.off()


def test_it_boots_out_of_the_store_as_from_a_disk(
    backed: Backed, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    local = restored(backed, tmp_path, "raw")
    store, plain = [], []
    for turn in range(2):  # the lesser of two is what it costs; what is above it is other load on the machine
        with (
            backed.yard.store.reader(backed.changed.point) as reader,
            PointDisk(Env(), disk_of(reader, _DISK)) as disk,
            NbdServer(Env(), {"": (counted := Counted(disk))}, tmp_path / "socket") as server,
        ):
            store.append(booted(tmp_path / f"store{turn}", server.address.uri))
        share = counted.read / disk.size
        plain.append(booted(tmp_path / f"disk{turn}", str(local)))
        assert share < _SHARE
    record_testsuite_property("seconds out of the store", store)
    record_testsuite_property("seconds from a disk", plain)
    record_testsuite_property("share that was read", share)
    assert min(store) < _SLOWER * min(plain), (store, plain)


def booted(folder: Path, below: str) -> float:
    """Seconds until a guest answers whose disk is an overlay over `below`. It comes up whole, and can write."""
    folder.mkdir()
    overlay = folder / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", below, overlay], check=True)
    with FullGuest(folder, overlay) as guest:
        seconds = guest.answers()
        assert guest.settles() == "running"
        guest.sh("test -e /srv/20/file && date > /srv/20/again && sync")
        return seconds
