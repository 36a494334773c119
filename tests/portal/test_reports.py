# SPDX-License-Identifier: Apache-2.0
"""Reports, and what spreadsheets get."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from keepstone.portal.rendering import octets
from keepstone.portal.sheets import sheet
from tests.portal.house import House
from tests.portal.reported import Written, reported

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]
KINDS = ("usage", "growth", "rpo", "cost&price=0.02&label=EUR")


@pytest.fixture(scope="module")
def written(house: House) -> Iterator[Written]:
    with reported(house, "told-of") as found:
        yield found


def rows(page: Page, address: str) -> list[list[str]]:
    """A file that the portal sends, as a spreadsheet reads it."""
    response = page.request.get(f"/portal{address}")
    assert response.status == 200
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="[\w-]+\.csv"', response.headers["content-disposition"])
    return list(csv.reader(io.StringIO(response.body().decode(), newline="")))


def test_usage_is_counted_while_somebody_waits(house: House, written: Written, enter: Enter) -> None:
    page = enter("reader")
    page.goto("/portal/reports")
    found = house.run("vault", "usage")
    page.goto("/portal/reports?by=item")

    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=str(house.data), exact=True))
    said = next(one["properties"] for one in found if one["properties"]["friendlyName"] == str(house.data))
    expect(row.get_by_role("cell").nth(4)).to_have_text(octets(said["uniqueBytes"]))

    page.locator("select[name=by]").select_option("policy")
    expect(page.locator("#report").get_by_role("link", name="FilesPolicy")).to_be_visible()
    page.locator("select[name=by]").select_option("vault")
    expect(page.locator("#report").get_by_role("link", name="v1")).to_be_visible()
    heading, first, *_ = rows(page, "/reports/usage.csv?by=item")
    assert heading[:3] == ["vault", "item", "policy"]
    assert first[0] == "v1"
    assert [str(said["uniqueBytes"])] == [
        one[6] for one in rows(page, "/reports/usage.csv") if one[1] == str(house.data)
    ]


def test_what_is_being_counted_says_so(house: House, enter: Enter) -> None:
    """A vault that nobody asked for: its first page has no figures, but the job that makes them."""
    made = house.run("vault", "create", "-g", "g1", "-n", "fresh")["id"]
    try:
        page = enter()
        page.goto(f"/portal/reports?by=vault&vault={made}")
        status = page.get_by_role("status").filter(has_text="The usage of fresh is being counted")
        seen = status.count()
        page.wait_for_timeout(100)
        assert seen == 1
        status.get_by_role("link", name="its job").click()
        expect(page.get_by_role("heading", name=re.compile("CountUsage"))).to_be_visible()
    finally:
        house.run("vault", "delete", "-g", "g1", "-n", "fresh", "--yes")


def test_growth_is_a_line_with_an_end(house: House, written: Written, enter: Enter) -> None:
    page = enter("reader")
    page.goto("/portal/reports?kind=growth&days=30")
    found = house.run("report", "growth", "--days", "30")

    expect(page.locator(".chart canvas")).to_be_visible()
    expect(page.locator("dd").filter(has_text="if it goes on like this")).to_contain_text(re.compile(r"about 20\d\d-"))
    page.locator("select[name=days]").select_option("90")
    expect(page.locator("#growth-table tbody tr")).to_have_count(90)
    expect(page.locator(".chart canvas")).to_be_visible()  # drawn anew
    heading, *days = rows(page, "/reports/growth.csv?days=30")
    assert heading == ["day", "points", "added bytes", "stored bytes"]
    assert [[one["day"], str(one["storedBytes"])] for one in found] == [[day[0], day[3]] for day in days]


def test_rpo_by_item(house: House, written: Written, enter: Enter) -> None:
    page = enter("reader")
    page.goto("/portal/reports?kind=rpo")

    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="told-of", exact=True))
    said = re.search(r"(\d+) of (\d+) \((\d+) %\)", row.inner_text())
    assert said is not None
    kept, expected = int(said[1]), int(said[2])
    assert expected - kept == 3
    assert int(said[3]) == 100 * kept // expected
    (line,) = [one for one in rows(page, "/reports/rpo.csv") if one[1] == "told-of"]
    assert (line[3], line[6], line[7]) == ("Healthy", str(expected), str(kept))


def test_cost_is_by_the_price_that_somebody_names(house: House, enter: Enter) -> None:
    found = house.run("vault", "usage")
    page = enter("reader")
    page.goto("/portal/reports?kind=cost")
    expect(page.get_by_text("Keepstone knows no prices")).to_be_visible()
    page.get_by_label("Price of a GiB").fill("1000")
    page.get_by_label("Currency").fill("<b>")
    page.get_by_label("Currency").press("Tab")

    said = next(one["properties"] for one in found if one["properties"]["friendlyName"] == str(house.data))
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=str(house.data), exact=True))
    cost = 1000 * said["uniqueBytes"] / 2**30
    expect(row.get_by_role("cell").last).to_have_text(f"{cost:.2f} <b>")
    (line,) = [one for one in rows(page, "/reports/cost.csv?price=1000&label==EUR") if one[1] == str(house.data)]
    assert float(line[4]) == pytest.approx(cost, abs=1e-5)
    assert line[5] == "'=EUR"


@pytest.mark.parametrize("price", ["much", "-1", "nan", "1e99"])
def test_a_price_that_is_none(enter: Enter, price: str) -> None:
    page = enter()
    response = page.request.get(f"/portal/reports?kind=cost&price={price}")
    assert response.status == 400
    assert "write a number such as 0.02" in response.text()
    assert page.request.get(f"/portal/reports/cost.csv?price={price}").status == 400
    assert page.request.get("/portal/reports/cost.csv").status == 400


def test_files_are_for_who_may_see(house: House, enter: Enter) -> None:
    page = enter("nobody")
    for kind in ("usage", "growth", "rpo"):
        told = rows(page, f"/reports/{kind}.csv?vault={house.vault}")
        assert all(not any(map(int, day[1:])) for day in told[1:]) if kind == "growth" else len(told) == 1
    page.context.clear_cookies()
    assert "Log in" in page.request.get("/portal/reports/usage.csv").text()


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@given(st.lists(st.tuples(st.text(), st.sampled_from(["", *FORMULAS]), st.integers()), max_size=20))
def test_no_cell_is_a_formula(cells: list[tuple[str, str, int]]) -> None:
    given = [(f"{begin}{text}", number) for text, begin, number in cells]
    answer = sheet("name", ("text", "number"), given)
    text = b"".join(answer.reply.body).decode()

    heading, *found = list(csv.reader(io.StringIO(text, newline="")))
    assert heading == ["text", "number"]
    assert [int(number) for _, number in found] == [number for _, number in given]
    for (wanted, _), (cell, _) in zip(given, found, strict=True):
        assert not cell.startswith(FORMULAS)
        assert cell.removeprefix("'") == wanted.removeprefix("'").encode("utf-8", "replace").decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    house: House, written: Written, enter: Enter, accessible: Callable[[Page], None], scheme: str
) -> None:
    house.run("vault", "usage")
    page = enter(color_scheme=scheme)
    for kind in KINDS:
        page.goto(f"/portal/reports?kind={kind}")
        accessible(page)
