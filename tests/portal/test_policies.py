# SPDX-License-Identifier: Apache-2.0
"""Policies: found, made, changed with what that does to the points that there are, and by two people at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from keepstone.catalogue import Database, points
from keepstone.vault import Interval, read_policy
from tests.cli.services import until
from tests.portal.house import House

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]
_numbers = count(1)
_THEN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
"""Whatever the hour is: so many days since then are over, and not a day more."""


@pytest.fixture
def policy(house: House) -> str:
    """The name of one of the test's own: every point for 60 days."""
    name = f"Test-{next(_numbers)}"
    document = house.run("policy", "show", "-n", "FilesPolicy")["properties"]
    document["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 60
    house.run("policy", "create", "-n", name, "--policy", json.dumps(document))
    return name


@pytest.fixture(scope="module")
def held(house: House, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A policy and its item, which has points of 2, 10, 11 and 40 days ago."""
    folder = tmp_path_factory.mktemp("held")
    (folder / "a.txt").write_text("kept")
    document = house.run("policy", "show", "-n", "FilesPolicy")["properties"]
    document["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 60
    house.run("policy", "create", "-n", "Held", "--policy", json.dumps(document))
    house.run("protection", "enable", "--path", folder, "-p", "Held")
    for _ in range(4):
        house.run("protection", "backup-now", "-i", folder)
    found = sorted(house.run("recoverypoint", "list", "-i", folder), key=lambda one: str(one["name"]))
    database = Database(f"sqlite:///{house.service.root / 'keepstone.db'}")
    with database.change() as connection:
        for point, days in zip(found, (40, 11, 10, 2), strict=True):
            made = _THEN - timedelta(days=days)
            values = {"made": made, "until": made + timedelta(days=60), "stored": 1024}
            connection.execute(points.update().where(points.c.name == point["name"]).values(**values))
    database.close()
    return "Held", str(folder)


def address(house: House, name: str) -> str:
    return f"/portal/do/policy-save?id={house.vault}/backupPolicies/{name}"


def kept(house: House, name: str) -> int:
    found = house.run("policy", "show", "-n", name)["properties"]["retentionPolicy"]
    return int(found["dailySchedule"]["retentionDuration"]["count"])


def days(page: Page, number: int) -> None:
    """Every point is kept for so many days."""
    field = page.get_by_label("Every point: kept for")
    field.fill(str(number))
    field.blur()


def save(page: Page) -> None:
    page.get_by_role("button", name="Save the policy").click()


def was_refused(faults: list[str], status: int) -> None:
    """Browsers note on their console that something was refused; nothing else went wrong."""
    assert len(faults) == 1
    assert f"a status of {status} " in faults.pop()


def test_the_builder_makes_a_policy(house: House, enter: Enter, faults: list[str]) -> None:
    page = enter()
    page.get_by_role("link", name="Policies").click()
    expect(page.get_by_role("row").filter(has_text="FilesPolicy")).to_contain_text("daily at 16:00 (UTC)")
    page.get_by_role("link", name="New policy").click()
    expect(page.get_by_label("Hours from one to the next")).to_be_hidden()
    expect(page.locator("#plan .hint")).to_have_count(0)
    page.get_by_label("Name").fill("Built")
    page.get_by_label("Virtual machines, enhanced").check()
    page.get_by_label("At an interval").check()
    expect(page.get_by_label("Times of the day")).to_be_hidden()
    page.get_by_label("Minutes from one to the next").fill("45")
    page.get_by_label("Time zone").select_option("W. Europe Standard Time")
    page.get_by_role("checkbox", name="One a month").check()
    page.get_by_label("by number").first.check()
    page.get_by_label("Days of the month").first.fill("1, last")
    page.get_by_role("checkbox", name="One a year").check()
    page.get_by_role("checkbox", name="July").check()
    page.get_by_label("Days of instant restore").fill("7")
    page.get_by_label("Days between restore drills").fill("30")
    page.get_by_label("Days between restore drills").blur()
    expect(page.locator("#plan")).to_contain_text("45 minutes")
    expect(page.get_by_label("keepstone", exact=True)).to_contain_text("keepstone policy create -g g1 -v v1 -n Built")

    save(page)

    page.wait_for_url("**/portal/policy?*")
    expect(page.get_by_role("status")).to_contain_text("The policy Built is made.")
    expect(page.get_by_role("term").filter(has_text="Restore drills")).to_be_visible()
    rows = page.get_by_role("region", name="Next runs").get_by_role("row")
    expect(rows).to_have_count(11)
    there, utc = rows.nth(1).locator("th, td").all_inner_texts()
    assert datetime.fromisoformat(there) - datetime.fromisoformat(utc) in (timedelta(hours=1), timedelta(hours=2))
    made = read_policy("Built", house.run("policy", "show", "-n", "Built")["properties"])
    assert made.parts[0].schedule == Interval(timedelta(minutes=45))
    assert (made.zone, made.snapshot_days, made.drill_days) == ("W. Europe Standard Time", 7, 30)
    retention = made.parts[0].retention
    assert retention.monthly is not None
    assert retention.yearly is not None
    assert retention.yearly.months == {1, 7}
    assert "{0, 1}" in str(retention.monthly.days)

    page.goto(f"/portal/do/policy-save?id={house.vault}")
    page.get_by_label("Name").fill("Built")
    save(page)
    expect(page.get_by_role("alert").filter(has_text="Policy 'Built'")).to_be_visible()
    was_refused(faults, 412)
    assert read_policy("Built", house.run("policy", "show", "-n", "Built")["properties"]) == made


def test_what_is_wrong_is_said_where_the_plan_would_be(house: House, enter: Enter, policy: str) -> None:
    page = enter()
    page.goto(address(house, policy))
    page.get_by_label("Times of the day").fill("16:00, 16:02")
    page.get_by_label("Times of the day").blur()
    expect(page.locator("#plan")).to_contain_text("less than 5 minutes apart")
    page.get_by_label("Times of the day").fill("noon")
    page.get_by_label("Times of the day").blur()
    expect(page.locator("#plan")).to_contain_text("'noon' is no time")


def test_a_change_shows_the_points_that_it_costs(
    house: House, enter: Enter, held: tuple[str, str], faults: list[str]
) -> None:
    name, folder = held
    page = enter()
    page.goto(f"/portal/policy?id={house.vault}/backupPolicies/{name}")
    expect(page.get_by_role("link", name=folder)).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    fates = page.get_by_label("Points by what becomes of them")
    expect(fates).to_have_text(re.compile(r"0\s*lost.*4\s*kept", re.DOTALL))

    days(page, 11)

    expect(fates).to_have_text(re.compile(r"2\s*lost.*2\s*shortened.*0\s*lengthened.*0\s*kept", re.DOTALL))
    expect(page.locator("#plan")).to_contain_text("up to 2.0 KiB")
    told = "Points: 2 lost, 2 shortened, 0 lengthened, 0 kept. Longest gap between runs: 1 day."
    expect(page.get_by_role("status")).to_have_text(told)
    expect(page.locator("#said")).to_have_count(1)
    for ago, shown in ((40, "1 lost"), (11, "1 lost"), (10, "1 shortened"), (2, "1 shortened")):
        day = _THEN - timedelta(days=ago)
        month = page.get_by_role("table", name=f"{day:%B %Y}")
        cell = month.get_by_role("cell").filter(has=page.locator(f"span.date:text-is('{day.day}')"))
        expect(cell).to_have_text(re.compile(rf"^{day.day}\W*{shown}$"))
    page.get_by_text("By item and point").click()
    rows = page.get_by_role("region", name="By point").get_by_role("row")
    expect(rows).to_have_count(5)
    expect(rows.filter(has_text=f"{_THEN - timedelta(days=40):%Y-%m-%d}")).to_contain_text("lost")

    page.get_by_label("Weekly", exact=True).check()
    expect(page.get_by_role("definition").filter(has_text="1 day → 7 days")).to_be_visible()
    expect(page.get_by_role("definition").filter(has_text="1 → 0 of 1")).to_be_visible()
    page.get_by_label("Daily", exact=True).check()
    expect(page.get_by_role("definition").filter(has_text="7 days")).to_have_count(0)

    save(page)  # without a yes nothing happens
    expect(page.get_by_role("alert").filter(has_text="2 recovery points are lost for ever")).to_be_visible()
    was_refused(faults, 400)
    assert kept(house, name) == 60
    expect(page.get_by_label("Every point: kept for")).to_have_value("11")
    page.get_by_label("I want this").check()
    save(page)
    page.wait_for_url("**/portal/policy?*")
    assert kept(house, name) == 11
    house.run("protection", "backup-now", "-i", folder)  # after which retention looks
    left = until(
        lambda: found if len(found := house.run("recoverypoint", "list", "-i", folder)) == 3 else None, "points gone"
    )
    oldest = min(datetime.fromisoformat(str(one["properties"]["recoveryPointTime"])) for one in left)
    assert oldest == _THEN - timedelta(days=10)


def test_two_who_edit_one_policy_see_both_values(
    house: House, enter: Enter, policy: str, faults: list[str], accessible: Callable[[Page], None]
) -> None:
    first, second = enter(), enter()
    for page in (first, second):
        page.goto(address(house, policy))
    days(first, 70)
    save(first)
    first.wait_for_url("**/portal/policy?*")
    days(second, 90)
    expect(second.locator("#plan")).to_contain_text("Somebody else has changed this policy meanwhile")

    save(second)

    differing = second.get_by_role("region", name="Both values").get_by_role("row").filter(has_text="differs")
    expect(differing).to_have_count(1)
    expect(differing).to_have_text(re.compile(r"Keeps every point\s*90 days\s*70 days"))
    assert kept(house, policy) == 70
    expect(second.get_by_label("Every point: kept for")).to_have_value("90")  # the form is as it was
    accessible(second)
    save(second)
    second.wait_for_url("**/portal/policy?*")
    assert kept(house, policy) == 90
    was_refused(faults, 412)


def test_it_works_without_a_script(house: House, browse: Callable[..., BrowserContext], held: tuple[str, str]) -> None:
    page = browse(java_script_enabled=False).new_page()
    page.goto("/portal/login")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(house.passwords["admin"])
    page.get_by_role("button", name="Log in").click()
    page.goto(address(house, held[0]))
    page.get_by_label("Every point: kept for").fill("5")
    page.get_by_role("button", name="Show what it does").click()
    expect(page.get_by_label("Points by what becomes of them")).to_contain_text("lost")
    expect(page.get_by_label("Every point: kept for")).to_have_value("5")
    expect(page.get_by_label("I want this")).to_be_visible()


def test_a_policy_goes_when_no_item_has_it(
    house: House, enter: Enter, policy: str, tmp_path: Path, faults: list[str]
) -> None:
    (tmp_path / "x").mkdir()
    house.run("protection", "enable", "--path", tmp_path / "x", "-p", policy)
    page = enter()
    page.goto(f"/portal/policy?id={house.vault}/backupPolicies/{policy}")
    page.get_by_role("link", name="Delete the policy").click()
    expect(page.locator("#plan")).to_contain_text("It has 1 item:")
    page.get_by_role("button", name="Delete the policy").click()
    expect(page.get_by_role("alert").filter(has_text="protects 1 items")).to_be_visible()
    was_refused(faults, 409)
    house.run("item", "set-policy", "-i", tmp_path / "x", "-p", "FilesPolicy")
    page.goto(f"/portal/do/policy-delete?id={house.vault}/backupPolicies/{policy}")
    page.get_by_role("button", name="Delete the policy").click()
    page.wait_for_url("**/portal/policies?*")
    expect(page.get_by_role("link", name="FilesPolicy")).to_be_visible()
    expect(page.get_by_role("link", name=policy, exact=True)).to_have_count(0)


@pytest.mark.parametrize("who", ["reader", "operator"])
def test_who_may_not_edit_sees_no_button(house: House, enter: Enter, who: str) -> None:
    page = enter(who)
    page.get_by_role("link", name="Policies").click()
    page.get_by_role("link", name="FilesPolicy").click()
    expect(page.get_by_role("heading", name="Next runs")).to_be_visible()
    expect(page.get_by_role("link", name="Edit")).to_have_count(0)
    expect(page.get_by_role("link", name="Delete the policy")).to_have_count(0)
    page.goto("/portal/policies")
    expect(page.get_by_role("link", name="New policy")).to_have_count(0)
    page.goto(address(house, "FilesPolicy"))
    expect(page.locator("#plan")).to_contain_text("Your roles do not allow this.")
    expect(page.get_by_role("button", name="Save the policy")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    house: House, enter: Enter, accessible: Callable[[Page], None], held: tuple[str, str], scheme: str
) -> None:
    page = enter(color_scheme=scheme)
    there = f"{house.vault}/backupPolicies"
    for path in ("/policies", f"/policy?id={there}/{held[0]}"):
        page.goto(f"/portal{path}")
        accessible(page)
    page.goto(f"/portal/do/policy-save?id={house.vault}")
    page.get_by_label("Databases").check()
    page.get_by_role("checkbox", name="One a year").check()
    accessible(page)
    page.goto(address(house, held[0]))
    days(page, 5)
    expect(page.get_by_label("I want this")).to_be_visible()
    page.get_by_text("By item and point").click()
    accessible(page)
