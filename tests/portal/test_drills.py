# SPDX-License-Identifier: Apache-2.0
"""Drills. What they found out is put into the database of the service by the function that the job calls: that a drill
comes about is proved in tests/machines/test_drill.py, with a real guest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.portal.house import HOSTILE, House
from tests.portal.reported import PICTURE, Records, Written, reported

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def written(house: House) -> Iterator[Written]:
    with reported(house, "drilled") as found:
        yield found


def test_every_machine_with_its_newest_drill(house: House, written: Written, enter: Enter) -> None:
    with Records(house) as records:
        records.machine("untried")
        failing = records.machine("failing")
        item = records.item(failing)
        records.points(item, 3)
        records.drill(item, timedelta(days=3), "none", b"")
    page = enter("reader")
    page.get_by_role("link", name="Drills", exact=True).click()

    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="drilled", exact=True))
    expect(row).to_contain_text("Came up: it asks for a login")
    expect(row).to_contain_text("12.2 s")
    picture = row.get_by_role("img", name="Screen of drilled in its newest drill")
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("picture => picture.naturalWidth") == 1
    failed = page.get_by_role("row").filter(has=page.get_by_role("link", name="failing", exact=True))
    expect(failed).to_contain_text("Did not come up")
    assert failed.get_by_role("img").count() == 0
    never = page.get_by_role("row").filter(has=page.get_by_role("link", name="untried", exact=True))
    expect(never).to_contain_text("it has no point yet")
    assert page.get_by_role("link", name=str(house.data), exact=True).count() == 0  # files need none
    expect(page.locator(".proof")).to_contain_text("Proved restorable 2 days ago")
    listed = house.run("report", "drills")
    assert page.locator("tbody tr").count() == len(listed)


def test_all_that_a_drill_found_out(house: House, written: Written, enter: Enter) -> None:
    page = enter("reader")
    page.goto(f"/portal/drill?id={written.drill}")

    expect(page.get_by_role("heading", name="Drill of drilled")).to_be_visible()
    expect(page.locator("dd").filter(has_text="12.2 s")).to_contain_text("the whole drill took 31.5 s")
    expect(page.get_by_role("row").filter(has_text="unreadable")).to_contain_text(HOSTILE)
    console = page.locator("pre")
    assert console.inner_text() == f"{HOSTILE}\nweb login: "
    picture = page.get_by_role("img", name="Screen of drilled as the drill ended: its serial console asks for a login")
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("picture => picture.naturalWidth") == 1
    got = page.request.get(f"/portal/drill/screenshot?id={written.drill}")
    assert got.body() == PICTURE
    assert got.headers["content-type"] == "image/png"


def test_a_drill_that_is_none(house: House, written: Written, enter: Enter, faults: list[str]) -> None:
    page = enter("reader")
    for path, status in (
        (f"{written.machine}/drills/none", 404),
        (written.machine, 400),
        (f"{written.machine}/drills/a/b", 400),
        (f"{written.machine}/recoveryPoints/1", 400),
    ):
        for view in ("drill", "drill/screenshot"):
            assert page.request.get(f"/portal/{view}?id={path}").status == status, (view, path)


def test_who_may_not_see_the_vault(written: Written, enter: Enter) -> None:
    page = enter("nobody")
    assert page.request.get(f"/portal/drill?id={written.drill}").status == 403
    assert page.request.get(f"/portal/drill/screenshot?id={written.drill}").status == 403
    page.goto("/portal/drills")
    assert page.get_by_role("link", name="drilled").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(written: Written, enter: Enter, accessible: Callable[[Page], None], scheme: str) -> None:
    page = enter(color_scheme=scheme)
    for address in ("/drills", f"/drill?id={written.drill}"):
        page.goto(f"/portal{address}")
        accessible(page)
