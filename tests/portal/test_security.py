# SPDX-License-Identifier: Apache-2.0
"""Security: the level of a vault, and a checklist that says what is, each with what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.portal.house import House

pytestmark = pytest.mark.portal
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
Enter = Callable[..., Page]


def section(page: Page, name: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=name, exact=True))


def check(page: Page, name: str, title: str) -> Locator:
    return section(page, name).get_by_role("row").filter(has=page.get_by_role("rowheader", name=title, exact=True))


@pytest.fixture
def guarded(house: House) -> Iterator[None]:
    """A vault that nothing guards; other tests find one vault again."""
    house.run("vault", "create", "-g", "g1", "-n", "guarded", "--soft-delete-state", "Disable")
    yield
    house.run("vault", "delete", "-g", "g1", "-n", "guarded", "--yes")


@pytest.mark.usefixtures("guarded")
def test_a_vault_gets_better(house: House, enter: Enter, tmp_path: Path) -> None:
    """Each thing that is mended shows as mended, and the level with it."""
    page = enter()
    page.goto("/portal/security")
    expect(section(page, "guarded")).to_contain_text("Security level: None")
    expect(check(page, "guarded", "Soft delete")).to_contain_text("Off")
    expect(check(page, "guarded", "Immutability")).to_contain_text("Off")
    expect(check(page, "guarded", "Recovery kit")).to_contain_text("Not confirmed")
    expect(check(page, "guarded", "Who is told of alerts")).to_contain_text("Nobody")
    before = _good(page)

    check(page, "guarded", "Soft delete").get_by_role("link", name="Change soft delete").click()
    page.get_by_label("Soft delete").select_option("AlwaysON")
    expect(page.locator(".radius")).to_contain_text("no, by nobody")
    page.get_by_role("button", name="Change soft delete").click()
    page.wait_for_url("**/portal/settings/vault*")
    (tmp_path / "url").write_text("jsons://127.0.0.1:9/x\n")
    house.run("alert", "target", "add", "-g", "g1", "-v", "guarded", "-n", "hook", "--url-file", tmp_path / "url")
    page.goto("/portal/security")
    expect(section(page, "guarded")).to_contain_text("Security level: Adequate")
    expect(check(page, "guarded", "Soft delete")).to_contain_text("Always on")
    expect(check(page, "guarded", "Who is told of alerts")).to_contain_text("1 target")
    assert _good(page) == before + 2

    house.run("vault", "update", "-g", "g1", "-n", "guarded", "--immutability-state", "Unlocked")
    page.reload()
    expect(check(page, "guarded", "Immutability")).to_contain_text("On")


def _good(page: Page) -> int:
    return int(page.locator(".score").inner_text().split()[0])


def test_administrators_and_the_service(house: House, enter: Enter) -> None:
    page = enter()
    page.goto("/portal/security")
    expect(check(page, "The service", "Password of admin")).to_contain_text("Never changed")
    expect(check(page, "The service", "Password of admin").get_by_role("link")).to_contain_text("Change your password")
    expect(check(page, "The service", "Certificate of the service")).to_contain_text("ends in")
    expect(check(page, "The service", "Password of reader")).to_have_count(0)
    expect(page.get_by_text("no vault reaches it yet")).to_be_visible()


def test_what_a_reader_sees(house: House, enter: Enter) -> None:
    """The state of vaults, and nothing to press; nobody without a role sees a vault."""
    page = enter("reader")
    page.goto("/portal/security")
    expect(check(page, "v1", "Soft delete")).to_contain_text("On")
    expect(section(page, "v1").locator("td.links a[href*='/do/']")).to_have_count(0)
    expect(page.get_by_text("was never confirmed")).to_have_count(0)  # it is not his to look after
    page = enter("nobody")
    page.goto("/portal/security")
    expect(page.get_by_text("There is no vault that you may see.")).to_be_visible()


def test_the_page_is_accessible(house: House, enter: Enter, accessible: Callable[[Page], None]) -> None:
    page = enter()
    page.goto("/portal/security")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        accessible(page)
