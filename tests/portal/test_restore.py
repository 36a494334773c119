# SPDX-License-Identifier: Apache-2.0
"""Restore: points are browsed, files downloaded, found by their names, compared and restored."""

from __future__ import annotations

import io
import shlex
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect

from keepstone.control.sources import item_name
from tests.cli.services import until
from tests.machines.guest import Guest, initramfs, make_disk
from tests.portal.house import HOSTILE, House

pytestmark = pytest.mark.portal
Enter = Callable[..., Page]
ODD = "back\\slash\nand line"
PATIENCE = 60_000
LARGE = 64 << 20


class Twice:
    """A folder of this file's own, with two points: `notes.txt` changes in between, `new` comes and `old` goes."""

    def __init__(self, house: House, folder: Path) -> None:
        self.folder = folder
        (folder / "many").mkdir(parents=True)
        for number in range(120):
            (folder / "many" / f"bulk{number:03}.dat").write_text(str(number))
        (folder / "notes.txt").write_text("one\ntwo\nthree\n")
        (folder / "old").touch()
        with (folder / "large").open("wb") as file:
            file.truncate(LARGE)
        (folder / ODD).write_text("odd")
        house.run("protection", "enable", "--path", folder)
        house.run("protection", "backup-now", "-i", folder)
        (folder / "notes.txt").write_text("one\n2 <b>\nthree\n")
        (folder / "many" / "new").write_text("new")
        (folder / "old").unlink()
        house.run("protection", "backup-now", "-i", folder)
        self.after, self.before = (one["id"] for one in house.run("recoverypoint", "list", "-i", folder))
        self.item = self.after.rpartition("/recoveryPoints")[0]


@pytest.fixture(scope="session")
def twice(house: House, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """It is listed, and so searched, before the house's own folder."""
    base, last = tmp_path_factory.mktemp("restore"), item_name(str(house.data))
    folders = (base / f"twice{number}" for number in count())
    return Twice(house, next(folder for folder in folders if item_name(str(folder)) < last))


@pytest.fixture(scope="session")
def point(house: House) -> str:
    """The oldest point of the house's own folder."""
    return str(house.run("recoverypoint", "list", "-i", house.data)[-1]["id"])


def address(path: str, /, **query: str) -> str:
    return f"/portal{path}?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def downloaded(page: Page, link: Locator) -> bytes:
    with page.expect_download() as begun:
        link.click()
    assert begun.value.failure() is None
    return begun.value.path().read_bytes()


def dry(house: House, page: Page) -> Any:
    """What the command that a page shows would do."""
    program, *words = shlex.split(page.get_by_label("keepstone", exact=True).inner_text())
    assert program == "keepstone"
    return house.run(*words[:2], "--dry-run", *words[2:])


def done(page: Page) -> None:
    """That the page is that of a job, which ends well."""
    page.wait_for_url("**/portal/job?*")
    expect(page.locator("#state").get_by_text("Completed", exact=True)).to_be_visible(timeout=PATIENCE)


def test_a_file_is_browsed_to(house: House, enter: Enter) -> None:
    page = enter("operator")
    page.goto(address("/item", id=house.item))
    page.get_by_role("region", name="Recovery points").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="As it was at")).to_be_visible()
    expect(page.get_by_text("FileSystemConsistent")).to_be_visible()
    page.get_by_role("link", name="deep", exact=True).click()
    page.get_by_role("link", name="er", exact=True).click()
    expect(page.get_by_role("navigation", name="Path").get_by_role("listitem").last).to_have_text("er")

    got = downloaded(page, page.get_by_role("link", name="Download noise.bin"))

    assert got == (house.data / "deep" / "er" / "noise.bin").read_bytes()


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_folder_comes_as_an_archive(house: House, enter: Enter, point: str, form: str) -> None:
    page = enter("operator")
    page.goto(address("/point", id=point, path="deep"))

    got = io.BytesIO(downloaded(page, page.get_by_role("link", name=form, exact=True)))

    name, noise = "deep/er/noise.bin", (house.data / "deep" / "er" / "noise.bin").read_bytes()
    if form == "zip":
        with zipfile.ZipFile(got) as archive:
            assert archive.read(name) == noise
    else:
        with tarfile.open(fileobj=got) as tar:
            file = tar.extractfile(name)
            assert file is not None
            assert file.read() == noise


def test_a_hostile_name_is_text(enter: Enter, point: str) -> None:
    page = enter("operator")
    page.goto(address("/point", id=point))
    shown = HOSTILE.replace("/", "")
    expect(row(page, "onerror").get_by_role("rowheader")).to_have_text(shown)
    assert page.locator("main img").count() == 0
    assert downloaded(page, row(page, "onerror").get_by_role("link", name="Download")) == b"harmless\n"
    page.get_by_label(f"Restore {shown}").check()
    page.get_by_role("button", name="Restore what is chosen").click()
    expect(page.get_by_label("What of it")).to_have_value(shown)


def test_a_name_that_cannot_be_printed(enter: Enter, twice: Twice, house: House, tmp_path: Path) -> None:
    page = enter("operator")
    page.goto(address("/point", id=twice.after))
    line = row(page, "slash")
    expect(line.get_by_role("rowheader")).to_have_text("back\\\\slash\\nand line")
    assert downloaded(page, line.get_by_role("link", name="Download")) == b"odd"
    line.get_by_role("link", name="Versions").click()
    expect(page.get_by_role("rowheader").filter(has_text="slash")).to_have_count(1)
    page.get_by_role("link", name="Restore back").click()
    page.get_by_label("Path").fill(str(tmp_path / "odd"))
    page.get_by_role("button", name="Restore files").click()
    done(page)
    assert [path.name for path in (tmp_path / "odd").iterdir()] == [ODD]


def test_within_a_point(enter: Enter, twice: Twice) -> None:
    page = enter("operator")
    page.goto(address("/point", id=twice.after))
    page.get_by_label("Find in here").fill("bulk01?.dat")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("link", name="Download many/bulk01")).to_have_count(10)

    page.goto(address("/point", id=twice.after, path="many"))
    assert page.get_by_role("link", name="Download ").count() == 100
    assert len(page.content()) < 250_000
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("link", name="Download ")).to_have_count(21)
    page.goto(address("/point", id=twice.after, path="many/nothing"))
    expect(page.get_by_role("main")).to_contain_text("nothing")


def test_the_versions_of_a_file(enter: Enter, twice: Twice) -> None:
    page = enter("operator")
    page.get_by_role("link", name="Restore", exact=True).click()
    page.get_by_label("Path or pattern").fill("notes.*")
    page.get_by_role("button", name="Find").click()
    mine = page.locator("tbody").filter(has_text=str(twice.folder)).get_by_role("row")
    expect(mine).to_have_count(3)  # the item, and two versions, the newer one first
    sizes = [mine.nth(at).get_by_role("cell").first.inner_text() for at in (1, 2)]
    assert sizes == [f"{len(text)} bytes" for text in ("one\n2 <b>\nthree\n", "one\ntwo\nthree\n")]
    assert downloaded(page, mine.nth(2).get_by_role("link", name="Download")) == b"one\ntwo\nthree\n"

    mine.nth(1).get_by_role("link", name="Compare").click()

    lines = page.get_by_role("region", name="Lines")
    expect(lines.locator("del")).to_have_text("-two")
    expect(lines.locator("ins")).to_have_text("+2 <b>")
    page.get_by_label("At this path and beneath").fill("")
    page.get_by_role("button", name="Compare").click()
    expect(row(page, "notes.txt")).to_contain_text("changed")
    expect(row(page, "old")).to_contain_text("deleted")
    expect(row(page, "new").last).to_contain_text("added")
    page.get_by_role("link", name="notes.txt").click()
    expect(lines.locator("ins")).to_have_text("+2 <b>")


def test_a_search_goes_on(enter: Enter, twice: Twice, house: House) -> None:
    """What one page has no room for is said, and the rest of the items comes behind."""
    page = enter("operator")
    page.goto(address("/restore", find="*"))
    seen, pages = set[str](), 0
    while True:
        assert len(page.content()) < 250_000
        seen.update(page.locator("th[scope=rowgroup] a").all_inner_texts())
        pages += 1
        if not page.get_by_role("link", name="Go on looking").count():
            break
        page.get_by_role("link", name="Go on looking").click()
    assert {str(twice.folder), str(house.data)} <= seen
    assert pages > 1
    expect(page.get_by_text("All has been looked at.")).to_be_visible()
    page.goto(address("/restore", find="bulk*", item=twice.item))
    expect(page.get_by_text("70 more versions were found")).to_be_visible()


def test_a_place_that_is_none(enter: Enter, faults: list[str]) -> None:
    page = enter("operator")
    page.goto(address("/restore", find="x", **{"from": "1 2"}))
    expect(page.get_by_role("main")).to_contain_text("begin it again")
    assert [fault for fault in faults if "400" not in fault] == []
    faults.clear()


def test_to_another_place(enter: Enter, house: House, point: str, tmp_path: Path) -> None:
    page = enter("operator")
    page.goto(address("/point", id=point))
    page.get_by_label("Restore deep").check()
    page.get_by_label("Restore hello.txt").check()
    page.get_by_role("button", name="Restore what is chosen").click()
    page.get_by_label("Path").fill(str(tmp_path / "there"))
    page.get_by_label("Path").blur()
    expect(page.get_by_label("keepstone", exact=True)).to_contain_text("--target")
    would = dry(house, page)
    assert (would["paths"], would["target"]) == (["deep", "hello.txt"], str(tmp_path / "there"))
    page.get_by_role("button", name="Restore files").click()

    done(page)

    found = {path.relative_to(tmp_path / "there") for path in (tmp_path / "there").rglob("*") if path.is_file()}
    assert found == {Path("deep/er/noise.bin"), Path("hello.txt")}
    for path in found:
        assert (tmp_path / "there" / path).read_bytes() == (house.data / path).read_bytes()


def test_over_what_is_there(enter: Enter, house: House, twice: Twice) -> None:
    """Without a script: the form is drawn anew by its button."""
    page = enter("operator", java_script_enabled=False)
    (twice.folder / "notes.txt").write_text("mine\n")
    page.goto(address("/do/restore-files", id=twice.before, path="notes.txt", to="original"))
    radius = page.get_by_role("region", name="What this takes with it")
    expect(radius).to_contain_text(str(twice.folder))
    expect(radius).to_contain_text("is overwritten where it differs")
    expect(radius).to_contain_text("what changed since the newest one")
    assert dry(house, page)["conflict"] == "is overwritten where it differs"

    page.get_by_role("button", name="Restore files").click()
    page.wait_for_url("**/portal/job?*")
    while "In progress" in page.locator("#state").inner_text():
        page.reload()

    assert (twice.folder / "notes.txt").read_text() == "one\ntwo\nthree\n"


def test_what_is_refused_is_said(enter: Enter, twice: Twice, tmp_path: Path, faults: list[str]) -> None:
    page = enter("operator")
    page.goto(address("/do/restore-files", id=twice.before, path="\\xff", target=str(tmp_path), delete="yes"))
    page.get_by_role("button", name="Restore files").click()
    expect(page.get_by_role("alert").last).to_contain_text("no name in UTF-8")
    page.get_by_label("What of it").fill("old")
    page.get_by_role("button", name="Restore files").click()
    expect(page.get_by_role("alert").last).to_contain_text("say what becomes of that too")
    assert list(tmp_path.iterdir()) == []
    assert [fault for fault in faults if "400" not in fault] == []
    faults.clear()


def test_a_reader_sees_no_names(enter: Enter, point: str, house: House, faults: list[str]) -> None:
    page = enter("reader")
    page.goto(address("/point", id=point))
    expect(page.get_by_role("heading", name="As it was at")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("recoveryPoints/restore/action")
    expect(page.get_by_role("main")).to_contain_text("the names of files are data too")
    for word in ("hello.txt", "deep", "onerror"):
        assert word not in page.content()
    assert page.get_by_role("main").get_by_role("button").count() == 0
    assert page.get_by_role("list", name="Actions").count() == 0
    page.goto(address("/restore", find="hello.txt"))
    expect(page.get_by_role("main")).to_contain_text("You may not look into")
    assert page.locator("table").count() == 0
    page.goto(address("/diff", id=point, before="1"))
    expect(page.get_by_role("main")).to_contain_text("recoveryPoints/restore/action")
    answered = page.goto(address("/download", id=point, path="hello.txt"))
    assert answered is not None
    assert answered.status == 403
    assert b"hello\n" not in answered.body()
    assert [fault for fault in faults if "403" not in fault] == []
    faults.clear()


def test_a_download_that_is_left_lets_go(enter: Enter, twice: Twice, house: House) -> None:
    """Four go on at a time: ones that were left count no more."""
    page = enter("operator")
    before = house.service.lines()
    large = address("/download", id=twice.after, path="large")
    leave = """async (address) => {
        const stop = new AbortController();
        const answer = await fetch(address, {signal: stop.signal});
        await answer.body.getReader().read();
        stop.abort();
        return answer.status;
    }"""
    left = sum(page.evaluate(leave, large) == 200 for _ in range(4))
    assert left == 4
    until(lambda: page.evaluate(leave, large) == 200, "a fifth download")
    said = house.service.lines()[len(before) :]
    assert [line["message"] for line in said if line["level"] == "error"] == []


@pytest.mark.vm
def test_a_disk(house: House, enter: Enter, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk.img", 8, form="raw")
    house.run("protection", "enable", "--path", disk, "--disk")
    house.run("protection", "backup-now", "-i", disk)
    made = house.run("recoverypoint", "list", "-i", disk)[0]["id"]
    page = enter("operator")
    page.goto(address("/point", id=made, path="0"))
    assert zipfile.is_zipfile(io.BytesIO(downloaded(page, page.get_by_role("link", name="zip", exact=True))))
    page.goto(address("/do/restore-disk", id=made, to="original"))
    expect(page.get_by_role("region", name="What this takes with it")).to_contain_text("nobody may use it meanwhile")
    page.locator("[name=to]").select_option("other")
    page.get_by_label("Path").fill(str(tmp_path / "again.vhdx"))
    page.get_by_label("Path").blur()
    expect(page.get_by_role("main")).to_contain_text("again.vhdx is called like")
    page.locator("[name=format]").select_option("vhdx")
    expect(page.get_by_label("keepstone", exact=True)).to_contain_text("--format vhdx")
    assert dry(house, page)["format"] == "vhdx"
    page.locator("[name=format]").select_option("")
    page.get_by_label("Path").fill(str(tmp_path / "again.img"))
    page.get_by_role("button", name="Restore the disk").click()
    done(page)
    assert (tmp_path / "again.img").read_bytes() == disk.read_bytes()


@pytest.fixture
def machine(house: House, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A machine of QEMU that stands before its first instruction, with a point; its point."""
    kernel, image = initramfs()
    boots = ["-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
    disks = [(f"d{number}", make_disk(tmp_path / f"d{number}.qcow2", 8)) for number in range(2)]
    with Guest(tmp_path, disks, boots=False, extra=boots) as guest:
        (tmp_path / "host").mkdir()
        (tmp_path / "host" / "vm.qmp").symlink_to(guest.qmp)
        house.run("hypervisor", "register", "-n", "h", "--qemu", tmp_path / "host")
        house.run("protection", "enable-for-vm", "--vm", "little")
        house.run("protection", "backup-now", "-i", "little")
        yield house.run("recoverypoint", "list", "-i", "little")[0]
        house.run("hypervisor", "unregister", "-n", "h", "--yes")


@pytest.mark.vm
def test_a_machine(
    house: House, enter: Enter, machine: dict[str, Any], tmp_path: Path, accessible: Callable[[Page], None]
) -> None:
    (tmp_path / "out").mkdir()
    account = "storage", "create", "-g", "g1", "-n", "a1", "--path", tmp_path / "out", "--format", "qcow2"
    house.run(*account)
    page = enter()  # operators may not see the machines themselves, which have the LUNs that az wants
    page.goto(address("/point", id=machine["id"]))
    accessible(page)
    expect(page.get_by_text("never tried")).to_be_visible()
    page.get_by_role("link", name="Prove it by a drill").click()
    assert "keepstone drill run" in page.get_by_label("keepstone", exact=True).inner_text()
    page.go_back()
    assert page.get_by_role("checkbox").count() == 0  # disks go back as the machine's
    page.get_by_role("link", name="disk0", exact=True).click()
    page.get_by_role("link", name="0", exact=True).click()
    page.get_by_role("link", name="zip lost+found").wait_for()
    page.get_by_label("Restore lost+found").check()
    page.get_by_role("button", name="Restore what is chosen").click()
    expect(page.get_by_label("What of it")).to_have_value("disk0/0/lost+found")
    accessible(page)
    assert page.locator("[name=to]").get_by_role("option").all_inner_texts() == ["a folder of a machine"]  # no agent

    page.goto(address("/point", id=machine["id"]))
    page.get_by_role("link", name="Restore the machine").click()
    accessible(page)
    page.locator("[name=way]").select_option("account")
    page.locator("[name=account]").select_option(label="a1 (g1)")
    page.get_by_label("disk1").check()
    az = page.get_by_label("az", exact=True)
    expect(az).to_contain_text("--diskslist 0")
    assert az.inner_text().startswith("az backup restore restore-disks -g g1 -v v1 -c")
    assert dry(house, page)["target"].endswith("/storageAccounts/a1")
    page.get_by_role("button", name="Restore the machine").click()
    done(page)
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == {"disk0.qcow2", "disk1.qcow2", "machine.json"}

    page.goto(address("/do/restore-machine", id=machine["id"], way="original", safety="no"))
    expect(page.get_by_role("region", name="What this takes with it")).to_contain_text("is paused meanwhile")
    assert dry(house, page)["conflict"] == "is overwritten where it differs"
    page.get_by_role("button", name="Restore the machine").click()
    done(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(
    enter: Enter, accessible: Callable[[Page], None], twice: Twice, point: str, scheme: str
) -> None:
    page = enter(color_scheme=scheme)
    before = twice.before.rpartition("/")[2]
    for path in (
        address("/point", id=point),
        address("/point", id=twice.after, path="many", find="*o*"),
        address("/restore", find="notes.txt"),
        address("/diff", id=twice.after, before=before, path="notes.txt"),
        address("/do/restore-files", id=twice.after, path="notes.txt", to="original"),
    ):
        page.goto(path)
        accessible(page)
