# SPDX-License-Identifier: Apache-2.0
"""Pictures of the portal in docs/portal/, made by a browser from a service that runs.

python scripts/screenshots.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright

from keepstone.portal.navigation import ENTRIES
from tests.portal.conftest import CHROMIUM, FLAGS
from tests.portal.house import House, furnished

__all__ = ["main"]

PICTURES = Path(__file__).parents[1] / "docs" / "portal"
SIZE = {"width": 1280, "height": 800}


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


def pages(house: House) -> dict[str, str]:
    """The views, by the names of their pictures."""
    found = {entry.path.strip("/") or "overview": entry.path for entry in ENTRIES}
    job = house.run("job", "list", "--operation", "Backup")[0]["id"]
    found |= {
        "item": f"/item?id={house.item}",
        "job": f"/job?id={job}",
        "stop": f"/do/stop?id={house.item}",
        "delete-data": f"/do/delete-data?id={house.item}",
        "protect-path": f"/do/protect-path?id={house.vault}",
    }
    return found


def main() -> int:
    """Make them all, light and dark."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, furnished(Path(folder)) as house, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for scheme in ("light", "dark"):
            page = entered(browser, house, scheme)
            for name, path in pages(house).items():
                page.goto(f"/portal{path}")
                page.wait_for_load_state()
                page.screenshot(path=PICTURES / f"{name}-{scheme}.png")
        browser.close()
    print(f"{len(list(PICTURES.glob('*.png')))} pictures are in {PICTURES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
