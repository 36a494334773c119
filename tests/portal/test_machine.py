# SPDX-License-Identifier: Apache-2.0
"""A virtual machine by the browser alone: found, protected, backed up, looked into, proved by a drill, restored,
deleted and taken back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.machines.guest import Guest, make_disk, tools
from tests.portal.house import House

pytestmark = [pytest.mark.portal, pytest.mark.vm]
Enter = Callable[..., Page]
PATIENCE = 120_000
CONTENT = os.urandom(700_001)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """The folder of monitors of a hypervisor: one machine runs on it, and has a file of random bytes on its disk."""
    tools()
    disk = make_disk(tmp_path / "d0.raw", 24, form="raw")
    (tmp_path / "content").write_bytes(CONTENT)
    written = ["debugfs", "-w", "-R", f"write {tmp_path / 'content'} kept.bin", str(disk)]
    subprocess.run(written, check=True, capture_output=True)
    monitors = tmp_path / "monitors"
    monitors.mkdir()
    with Guest(tmp_path, [("d0", disk)], extra=["-name", "browsed"]) as guest:  # others protect one called as usual
        (monitors / "browsed.qmp").symlink_to(guest.qmp)
        (monitors / "browsed.qga").symlink_to(guest.qga)
        guest.sh("true")  # it is up
        yield monitors


def over(page: Page) -> None:
    """That the page is that of a job, which is followed until it ends well."""
    page.wait_for_url("**/portal/job?*")
    expect(page.locator("#state").get_by_text("Completed", exact=True)).to_be_visible(timeout=PATIENCE)


def test_from_its_host_to_its_restore(house: House, enter: Enter, host: Path, tmp_path: Path) -> None:
    page = enter()
    page.goto(f"/portal/do/register-hypervisor?id={house.vault}")
    page.get_by_label("Name").fill("browsed")
    page.get_by_label("What runs the machines").select_option("qemu")
    page.get_by_label("Where").fill(str(host))
    page.get_by_role("button", name="Register a hypervisor").click()
    expect(page.get_by_role("row").filter(has_text=str(host))).to_be_visible()
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_role("row").filter(has_text="DiscoverMachines").first.get_by_role("link").click()
    over(page)

    page.get_by_role("link", name="Protectable items").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="browsed"))
    row.get_by_role("link", name="Protect the machine").click()
    assert "az backup protection enable-for-vm" in page.get_by_label("az", exact=True).inner_text()
    page.get_by_role("button", name="Protect the machine").click()
    over(page)

    page.get_by_role("link", name="Protected items").click()
    page.get_by_role("link", name="browsed", exact=True).click()
    page.wait_for_url("**/portal/item?*")
    item = page.url
    page.get_by_role("link", name="Back up now").click()
    page.get_by_role("button", name="Back up now").click()
    over(page)

    page.goto(item)
    page.get_by_role("region", name="Recovery points").get_by_role("link").first.click()
    page.wait_for_url("**/portal/point?*")
    point = page.url
    expect(page.locator("main")).to_contain_text("AppConsistent")
    page.get_by_role("link", name="disk0", exact=True).click()
    page.get_by_role("link", name="0", exact=True).click()
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download kept.bin").click()
    assert begun.value.path().read_bytes() == CONTENT

    page.goto(point)
    page.get_by_role("link", name="Prove it by a drill").click()
    page.get_by_role("button", name="Prove it by a drill").click()
    over(page)
    page.get_by_role("link", name="Drills", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="browsed")).to_contain_text("agent")
    page.goto(item)
    expect(page.locator("main")).to_contain_text("Proved restorable just now")

    page.goto(point)
    page.get_by_role("link", name="Restore the machine").click()
    page.locator("[name=way]").select_option("folder")
    page.get_by_label("Path").fill(str(tmp_path / "again"))
    page.get_by_role("button", name="Restore the machine").click()
    over(page)
    listed = subprocess.run(
        ["debugfs", "-R", f"dump kept.bin {tmp_path / 'dumped'}", str(next((tmp_path / "again").glob("disk0*")))],
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "dumped").read_bytes() == CONTENT, listed.stderr

    page.goto(item)
    page.get_by_role("link", name="Stop protection and delete its points").click()
    expect(page.get_by_role("region", name="What this takes with it")).to_contain_text("can be taken back")
    page.get_by_role("button", name="Stop protection and delete its points").click()
    page.goto(item)
    expect(page.locator("main")).to_contain_text("Deleted")
    page.get_by_role("link", name="Take the deletion back").click()
    page.get_by_role("button", name="Take the deletion back").click()
    page.goto(item)
    expect(page.locator("main")).to_contain_text("Protection stopped")
    (found,) = [one for one in house.run("item", "list") if one["properties"]["friendlyName"] == "browsed"]
    assert found["properties"]["extendedInfo"]["recoveryPointCount"] == 1, json.dumps(found)
    house.run("protection", "disable", "-i", "browsed", "--delete-backup-data", "true", "-y")
    house.run("hypervisor", "unregister", "-n", "browsed", "--yes")
