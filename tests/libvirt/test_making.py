# SPDX-License-Identifier: Apache-2.0
"""A new domain out of a point: one, whole, and running, whatever befalls who makes it; or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.errors import Conflict, TargetExists
from keepstone.workloads.libvirt import Virsh
from keepstone.workloads.libvirt.virsh import Refused
from tests.libvirt.daemon import Daemon, Defined
from tests.libvirt.making import make
from tests.libvirt.still import Still
from tests.libvirt.yard import Yard
from tests.machines.guest import make_disk

pytestmark = pytest.mark.vm

_FIRMWARE = Path("/usr/share/OVMF")
_ROOT = Path(__file__).parents[2]
_STEPS = [
    "restoring",
    pytest.param("before define", marks=pytest.mark.slow),
    "during define",
    "after define",
    "during start",
    pytest.param("after start", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def yard(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A store with one point of a domain without a system, and what its disks have."""
    folder = tmp_path_factory.mktemp("making")
    still = Still(daemon, folder, "maker", more="<sound model='ich9'/>")
    still.write("vda", "write -P 1 0 1M")
    still.write("vdb", "write -P 2 5M 1M")
    yard = Yard(still, folder)
    yard.backup()
    yield yard
    still.close()


@pytest.fixture
def place(yard: Yard) -> Iterator[Path]:
    """A folder for a new machine, which is gone afterwards, and all new machines with it."""
    with tempfile.TemporaryDirectory(dir=yard.folder) as place:
        yield Path(place) / "new"
    for name in news(yard):
        yard.machine.daemon._run("destroy", name)
        yard.machine.daemon._run("undefine", name)


def news(yard: Yard) -> list[str]:
    """The new machines that are there."""
    return [name for name in yard.machine.daemon.virsh("list", "--all", "--name").split() if name.startswith("new")]


def made(yard: Yard, place: Path, name: str = "new", job: str = "job1") -> list[str]:
    """Make one of it, and see that it is the only one, and whole; what was warned of."""
    uuid, warnings = make(yard.env, yard.store, yard.virsh.uri, place, name, job)
    assert news(yard) == [name]
    daemon = yard.machine.daemon
    assert (daemon.virsh("domuuid", name).strip(), daemon.virsh("domstate", name).strip()) == (uuid, "running")
    for target, pattern, offset in (("vda", 1, 0), ("vdb", 2, 5 << 20)):
        raw = place.parent / f"{target}.raw"
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", place / f"{target}.qcow2", raw], check=True)
        content = raw.read_bytes()
        assert content[offset : offset + (1 << 20)] == bytes([pattern]) * (1 << 20)
        assert content.count(pattern) == 1 << 20
    return warnings


@pytest.mark.parametrize("step", _STEPS)
def test_killed(yard: Yard, place: Path, step: str) -> None:
    """Whoever begins again ends with one domain that runs on whole disks, and there never is a half one that runs."""
    store = yard.folder / "store"
    command = [sys.executable, "-m", "tests.libvirt.making", store, yard.virsh.uri, place, "new", "job1", step]
    died = subprocess.run([*map(str, command)], check=False, cwd=_ROOT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    running = yard.machine.daemon.virsh("list", "--name").split()
    assert ("new" in running) is (step == "after start")
    if "start" not in step and step != "after define":
        assert news(yard) == []
        (place / "nvram.fd").symlink_to("/etc/passwd")  # whatever is found is not used

    made(yard, place)

    assert not (place / "nvram.fd").is_symlink()
    yard.quiet()
    made(yard, place)  # the same again changes nothing


def test_what_is_said(yard: Yard, place: Path) -> None:
    (warning,) = made(yard, place)

    assert warning == "the new machine lacks what the old one had: sound (1); `virsh edit` gives it what it needs"
    assert {path.name for path in place.iterdir()} == {"vda.qcow2", "vdb.qcow2", "machine.json", "point.json"}
    assert place.stat().st_mode & 0o777 == 0o711
    old, new = (ET.fromstring(yard.machine.daemon.virsh("dumpxml", name)) for name in (yard.machine.name, "new"))
    assert old.findtext("uuid") != new.findtext("uuid")
    assert (old.findtext("memory"), new.findtext("memory")) == ("32768", "65536")  # no machine has less


def test_more_than_this_host_has(yard: Yard, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepstone.workloads.hypervisors.making._memory", lambda: 96 << 20)
    definition = {
        "domain.xml": b"""<domain><memory unit='TiB'>1</memory><vcpu>1000</vcpu>
<os><type machine='pc-q35-99.9'>hvm</type></os><devices/></domain>"""
    }

    _, warnings = make(yard.env, yard.store, yard.virsh.uri, place, "new", "job1", definition=definition,
                       excluded=["vdc"])  # fmt: skip

    shown = ET.fromstring(yard.machine.daemon.virsh("dumpxml", "new"))
    cpus = len(os.sched_getaffinity(0))
    assert (shown.findtext("memory"), shown.findtext("vcpu")) == (str(96 << 10), str(cpus))
    assert warnings == [
        "the new machine has 96 MiB of memory, the old one 1,048,576",
        f"the new machine has {cpus} processors, the old one 1000",
        "the new machine is of the type q35, the old one of the type pc-q35-99.9",
        "the new machine lacks disks that the point leaves out (1)",
    ]


def test_one_that_was_found_is_not_taken_away(yard: Yard, place: Path) -> None:
    """Somebody may use it since, and a service say the job of that time."""
    made(yard, place)
    yard.machine.daemon.virsh("destroy", "new")
    (place / "vdb.qcow2").rename(place / "elsewhere")

    with pytest.raises(Refused, match=r"vdb\.qcow2.*The new machine new is there, and does not run"):
        made(yard, place)

    assert news(yard) == ["new"]
    assert (place / "vda.qcow2").exists()
    (place / "elsewhere").rename(place / "vdb.qcow2")
    made(yard, place)


def test_refused_before_anything_is_written(yard: Yard, place: Path, tmp_path: Path) -> None:
    def refused(folder: Path, name: str, job: str = "job1") -> None:
        make(yard.env, yard.store, yard.virsh.uri, folder, name, job)

    with pytest.raises(TargetExists, match="has a machine maker already"):
        refused(place, "maker")
    assert not place.exists()
    (tmp_path / "something").touch()
    with pytest.raises(TargetExists, match="something else in it"):
        refused(tmp_path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["something"]
    made(yard, place)
    before = (place / "vda.qcow2").stat()
    with pytest.raises(Conflict, match="what a machine of job job1 wrote"):
        refused(place, "new2", "job2")
    assert ((place / "vda.qcow2").stat().st_ino, news(yard)) == (before.st_ino, ["new"])


def test_one_that_does_not_start_is_no_machine(yard: Yard, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Virsh.ask

    def ask(self: Virsh, verb: str, *arguments: str, **named: Any) -> str:
        if verb == "start":
            (place / "vdb.qcow2").unlink()
        return plain(self, verb, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Virsh, "ask", ask)
        with pytest.raises(Refused, match=r"vdb\.qcow2.*No machine was made of it; its files are in"):
            make(yard.env, yard.store, yard.virsh.uri, place, "new", "job1")

    assert news(yard) == []
    assert (place / "vda.qcow2").exists()
    made(yard, place)


def test_a_start_that_an_earlier_try_has_asked_for(yard: Yard, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second is refused by libvirt, and has what he wants."""
    plain = Virsh.ask

    def ask(self: Virsh, verb: str, *arguments: str, **named: Any) -> str:
        if verb == "start":
            plain(self, verb, *arguments)
        return plain(self, verb, *arguments, **named)

    monkeypatch.setattr(Virsh, "ask", ask)
    made(yard, place)


@pytest.mark.parametrize("kept", [True, False])
def test_firmware(daemon: Daemon, tmp_path: Path, kept: bool) -> None:
    """Its NVRAM is that of the point, in a file of its own; without one it begins anew."""
    if not _FIRMWARE.is_dir():
        pytest.skip("needs ovmf; scripts/tools.sh installs it")
    disk, variables, name = make_disk(tmp_path / "d0.qcow2", 16), tmp_path / "vars.fd", f"uefi{int(kept)}"
    daemon.define(f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type>
<loader readonly='yes' type='pflash'>{_FIRMWARE}/OVMF_CODE_4M.fd</loader>
<nvram template='{_FIRMWARE}/OVMF_VARS_4M.fd'>{variables}</nvram></os><features><acpi/></features>
<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>""")
    daemon.virsh("start", name, "--paused")
    yard, place = Yard(Defined(daemon, name), tmp_path), tmp_path / "new"
    try:
        if not kept:
            variables.unlink()
        yard.backup()
        _, warnings = make(yard.env, yard.store, yard.virsh.uri, place, "new", "job1")
        shown = ET.fromstring(daemon.virsh("dumpxml", "new"))
        assert daemon.virsh("domstate", "new").strip() == "running"
        file = place / ("nvram.raw" if kept else "nvram.fd")
        assert shown.findtext("os/nvram") == str(file)
        assert file.stat().st_size == (_FIRMWARE / "OVMF_VARS_4M.fd").stat().st_size
        assert any("firmware begins anew" in text for text in warnings) is not kept
    finally:
        for one in (name, "new"):
            daemon._run("destroy", one)
            daemon._run("undefine", one, "--keep-nvram", "--checkpoints-metadata")
