# SPDX-License-Identifier: Apache-2.0
"""Pictures of the portal in docs/portal/, made by a browser from a service that runs.

python scripts/screenshots.py
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright

from keepstone.portal.navigation import ENTRIES
from keepstone.vault.alerts import Kind
from tests.portal.conftest import CHROMIUM, FLAGS
from tests.portal.house import House, opened
from tests.portal.reported import Records

__all__ = ["main"]

PICTURES = Path(__file__).parents[1] / "docs" / "portal"
SIZE = {"width": 1280, "height": 800}
SCREEN = "<body style='margin:0;background:#000;color:#bbb;font:16px monospace'><pre>{}</pre>"
LOGIN = "Debian GNU/Linux 13 web tty1\n\nweb login: "
ORDERS = "day,number\n2026-01-05,17\n2026-01-06,21\n"
Prepare = Callable[[Page], None]


def entered(browser: Browser, house: House, scheme: str) -> Page:
    """As the administrator."""
    context = browser.new_context(
        base_url=house.url, ignore_https_errors=True, viewport=SIZE, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto("/portal/login")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(house.passwords["admin"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/portal/**")
    return page


def peopled(house: House, folder: Path, screen: bytes) -> dict[str, str]:
    """A vault as it is after half a year: a folder with two points, two machines, one of which has been ill for days,
    drills and an alert. The pages of single things, by the names of their pictures."""
    shop = folder / "shop"
    (shop / "invoices").mkdir(parents=True)
    for number in range(40):
        (shop / "invoices" / f"{number + 1001}.txt").write_text(f"invoice {number + 1001}\n" * 200)
    (shop / "orders.csv").write_text(ORDERS)
    house.run("group", "create", "-n", "production")
    house.vault = house.run("vault", "create", "-g", "production", "-n", "main")["id"]
    house.run("protection", "enable", "--path", shop)
    house.run("protection", "backup-now", "-i", shop)
    (shop / "orders.csv").write_text(ORDERS.replace("21", "24") + "2026-01-07,19\n")
    (shop / "invoices" / "1041.txt").write_text("invoice 1041\n")
    house.run("protection", "backup-now", "-i", shop)
    house.run("vault", "usage", "-g", "production", "-v", "main")
    after, before = (one["id"] for one in house.run("recoverypoint", "list", "-i", shop))
    files = after.rpartition("/recoveryPoints")[0]
    policy = house.run("policy", "show", "-n", "DefaultPolicy")["properties"]
    policy["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 180
    house.run("policy", "set", "-n", "DefaultPolicy", "--policy", json.dumps(policy))
    with Records(house, "web") as records:
        web, mail = (records.machine(name, group="production") for name in ("web", "mail"))
        records.machine("old-intranet", group="production", protect=False)
        for identity, missing in ((web, {5, 20, 21, 60}), (mail, {0, 1, 2, 3, 90})):
            item = records.item(identity)
            records.aged(item, 200)
            records.points(item, 160, frozenset(missing), kept=180)
        records.drill(records.item(web), timedelta(days=9), "none", b"", "")
        drill = records.drill(records.item(web), timedelta(days=2), "login", screen, LOGIN, "it has no file system")
        alert = records.alert("a backup of web failed: the disk of its host is full", Kind.JOB_FAILURE, "web")
    job = house.run("job", "list", "--operation", "Backup")[0]["id"]
    return {
        "item": f"/item?id={web}",
        "point": f"/point?id={after}",
        "diff": f"/diff?id={after}&before={before.rpartition('/')[2]}&path=orders.csv",
        "restore": f"/restore?find=orders*&item={files}",
        "restore-files": f"/do/restore-files?id={after}&path=orders.csv&to=original",
        "drill": f"/drill?id={web}/drills/{drill}",
        "alert": f"/alert?id={quote(alert)}",
        "job": f"/job?id={job}",
        "policy": f"/policy?id={house.vault}/backupPolicies/DefaultPolicy",
        "what-if": f"/do/policy-save?id={house.vault}/backupPolicies/DefaultPolicy",
        "stop": f"/do/stop?id={files}",
        "delete-data": f"/do/delete-data?id={web}",
        "protect-path": f"/do/protect-path?id={house.vault}",
        "vault": f"/settings/vault?id={house.vault}",
        "usage": "/reports?kind=usage",
        "growth": "/reports?kind=growth",
        "rpo": "/reports?kind=rpo",
        "welcome": "/welcome",
    }


def fewer_days(page: Page) -> None:
    """Every point would be kept for ten days, and one of a week for twelve weeks; what would become of those that there
    are is drawn."""
    page.get_by_label("Every point: kept for").fill("10")
    page.get_by_label("One a week", exact=True).check()
    page.locator(".fates .lost strong").filter(has_text=re.compile("[1-9]")).wait_for()


PREPARED: dict[str, Prepare] = {"what-if": fewer_days}
"""What is done before the picture is taken."""


def main() -> int:
    """Make them all, light and dark."""
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="srv-") as folder,
        opened(Path(folder) / "service") as house,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        blank = browser.new_page(viewport={"width": 720, "height": 400})
        blank.set_content(SCREEN.format(LOGIN))
        pages = {entry.path.strip("/") or "overview": entry.path for entry in ENTRIES}
        pages |= peopled(house, Path(folder), blank.screenshot())
        for old in PICTURES.glob("*.png"):
            old.unlink()
        for scheme in ("light", "dark"):
            page = entered(browser, house, scheme)
            for name, path in pages.items():
                page.goto(f"/portal{path}")
                page.wait_for_load_state()
                PREPARED.get(name, lambda _: None)(page)
                page.screenshot(path=PICTURES / f"{name}-{scheme}.png")
        browser.close()
    print(f"{len(list(PICTURES.glob('*.png')))} pictures are in {PICTURES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
