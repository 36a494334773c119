# SPDX-License-Identifier: Apache-2.0
"""A libvirt on a machine with an agent, which puts disks back into its machines, and makes new ones out of points."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepstone.control import resources, virtual_machines
from tests.agents.living import Living, Machine
from tests.cli.services import until
from tests.libvirt.conftest import daemon
from tests.libvirt.daemon import Daemon, Little
from tests.libvirt.still import Still
from tests.machines.guest import initramfs, make_disk

__all__ = ["daemon"]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may read anywhere is root's"),
]

_numbers = count(1)


@pytest.mark.parametrize("dies", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_domain_of_another_host(agent: Machine, daemon: Daemon, tmp_path: Path, dies: bool) -> None:
    """Its disks go back into it; where its agent dies in the middle, the one after it goes on, without another safety
    point."""
    living, name = agent.living, f"elsewhere{int(dies)}"
    still, item = Still(daemon, tmp_path, name), Path(name)
    try:
        living("hypervisor", "register", "-n", f"lv{int(dies)}", "--libvirt", daemon.uri, "--on", agent.name)
        living("protection", "enable-for-vm", "--vm", name)
        still.write("vda", "write -P 1 0 1M")
        assert "Completed" in living("protection", "backup-now", "-i", name)["properties"]["status"]
        (oldest,) = living.points(item)
        first = still.content(tmp_path / "first")
        still.write("vda", "write -P 2 0 3M")
        still.write("vdb", "write -P 3 5M 1M")
        second = still.content(tmp_path / "second")
        before = still.description()
        socket = daemon.uri.partition("socket=")[2]
        back = ("restore", "machine", "-i", name, oldest["name"], "--in-place", "--yes")
        agent.configure(f'[restore]\nallow = ["{socket}", "{still.disks["vda"]}"]\n')
        assert f"{still.disks['vdb']} is not in restore.allow" in str(living(*back, code=1))
        assert (still.state, still.description(), len(living.points(item))) == ("running", before, 1)
        agent.configure(f'[restore]\nallow = ["{socket}", "{tmp_path}"]\n')

        job = living(*back, "--no-wait")["name"]
        if dies:
            until(lambda: "keepstone:replacing" in still.description(), "the mark")
            agent.stop(signal.SIGKILL)
            until(lambda: not agent.jobs(), "the end of its job")
            agent.start()

        ended = agent.ended(job)["properties"]
        # One disk is raw and read in full: that is said, and forgotten with the agent to whom it was said.
        assert ended["status"] == ("Completed" if dies else "CompletedWithWarnings"), ended
        assert (still.state, still.description()) == ("running", before)
        assert still.content(tmp_path / "now") == first
        safety, *more = living.points(item)
        assert ended["extendedInfo"]["propertyBag"]["Recovery Point"] == safety["name"]
        assert [point["name"] for point in more] == [oldest["name"]]
        living(*back[:4], safety["name"], *back[5:], "--no-safety-point")
        assert still.content(tmp_path / "again") == second
        assert len(living.points(item)) == 2
        living("hypervisor", "unregister", "-n", f"lv{int(dies)}", "--yes")  # who looks for machines would wait for it
    finally:
        still.close()


def test_snapshots_that_it_keeps(agent: Machine, daemon: Daemon, tmp_path: Path) -> None:
    living, item = agent.living, Path("keeping")
    still = Still(daemon, tmp_path, item.name)
    try:
        (tmp_path / "kept").mkdir()
        agent.configure(f'[backup]\nsnapshots = "{tmp_path}/kept"\n')
        living("hypervisor", "register", "-n", "lvk", "--libvirt", daemon.uri, "--on", agent.name)
        living("protection", "enable-for-vm", "--vm", item.name)
        still.write("vda", "write -P 9 0 4M", "flush")
        still.write("vdb", "write -P 7 1M 2M", "flush")

        def tiers() -> list[str]:
            return [one["type"] for one in living.points(item)[0]["properties"]["recoveryPointTierDetails"]]

        def restored(name: str) -> int:
            """What came from a snapshot."""
            job = living("restore", "machine", "-i", item.name, "latest", "--target", agent.restored / name)
            assert job["properties"]["status"] == "Completed", job
            assert {disk: (agent.restored / name / f"{disk}.raw").read_bytes() for disk in still.disks} == disks
            return int(job["properties"]["extendedInfo"]["propertyBag"].get("Bytes From Snapshot", 0))

        assert "Completed" in living("protection", "backup-now", "-i", item.name)["properties"]["status"]
        until(lambda: "InstantRP" in tiers(), "what the agent says of its snapshot")
        disks = still.content(tmp_path / "right")
        still.write("vda", "write -P 8 0 1M", "flush")

        assert restored("kept-near") >= 6 << 20
        living("item", "release-snapshots", "-i", item.name)
        assert tiers() == ["HardenedRP"]
        assert restored("kept-far") == 0
        living("hypervisor", "unregister", "-n", "lvk", "--yes")
    finally:
        still.close()


def test_a_clone(agent: Machine, daemon: Daemon, tmp_path: Path) -> None:
    """What its image is above is read where it may be backed up, and need not be what is written to."""
    living, item = agent.living, Path("clone")
    (tmp_path / "images").mkdir()
    base = tmp_path / "base.raw"
    base.write_bytes(b"\1" * (1 << 20))
    still = Still(daemon, tmp_path / "images", item.name, beneath=base)
    try:
        living("hypervisor", "register", "-n", "lvc", "--libvirt", daemon.uri, "--on", agent.name)
        living("protection", "enable-for-vm", "--vm", item.name)
        daemon.virsh("destroy", still.name)
        first = still.content(tmp_path / "first")
        now = ("protection", "backup-now", "-i", item.name)
        socket = daemon.uri.partition("socket=")[2]
        back = ("restore", "machine", "-i", item.name, "latest", "--in-place", "--yes", "--no-safety-point")
        restore = f'[restore]\nallow = ["{socket}", "{tmp_path}/images"]\n'
        agent.configure(f'[backup]\ndeny = ["{base}"]\n{restore}')
        assert f"{base} is beneath {base}, and this machine's agent allows no backup of that" in str(
            living(*now, code=1)
        )

        agent.configure(restore)
        assert "Completed" in living(*now)["properties"]["status"]
        daemon.virsh("start", still.name)
        still.write("vda", "write -z 0 1M")
        agent.configure(f'[backup]\ndeny = ["{base}"]\n{restore}')
        assert "allows no backup of that" in str(living(*back, code=1))
        assert still.state == "running"
        agent.configure(restore)
        living(*back)

        assert still.content(tmp_path / "now") == first
        living("hypervisor", "unregister", "-n", "lvc", "--yes")
    finally:
        still.close()


@pytest.fixture
def little(daemon: Daemon) -> Iterator[Little]:
    """The tiny guest, each by a name of its own."""
    name = f"source{next(_numbers)}"  # sockets have short paths
    folder = daemon.folder / name
    folder.mkdir()
    disks = [("vda", make_disk(folder / "d0.qcow2", 24)), ("vdb", make_disk(folder / "d1.raw", 24, "raw"))]
    little = Little(daemon, disks, name)
    yield little
    little.close()


@pytest.mark.parametrize("dies", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_new_domain_on_another_host(agent: Machine, daemon: Daemon, little: Little, tmp_path: Path,
                                      dies: bool) -> None:  # fmt: skip
    """It runs on what the point has, and answers; where its agent dies in the middle, the one after it makes it."""
    living, source, name, hypervisor = agent.living, little.name, f"made{int(dies)}", f"lvnew{int(dies)}"
    living("hypervisor", "register", "-n", hypervisor, "--libvirt", daemon.uri, "--on", agent.name)
    living("protection", "enable-for-vm", "--vm", source)
    little.sh("echo of this moment > /a/words; sync")
    little.agent()
    living("protection", "backup-now", "-i", source)
    folder, socket = tmp_path / "new", daemon.uri.partition("socket=")[2]
    into = ("--target", folder, "--vnet", network(living), "--new-machine")
    make = ("restore", "machine", "-i", source, "latest", *into)
    kernel, _ = initramfs()
    may = f'[restore]\nmachines = true\nnetworks = ["user"]\nallow = ["{tmp_path}", "{socket}"]\n'
    daemon.define(
        f"<domain type='qemu'><name>taken{name}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    )
    for settings, called, wrong in (
        (may.replace('"user"', '"bridge=br0"'), name, "'user' is not in restore.networks"),
        (may.replace(f', "{socket}"', ""), name, f"{socket} is not in restore.allow"),
        (may + f'[backup]\ndeny = ["{kernel}"]\n', name, "allows no backup of that"),
        (may, f"taken{name}", f"has a machine taken{name} already"),
    ):
        agent.configure(settings)
        assert wrong in str(living(*make, called, code=1)), wrong
        assert not folder.exists()
    before = daemon.virsh("list", "--all", "--name").split()

    job = living(*make, name, "--no-wait")["name"]
    if dies:
        until((folder / "point.json").exists, "its folder")
        agent.stop(signal.SIGKILL)
        until(lambda: not agent.jobs(), "the end of its job")
        agent.start()

    ended = agent.ended(job)["properties"]
    try:
        assert ended["status"] == "CompletedWithWarnings", ended
        assert sorted(daemon.virsh("list", "--all", "--name").split()) == sorted([*before, name])
        assert daemon.virsh("domstate", name).strip() == "running"
        assert answer(daemon, name) == "of this moment\n"
        assert "<interface type='user'>" in daemon.virsh("dumpxml", name)
        if not dies:  # else that may have been said to an agent that is gone
            lacks = "drive for removable disks (1)"
            assert f"lacks what the old one had: channel (1), {lacks}" in str(living("job", "show", "-n", job))
        assert "already" in str(living(*make, name, code=2))
        living("hypervisor", "refresh")
        assert [one["name"] for one in living("vm", "list", "-g", "g")].count(name) == 1
        living("protection", "enable-for-vm", "--vm", name)
        assert "Completed" in living("protection", "backup-now", "-i", name)["properties"]["status"]
    finally:
        daemon._run("destroy", name)
        daemon._run("undefine", name, "--checkpoints-metadata")
        daemon._run("undefine", f"taken{name}")
        living("hypervisor", "unregister", "-n", hypervisor, "--yes")


def network(living: Living) -> str:
    """A virtual network that stands for one that QEMU makes."""
    with living.plane.change() as change:
        made, _ = resources.put(change, living.vault.split("/")[2], "g", resources.NETWORK, "user", "",
                                {virtual_machines.BEHIND: {"network": "user"}}, {})  # fmt: skip
    return made.path


def answer(daemon: Daemon, name: str) -> str:
    """What the agent of a machine says that the guest's file has."""

    def ask(command: str, **arguments: object) -> Any:
        question = json.dumps({"execute": command, "arguments": arguments})
        said = daemon._run("qemu-agent-command", name, question)
        return None if said.returncode else json.loads(said.stdout)["return"]

    handle = until(lambda: ask("guest-file-open", path="/a/words"), "its agent, and the file")
    return base64.b64decode(ask("guest-file-read", handle=handle)["buf-b64"]).decode()
