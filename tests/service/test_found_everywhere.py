# SPDX-License-Identifier: Apache-2.0
"""The portal's search over all items: it goes on where it stopped, and says what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from keepstone.arm import browsing as answers
from keepstone.arm.service import Service
from keepstone.control import browsing
from keepstone.identity import Principal
from keepstone.portal import finding
from keepstone.portal.api import Client
from keepstone.portal.finding import Search, search
from keepstone.portal.visit import Visit

from .client import ADDRESS
from .protecting import Vault

pytestmark = [pytest.mark.service, pytest.mark.portal]
Searching = Callable[..., Search]


@pytest.fixture
def searching(vault: Vault, service: Service, principal: Callable[..., Principal]) -> Searching:
    """Searches this test's vault, as somebody with a role."""

    def begin(place: str = "", role: str = "Owner") -> Search:
        client = Client(service, principal(role), ADDRESS)
        visit = Visit(plane=vault.plane, client=client, path="/restore", query={}, form={})
        return search(visit, [vault.path], "*.txt", place)

    return begin


@pytest.fixture
def folders(vault: Vault, tmp_path: Path) -> list[str]:
    """Three items: two points of two files, of which one changes; none yet; one of one file."""
    made = []
    for number, files in enumerate(("ab", "", "c")):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in files:
            (folder / f"{name}.txt").write_text("1")
        made.append(vault.protect(folder))
        if files:
            vault.back_up(made[-1])
    (tmp_path / "0" / "a.txt").write_text("changed")
    vault.back_up(made[0])
    return made


def seen(found: Search) -> set[tuple[str, str, str, str]]:
    """(item, path, version, point) of everything."""
    return {
        (one.item["name"], path, version, hit["properties"]["recoveryPoint"])
        for one in found.found
        for path, versions in one.paths.items()
        for version, about in versions.items()
        for hit in about.hits
    }


def test_all_at_once(searching: Searching, folders: list[str]) -> None:
    found = searching()
    assert (found.following, found.left_out, found.forbidden, found.searched) == ("", [], 0, 2)
    (first,) = (one for one in found.found if one.item["id"] == folders[0])
    assert {path: [len(one.hits) for one in versions.values()] for path, versions in first.paths.items()} == {
        "a.txt": [1, 1],
        "b.txt": [2],
    }
    newest, oldest = first.paths["a.txt"].values()
    assert [one.newest["properties"]["size"] for one in (newest, oldest)] == [7, 1]
    assert len(seen(found)) == 5


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_piece_by_piece(searching: Searching, folders: list[str], monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = seen(searching())
    monkeypatch.setattr(answers, "_PAGE", 1)
    monkeypatch.setattr(finding, "ROWS", rows)
    pieces, place, stopped = set[tuple[str, str, str, str]](), "", set[str]()
    for _ in range(20):
        found = searching(place)
        assert not pieces & seen(found)
        pieces |= seen(found)
        place = found.following
        stopped.add(found.unfinished)
        if not place:
            break
    assert pieces == whole
    assert folders[0] in stopped  # between two of its points, and said


def test_time_that_is_up(searching: Searching, folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks at one item at least."""
    whole = seen(searching())
    monkeypatch.setattr(finding, "_SECONDS", -1.0)
    pieces, place, requests = set[tuple[str, str, str, str]](), "", 0
    while place or not requests:
        found = searching(place)
        pieces, place, requests = pieces | seen(found), found.following, requests + 1
    assert (pieces, requests) == (whole, len(folders))


def test_others_that_search(searching: Searching, folders: list[str]) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(browsing.searching())
        found = searching()
    assert "others are searching" in found.left_out[0][1]
    assert len(seen(found) | seen(searching(found.following))) == 5


def test_who_may_not_look(searching: Searching, folders: list[str]) -> None:
    found = searching(role="Backup Reader")
    assert (found.forbidden, found.searched, found.found) == (2, 0, [])
