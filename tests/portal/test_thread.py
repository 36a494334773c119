# SPDX-License-Identifier: Apache-2.0
"""Logging in, an item, a backup that is watched while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.portal.house import House

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]


def test_a_backup_is_watched(house: House, enter: Enter) -> None:
    page = enter("operator")
    page.get_by_role("link", name="Protected items").click()
    page.get_by_role("link", name=str(house.data)).click()
    expect(page.get_by_role("heading", name=str(house.data))).to_be_visible()
    page.get_by_role("link", name="Back up now").click()
    assert "keepstone protection backup-now -g g1 -v v1" in page.get_by_label("keepstone", exact=True).inner_text()

    page.get_by_role("button", name="Back up now").click()

    page.wait_for_url("**/portal/job?*")
    expect(page.locator("#state").get_by_text("Completed", exact=True)).to_be_visible()
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="Backup").first).to_be_visible()


def test_a_job_that_failed_is_done_once_more(house: House, enter: Enter, tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    house.run("protection", "enable", "--path", folder)
    folder.rmdir()
    job = house.run("protection", "backup-now", "-i", folder, "--no-wait")["name"]
    page = enter("operator")
    page.goto(f"/portal/job?id={house.vault}/backupJobs/{job}")
    expect(page.locator("#state").get_by_text("Failed").first).to_be_visible()
    expect(page.get_by_role("list").filter(has_text="taken by")).to_contain_text("ended as Failed")
    folder.mkdir()
    (folder / "a").write_text("a")

    page.get_by_role("link", name="Do it once more").click()
    assert f"keepstone job retry -g g1 -v v1 -n {job}" in page.get_by_label("keepstone", exact=True).inner_text()
    page.get_by_role("button", name="Do it once more").click()

    page.wait_for_url(lambda address: "/portal/job?" in address and job not in address)
    expect(page.locator("#state").get_by_text("Completed", exact=True)).to_be_visible()
    expect(page.get_by_role("list").filter(has_text="taken by")).to_contain_text("is in the store")
    reader = enter("reader")
    reader.goto(f"/portal/job?id={house.vault}/backupJobs/{job}")
    expect(reader.get_by_role("heading", name="Log")).to_be_visible()
    expect(reader.get_by_role("link", name="Do it once more")).to_have_count(0)
    house.run("protection", "disable", "-i", folder, "--delete-backup-data", "true", "-y")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(house: House, enter: Enter, accessible: Callable[[Page], None], scheme: str) -> None:
    page = enter(color_scheme=scheme)
    job = house.run("job", "list")[0]["id"]
    for path in ("/", "/items", f"/item?id={house.item}", "/jobs", f"/job?id={job}", f"/do/stop?id={house.item}"):
        page.goto(f"/portal{path}")
        accessible(page)
