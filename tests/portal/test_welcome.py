# SPDX-License-Identifier: Apache-2.0
"""The first start of a service, in a browser: its own password, a vault, a recovery kit that has to be confirmed, and a
first point."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from keepstone.cli import main
from keepstone.crypto import generate_identity, open_kit
from keepstone.errors import WrongKey
from tests.portal.house import House, opened

pytestmark = pytest.mark.portal
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
OWN = "correct horse battery"
Browse = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A service that nobody has set up."""
    with opened(tmp_path_factory.mktemp("fresh")) as made:
        yield made


def log_in(page: Page, house: House, name: str = "admin") -> None:
    page.goto("/portal/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(house.passwords[name])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(re.compile(r"/portal/(welcome)?$"))


def step(page: Page, title: str) -> None:
    """That the wizard is there by itself."""
    expect(page.locator(".steps [aria-current]")).to_contain_text(title)


def endings(kit: Path, key: Path) -> tuple[str, str]:
    """What somebody reads who opens both files with an editor."""
    lines = kit.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("-----END"))
    return lines[end - 1][-8:], key.read_text().splitlines()[0].partition(";")[0][-8:]


def test_from_the_first_login_to_the_first_point(
    house: House, browse: Browse, faults: list[str], tmp_path: Path
) -> None:
    elsewhere = browse().new_page()
    log_in(elsewhere, house)
    page = browse(accept_downloads=True).new_page()
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    log_in(page, house)
    page.goto("/portal/")
    page.wait_for_url("**/portal/welcome")  # the overview leads there

    step(page, "Administrator")
    page.get_by_label("Your password until now").fill(house.passwords["admin"])
    page.get_by_label("New password").fill(OWN)
    page.get_by_label("The new one once more").fill(OWN)
    page.get_by_role("button", name="Change your password").click()
    step(page, "Where data lies")
    assert not any(word in address for address in addresses for word in (OWN, OWN.replace(" ", "+"), "horse"))
    elsewhere.goto("/portal/items")
    elsewhere.wait_for_url("**/portal/login*")
    house.passwords["admin"] = OWN

    expect(page.get_by_text(str(house.service.root), exact=True)).to_be_visible()
    page.get_by_label("Vault").fill("first")
    page.get_by_label("Soft delete").fill("21")
    page.get_by_role("button", name="Make the vault").click()
    step(page, "Keys and recovery kit")
    (vault,) = house.run("vault", "list")
    assert vault["properties"]["securitySettings"]["softDeleteSettings"]["softDeleteRetentionPeriodInDays"] == 21

    kit, key = tmp_path / "kit.age", tmp_path / "key.txt"
    for button, file in (("Download the recovery kit of first", kit), ("Download the recovery key", key)):
        for _ in range(2):  # as often as somebody likes
            with page.expect_download() as download:
                page.get_by_role("button", name=button).click()
            download.value.save_as(file)
    opened = open_kit(kit.read_bytes(), identity=key.read_text())
    assert opened.description.endswith("/vaults/first")
    with pytest.raises(WrongKey):
        open_kit(kit.read_bytes(), identity=generate_identity()[0])
    (store,) = (house.service.root / "vaults").iterdir()
    assert opened.keyring.store_id.hex() == store.name
    secret = next(line for line in key.read_text().splitlines() if line.startswith("AGE-SECRET-KEY"))
    assert secret not in page.content()
    assert not any(secret in address for address in addresses)
    log = house.service.log.read_text()
    assert "'admin' took the recovery kit of vault 'first'" in log
    assert "'admin' took the recovery key" in log
    assert secret not in log

    page.goto("/portal/")
    expect(page.get_by_text("was never confirmed")).to_be_visible()
    page.get_by_role("link", name="Take the kit and confirm it").click()
    right = endings(kit, key)
    confirm(page, right[0], "wrongone")
    expect(page.get_by_role("alert").filter(has_text="does not end with 'wrongone'")).to_be_visible()
    assert [one for one in faults if "400" in one] == faults
    faults.clear()
    assert house.run("vault", "recovery-kit", "list")[0]["properties"]["isConfirmed"] is False
    page.goto("/portal/security")
    expect(page.get_by_text("was never confirmed")).to_be_visible()

    log_in(page, house)
    page.goto("/portal/welcome")  # goes on where it was left
    step(page, "Keys and recovery kit")
    confirm(page, *right)
    expect(page.get_by_text("counts as kept")).to_be_visible()
    assert house.run("vault", "recovery-kit", "list")[0]["properties"]["confirmedBy"] == "admin"
    for path in ("/portal/", "/portal/security"):
        page.goto(path)
        expect(page.get_by_text("was never confirmed")).to_have_count(0)

    page.goto("/portal/welcome")
    step(page, "First item")
    page.get_by_role("button", name="Protect the demo folder").click()
    page.get_by_role("button", name="Back up now").click()
    page.wait_for_url("**/portal/job?*")
    expect(page.locator("#state").get_by_text("Completed", exact=True)).to_be_visible()
    page.goto("/portal/welcome")
    expect(page.get_by_text("has its first point")).to_be_visible()
    (item,) = house.run("item", "list")
    target = tmp_path / "restored"
    house.run("restore", "files", "latest", "-i", item["properties"]["friendlyName"], "--target", target)
    source = Path(item["properties"]["friendlyName"])
    assert (target / "writer.py").read_bytes() == (source / "writer.py").read_bytes()
    assert len(points_of(store, kit, key)) == 1


def confirm(page: Page, kit: str, key: str) -> None:
    page.get_by_label("The last 8 characters of the kit").fill(kit)
    page.get_by_label("The last 8 characters of the key's recipient").fill(key)
    page.get_by_label("Both files are kept away").check()
    page.get_by_role("button", name="Confirm the recovery kit").click()


def points_of(store: Path, kit: Path, key: Path) -> list[object]:
    """Of a store, by the two files alone."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        ended = main(["store", "list", "--store", str(store), "--kit", str(kit), "--kit-identity", str(key), "--json"])
    assert ended == 0
    found = json.loads(out.getvalue())
    points = found["points"] if isinstance(found, dict) else found
    assert isinstance(points, list)
    return points


def some_vault(house: House) -> str:
    """The id of one, which is made where there is none."""
    if not house.run("vault", "list"):
        house.run("group", "create", "-n", "other")
        house.run("vault", "create", "-g", "other", "-n", "other")
    return str(house.run("vault", "list")[0]["id"])


def test_every_step_is_accessible(house: House, browse: Browse, accessible: Callable[[Page], None]) -> None:
    some_vault(house)
    page = browse().new_page()
    log_in(page, house)
    for number in range(1, 5):
        page.goto(f"/portal/welcome?step={number}")
        page.locator("details summary").click()
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            accessible(page)


def test_who_may_not_set_up_is_not_led_there(house: House, browse: Browse) -> None:
    """Nor does he get a file by asking for it; a box that is not ticked is not enough."""
    house.user("contributor", "Contributor")
    page = browse().new_page()
    log_in(page, house, "contributor")
    page.goto("/portal/welcome")
    page.wait_for_url("**/portal/")
    headers = {"Origin": house.url}
    said = page.request.post("/portal/do/download-key", form={"once": "x" * 20, "id": ""}, headers=headers)
    assert said.status == 403
    assert "AGE-SECRET" not in said.text()

    vault = some_vault(house)
    owner = browse(java_script_enabled=False).new_page()
    log_in(owner, house)
    sent: dict[str, str | float | bool] = {"once": "y" * 20, "id": vault, "kit": "a" * 8, "key": "b" * 8}
    said = owner.request.post("/portal/do/confirm-kit", form=sent, headers=headers)
    assert said.status == 400
    assert "say that both files are kept away" in said.text()
