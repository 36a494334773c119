# SPDX-License-Identifier: Apache-2.0
"""The overview and the page of an item, over half a year that was written into the database (`reported.py`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.portal.house import HOSTILE, House
from tests.portal.reported import Records, Written, reported

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def written(house: House) -> Iterator[Written]:
    with reported(house, "looked-at") as found:
        yield found


def figure(page: Page, group: str, title: str) -> str:
    """What a tile says."""
    section = page.locator("section").filter(has=page.get_by_role("heading", name=group))
    return section.get_by_role("listitem").filter(has_text=re.compile(f"^{title}")).locator("strong").inner_text()


def test_tiles_say_what_there_is_and_lead_to_it(house: House, written: Written, enter: Enter) -> None:
    page = enter("reader")
    said = house.run("overview")["properties"]

    expect(page.locator(".proof")).to_contain_text("Proved restorable 2 days ago")
    assert figure(page, "Protected items", "Healthy") == str(said["items"]["Healthy"])
    assert figure(page, "Protected items", "Machines without") == str(said["virtualMachines"]["unprotected"])
    assert figure(page, "Alerts", "Critical") == str(said["alerts"]["Sev0"])
    assert figure(page, "Jobs", "Completed") == str(said["jobs"]["Completed"])
    assert figure(page, "Storage", "Stored").endswith("GiB")

    page.get_by_role("link", name=re.compile("^Healthy")).click()
    page.wait_for_url("**/portal/items?health=Healthy")
    expect(page.locator("select[name=health]")).to_have_value("Healthy")
    expect(page.get_by_role("link", name="looked-at", exact=True)).to_be_visible()
    page.go_back()
    page.get_by_role("link", name=re.compile("^Completed")).click()
    page.wait_for_url("**/portal/jobs?status=Completed&since=day")
    expect(page.locator("select[name=since]")).to_have_value("day")
    rows = page.locator("tbody tr").count()
    assert rows == said["jobs"]["Completed"]
    page.go_back()
    page.locator(".proof").click()
    page.wait_for_url("**/portal/drills")


def test_every_tile_leads_somewhere(written: Written, enter: Enter) -> None:
    page = enter()
    addresses = [link.get_attribute("href") or "" for link in page.locator(".tile a, a.proof").all()]
    assert len(addresses) >= 13
    for address in addresses:
        response = page.goto(address)
        assert response is not None
        assert response.status == 200, address


def test_nobody_sees_figures_of_others(written: Written, enter: Enter) -> None:
    page = enter("nobody")
    expect(page.get_by_text("There is no vault that you may see.")).to_be_visible()
    assert page.locator(".tile").count() == 0


def test_the_days_of_an_item(house: House, written: Written, enter: Enter) -> None:
    page = enter("reader")
    page.goto(f"/portal/item?id={written.machine}")

    said = page.get_by_text("days of the last 26 weeks have points")
    expect(said).to_contain_text("on 3 days runs of the policy made none")
    square = page.locator("svg.heat g").filter(has_text=f"{written.missing}: no point; 1 missing")
    assert square.locator("path.missed").count() == 1  # a cross, and not a colour alone
    assert page.locator("svg.heat g path.missed").count() == 3
    page.get_by_text("The days on which points are missing").click()
    expect(page.get_by_role("listitem").filter(has_text=written.missing)).to_be_visible()
    assert page.get_by_role("img", name="Points by day").count() == 1
    kept = re.match(r"(\d+) of (\d+) runs", page.locator("dd").filter(has_text="made their point in time").inner_text())
    assert kept is not None
    assert int(kept[2]) - int(kept[1]) == 3
    expect(page.locator("dd").filter(has_text="Healthy")).to_contain_text("Its newest point is of")
    expect(page.get_by_role("row").filter(has_text="Did not come up")).to_be_visible()


def test_growth_is_a_chart_and_a_table(written: Written, enter: Enter) -> None:
    page = enter()
    page.goto(f"/portal/item?id={written.machine}")

    expect(page.locator(".chart canvas")).to_be_visible()
    drawn = page.locator(".chart canvas").evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(one => one)"
    )
    assert drawn
    page.get_by_text("The numbers of the chart").click()
    rows = page.locator("#growth-table tbody tr")
    assert rows.count() in (156, 157)  # it may be late in the day
    expect(rows.last).to_contain_text("GiB")


def test_an_item_of_files_has_no_drills_and_says_what_it_costs(house: House, enter: Enter) -> None:
    house.run("vault", "usage")
    page = enter()
    page.goto(f"/portal/item?id={house.item}")

    assert page.get_by_role("heading", name="Restore drills").count() == 0
    expect(page.locator("dd").filter(has_text="that nothing else needs")).to_contain_text("KiB")


def test_points_come_page_by_page(house: House, written: Written, enter: Enter) -> None:
    page = enter()
    page.goto(f"/portal/item?id={written.machine}")
    section = page.locator("section").filter(has=page.get_by_role("heading", name="Recovery points"))
    first = section.locator("tbody tr").count()
    newest = section.locator("tbody th").first.inner_text()

    page.get_by_role("link", name="Next page").click()

    page.wait_for_url("**/portal/item?*from=*")
    assert first == 200
    assert section.locator("tbody th").first.inner_text() < newest
    shown = first + section.locator("tbody tr").count()
    assert shown == len(house.run("recoverypoint", "list", "-i", "looked-at"))


def test_without_a_script_all_can_be_read(written: Written, enter: Enter) -> None:
    page = enter(java_script_enabled=False)
    assert page.locator(".tile").count() >= 13
    page.goto(f"/portal/item?id={written.machine}")

    assert page.locator("svg.heat g").count() > 170
    page.get_by_text("The numbers of the chart").click()
    expect(page.locator("#growth-table")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(written: Written, enter: Enter, accessible: Callable[[Page], None], scheme: str) -> None:
    page = enter(color_scheme=scheme)
    for path in ("/", f"/item?id={written.machine}"):
        page.goto(f"/portal{path}")
        accessible(page)


def test_names_are_text(house: House, enter: Enter) -> None:
    """A folder that is called as hostile as a folder can be."""
    name = HOSTILE.replace("/", "")
    folder = house.data.parent / "hostile" / name
    folder.mkdir(parents=True)
    house.run("protection", "enable", "--path", folder)
    with Records(house) as records:
        identity = next(
            one["id"] for one in house.run("item", "list") if one["properties"]["friendlyName"] == str(folder)
        )
        records.points(records.item(identity), 3)
    page = enter()
    page.goto(f"/portal/item?id={identity}")

    expect(page.get_by_role("heading", name=str(folder))).to_be_visible()
    expect(page.locator(".chart canvas")).to_be_visible()
