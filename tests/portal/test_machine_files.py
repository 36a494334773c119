# SPDX-License-Identifier: Apache-2.0
"""Files of a machine's point, ticked and restored: into a folder, and back into the guest that runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.machines.guest import Guest, make_disk
from tests.portal.house import House
from tests.portal.test_restore import address, done, dry, row

pytestmark = [pytest.mark.portal, pytest.mark.vm]
Enter = Callable[..., Page]


@dataclass
class Machine:
    """`point`: its id."""

    guest: Guest
    point: str


@pytest.fixture(scope="module")
def machine(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    disks = [("d0", make_disk(folder / "d0.qcow2", 48))]
    with Guest(folder, disks, extra=["-name", "filed"]) as guest:  # others protect one that is called as usual
        guest.sh("mkdir /a/www; seq 100000 > /a/www/long; echo '<b>' > '/a/www/a\\b'; chmod 4710 /a/www/long; sync")
        (folder / "host").mkdir()
        (folder / "host" / "vm.qmp").symlink_to(guest.qmp)
        (folder / "host" / "vm.qga").symlink_to(guest.qga)
        house.run("hypervisor", "register", "-n", "files", "--qemu", folder / "host")
        house.run("protection", "enable-for-vm", "--vm", "filed")
        house.run("protection", "backup-now", "-i", "filed")
        yield Machine(guest, house.run("recoverypoint", "list", "-i", "filed")[0]["id"])
        house.run("protection", "disable", "-i", "filed", "--delete-backup-data", "--yes")
        house.run("hypervisor", "unregister", "-n", "files", "--yes")


LONG = "".join(f"{number}\n" for number in range(1, 100_001)).encode()


def test_into_a_folder(
    house: House, enter: Enter, machine: Machine, tmp_path: Path, accessible: Callable[[Page], None]
) -> None:
    """By whoever may restore, who need not see the machine itself; a name with a backslash too."""
    page = enter("operator")
    page.goto(address("/point", id=machine.point, path="disk0/0/www"))
    accessible(page)
    row(page, "long").get_by_role("checkbox").check()
    page.get_by_label("Restore a\\\\b").check()
    page.get_by_role("button", name="Restore what is chosen").click()
    page.get_by_label("Path").fill(str(tmp_path / "there"))
    page.get_by_label("Path").blur()
    expect(page.get_by_label("keepstone", exact=True)).to_contain_text("--target")
    assert page.get_by_label("az", exact=True).count() == 0
    would = dry(house, page)
    assert (would["paths"], would["target"]) == (["disk0/0/www/a\\\\b", "disk0/0/www/long"], str(tmp_path / "there"))
    assert would["conflict"] == "nothing may be there"
    page.get_by_role("button", name="Restore files").click()

    done(page)

    www = tmp_path / "there" / "disk0" / "0" / "www"
    assert {path.name: path.read_bytes() for path in www.iterdir()} == {"long": LONG, "a\\b": b"<b>\n"}
    assert (www / "long").stat().st_mode & 0o7777 == 0o710
    expect(page.get_by_role("main")).to_contain_text("of the files in its disks: disk0/0/www/a")


def test_into_the_guest(
    house: House, enter: Enter, machine: Machine, accessible: Callable[[Page], None], faults: list[str]
) -> None:
    """What it would take with it stands there; the command that is shown does the same."""
    guest = machine.guest
    guest.sh("echo gone > /a/www/long")
    page = enter("operator")
    page.goto(address("/point", id=machine.point, path="disk0/0/www"))
    page.get_by_label("Restore long").check()
    page.get_by_role("button", name="Restore what is chosen").click()
    page.locator("[name=to]").select_option("guest")
    radius = page.get_by_role("region", name="What this takes with it")
    expect(radius).to_contain_text("the guest of filed, which goes on meanwhile")
    expect(radius).to_contain_text("nothing may be there")
    page.get_by_label("What is there").select_option("overwrite")
    expect(radius).to_contain_text("is overwritten where it differs")
    accessible(page)
    would = dry(house, page)
    assert (would["target"], would["paths"]) == ("the guest of filed, where they came from", ["disk0/0/www/long"])
    assert would["conflict"] == "is overwritten where it differs"
    page.get_by_role("button", name="Restore files").click()
    done(page)
    expect(page.get_by_role("main")).to_contain_text("the guest of filed, to where they came from")
    assert guest.sh("stat -c %a /a/www/long; md5sum < /a/www/long") == guest.sh("echo 4710; seq 100000 | md5sum")

    guest.sh("mkdir /run/apart")
    page.goto(address("/do/restore-files", id=machine.point, path="disk0/0/www/long", to="guest", folder="/run/apart"))
    program, *words = shlex.split(page.get_by_label("keepstone", exact=True).inner_text())
    assert (program, words[:2]) == ("keepstone", ["restore", "files"])
    assert dry(house, page)["target"] == "the guest of filed, /run/apart"
    house.run(*words)
    assert guest.sh("stat -c %a /run/apart/www/long; md5sum < /run/apart/www/long") == guest.sh(
        "echo 710; seq 100000 | md5sum"
    )

    page.goto(address("/do/restore-files", id=machine.point, path="disk0/0/www", to="guest", delete="yes"))
    page.get_by_role("button", name="Restore files").click()
    expect(page.get_by_role("alert").last).to_contain_text("nothing is deleted in a guest")
    assert [fault for fault in faults if "400" not in fault] == []
    faults.clear()


def test_found_by_its_name(enter: Enter, machine: Machine) -> None:
    """In the point, where disks are found too, and in all points."""
    page = enter("operator")
    page.goto(address("/point", id=machine.point, find="*"))
    expect(page.get_by_label("Restore disk0/0/www/long")).to_be_visible()
    expect(page.get_by_label("Restore disk0", exact=True)).to_have_count(0)
    page.get_by_label("Restore disk0/0/www", exact=True).check()
    page.get_by_role("button", name="Restore what is chosen").click()
    expect(page.get_by_label("What of it")).to_have_value("disk0/0/www")
    item = machine.point.rpartition("/recoveryPoints")[0]
    page.goto(address("/restore", find="lon?", item=item))
    page.get_by_role("link", name="Restore disk0/0/www/long").first.click()
    expect(page.get_by_label("What of it")).to_have_value("disk0/0/www/long")
