# SPDX-License-Identifier: Apache-2.0
"""Finding over the points of an item and comparing two of them, through the service: of folders, disks, machines."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keepstone.arm import browsing as answers
from keepstone.control import browsing, finding, items, points, vaults
from keepstone.control.plane import Plane
from keepstone.errors import CorruptObject
from keepstone.identity import Principal
from keepstone.store import Store
from tests.machines.points import machine_point
from tests.unit.guestfiles.changing import edited
from tests.unit.guestfiles.filesystems import ext, fat, need, plain_tree

from .client import Client
from .exercised import exercises
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def vault(client: Client, plane: Plane) -> Vault:
    return Vault(client, plane, "compared")


@pytest.fixture(scope="module")
def folder(vault: Vault, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An item of a folder with three points, oldest first: `a` changes, then is gone; `many/07` comes."""
    root = tmp_path_factory.mktemp("source") / "data"
    (root / "many").mkdir(parents=True)
    for number in range(7):
        (root / "many" / f"{number:02}").write_text(str(number))
    (root / "a").write_text("first")
    item = vault.protect(root)
    vault.back_up(item)
    (root / "a").write_text("second")
    (root / "many" / "07").write_text("7")
    vault.back_up(item)
    (root / "a").unlink()
    vault.back_up(item)
    return item


@pytest.fixture(scope="module")
def machine(vault: Vault, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An item with two points of a machine of two disks, of which one has changed."""
    need("mkfs.ext4", "mkfs.vfat", "mcopy", "debugfs")
    path = tmp_path_factory.mktemp("machine")
    tree = plain_tree(path / "tree")
    disks = {"vda": ext(path / "vda", tree), "vdb": fat(path / "vdb", tree / "folder" / "deep")}
    item = vault.protect(path / "vda", sourceType="DiskImage")
    add(vault, item, disks)
    edited(disks["vda"], "rm small.txt", "mkdir folder/new")
    add(vault, item, disks)
    return item


def add(vault: Vault, item: str, disks: dict[str, Path]) -> None:
    """A point of a machine with these disks."""
    plane = vault.plane
    made = machine_point(plane.stores.open(UUID(vault.id)), disks)
    with plane.change() as change:
        of = vaults.find(change.connection, plane.place.subscription, vault.group.rpartition("/")[2], "vault1")
        _, found = items.find(change.connection, of, CONTAINER, item.rpartition("/")[2])
        points.add(change.connection, points.of_record(found, made.id, made.record))


def names(vault: Vault, item: str) -> list[str]:
    """Of its points, oldest first."""
    return [str(one["name"]) for one in reversed(vault.points(item))]


def pages(client: Client, address: str, **query: str) -> Iterator[dict[str, Any]]:
    page = client.arm("GET", address, params=query)
    yield page
    while "nextLink" in page:
        page = client.raw("GET", page["nextLink"]).json()
        yield page


def found(client: Client, item: str, pattern: str) -> list[tuple[str, str]]:
    """(point, path), of all pages."""
    values = [one["properties"] for page in pages(client, f"{item}/find", pattern=pattern) for one in page["value"]]
    return [(one["recoveryPoint"], one["path"]) for one in values]


def changes(client: Client, item: str, before: str, after: str, path: str = "") -> list[tuple[str, str]]:
    """(path, difference), of all pages."""
    address = f"{item}/recoveryPoints/{after}/diff"
    values = [
        one["properties"] for page in pages(client, address, path=path, **{"from": before}) for one in page["value"]
    ]
    return [(one["path"], one["difference"]) for one in values]


@exercises("keepstone.entries_find")
def test_find(client: Client, vault: Vault, folder: str) -> None:
    first, second, third = names(vault, folder)

    hits = client.arm("GET", f"{folder}/find", params={"pattern": "a"})["value"]

    assert [(one["name"], one["properties"]["recoveryPoint"]) for one in hits] == [("a", second), ("a", first)]
    newer, older = (one["properties"] for one in hits)
    assert newer["version"] != older["version"]
    assert (newer["size"], older["size"]) == (6, 5)
    for one in (newer, older):
        point = client.arm("GET", one["recoveryPointId"])
        assert point["properties"]["recoveryPointTime"] == one["recoveryPointTime"]
    same = client.arm("GET", f"{folder}/find", params={"pattern": "many/03"})["value"]
    assert len(same) == 3
    assert len({one["properties"]["version"] for one in same}) == 1
    assert found(client, folder, "0[67]") == [
        (third, "many/06"), (third, "many/07"), (second, "many/06"), (second, "many/07"), (first, "many/06")
    ]  # fmt: skip
    assert found(client, folder, "nothing") == []


@exercises("keepstone.entries_diff")
def test_diff(client: Client, vault: Vault, folder: str) -> None:
    first, second, third = names(vault, folder)
    assert changes(client, folder, first, second) == [("a", "content"), ("many/07", "added")]
    assert changes(client, folder, third, second) == [("a", "added")]
    assert changes(client, folder, first, third, "many") == [("many/07", "added")]
    assert changes(client, folder, second, second) == []
    (one,) = client.arm("GET", f"{folder}/recoveryPoints/{third}/diff", params={"from": second})["value"]
    assert one["name"] == "a"
    assert one["properties"]["after"] is None
    assert one["properties"]["before"]["size"] == 6


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_page_by_page(
    client: Client, vault: Vault, folder: str, machine: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    first, _, third = names(vault, folder)
    wanted = found(client, folder, "*"), changes(client, folder, first, third), found(client, machine, "x")
    assert len(wanted[0]) == 9 + 10 + 9
    monkeypatch.setattr(answers, "_PAGE", size)
    assert all(len(page["value"]) <= size for page in pages(client, f"{folder}/find", pattern="*"))
    assert found(client, folder, "*") == wanted[0]
    assert changes(client, folder, first, third) == wanted[1]
    assert found(client, machine, "x") == wanted[2]


def test_what_takes_long_goes_on(
    client: Client, vault: Vault, folder: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = names(vault, folder)
    wanted = found(client, folder, "*"), changes(client, folder, first, third)
    before, after = names(vault, machine)
    whole = found(client, machine, "*"), changes(client, machine, before, after)
    monkeypatch.setattr(browsing, "_SECONDS", -1.0)
    assert len(list(pages(client, f"{folder}/find", pattern="nothing"))) == 3  # the clock is asked between points
    monkeypatch.setattr(browsing, "_LOOK", 2)
    assert len(list(pages(client, f"{folder}/find", pattern="nothing"))) >= 14
    assert (found(client, folder, "*"), changes(client, folder, first, third)) == wanted
    monkeypatch.setattr(browsing, "_LOOK", 7)
    assert (found(client, machine, "*"), changes(client, machine, before, after)) == whole
    monkeypatch.setattr(finding, "_POINTS", 1)
    assert found(client, folder, "*") == wanted[0]


def test_a_point_that_goes_meanwhile(
    client: Client, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search goes on with those before it."""
    for name in "ab":
        (tmp_path / name).write_text(name)
    item = vault.protect(tmp_path)
    for _ in range(2):
        vault.back_up(item)
    first, second = names(vault, item)
    monkeypatch.setattr(answers, "_PAGE", 1)
    search = pages(client, f"{item}/find", pattern="*")
    assert next(search)["value"][0]["properties"]["recoveryPoint"] == second
    with vault.plane.change() as change:
        of = vaults.find(change.connection, vault.plane.place.subscription, "compared", "vault1")
        _, known = items.find(change.connection, of, CONTAINER, item.rpartition("/")[2])
        points.remove(change.connection, known.id, second)
    rest = [one["properties"]["recoveryPoint"] for page in search for one in page["value"]]
    assert rest == [first, first]


def test_points_of_a_machine(client: Client, vault: Vault, machine: str, tmp_path: Path) -> None:
    """Browsed, searched, compared, and files and folders out of them."""
    first, second = names(vault, machine)
    point = f"{machine}/recoveryPoints/{first}"

    def listed(path: str) -> list[str]:
        return [one["name"] for one in client.arm("GET", f"{point}/entries", params={"path": path})["value"]]

    def content(path: str, **more: str) -> bytes:
        answered = client.raw("GET", f"{point}/content", params={"api-version": "2024-04-01", "path": path, **more})
        assert answered.status_code == 200, answered.text
        whole: bytes = answered.content
        return whole

    assert listed("") == ["vda", "vdb"]
    assert listed("vda") == ["0", "disk.img"]
    assert "small.txt" in listed("vda/0")
    assert content("vda/0/small.txt") == b"small\n"
    assert len(content("vdb/disk.img")) == 64 << 20
    with zipfile.ZipFile(io.BytesIO(content("vda/0/folder", format="zip"))) as archive:
        assert archive.testzip() is None
        assert len(archive.read("vda/0/folder/deep/deeper/x")) == 70_000
    hits = client.arm("GET", f"{point}/search", params={"pattern": "x"})["value"]
    assert [one["properties"]["path"] for one in hits] == ["vda/0/folder/deep/deeper/x", "vdb/0/deeper/x"]

    assert found(client, machine, "vda/0/small.txt") == [(first, "vda/0/small.txt")]
    assert found(client, machine, "x") == [
        (name, path) for name in (second, first) for path in ("vda/0/folder/deep/deeper/x", "vdb/0/deeper/x")
    ]
    assert changes(client, machine, first, second) == [
        ("vda/0/folder/new", "added"), ("vda/0/small.txt", "removed"), ("vda/disk.img", "content")
    ]  # fmt: skip
    assert changes(client, machine, first, second, "vdb") == []
    client.refused("GET", f"{machine}/recoveryPoints/{second}/diff", params={"from": first, "path": "vdc"}, status=404)
    client.refused("GET", f"{point}/content", params={"path": "vda", "format": "zip"}, status=400)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("find?x=", 400),
        ("find?pattern=x&$skipToken=abc", 400),
        ("find?pattern=x&$skipToken=eCB5IHo=", 400),
        ("find?pattern=%5CUffffffff", 400),
        ("recoveryPoints/{second}/diff?x=", 404),
        ("recoveryPoints/{second}/diff?from=12", 404),
        ("recoveryPoints/12/diff?from={first}", 404),
        ("recoveryPoints/{second}/diff?from={first}&path=none", 404),
        ("recoveryPoints/{second}/diff?from={first}&path=../x", 400),
        ("recoveryPoints/{second}/diff?from={first}&path=a%00", 400),
    ],
)
def test_what_is_refused(client: Client, vault: Vault, folder: str, query: str, status: int) -> None:
    first, second, _ = names(vault, folder)
    address = f"{folder}/{query.format(first=first, second=second)}&api-version=2024-04-01"
    answered = client.raw("GET", address)
    assert answered.status_code == status, answered.text
    assert answered.json()["error"]["message"]


def test_points_of_two_kinds(client: Client, vault: Vault, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(os.urandom(100_000))
    item = vault.protect(disk, sourceType="DiskImage")
    vault.back_up(item)
    add(vault, item, {"vda": disk})
    before, after = names(vault, item)
    refused = client.ask("GET", f"{item}/recoveryPoints/{after}/diff", params={"from": before})
    assert (refused.status, "choose two of one kind" in refused.message) == (400, True)


def test_who_may(
    client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal], vault: Vault, folder: str
) -> None:
    first, second, _ = names(vault, folder)
    for role, status in (("Backup Operator", 200), ("Backup Reader", 403), ("Reader", 403)):
        somebody = client_of(principal(role))
        for query in ("find?pattern=x", f"recoveryPoints/{second}/diff?from={first}"):
            answered = somebody.raw("GET", f"{folder}/{query}&api-version=2024-04-01")
            assert answered.status_code == status, (role, query)


def test_what_is_sealed(client: Client, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    item = vault.protect(tmp_path)
    real = Store.writer
    monkeypatch.setattr(Store, "writer", lambda self, item, _, **more: real(self, item, "sealed-files", **more))
    vault.back_up(item)
    (point,) = vault.points(item)
    for address, query in ((f"{item}/find", {"pattern": "x"}), (f"{point['id']}/diff", {"from": point["name"]})):
        refused = client.ask("GET", address, params=query)
        assert (refused.status, refused.code) == (403, "WrongKey")


def test_damage_is_told(client: Client, vault: Vault, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point that cannot be read is left out of a search, and said."""
    _, second, third = names(vault, folder)
    real = points.opened

    def opened(store: Store, point: Any, **more: Any) -> Any:
        if point.name == third:
            raise CorruptObject("a pack is damaged")
        return real(store, point, **more)

    monkeypatch.setattr(points, "opened", opened)
    page = client.arm("GET", f"{folder}/find", params={"pattern": "07"})
    assert [one["properties"]["recoveryPoint"] for one in page["value"]] == [second]
    assert third in page["incomplete"]


def test_so_many_at_a_time(client: Client, vault: Vault, folder: str) -> None:
    first, second, _ = names(vault, folder)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(browsing.searching())
        for query in ("find?pattern=x", f"recoveryPoints/{second}/diff?from={first}"):
            refused = client.raw("GET", f"{folder}/{query}&api-version=2024-04-01")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ServiceUnavailable")
    for _ in range(5):
        client.refused(
            "GET", f"{folder}/recoveryPoints/{second}/diff", params={"from": first, "path": "no"}, status=404
        )
    assert changes(client, folder, first, second)
