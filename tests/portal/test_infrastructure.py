# SPDX-License-Identifier: Apache-2.0
"""Machines, hypervisors, what they have that could be protected, and the operations of the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from playwright.sync_api import Page, expect

from tests.portal.house import House

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]


def test_a_folder_is_protected(house: House, enter: Enter, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "one").write_text("1")
    page = enter()
    page.get_by_role("link", name="Protectable items").click()
    page.get_by_role("link", name="Protect files or a disk").click()
    page.get_by_label("Path").fill(str(tmp_path / "kept"))
    page.get_by_label("Leave out").fill("*.tmp\n.cache/")
    page.get_by_label("Leave out").blur()
    same = page.get_by_label("keepstone", exact=True)
    expect(same).to_contain_text("--exclude '*.tmp' --exclude .cache/")

    page.get_by_role("button", name="Protect files or a disk").click()

    page.wait_for_url("**/portal/job?*")
    found = [one for one in house.run("item", "list") if one["properties"]["friendlyName"] == str(tmp_path / "kept")]
    assert found[0]["properties"]["exclude"] == ["*.tmp", ".cache/"]
    house.run("protection", "disable", "-i", tmp_path / "kept", "--delete-backup-data", "true", "-y")


def test_what_is_wrong_is_said_and_the_form_kept(enter: Enter, house: House, faults: list[str]) -> None:
    page = enter()
    page.goto(f"/portal/do/protect-path?id={house.vault}")
    page.get_by_label("Path").fill("<b>relative</b>")
    page.get_by_label("Leave out").fill("kept words")
    page.get_by_label("Leave out").blur()
    expect(page.locator("#plan")).to_contain_text("'<b>relative</b>' is no absolute path")

    page.get_by_role("button", name="Protect files or a disk").click()

    expect(page.get_by_role("alert").filter(has_text="is no absolute path")).to_be_visible()
    assert page.get_by_label("Leave out").input_value() == "kept words"
    assert page.get_by_label("Path").input_value() == "<b>relative</b>"
    assert "400" in faults.pop()


def test_credentials_are_a_file_whose_key_is_nowhere_else(house: House, enter: Enter) -> None:
    page = enter()
    page.get_by_role("link", name="Infrastructure").click()
    page.get_by_role("link", name="Credentials for a machine").click()
    page.get_by_label("Name").fill("web7")
    assert "PRIVATE" not in page.content()
    with page.expect_download() as begun:
        page.get_by_role("button", name="Credentials for a machine").click()

    assert begun.value.suggested_filename == "web7.json"
    told = json.loads(begun.value.path().read_text())
    assert set(told) == {"url", "ca", "vault", "name", "thumbprint", "certificate", "key", "until"}
    assert (told["vault"], told["url"], told["name"]) == (house.vault, house.url, "web7")
    assert load_pem_private_key(told["key"].encode(), None)


def test_a_hypervisor_is_registered_and_looked_at(house: House, enter: Enter, tmp_path: Path) -> None:
    page = enter()
    page.goto(f"/portal/do/register-hypervisor?id={house.vault}")
    page.get_by_label("Name").fill("lab")
    page.get_by_label("What runs the machines").select_option("qemu")
    page.get_by_label("Where").fill(str(tmp_path))
    page.get_by_role("button", name="Register a hypervisor").click()

    row = page.get_by_role("row").filter(has_text="lab")
    expect(row).to_contain_text(str(tmp_path))
    row.get_by_role("link", name="Unregister").click()
    expect(page.get_by_role("heading", name="What this takes with it")).to_be_visible()
    page.get_by_role("button", name="Unregister").click()
    expect(page.get_by_role("status")).to_contain_text("lab is unregistered")
    assert "lab" not in json.dumps(house.run("hypervisor", "list"))


def test_a_reader_sees_machines_and_may_do_nothing(enter: Enter) -> None:
    page = enter("reader")
    page.get_by_role("link", name="Infrastructure").click()
    expect(page.get_by_role("heading", name="Machines")).to_be_visible()
    assert page.locator("main a[href*='/do/']").count() == 0
    assert page.get_by_role("link", name="Protectable items").count() == 0  # which a Backup Reader may not list


def test_the_operations_can_be_read_and_searched(enter: Enter) -> None:
    page = enter()
    page.get_by_role("link", name="API").click()
    whole = page.locator("tbody tr").count()
    assert whole > 200

    page.get_by_label("Find").press_sequentially("backup protection backup-now")

    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("/protectedItems/{item}/backup")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(house: House, enter: Enter, accessible: Callable[[Page], None], scheme: str) -> None:
    page = enter(color_scheme=scheme)
    paths = ["/protectable", "/infrastructure", "/api"]
    paths += [f"/do/{name}?id={house.vault}" for name in ("protect-path", "credentials", "register-hypervisor")]
    for path in paths:
        page.goto(f"/portal{path}")
        accessible(page)
