# SPDX-License-Identifier: Apache-2.0
"""Files out of a point back into a guest on the host of an agent, which puts them there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.living import Machine
from tests.libvirt.conftest import daemon
from tests.libvirt.daemon import Daemon, Little
from tests.machines.guest import make_disk

__all__ = ["daemon"]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="an agent that may read anywhere is root's"),
]


@pytest.fixture
def guest(daemon: Daemon) -> Iterator[Little]:
    folder = daemon.folder / "inside"
    folder.mkdir()
    guest = Little(daemon, [("vda", make_disk(folder / "d0.qcow2", 24))], "inside")
    guest.agent()
    yield guest
    guest.close()


def test_files_into_a_guest_of_another_host(agent: Machine, daemon: Daemon, guest: Little) -> None:
    living, item = agent.living, Path("inside")
    guest.sh("mkdir /a/www; echo one > /a/www/file; chown 7:8 /a/www/file; touch -d @1000000000 /a/www/file; sync")
    living("hypervisor", "register", "-n", "lvi", "--libvirt", daemon.uri, "--on", agent.name)
    living("protection", "enable-for-vm", "--vm", "inside")
    assert "Completed" in living("protection", "backup-now", "-i", "inside")["properties"]["status"]
    (point,) = living.points(item)
    assert point["properties"]["keepstone"]["filesIntoGuest"] is True
    guest.sh("rm -r /a/www")
    back = ("restore", "files", "-i", "inside", point["name"], "vda/0/www", "--in-place", "--yes")
    socket = daemon.uri.partition("socket=")[2]
    assert f"{socket} is not in restore.allow of this machine's agent" in str(living(*back, code=1))
    assert guest.sh("ls -A /a") == "lost+found\n"
    agent.configure(f'[restore]\nallow = ["{socket}"]\n')

    done = living(*back)["properties"]

    assert done["status"] == "Completed", done
    assert done["extendedInfo"]["propertyBag"]["Target"] == "the guest of inside, to where they came from"
    assert guest.sh("cat /a/www/file; stat -c '%u:%g %Y' /a/www/file") == "one\n7:8 1000000000\n"
    guest.sh("echo mine > /a/www/file")
    assert "/a/www/file is there in the guest; nothing was written" in str(living(*back, code=1))
    living(*back, "--conflict", "keep-both")
    assert guest.sh("cat /a/www/file /a/www/file.restored") == "mine\none\n"
    living("hypervisor", "unregister", "-n", "lvi", "--yes")  # who looks for machines would wait for it
