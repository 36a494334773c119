# SPDX-License-Identifier: Apache-2.0
"""Settings: people and their passwords, roles, vaults and what guards them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from keepstone.cli import main
from tests.portal.house import HOSTILE, House

pytestmark = pytest.mark.portal
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
Enter = Callable[..., Page]
Browse = Callable[..., BrowserContext]


def do(page: Page, action: str, identity: str = "", **given: str) -> None:
    """Open an action, give what it asks for, and press its button."""
    page.goto(f"/portal/do/{action}?id={quote(identity)}")
    for name, value in given.items():
        field = page.locator(f"form#action [name='{name}']")
        if field.evaluate("one => one.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    # A document that was not there before is the answer; a navigation that the browser tells of may be an earlier one.
    page.evaluate("document.documentElement.dataset.before = 'yes'")
    page.locator("form#action .buttons button").click()
    page.locator("html:not([data-before])").wait_for(state="attached")
    page.wait_for_load_state()


def told(text: str) -> dict[str, str]:
    """Labels and values of a command's result for people."""
    lines = (line.partition(":") for line in text.splitlines())
    return {label.strip(): value.strip() for label, _, value in lines}


def dry_run(house: House, *command: str) -> dict[str, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main([*command, "--dry-run", "--data", str(house.service.root)]) == 0
    return told(out.getvalue())


def shown(page: Page) -> dict[str, str]:
    """What the page of an action says that it takes."""
    labels = page.locator(".radius dt").all_inner_texts()
    found = dict(zip(labels, page.locator(".radius dd").all_inner_texts(), strict=True))
    refused = page.locator("#plan > .wrong").all_inner_texts()
    return found | ({"refused by": ", ".join(one.strip() for one in refused)} if refused else {})


def test_people_come_and_go(house: House, enter: Enter, browse: Browse) -> None:
    page = enter()
    do(page, "create-user", name="dora", display=HOSTILE, role="Backup Reader", scope=house.vault)
    (name, password) = page.locator(".facts dd").all_inner_texts()
    assert name == "dora"
    assert len(password) == 32
    page.get_by_role("link", name="I have it").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="dora"))
    expect(row).to_contain_text(HOSTILE)
    expect(row).to_contain_text("Backup Reader at v1")
    assert password not in page.content()

    house.passwords["dora"] = password
    enter("dora")
    row.get_by_role("link", name="Reset the password").click()
    page.get_by_role("button", name="Reset the password").click()
    again = page.locator(".facts dd").nth(1).inner_text()
    assert again != password
    page.reload()  # the form is sent again, and counts once: nobody is told twice
    expect(page.locator("h1")).to_have_text("Settings")
    assert again not in page.content()
    assert house.run("user", "show", "-n", "dora")["properties"]["passwordChangedTime"]

    do(page, "rename-user", "/providers/Keepstone.Identity/users/dora", display="Dora D.")
    assert house.run("user", "show", "-n", "dora")["properties"]["displayName"] == "Dora D."
    page.goto(f"/portal/do/delete-user?id={quote('/providers/Keepstone.Identity/users/dora')}")
    assert shown(page)["Backup Reader"] == f"at {house.vault}"
    page.get_by_role("button", name="Delete the user").click()
    page.wait_for_url("**/portal/settings")
    expect(page.get_by_role("rowheader", name="dora")).to_have_count(0)


def test_your_own_password(house: House, enter: Enter, faults: list[str]) -> None:
    """It needs the one until now; other browsers are logged out, and it is in no address and on no page."""
    house.user("emil", "Backup Reader")
    page, other = enter("emil"), enter("emil")
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    new = "a-password-of-emils"
    for given, says in (
        ({"current": "not this one", "password": new, "again": new}, "the password until now is not right"),
        ({"current": house.passwords["emil"], "password": new, "again": "another"}, "not typed twice the same"),
        ({"current": house.passwords["emil"], "password": "short", "again": "short"}, "12 to 256 characters"),
    ):
        do(page, "own-password", **given)
        expect(page.get_by_role("alert").filter(has_text=says)).to_be_visible()
        assert new not in page.content()
    assert all("400" in fault for fault in faults)
    faults.clear()
    do(page, "own-password", current=house.passwords["emil"], password=new, again=new)
    page.wait_for_url("**/portal/settings")
    expect(page.get_by_text("You have another password")).to_be_visible()
    assert not any(new in address for address in addresses)
    other.goto("/portal/items")
    other.wait_for_url("**/portal/login*")
    house.passwords["emil"] = new
    enter("emil")


@pytest.fixture
def alone(house: House) -> Iterator[None]:
    """Other tests find one vault again, whatever becomes of this one."""
    yield
    for one in house.run("vault", "list"):
        if one["id"] != house.vault:
            house.run("vault", "delete", "-g", one["id"].split("/")[4], "-n", one["name"], "--yes")


@pytest.mark.usefixtures("alone")
def test_a_vault_from_its_making_to_its_end(house: House, enter: Enter) -> None:
    page = enter()
    do(page, "create-vault", group="g2", vault="mine", days="30")
    expect(page.get_by_role("heading", name="mine")).to_be_visible()
    vault = next(one for one in house.run("vault", "list") if one["name"] == "mine")
    do(page, "soft-delete", vault["id"], state="Enabled", days="45")
    do(page, "vault-tags", vault["id"], tags="team=web\nstage=live")
    found = house.run("vault", "show", "-g", "g2", "-n", "mine")
    assert found["tags"] == {"team": "web", "stage": "live"}
    assert found["properties"]["securitySettings"]["softDeleteSettings"]["softDeleteRetentionPeriodInDays"] == 45

    page.goto(f"/portal/do/immutability?id={quote(vault['id'])}&state=Locked")
    assert shown(page)["can be taken back"] == "no, by nobody"
    do(page, "immutability", vault["id"], state="Unlocked")
    assert "Unlocked" in str(house.run("vault", "show", "-g", "g2", "-n", "mine")["properties"])

    do(page, "give-role", vault["id"], role="Backup Operator")
    row = page.get_by_role("row").filter(has_text="Backup Operator")
    row = row.filter(has_text="vaults/mine")
    row.get_by_role("link", name="Take the role away").click()
    expect(page.locator(".radius")).to_be_visible()
    assert shown(page)["role"] == "Backup Operator"
    page.get_by_role("button", name="Take the role away").click()
    page.wait_for_url("**/portal/settings/vault*")
    expect(page.get_by_role("row").filter(has_text="vaults/mine")).to_have_count(0)

    page.goto(f"/portal/do/delete-vault?id={quote(vault['id'])}")
    assert shown(page) == dry_run(house, "vault", "delete", "-g", "g2", "-n", "mine")
    page.get_by_role("button", name="Delete the vault").click()
    page.wait_for_url("**/portal/settings")
    assert [one["name"] for one in house.run("vault", "list")] == ["v1"]

    row = page.locator("section").filter(has=page.get_by_role("heading", name="Deleted vaults")).get_by_role("row")
    row.filter(has_text="mine").get_by_role("link", name="Take its deletion back").click()
    page.get_by_role("button", name="Take its deletion back").click()
    page.wait_for_url("**/portal/settings/vault*")
    assert house.run("vault", "show", "-g", "g2", "-n", "mine")["tags"] == {"team": "web", "stage": "live"}


def test_a_vault_that_is_there_is_not_made_again(house: House, enter: Enter, faults: list[str]) -> None:
    page = enter()
    do(page, "create-vault", group="g1", vault="v1", days="14")
    expect(page.get_by_role("alert").filter(has_text="there is a vault v1 in g1 already")).to_be_visible()
    do(page, "create-vault", group="g1", vault="v2", days="3")
    expect(page.get_by_role("alert").filter(has_text="14 to 180 days")).to_be_visible()
    faults.clear()


def test_the_command_line_and_the_portal_say_the_same(house: House, enter: Enter) -> None:
    """Of what a deletion takes: one text, which the service makes."""
    page = enter()
    item = str(house.data)
    cases = (
        ("delete-data", house.item, ("protection", "disable", "-i", item, "--delete-backup-data")),
        ("stop", house.item, ("protection", "disable", "-i", item)),
        ("delete-vault", house.vault, ("vault", "delete", "-g", "g1", "-n", "v1")),
    )
    for action, identity, command in cases:
        page.goto(f"/portal/do/{action}?id={quote(identity)}")
        found = shown(page)
        assert found == dry_run(house, *command)
        assert len(found) > 4
    house.run("vault", "update", "-g", "g1", "-n", "v1", "--immutability-state", "Unlocked")
    try:
        page.goto(f"/portal/do/delete-data?id={quote(house.item)}")
        found = shown(page)
        assert "the vault is immutable" in found["refused by"]
        assert found == dry_run(house, "protection", "disable", "-i", item, "--delete-backup-data")
    finally:
        house.run("vault", "update", "-g", "g1", "-n", "v1", "--immutability-state", "Disabled")


def test_a_reader_is_offered_nothing_that_he_may_not(house: House, enter: Enter) -> None:
    page = enter("reader")
    page.goto("/portal/settings")
    expect(page.get_by_role("link", name="Change your password")).to_be_visible()
    expect(page.get_by_role("link", name="v1")).to_be_visible()
    for title in ("Make a user", "Make a vault", "Download the recovery key", "Reset the password"):
        expect(page.get_by_role("link", name=title)).to_have_count(0)
    page.get_by_role("link", name="v1").click()
    for title in (
        "Change soft delete",
        "Delete the vault",
        "Give a role",
        "Download the recovery kit",
        "Take the role",
    ):
        expect(page.get_by_role("link", name=title)).to_have_count(0)


def test_pages_are_accessible(house: House, enter: Enter, accessible: Callable[[Page], None]) -> None:
    page = enter()
    for path in (
        "/settings", f"/settings/vault?id={house.vault}", "/do/create-user", "/do/own-password",
        f"/do/immutability?id={house.vault}&state=Locked", f"/do/delete-data?id={house.item}",
        f"/do/confirm-kit?id={house.vault}",
    ):  # fmt: skip
        page.goto(f"/portal{path}")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            accessible(page)
