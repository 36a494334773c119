# SPDX-License-Identifier: Apache-2.0
"""A service that runs, Debian's Chromium, and what no page may do: fail on its console, break its policy, or ask
another origin for anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.portal.house import House, furnished

__all__: list[str] = []

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parents[1] / "data" / "axe" / "axe.min.js"
Enter = Callable[..., Page]
PATIENCE = 30_000  # ms: a machine that runs tests has much to do
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all tests of a process; whoever changes it changes things of his own."""
    with furnished(tmp_path_factory.mktemp("portal")) as house:
        yield house


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What pages did that they may not; a test that expects some of it takes it out."""
    return []


@pytest.fixture
def browse(chromium: Browser, house: House, faults: list[str]) -> Iterator[Callable[..., BrowserContext]]:
    """A browser of somebody's own, watched."""
    made: list[BrowserContext] = []

    def begin(**options: Any) -> BrowserContext:
        context = chromium.new_context(
            base_url=house.url, ignore_https_errors=True, **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        context.set_default_timeout(PATIENCE)
        context.on("weberror", lambda error: faults.append(f"script: {error.error}"))
        context.on("console", lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None)
        context.on(
            "request",
            lambda request: (
                None if request.url.startswith((house.url, "data:")) else faults.append(f"elsewhere: {request.url}")
            ),
        )
        made.append(context)
        return context

    yield begin
    for context in made:
        context.close()
    assert faults == []


@pytest.fixture
def enter(browse: Callable[..., BrowserContext], house: House) -> Enter:
    """A page of somebody who has logged in."""

    def log_in(name: str = "admin", **options: Any) -> Page:
        page = browse(**options).new_page()
        page.goto("/portal/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(house.passwords[name])
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/portal/")
        return page

    return log_in


@pytest.fixture
def accessible() -> Callable[[Page], None]:
    """That axe finds nothing on a page as it is now."""

    def check(page: Page) -> None:
        page.context.new_cdp_session(page).send("Page.setBypassCSP", {"enabled": True})
        page.evaluate(AXE.read_text() + ";0")
        found = page.evaluate("axe.run()")
        wrong = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]
        assert wrong == [], page.url
        assert found["passes"]

    return check
