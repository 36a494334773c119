# SPDX-License-Identifier: Apache-2.0
"""From what a point says of its machine to a QEMU that has such a machine, and that ends with us."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keepstone.env import Env
from keepstone.errors import (
    KeepstoneError,
    NotFound,
    SourceFailed,
    SourceMissing,
    StorageError,
    TargetExists,
    Unsupported,
    UsageError,
)
from keepstone.workloads.kvm.definition import DOCUMENT, definition
from keepstone.workloads.kvm.drives import drives
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.machines import Consistency, Disk, Level, Machine, PointOfMachine, Role
from keepstone.workloads.running import Accel
from keepstone.workloads.running.command import Network, Surroundings, command
from keepstone.workloads.running.definition import hardware_of
from keepstone.workloads.running.disks import Drive, needs_point
from keepstone.workloads.running.firmware import firmware
from keepstone.workloads.running.home import Home
from keepstone.workloads.running.keeper import Keeper
from keepstone.workloads.running.launch import Launch, Limits, _there, reachable
from keepstone.workloads.running.program import qemu_for, runs
from keepstone.workloads.running.values import Hardware, Nic
from tests.machines.guest import Guest, initramfs, tools, until
from tests.machines.starting import alive, defined, point_of
from tests.unit.files.points import new_store
from tests.unit.images.disk import CHUNK, noise, sparse

pytestmark = pytest.mark.vm

_ROOT = Path(__file__).parents[2]
_QEMU = "qemu-system-x86_64"


@pytest.fixture(autouse=True)
def _tools() -> None:
    tools()


def machine(told: Any, *disks: Disk) -> Machine:
    """With this definition, as JSON or as it is."""
    document = told if isinstance(told, bytes) else msgspec.json.encode(told)
    level = Consistency(Level.CRASH)
    return Machine(name="m", moment=1, consistency=level, disks=list(disks), definition={DOCUMENT: document})


@contextlib.contextmanager
def standing(folder: Path, *words: str) -> Iterator[dict[str, Any]]:
    """What the definition of a QEMU says that was started by these words and does not run."""
    place = folder / "standing"
    place.mkdir()
    command = [
        _QEMU,
        "-S",
        "-nodefaults",
        "-display",
        "none",
        "-accel",
        "tcg",
        "-qmp",
        f"unix:{place}/qmp,server,nowait",
    ]
    with subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL) as process:
        try:
            until((place / "qmp").exists, "QEMU")
            with Monitor(Env(), place / "qmp") as monitor:
                yield json.loads(definition(Env(), monitor)[DOCUMENT])
        finally:
            process.kill()


# ---------------------------------------------------------------------- what a definition says


def test_the_hardware_of_a_guest(guest: Guest) -> None:
    with Monitor(Env(), guest.qmp) as monitor:
        about = machine(definition(Env(), monitor)[DOCUMENT])

    hardware = hardware_of(about)

    assert hardware.kernel is not None
    assert hardware.kernel.kernel.name.startswith("vmlinuz")
    assert hardware.kernel.append.startswith("console=ttyS0 quiet panic=-1")
    assert replace(hardware, kernel=None) == Hardware(machine="q35", memory=256 << 20, cpus=1, sata=True, agent=True)


@pytest.mark.parametrize("seen", [True, False])
def test_hardware_is_known_with_and_without_the_command_line(tmp_path: Path, seen: bool) -> None:
    uuid = "0c2f3bd4-5d1e-4f42-b5a5-2c9a1f0f1f11"
    words = ["-M", "pc-i440fx-6.2", "-m", "384", "-smp", "3", "-uuid", uuid, "-rtc", "base=localtime"]
    words += ["-device", "lsi53c895a", "-netdev", "user,id=n", "-device", "e1000,netdev=n,mac=52:54:00:12:34:99"]
    with standing(tmp_path, *words) as told:
        if not seen:
            told["command"] = []
        hardware = hardware_of(machine(told))

    common = Hardware(memory=384 << 20, cpus=3, uuid=uuid, scsi="lsi53c895a")
    if seen:
        card = Nic("e1000", "52:54:00:12:34:99")
        assert hardware == replace(common, machine="pc-i440fx-6.2", localtime=True, nics=(card,), agent=False)
    else:
        assert hardware == replace(common, machine="pc", nics=(Nic("e1000"),))


def test_uefi_is_known_by_its_flash(tmp_path: Path) -> None:
    try:
        found = firmware(Env(), "x86_64", secure=False, nvram=None)
    except Unsupported:
        pytest.skip("no UEFI firmware is here; scripts/tools.sh installs it")
    shutil.copy(found.template, tmp_path / "vars")
    flash = ["-drive", f"if=pflash,format=raw,readonly=on,file={found.code}"]
    flash += ["-drive", f"if=pflash,format=raw,file={tmp_path}/vars"]
    with standing(tmp_path, "-M", "q35", *flash) as told:
        assert (hardware_of(machine(told)).uefi, hardware_of(machine(told)).secure) == (True, False)
        assert hardware_of(machine(json.loads(json.dumps(told).replace("OVMF_CODE", "OVMF_CODE.secboot")))).secure
    assert hardware_of(machine({}, Disk("nvram", 540672, Role.NVRAM))).uefi


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"no JSON",
        b"[" * 100_000,
        [1],
        {"command": ["-M", "q35,x=y\0", "-M", "/etc/passwd", "-machine"], "cpus-fast": 7, "pci": [{"devices": [3]}]},
        {"memory-size-summary": {"base-memory": -1}, "uuid": {"UUID": "../../x"}, "rx-filter": [{"main-mac": "x,y"}]},
        {"memory-size-summary": {"base-memory": 1 << 62}, "block": "x", "command": ["qemu", "-kernel"]},
    ],
    ids=lambda told: str(told)[:30],
)
def test_what_makes_no_sense_counts_for_nothing(told: Any) -> None:
    assert replace(hardware_of(machine(told)), agent=True) == Hardware()


def test_bridges_without_end(tmp_path: Path) -> None:
    told = b'{"pci":[' + b'{"devices":[{"class_info":{"class":1},"id":{"vendor":1,"device":1},"pci_bridge":' * 500
    assert hardware_of(machine(told + b"{}" + b"}]}" * 500 + b"]}")) == Hardware()


# ---------------------------------------------------------------------- the command line


@contextlib.contextmanager
def launched(env: Env, about: PointOfMachine, folder: Path, **around: Any) -> Iterator[Launch]:
    """A machine in a folder of its own, which goes with it."""
    place = folder / "run"
    limits = Limits(most=256 << 20, cpus=1, accel=Accel.TCG)
    surroundings = Surroundings(monitor=place / "qmp", agent=place / "agent", throwaway=True, **around)
    with (
        contextlib.closing(Keeper(folder=place)) as keeper,
        contextlib.closing(Launch(env, about, place, keeper, limits, surroundings)) as launch,
    ):
        yield launch
    assert not place.exists()


BUSES = ["", "virtio-blk-pci", "ide-hd", "scsi-hd", "nvme", "usb-storage"]


@pytest.mark.parametrize("kind", ["pc-i440fx-6.2", "q35", "pc-q35-99.9"])
@pytest.mark.parametrize("bus", BUSES)
def test_a_disk_is_at_the_bus_that_it_was_at(tmp_path: Path, kind: str, bus: str) -> None:
    """QEMU says so; and it reads there what the point has."""
    env = Env(threads=2)
    store = new_store(env, tmp_path / "store")
    disks = {name: sparse(tmp_path / name, 2 * CHUNK, {0: noise(0.1)}) for name in "abcdefgh"}
    told = {"command": ["qemu", "-M", kind]}
    with point_of(store, disks) as point:
        about = msgspec.structs.replace(
            point.about, definition={DOCUMENT: msgspec.json.encode(told)}, disks=point.about.disks
        )
        readers = [(msgspec.structs.replace(disk, bus=bus), reader) for disk, reader in point.disks]
        with launched(env, PointOfMachine(about, readers), tmp_path) as launch, launch.monitor() as monitor:
            found = [(drive.disk.name, drive.disk.bus, drive.node) for drive in drives(monitor)]
            monitor.execute("human-monitor-command", command_line='qemu-io disk-3 "read 0 65536"')

    assert found == [(name, bus or "virtio-blk-pci", f"disk-{number}") for number, name in enumerate("abcdefgh")]
    assert launch.read >= 65536


@pytest.fixture
def point(tmp_path: Path) -> Iterator[PointOfMachine]:
    """Of a machine with one disk, which nothing starts from."""
    store = new_store(Env(threads=2), tmp_path / "store")
    with point_of(store, {"sda": sparse(tmp_path / "sda", CHUNK, {0: noise(0.1)})}) as found:
        yield found


def test_its_firmware_and_what_that_keeps(tmp_path: Path, point: PointOfMachine) -> None:
    """A machine with UEFI has the host's firmware and a copy of its own NVRAM."""
    env = Env(threads=2)
    try:
        found = firmware(env, "x86_64", secure=False, nvram=None)
    except Unsupported:
        pytest.skip("no UEFI firmware is here; scripts/tools.sh installs it")
    kept = found.template.read_bytes()[:-4] + b"mine"
    (tmp_path / "kept").write_bytes(kept)
    store = new_store(env, tmp_path / "other")
    with point_of(store, {"nvram": tmp_path / "kept"}) as other:
        (nvram,) = other.disks
        with launched(env, defined(point, {}, nvram), tmp_path) as launch, launch.monitor() as monitor:
            files = {block["qdev"]: block["inserted"]["file"] for block in monitor.execute("query-block")}
            assert files["/machine/system.flash0"] == str(found.code)
            assert files["/machine/system.flash1"] == str(tmp_path / "run/nvram.fd")
            assert (tmp_path / "run/nvram.fd").read_bytes()[-4:] == b"mine"
        with launched(env, defined(point, {"command": ["-bios", "OVMF.fd"]}), tmp_path):
            assert (tmp_path / "run/nvram.fd").stat().st_size == len(kept)
    wrong = msgspec.structs.replace(nvram[0], size=12345)
    with (
        pytest.raises(Unsupported, match="NVRAM of 12,345 bytes"),
        launched(env, defined(point, {}, (wrong, None)), tmp_path),
    ):
        pass


@pytest.mark.parametrize("secure", [True, False])
def test_firmware_fits_what_it_kept(secure: bool) -> None:
    try:
        found = firmware(Env(), "x86_64", secure=secure, nvram=540672)
    except Unsupported:
        pytest.skip("no UEFI firmware is here; scripts/tools.sh installs it")
    assert found.smm == secure
    assert found.template.stat().st_size == 540672


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        ({"target": {"arch": "s390x"}}, Unsupported, "architecture 's390x'"),
        ({"command": ["-kernel", "/none"]}, SourceMissing, "/none, which is not here"),
        ({"command": ["-kernel", "/etc/passwd"]}, Unsupported, "/etc/passwd, which is no kernel"),
        ({"command": ["-kernel", "/dev/zero"]}, Unsupported, "/dev/zero, which is no kernel"),
    ],
)
def test_what_cannot_be_started_here(
    tmp_path: Path, point: PointOfMachine, told: Any, kind: type[KeepstoneError], said: str
) -> None:
    with pytest.raises(kind, match=said), launched(Env(threads=2), defined(point, told), tmp_path):
        pass
    assert not (tmp_path / "run").exists()


def test_an_initramfs_is_one(tmp_path: Path, point: PointOfMachine) -> None:
    """A point could name any file, and its guest would read it."""
    kernel, _ = initramfs()
    told = {"command": ["-kernel", str(kernel), "-initrd", "/etc/shadow"]}
    with pytest.raises(Unsupported, match="no initramfs"), launched(Env(threads=2), defined(point, told), tmp_path):
        pass


def test_no_qemu(tmp_path: Path, point: PointOfMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="install them"), launched(Env(threads=2), point, tmp_path):
        pass


def test_qemu_says_why_it_does_not_start(tmp_path: Path, point: PointOfMachine) -> None:
    nowhere = launched(Env(threads=2), point, tmp_path, vnc="nowhere:here")
    with pytest.raises(SourceFailed, match=r"QEMU does not start the machine: .*nowhere"), nowhere:
        pass


def test_networks() -> None:
    """None unless it is asked for, then of the cards that it had."""
    qemu = qemu_for(Env(), Hardware(), Accel.TCG)
    around = Surroundings(monitor=Path("/x,y/qmp"), agent=Path("/x,y/agent"))
    drive = Drive(Disk("sda", 512), Path("/x,y/sda.qcow2"))
    card = Hardware(nics=(Nic("e1000", "52:54:00:00:00:01"), Nic("rtl8139")))

    none = command(qemu, card, [drive], around, None, "a,b")
    user = command(qemu, card, [drive], replace(around, network=Network("user")), None, "m")
    bridge = command(qemu, Hardware(), [drive], replace(around, network=Network("bridge", "br0")), None, "m")

    assert none[none.index("-nic") + 1] == "none"
    assert not any("netdev" in word for word in none)
    assert {"guest=a,,b", "unix:/x,,y/qmp,server=on,wait=off"} <= set(none)
    assert "-sandbox" in none
    assert [word for word in user if word.startswith(("user", '{"driver": "e1000', '{"driver": "rtl'))] == [
        "user,id=net0",
        '{"driver": "e1000", "netdev": "net0", "mac": "52:54:00:00:00:01"}',
        "user,id=net1",
        '{"driver": "rtl8139", "netdev": "net1"}',
    ]
    assert "bridge,br=br0,id=net0" in bridge
    assert "-sandbox" not in bridge  # QEMU starts a helper


def test_images_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"QF")
    with pytest.raises(StorageError, match="no qcow2"):
        needs_point(Env(), tmp_path / "x")
    (tmp_path / "secret").write_bytes(b"of the host" * 1000)
    made = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/secret,data_file_raw=on"]
    subprocess.run([*made, tmp_path / "y.qcow2", "1M"], check=True)
    with pytest.raises(StorageError, match="has a part of its disk in another file"):
        needs_point(Env(), tmp_path / "y.qcow2")
    (tmp_path / "z.fd").symlink_to(tmp_path / "secret")
    with pytest.raises(TargetExists, match="is no file that a machine wrote"):
        _there(Env(), tmp_path / "z.fd")
    with pytest.raises(NotFound, match=r"the folder of .*/x does not exist; make it"):
        Home(Env(), tmp_path / "none" / "x", "a point")
    with pytest.raises(UsageError, match="at most 107 bytes"):
        reachable(tmp_path / ("x" * 100))


# ---------------------------------------------------------------------- what runs it


def test_an_accelerator_has_to_show_that_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCG does; a processor without what kernels need does not, and in time."""
    monkeypatch.setattr("keepstone.workloads.running.program._PROBE", 30.0)
    assert runs(str(shutil.which(_QEMU)), "tcg", "max")
    monkeypatch.setattr("keepstone.workloads.running.program._PROBE", 1.0)
    assert not runs(str(shutil.which(_QEMU)), "tcg", "qemu64,-cx16")
    assert not runs(str(shutil.which(_QEMU)), "none")


# ---------------------------------------------------------------------- its end


def keeper_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


_SLEEPER = """
import sys
from pathlib import Path
from keepstone.workloads.running.keeper import Keeper
keeper = Keeper(folder=Path(sys.argv[1]) / "run", remove=[Path(sys.argv[1]) / "socket"])
print(keeper.start(["sh", "-c", "trap 'exit 3' TERM; echo last words; while :; do sleep 0.05; done"]), flush=True)
if sys.argv[2] == "release":
    keeper.release()
    sys.exit()
sys.stdin.read()
"""


@contextlib.contextmanager
def sleeper(folder: Path, how: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that keeps another one, and that one."""
    (folder / "socket").touch()
    words = [sys.executable, "-c", _SLEEPER, str(folder), how]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        assert process.stdout is not None
        kept = int(process.stdout.readline())
        try:
            yield process, kept
        finally:
            process.kill()
            with contextlib.suppress(OSError):
                os.kill(kept, signal.SIGKILL)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_is_left_whoever_is_killed(tmp_path: Path, end: signal.Signals | None) -> None:
    with sleeper(tmp_path) as (process, kept):
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        assert process.stdin is not None
        if end is None:
            process.stdin.close()
        else:
            process.send_signal(end)
        until(lambda: not alive(kept) and not (tmp_path / "run").exists(), "the end", 10)
        until(lambda: not (tmp_path / "socket").exists(), "the end of the socket", 10)


def test_it_dies_with_its_keeper(tmp_path: Path) -> None:
    with sleeper(tmp_path) as (_, kept):
        os.kill(keeper_of(kept), signal.SIGTERM)  # a service manager sends it to all
        assert alive(kept)
        os.kill(keeper_of(kept), signal.SIGKILL)
        until(lambda: not alive(kept), "its end", 10)


def test_one_that_is_released_goes_on_and_is_cleaned_up_after(tmp_path: Path) -> None:
    with sleeper(tmp_path, "release") as (process, kept):
        assert process.wait(10) == 0
        assert alive(kept)
        assert (tmp_path / "socket").exists()
        os.kill(kept, signal.SIGTERM)
        until(lambda: not (tmp_path / "socket").exists(), "the end of the socket", 10)


def test_how_it_ended_and_its_last_words(tmp_path: Path) -> None:
    with contextlib.closing(Keeper()) as keeper:
        keeper.start(["sh", "-c", "echo last words; kill -9 $$"])
        ended = keeper.wait(10)
        assert ended is not None
        assert (ended.status, ended.said) == (-9, "last words")
    with contextlib.closing(Keeper()) as keeper:
        keeper.start([str(tmp_path / "none")])
        ended = keeper.wait(10)
        assert ended is not None
        assert ended.status == 127
        assert "No such file" in ended.said
    with pytest.raises(OSError, match="exists"):
        Keeper(folder=tmp_path)


def test_what_it_writes_is_bounded(tmp_path: Path) -> None:
    """A write too much is an error, not the end."""
    with contextlib.closing(Keeper()) as keeper:
        keeper.start(["sh", "-c", f"head -c 5000 /dev/zero > {tmp_path}/x; exit 0"], largest=4096)
        ended = keeper.wait(10)
        assert ended is not None
        assert "too large" in ended.said
    assert (tmp_path / "x").stat().st_size == 4096


def test_a_stubborn_one_is_killed(tmp_path: Path) -> None:
    with contextlib.closing(Keeper()) as keeper:
        process = keeper.start(["sh", "-c", "trap '' TERM; echo up >&2; while :; do sleep 0.05; done"])
        assert keeper.wait(0.3) is None
        keeper.kill()
    assert not alive(process)
