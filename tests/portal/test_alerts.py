# SPDX-License-Identifier: Apache-2.0
"""Alerts: found by a filter, acknowledged, closed. They are raised by the function that raises all of them, in the
database of the service that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from keepstone.vault.alerts import Kind
from tests.portal.house import HOSTILE, House
from tests.portal.reported import Records

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]


@pytest.fixture
def records(house: House) -> Iterator[Records]:
    with Records(house) as found:
        yield found


def test_a_filter_finds_them(records: Records, enter: Enter) -> None:
    records.alert("the store lost a pack", Kind.STORE_DAMAGED, "filtered")
    records.alert("a restore failed", Kind.RESTORE_FAILURE, "filtered")
    page = enter("reader")
    page.get_by_role("link", name="Alerts", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="Store Damaged").first).to_contain_text("Critical")
    expect(page.get_by_role("row").filter(has_text="Restore Failure").first).to_contain_text(HOSTILE)

    page.locator("select[name=severity]").select_option("Sev0")

    expect(page.get_by_role("row").filter(has_text="Restore Failure")).to_have_count(0)
    expect(page.get_by_role("row").filter(has_text="Store Damaged").first).to_be_visible()
    assert "severity=Sev0" in page.url
    page.locator("select[name=condition]").select_option("Resolved")
    expect(page.get_by_text("None is like this.")).to_be_visible()


def test_an_alert_is_acknowledged_and_closed(records: Records, house: House, enter: Enter) -> None:
    path = records.alert("a job failed", Kind.JOB_FAILURE, "closed")
    page = enter("operator")
    page.goto(f"/portal/alert?id={path}")
    expect(page.get_by_text("see why with")).to_be_visible()  # what to do
    page.get_by_role("link", name="Acknowledge").click()
    name = path.rpartition("/")[2]
    assert f"keepstone alert acknowledge -n {name}" in page.get_by_label("keepstone", exact=True).inner_text()
    assert (
        "changestate?api-version=2024-04-01&newState=Acknowledged" in page.get_by_label("REST", exact=True).inner_text()
    )

    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("It is acknowledged.")).to_be_visible()
    expect(page.get_by_text("Acknowledged, by operator")).to_be_visible()
    expect(page.get_by_role("link", name="Acknowledge")).to_have_count(0)
    page.get_by_role("link", name="Close").click()
    page.get_by_role("button", name="Close").click()

    expect(page.get_by_text("Closed, by operator")).to_be_visible()
    expect(page.get_by_role("list", name="Actions")).to_have_count(0)
    said = house.run("alert", "show", "-n", name)["properties"]["essentials"]
    assert (said["alertState"], said["lastModifiedUserName"]) == ("Closed", "operator")


def test_who_may_only_read_is_not_offered_more(records: Records, house: House, enter: Enter) -> None:
    path = records.alert("a job failed", Kind.JOB_FAILURE, "read")
    house.user("onlooker", "Reader", house.vault)
    page = enter("onlooker")
    page.goto(f"/portal/alert?id={path}")

    expect(page.get_by_role("heading", name="Job Failure")).to_be_visible()
    assert page.get_by_role("list", name="Actions").count() == 0


def test_who_sees_no_vault_sees_no_alert(records: Records, enter: Enter, faults: list[str]) -> None:
    path = records.alert("a job failed", Kind.JOB_FAILURE, "hidden")
    page = enter("nobody")
    page.goto("/portal/alerts")
    expect(page.get_by_text("There are none of the last 30 days.")).to_be_visible()
    response = page.goto(f"/portal/alert?id={path}")
    assert response is not None
    assert response.status == 404
    response = page.goto("/portal/alert?id=/subscriptions/x")
    assert response is not None
    assert response.status == 400
    assert [one for one in faults if "404" in one or "400" in one] == faults
    faults.clear()


def test_who_is_told_is_said(house: House, enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    page = enter("reader")
    page.goto("/portal/alerts")
    expect(page.get_by_text("keepstone alert target add")).to_be_visible()

    monkeypatch.setenv("KEEPSTONE_ALERT_URL", "json://somebody:secret@127.0.0.1:9/hook")
    house.run("alert", "target", "add", "-n", "hook")
    page.goto("/portal/alerts")
    house.run("alert", "target", "remove", "-n", "hook", "--yes")

    told = page.get_by_role("listitem").filter(has_text="hook:")
    expect(told).to_contain_text("127.0.0.1")
    assert "secret" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(records: Records, enter: Enter, accessible: Callable[[Page], None], scheme: str) -> None:
    path = records.alert("a job failed", Kind.JOB_FAILURE, scheme)
    page = enter(color_scheme=scheme)
    for address in ("/alerts", f"/alert?id={path}", f"/do/close-alert?id={path}"):
        page.goto(f"/portal{address}")
        accessible(page)
