# SPDX-License-Identifier: Apache-2.0
"""A request to a view, and what a view answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from keepstone.control.plane import Plane
from keepstone.errors import InvalidRequest
from keepstone.portal.api import Client, Reply
from keepstone.portal.speech import _

__all__ = ["Answer", "Download", "File", "Page", "Redirect", "View", "Views", "Visit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """`path`: behind the portal's prefix. `query` and `form`: what was given, each name with its values. `part`:
    whether a part of a page is wanted, by a script of it, and not all. `login`: the token of the browser."""

    plane: Plane
    client: Client
    path: str
    query: Mapping[str, Sequence[str]]
    form: Mapping[str, Sequence[str]]
    part: bool = False
    login: str = ""

    def text(self, name: str, default: str = "") -> str:
        """What was given by this name, in the form or else in the address."""
        values = self.form.get(name) or self.query.get(name) or ()
        return values[-1] if values else default

    def texts(self, name: str) -> list[str]:
        """All that was given by this name."""
        return list(self.form.get(name) or self.query.get(name) or ())

    def needed(self, name: str) -> str:
        """The same. `InvalidRequest` where nothing was given."""
        found = self.text(name).strip()
        if not found:
            raise InvalidRequest(_("%(name)s is missing", name=name), target=name)
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """A template and what it shows; `part`: the block of it that a script is answered, where that asks."""

    template: str
    shown: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    part: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Another page of the portal. `notice`: what is said there, once. `login`: what the browser is
    to prove itself by from now on; empty for nothing any more."""

    path: str
    notice: str = ""
    login: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """What an operation answers, as it is: bytes, or an iterator of them."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class File:
    """A file for the browser, as an operation would answer it."""

    name: str
    body: bytes
    status: int = 200

    @property
    def headers(self) -> Mapping[str, str]:
        """So that it is kept, and not shown."""
        return {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(self.name, safe='')}",
        }


Answer = Page | Redirect | Download
View = Callable[[Visit], Answer]


class Views:
    """The views of a module, by verb and path."""

    def __init__(self) -> None:
        self._views: dict[tuple[str, str], View] = {}

    def __call__(self, verb: str, path: str) -> Callable[[View], View]:
        """Says that the function below answers this."""

        def register(view: View) -> View:
            assert (verb, path) not in self._views
            self._views[verb, path] = view
            return view

        return register

    def __iter__(self) -> Iterator[tuple[tuple[str, str], View]]:
        return iter(self._views.items())
