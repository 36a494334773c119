# SPDX-License-Identifier: Apache-2.0
"""Looking for a file in all points of all items that somebody may see, as far as one request comes.

The items are asked one after the other. A search that takes long stops where it is, says what it has, and goes on from
there with the next request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from keepstone.errors import InvalidRequest, KeepstoneError, ServiceUnavailable
from keepstone.portal.api import Document, Request
from keepstone.portal.parts import token_of
from keepstone.portal.rendering import at
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["ROWS", "Found", "Search", "Version", "search"]

ROWS = 50
"""Versions on a page: each row has many addresses."""
_SECONDS = 2.0  # after which nothing more is asked for
_TOLD = 20  # items of which it is said why they are left out


@dataclass(frozen=True, slots=True)
class Version:
    """A path as it was, in these points of an item, the newest first: an entry of a search each."""

    hits: list[Document] = field(default_factory=list)

    @property
    def newest(self) -> Document:
        """As the newest point has it."""
        return self.hits[0]

    @property
    def oldest(self) -> Document:
        """As the oldest point has it that was looked at."""
        return self.hits[-1]


@dataclass(frozen=True, slots=True)
class Found:
    """What one item has: the versions of each path, by what names them."""

    item: Document
    paths: dict[str, dict[str, Version]] = field(default_factory=dict)

    def add(self, hit: Document) -> None:
        """One entry in one point; newer points come first."""
        about = hit["properties"]
        versions = self.paths.setdefault(about["path"], {})
        versions.setdefault(about["version"], Version()).hits.append(hit)

    @property
    def count(self) -> int:
        """How many versions there are."""
        return sum(map(len, self.paths.values()))


@dataclass(slots=True)
class Search:
    """`following`: where it goes on; empty at its end. `unfinished`: the item in whose points it stopped. `left_out`:
    items that could not be searched, each with the reason. `forbidden`: how many he may not look into."""

    found: list[Found] = field(default_factory=list)
    following: str = ""
    unfinished: str = ""
    left_out: list[tuple[Document, str]] = field(default_factory=list)
    forbidden: int = 0
    searched: int = 0

    @property
    def count(self) -> int:
        """How many versions were found."""
        return sum(one.count for one in self.found)


@dataclass(frozen=True, slots=True)
class _Place:
    """`vault`: the number of one; `page`: the token of a page of its items; `item`: the number of one there; `token`:
    where the search of its points goes on."""

    vault: int = 0
    item: int = 0
    page: str = ""
    token: str = ""

    @classmethod
    def read(cls, text: str) -> _Place:
        """As `write` wrote it. `InvalidRequest`."""
        if not text:
            return cls()
        parts = text.split(" ")
        if len(parts) != 4 or not all(one.isdecimal() and len(one) < 6 for one in parts[:2]):
            raise InvalidRequest(_("this is no place where a search goes on; begin it again"), target="from")
        return cls(int(parts[0]), int(parts[1]), parts[2], parts[3])

    def write(self) -> str:
        """As text."""
        return f"{self.vault} {self.item} {self.page} {self.token}"


def search(visit: Visit, within: Sequence[str], pattern: str, place: str, only: str = "") -> Search:
    """In the vaults of these ids, or in the item `only`, from `place` on. `InvalidRequest`."""
    made, start = Search(), _Place.read(place)
    until = visit.plane.env.boot_time() + int(_SECONDS * 1e9)
    for number, (here, item) in enumerate(_items(visit, within, start, only)):
        if number and (made.count >= ROWS or visit.plane.env.boot_time() > until):
            made.following = here.write()
            break
        if at(item, "properties.lastRecoveryPoint") is None:
            continue
        if not visit.client.allows(Request("GET", f"{item['id']}/find")):
            made.forbidden += 1
            continue
        made.searched += 1
        if not _look(visit, item, pattern, here, made, until):
            break
    return made


def _look(visit: Visit, item: Document, pattern: str, here: _Place, made: Search, until: int) -> bool:
    """Into the points of an item; whether to go on with the next one."""
    found, token = Found(item), here.token
    try:
        while True:
            following = {"$skipToken": token} if token else {}
            page = visit.client.get(f"{item['id']}/find", pattern=pattern, **following)
            for hit in page["value"]:
                found.add(hit)
            if page.get("incomplete"):
                _leave_out(made, item, page["incomplete"])
            token = token_of(page)
            if not token:
                return True
            if found.count + made.count >= ROWS or visit.plane.env.boot_time() > until:
                break
    except ServiceUnavailable:  # others search too; what is here is searched again
        made.left_out.append((item, _("others are searching at the moment; go on in a few seconds")))
    except KeepstoneError as error:  # the others can be searched
        _leave_out(made, item, str(error))
        return True
    finally:
        if found.paths:
            made.found.append(found)
    made.following = _Place(here.vault, here.item, here.page, token).write()
    made.unfinished = item["id"]
    return False


def _leave_out(made: Search, item: Document, reason: str) -> None:
    if len(made.left_out) < _TOLD and (item, reason) not in made.left_out:
        made.left_out.append((item, reason))


def _items(visit: Visit, within: Sequence[str], start: _Place, only: str) -> Iterator[tuple[_Place, Document]]:
    """The items from a place on, each with its own."""
    if only:
        yield start, visit.client.get(only)
        return
    for number in range(start.vault, len(within)):
        page, first = (start.page, start.item) if number == start.vault else ("", 0)
        while True:
            items, following = visit.client.page(f"{within[number]}/backupProtectedItems", page)
            for row, item in enumerate(items):
                if row < first:
                    continue
                token = start.token if (number, row, page) == (start.vault, start.item, start.page) else ""
                yield _Place(number, row, page, token), item
            if not following:
                break
            page, first = following, 0
