# SPDX-License-Identifier: Apache-2.0
"""What the portal asks, and of whom: the operations of the service, in this process, as somebody who is logged in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlsplit

from keepstone.identity import Principal

__all__ = ["VERSION", "Api", "Client", "Document", "Reply", "Request", "quoted"]

VERSION = "2024-04-01"
"""The api-version that the portal asks for, and that its examples say."""
Document = dict[str, Any]


class Reply(Protocol):
    """What an operation answers."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> Any: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Api(Protocol):
    """The operations. What one raises, `ask` raises."""

    def ask(
        self,
        who: Principal,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        base: str,
        headers: Mapping[str, str] | None = None,
    ) -> Reply: ...

    def allows(self, who: Principal, verb: str, path: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Request:
    """Something that can be asked for. `path`: a resource's id and what follows, not quoted. `headers`: those that it
    has besides."""

    verb: str
    path: str
    body: Document | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Client:
    """The operations as `who` may ask for them. `base`: the address that his browser came to."""

    def __init__(self, api: Api, who: Principal, base: str) -> None:
        self.who = who
        self.base = base
        self._api = api

    def send(self, request: Request) -> Reply:
        """Ask. Raises what the operation raises."""
        query = {"api-version": VERSION, **request.query}
        return self._api.ask(
            self.who,
            request.verb,
            quoted(request.path),
            query=query,
            body=request.body,
            base=self.base,
            headers={name.casefold(): value for name, value in request.headers.items()},
        )

    def get(self, path: str, **query: str) -> Document:
        """A document."""
        found = self.send(Request("GET", path, query=query)).body
        assert isinstance(found, dict)
        return found

    def page(self, path: str, token: str = "", **query: str) -> tuple[list[Document], str]:
        """A page of a list, and the token of the next one; empty where there is none."""
        found = self.get(path, **query, **({"$skipToken": token} if token else {}))
        following = dict(parse_qsl(urlsplit(found.get("nextLink") or "").query))
        return found["value"], following.get("$skipToken", "")

    def every(self, path: str, **query: str) -> Iterator[Document]:
        """All of a list, page by page."""
        token = ""
        while True:
            found, token = self.page(path, token, **query)
            yield from found
            if not token:
                return

    def allows(self, request: Request) -> bool:
        """Whether he may ask for this."""
        return self._api.allows(self.who, request.verb, quoted(request.path))


def quoted(path: str) -> str:
    """As it stands in a request: ids have `;` and blanks in their names."""
    return quote(path, safe="/;()@:,+*!$&'=~%")
