# SPDX-License-Identifier: Apache-2.0
"""Looking into points through the service: listings, searches, bytes, tars, and who may."""

from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keepstone.arm import browsing as answers
from keepstone.control import browsing
from keepstone.control.plane import Plane
from keepstone.identity import Principal
from keepstone.store import Store
from keepstone.workloads.escaping import escaped
from tests.unit.guestfiles.filesystems import ext, need

from .client import Client
from .exercised import exercises
from .protecting import Vault

pytestmark = pytest.mark.service

LARGE = random.Random(1).randbytes(3_000_000)
ODD = "line\nbreak\\ä\udcff"


@pytest.fixture(scope="module")
def vault(client: Client, plane: Plane) -> Vault:
    return Vault(client, plane, "browsed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("source") / "data"
    (made / "many").mkdir(parents=True)
    for number in range(25):
        (made / "many" / f"file{number:02}").write_text(str(number))
    (made / "large").write_bytes(LARGE)
    (made / "empty").touch()
    (made / ODD).write_text("odd")
    (made / "link").symlink_to("many/file03")
    with (made / "holes").open("wb") as file:
        file.truncate(2_000_000)
        file.seek(1_000_000)
        file.write(b"data")
    deep = made / "many" / "deep"
    for _ in range(30):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "file07").touch()
    return made


@pytest.fixture(scope="module")
def item(vault: Vault, folder: Path) -> str:
    made = vault.protect(folder)
    vault.back_up(made)
    return made


@pytest.fixture(scope="module")
def point(vault: Vault, item: str) -> str:
    (made,) = vault.points(item)
    return str(made["id"])


@pytest.fixture(scope="module")
def disk(vault: Vault, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """A point of a disk, and its bytes."""
    path = tmp_path_factory.mktemp("disk") / "disk.img"
    content = bytes(1_000_000) + LARGE + bytes(500_000)
    path.write_bytes(content)
    made = vault.protect(path, sourceType="DiskImage")
    vault.back_up(made)
    (found,) = vault.points(made)
    return str(found["id"]), content


def get(client: Client, address: str, *, headers: dict[str, str] | None = None, **query: str) -> Any:
    """Whatever is answered, as it is."""
    return client.raw("GET", address, params={"api-version": "2024-04-01", **query}, headers=headers)


def names(client: Client, address: str, **query: str) -> list[str]:
    """Of all pages."""
    found: list[str] = []
    page = client.arm("GET", address, params=query)
    while True:
        found += [one["properties"]["path"] for one in page["value"]]
        if "nextLink" not in page:
            return found
        page = client.raw("GET", page["nextLink"]).json()


@exercises("keepstone.entries_list")
def test_a_directory(client: Client, point: str, folder: Path) -> None:
    shown = client.arm("GET", f"{point}/entries")

    assert (shown["kind"], shown["entry"]["properties"]["kind"]) == ("files", "directory")
    assert [one["name"] for one in shown["value"]] == sorted(
        (escaped(os.fsencode(one)) for one in os.listdir(folder)), key=lambda name: name.replace("\\n", "\n")
    )
    by_name = {one["name"]: one["properties"] for one in shown["value"]}
    assert by_name["link"]["target"] == "many/file03"
    assert by_name["large"]["size"] == len(LARGE)
    assert by_name["large"]["mode"] == "-rw-r--r--"
    assert by_name["large"]["modified"].endswith("Z")
    odd = client.arm("GET", f"{point}/entries", params={"path": escaped(os.fsencode(ODD))})
    assert (odd["value"], odd["entry"]["properties"]["size"]) == ([], 3)
    assert names(client, f"{point}/entries", path="/many/deep/d/") == ["many/deep/d/d"]


@pytest.mark.parametrize("size", [1, 2, 7, 26, 27, 1000])
def test_page_by_page(client: Client, point: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(answers, "_PAGE", size)
    wanted = ["many/deep", *(f"many/file{number:02}" for number in range(25))]
    assert names(client, f"{point}/entries", path="many") == wanted
    found = names(client, f"{point}/search", pattern="file*")
    assert found == ["many/deep" + "/d" * 30 + "/file07", *wanted[1:]]
    assert names(client, f"{point}/search", pattern="d", path="many/deep") == [
        "many/deep" + "/d" * n for n in range(1, 31)
    ]


@exercises("keepstone.entries_search")
def test_a_search_that_takes_long_goes_on(client: Client, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "_SECONDS", -1.0)
    monkeypatch.setattr(browsing, "_LOOK", 5)
    first = client.arm("GET", f"{point}/search", params={"pattern": "file07"})
    assert first["value"] == []
    assert names(client, f"{point}/search", pattern="file07") == ["many/deep" + "/d" * 30 + "/file07", "many/file07"]
    assert names(client, f"{point}/search", pattern="many/*/file*") == ["many/deep" + "/d" * 30 + "/file07"]
    assert names(client, f"{point}/search", pattern="nothing") == []


@exercises("keepstone.content_get")
def test_bytes_and_ranges_of_them(client: Client, point: str) -> None:
    whole = get(client, f"{point}/content", path="large")
    assert (whole.status_code, whole.content == LARGE) == (200, True)
    assert whole.headers["content-length"] == str(len(LARGE))
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''large"
    assert whole.headers["x-ms-request-id"]
    tag = whole.headers["etag"]
    size = len(LARGE)
    for text, begin, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-2000000", 1_000_000, 2_000_001),
        ("bytes=2999999-", size - 1, size),
        ("bytes=-10", size - 10, size),
        (f"bytes=-{10 * size}", 0, size),
        (f"bytes=5-{10 * size}", 5, size),
    ):
        part = get(client, f"{point}/content", path="large", headers={"Range": text, "If-Range": tag})
        assert (part.status_code, part.headers["content-range"]) == (206, f"bytes {begin}-{end - 1}/{size}")
        assert part.content == LARGE[begin:end]
    for text, guard in (("bytes=0-1,5-6", tag), ("lines=1-2", tag), ("bytes=-", tag), ("bytes=0-0", '"another"')):
        assert (
            get(client, f"{point}/content", path="large", headers={"Range": text, "If-Range": guard}).status_code == 200
        )
    for text in (f"bytes={size}-", "bytes=5-3", "bytes=-0"):
        refused = get(client, f"{point}/content", path="large", headers={"Range": text})
        assert (refused.status_code, refused.json()["error"]["code"]) == (416, "InvalidRange")
    assert get(client, f"{point}/content", path="empty").content == b""
    assert get(client, f"{point}/content", path=escaped(os.fsencode(ODD))).content == b"odd"
    holes = get(client, f"{point}/content", path="holes", headers={"Range": "bytes=999990-1000009"})
    assert holes.content == bytes(10) + b"data" + bytes(6)


def test_a_folder_as_a_tar(client: Client, point: str) -> None:
    answered = get(client, f"{point}/content", path="many", format="tar")
    with tarfile.open(fileobj=io.BytesIO(answered.content)) as tar:
        found = {one.name: one for one in tar}
        assert len(found) == 25 + 1 + 1 + 30 + 1
        extracted = tar.extractfile("many/file07")
        assert extracted is not None
        assert extracted.read() == b"7"
    assert answered.headers["content-disposition"].endswith("many.tar")
    with tarfile.open(fileobj=io.BytesIO(get(client, f"{point}/content", format="tar").content)) as tar:
        assert tar.getnames()[0] == "."


def test_a_disk(client: Client, disk: tuple[str, bytes]) -> None:
    point, content = disk
    shown = client.arm("GET", f"{point}/entries")
    assert (shown["kind"], [one["name"] for one in shown["value"]]) == ("disk", ["disk.img"])
    assert shown["value"][0]["properties"]["size"] == len(content)
    assert client.arm("GET", f"{point}/entries", params={"path": "disk.img"})["value"] == []
    assert get(client, f"{point}/content", path="disk.img").content == content
    part = get(client, f"{point}/content", path="disk.img", headers={"Range": "bytes=999000-1001999"})
    assert part.content == content[999_000:1_002_000]
    client.refused("GET", f"{point}/entries", params={"path": "etc"}, status=404)
    client.refused("GET", f"{point}/content", params={"path": ""}, status=400)
    client.refused("GET", f"{point}/content", params={"format": "tar"}, status=400)
    assert client.arm("GET", f"{point}/search", params={"pattern": "x"})["value"] == []


def test_files_of_a_disk(client: Client, vault: Vault, tmp_path: Path) -> None:
    need("mkfs.ext4")
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "fstab").write_bytes(b"# none")
    (tree / "large").write_bytes(LARGE)
    image = ext(tmp_path / "vm.img", tree)
    made = vault.protect(image, sourceType="DiskImage")
    vault.back_up(made)
    (found,) = vault.points(made)
    point = str(found["id"])
    assert names(client, f"{point}/entries") == ["0", "disk.img"]
    assert names(client, f"{point}/entries", path="0") == ["0/etc", "0/large", "0/lost+found"]
    assert names(client, f"{point}/search", pattern="*s*b") == ["0/etc/fstab"]
    assert get(client, f"{point}/content", path="0/large").content == LARGE
    part = get(client, f"{point}/content", path="0/large", headers={"Range": "bytes=1000000-1000009"})
    assert part.content == LARGE[1_000_000:1_000_010]
    with tarfile.open(fileobj=io.BytesIO(get(client, f"{point}/content", path="0/etc", format="tar").content)) as tar:
        assert tar.getnames() == ["0/etc", "0/etc/fstab"]
    answered = get(client, f"{point}/content", path="0/etc", format="zip")
    assert answered.headers["content-disposition"].endswith("etc.zip")
    with zipfile.ZipFile(io.BytesIO(answered.content)) as archive:
        assert archive.read("0/etc/fstab") == b"# none"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("entries?path=none", 404),
        ("entries?path=large/x", 400),
        ("entries?path=../x", 400),
        ("entries?path=%5CUffffffff", 400),
        ("entries?path=a%00b", 400),
        ("entries?$skipToken=abc", 400),
        ("search?path=many", 400),
        ("search?pattern=x&path=none", 404),
        ("content?path=many", 400),
        ("content?path=link", 400),
        ("content?path=", 400),
        ("content?path=none", 404),
        ("content?path=none&format=tar", 404),
        ("content?path=large&format=rar", 400),
    ],
)
def test_what_is_refused(client: Client, point: str, query: str, status: int) -> None:
    answered = client.raw("GET", f"{point}/{query}&api-version=2024-04-01")
    assert answered.status_code == status, answered.text
    assert answered.json()["error"]["message"]


def test_who_may(
    client: Client, client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal], point: str
) -> None:
    """Names are data: to look is what to restore is."""
    for role, status in (
        ("Backup Operator", 200),
        ("Backup Contributor", 200),
        ("Backup Reader", 403),
        ("Reader", 403),
    ):
        somebody = client_of(principal(role))
        for query in ("entries?x=", "search?pattern=x", "content?path=large"):
            assert somebody.raw("GET", f"{point}/{query}&api-version=2024-04-01").status_code == status, (role, query)


def test_what_is_sealed(client: Client, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    item = vault.protect(tmp_path)
    real = Store.writer
    monkeypatch.setattr(Store, "writer", lambda self, item, _, **more: real(self, item, "sealed-files", **more))
    vault.back_up(item)
    (point,) = vault.points(item)
    for query in ("entries?x=", "search?pattern=x", "content?path=file"):
        answered = client.raw("GET", f"{point['id']}/{query}&api-version=2024-04-01")
        assert (answered.status_code, answered.json()["error"]["code"]) == (403, "WrongKey")
        assert "agent has that passphrase" in answered.json()["error"]["message"]


def test_damage_is_told(client: Client, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of a directory that is gone, and bytes that are: an error where nothing was sent, else the end."""
    from keepstone.errors import CorruptObject
    from keepstone.workloads.content import Content

    (tmp_path / "large").write_bytes(LARGE)
    item = vault.protect(tmp_path)
    vault.back_up(item)
    (point,) = vault.points(item)
    real, calls = Content.read, []

    def read(self: Content, offset: int, length: int) -> list[memoryview]:
        calls.append(offset)
        if offset >= bad:
            raise CorruptObject("a pack is damaged")
        return real(self, offset, length)

    monkeypatch.setattr(Content, "read", read)
    bad = 0
    refused = get(client, f"{point['id']}/content", path="large")
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "CorruptObject")
    bad = 2_000_000
    assert len(get(client, f"{point['id']}/content", path="large").content) < len(LARGE)
    bad = 10**9
    assert get(client, f"{point['id']}/content", path="large").content == LARGE


def test_so_many_at_a_time(client: Client, point: str) -> None:
    """And an answer that is over, however it ended, is none of them."""
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(browsing.streaming())
        refused = get(client, f"{point}/content", path="large")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ServiceUnavailable")
    for _ in range(5):
        get(client, f"{point}/content", path="many")
        get(client, f"{point}/content", path="large", headers={"Range": "bytes=9999999-"})
        get(client, f"{point}/content", path="many", format="tar")
        assert get(client, f"{point}/content", path="large").content == LARGE


def test_quoting(client: Client, point: str) -> None:
    """As clients write paths in addresses."""
    answered = client.raw("GET", f"{point}/entries?path={quote('many/deep')}&api-version=2024-04-01")
    assert [one["name"] for one in answered.json()["value"]] == ["d"]
