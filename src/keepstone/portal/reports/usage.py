# SPDX-License-Identifier: Apache-2.0
"""What vaults, policies and items need of the stores, and what that costs by a price that somebody names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlsplit

from keepstone.errors import InvalidRequest
from keepstone.portal.api import Document, Request
from keepstone.portal.rendering import at
from keepstone.portal.sheets import Cell
from keepstone.portal.speech import _, later
from keepstone.portal.visit import Visit

__all__ = ["COLUMNS", "Counted", "Price", "Row", "counted", "everything", "price_of"]

_DELETED = later("soft-deleted")
COLUMNS = ("points", "logical bytes", "bytes it needs", "bytes that it alone needs", "bytes shared with others")
_GIB = 1 << 30
_PAGE = 200
_LONGEST = 12  # characters of a currency


@dataclass(frozen=True, slots=True)
class Row:
    """In bytes. `address`: the resource's id; empty where it has none."""

    title: str
    policy: str
    address: str
    points: int
    logical: int
    referenced: int
    unique: int
    shared: int
    is_deleted: bool = False

    @property
    def held_by(self) -> str:
        """The policy, for people: a file has the same words in every language."""
        return _(_DELETED) if self.is_deleted else self.policy

    @property
    def cells(self) -> Sequence[Cell]:
        """Its figures."""
        return self.points, self.logical, self.referenced, self.unique, self.shared


@dataclass(frozen=True, slots=True)
class Counted:
    """`job`: what counts, or counts anew; empty where nothing does. `when`: when the rows were counted; empty while
    there are none. `whole`: of the vault, in bytes. `following`: where the rows go on."""

    vault: Document
    job: str
    when: str
    rows: Sequence[Row]
    whole: Document
    damage: Sequence[str]
    following: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """Of a GiB for a month, in whatever `label` says. `given`: as it was written."""

    amount: float
    label: str
    given: str

    def of(self, count: int) -> float:
        """What so many bytes cost in a month."""
        return self.amount * count / _GIB

    def shown(self, count: int) -> str:
        """The same for people."""
        return f"{self.of(count):,.2f} {self.label}".rstrip()


def price_of(visit: Visit) -> Price | None:
    """What was given; None for nothing. `InvalidRequest`."""
    given, label = visit.text("price").strip(), visit.text("label").strip()[:_LONGEST]
    if not given:
        return None
    try:
        amount = float(given)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e9:
        raise InvalidRequest(
            _("the price is %(given)s; write a number such as 0.02", given=repr(given[:20])), target="price"
        )
    return Price(amount, label, given)


def counted(visit: Visit, vault: Document, by: str, place: str = "") -> Counted:
    """What was counted last, and what is done about it. `place`: where a page goes on that was shown before."""
    offset, token = place.partition(" ")[::2]
    query = {"$skipToken": token} if token else {}
    body = visit.client.send(Request("GET", f"{vault['id']}/usages/byItem", query=query)).body
    about = body["properties"]
    rows = _rows(vault, body, by)
    first = int(offset) if offset.isdecimal() else 0
    following = ""
    if len(rows) > first + _PAGE:
        following = f"{first + _PAGE} {token}"
    elif by == "item" and _next(body):
        following = f"0 {_next(body)}"
    return Counted(
        vault,
        about["jobId"] or "",
        about.get("countedAt") or "",
        rows[first : first + _PAGE],
        about.get("vault") or {},
        about.get("damage") or (),
        following,
    )


def everything(visit: Visit, vault: Document, by: str) -> Iterator[Row]:
    """All rows; none while there is no count."""
    token = ""
    while True:
        query = {"$skipToken": token} if token else {}
        body = visit.client.send(Request("GET", f"{vault['id']}/usages/byItem", query=query)).body
        yield from _rows(vault, body, by)
        token = _next(body)
        if not token or by != "item":
            return


def _next(body: Document) -> str:
    return dict(parse_qsl(urlsplit(body.get("nextLink") or "").query)).get("$skipToken", "")


def _rows(vault: Document, body: Document, by: str) -> list[Row]:
    about = body["properties"]
    if "countedAt" not in about:
        return []
    if by == "vault":
        whole = about["vault"]
        alone = whole["referencedBytes"] - whole["sharedBytes"]
        figures = whole["recoveryPointCount"], whole["logicalBytes"], whole["referencedBytes"]
        return [Row(vault["name"], "", vault["id"], *figures, alone, whole["sharedBytes"])]
    if by == "policy":
        return [_row(one["name"], "", one) for one in about["policies"]]
    return [_row_of(one) for one in body["value"]]


def _row_of(item: Document) -> Row:
    is_deleted = bool(at(item, "properties.isScheduledForDeferredDelete"))
    policy = _DELETED if is_deleted else at(item, "properties.policyName", "")
    return replace(_row(at(item, "properties.friendlyName"), policy, item), is_deleted=is_deleted)


def _row(title: str, policy: str, document: Document) -> Row:
    names = ("recoveryPointCount", "logicalBytes", "referencedBytes", "uniqueBytes", "sharedBytes")
    return Row(title, policy, document["id"], *(document["properties"][name] for name in names))
