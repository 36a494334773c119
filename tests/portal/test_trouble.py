# SPDX-License-Identifier: Apache-2.0
"""What goes wrong while people use the portal: names that are hostile, a connection that is lost, a second press, a
login that is over, a browser without a script."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import BrowserContext, Page, expect

from keepstone.catalogue import Database, jobs, logins
from keepstone.env import Env
from tests.portal.house import HOSTILE, House

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]
MIB = 1 << 20


def database(house: House) -> Database:
    return Database(f"sqlite:///{house.service.root / 'keepstone.db'}")


def test_hostile_names_are_text(house: House, enter: Enter, tmp_path: Path) -> None:
    """Of an item, which stands in lists, titles, forms and commands."""
    folder = tmp_path / HOSTILE.replace("/", "")
    folder.mkdir()
    (folder / "x").write_text("x")
    house.run("protection", "enable", "--path", folder)
    try:
        page = enter()
        page.goto("/portal/items")
        page.get_by_role("link", name=str(folder)).click()
        expect(page.get_by_role("heading", name=str(folder))).to_be_visible()
        assert str(folder) in page.title()
        page.get_by_role("link", name="Stop protection", exact=True).click()
        page.get_by_role("button", name="Stop protection").click()
        expect(page.get_by_role("heading", name=f"DisableBackup · {folder}")).to_be_visible()
        assert page.locator("img[onerror]").count() == 0
        page.goto("/portal/jobs")
        expect(page.get_by_role("row").filter(has_text=str(folder)).first).to_be_visible()
    finally:
        house.run("protection", "disable", "-i", folder, "--delete-backup-data", "true", "-y")


def test_a_second_press_does_nothing_more(house: House, enter: Enter) -> None:
    page = enter()
    before = len(house.run("job", "list", "--operation", "Backup"))
    page.goto(f"/portal/do/backup-now?id={house.item}")
    page.get_by_role("button", name="Back up now").dblclick()
    page.wait_for_url("**/portal/job?*")

    assert len(house.run("job", "list", "--operation", "Backup")) == before + 1


@pytest.mark.parametrize("taken_back", [False, True])
def test_nothing_moves_under_a_press(house: House, enter: Enter, taken_back: bool) -> None:
    """Leaving a field draws the plan above the button anew, and it is the press of the button that leaves the field."""
    vault = house.run("vault", "create", "-g", "g1", "-n", "pressed")["id"]
    try:
        page = enter()
        page.goto(f"/portal/do/vault-tags?id={vault}")
        button = page.get_by_role("button", name="Change its tags")
        button.scroll_into_view_if_needed()
        at = button.bounding_box()
        assert at is not None
        page.locator("textarea").press_sequentially("team=web\nstage=live\nroom=1\nfloor=2")
        page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        with page.expect_response("**/portal/do/vault-tags?*"):
            page.mouse.down()
        page.wait_for_timeout(500)
        assert button.bounding_box() == at
        if taken_back:
            page.mouse.move(0, 0)
        page.mouse.up()

        if taken_back:
            expect(page.locator("#plan")).to_contain_text("floor=2")
        else:
            page.wait_for_url("**/portal/settings/vault*")
        assert bool(house.run("vault", "show", "-g", "g1", "-n", "pressed").get("tags")) is not taken_back
    finally:
        house.run("vault", "delete", "-g", "g1", "-n", "pressed", "--yes")


def test_a_login_that_is_over_leads_back_to_the_page(house: House, enter: Enter) -> None:
    page = enter("operator")
    page.goto(f"/portal/item?id={house.item}")
    opened = database(house)
    with opened.change() as connection:
        connection.execute(logins.delete())
    opened.close()

    page.get_by_role("link", name="Back up now").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("Name").fill("operator")
    page.get_by_label("Password").fill(house.passwords["operator"])
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("heading", name="Back up now")).to_be_visible()


def test_a_job_is_followed_over_a_lost_connection(house: House, enter: Enter, faults: list[str]) -> None:
    """The page says how things are when it is connected again, without being loaded. The job is one that was over: its
    row is written here as a worker would."""
    opened = database(house)

    def write(**values: object) -> None:
        with opened.change() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job).values(**values))

    def done(mebibytes: int) -> dict[str, int]:
        return {"done": mebibytes * MIB, "expected": 4 * MIB}

    with opened.look() as connection:
        mine = sa.select(jobs.c.id, jobs.c.ended, jobs.c.progress).where(jobs.c.operation == "Backup")
        job, ended, progress = connection.execute(mine.order_by(jobs.c.created)).first() or ("", None, None)
    write(status="InProgress", ended=None, progress=done(1), lease_until=Env().utc() + timedelta(minutes=10))
    try:
        page = enter()
        page.goto(f"/portal/job?id={house.vault}/backupJobs/{job}")
        state = page.locator("#state")
        expect(state).to_contain_text("25 %")
        page.mouse.down()  # nothing moves under a press, here neither
        write(progress=done(2))
        page.wait_for_timeout(3000)
        assert "25 %" in state.inner_text()
        page.mouse.up()
        expect(state).to_contain_text("50 %")

        page.context.set_offline(True)
        time.sleep(1.5)
        write(progress=done(3))
        page.context.set_offline(False)

        expect(state).to_contain_text("75 %", timeout=20_000)
    finally:
        write(status="Completed", ended=ended, progress=progress, lease_until=None)
        opened.close()
    expect(state).to_contain_text("Completed")
    faults[:] = [fault for fault in faults if not ("DISCONNECTED" in fault or "htmx" in fault.casefold())]


def test_without_a_script(house: House, browse: Callable[..., BrowserContext]) -> None:
    page = browse(java_script_enabled=False).new_page()
    page.goto("/portal/items")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(house.passwords["admin"])
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Kind").select_option("MAB")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name=str(house.data)).click()
    page.get_by_role("link", name="Back up now").click()
    expect(page.get_by_label("keepstone", exact=True)).to_contain_text("keepstone protection backup-now")
    assert page.get_by_role("button", name="Copy").count() == 0
    page.get_by_role("button", name="Back up now").click()
    expect(page.locator("noscript .hint")).to_be_visible()


def test_by_keyboard(house: House, enter: Enter) -> None:
    page = enter()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.goto("/portal/items")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == str(house.data):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=str(house.data))).to_be_visible()


def test_on_a_narrow_screen(house: House, enter: Enter) -> None:
    """Nothing makes the page itself scroll sideways."""
    page = enter(viewport={"width": 390, "height": 800})
    paths = ["/", "/items", f"/item?id={house.item}", "/jobs", f"/do/stop?id={house.item}", "/api", "/infrastructure"]
    for path in paths:
        page.goto(f"/portal{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
