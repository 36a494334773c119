# SPDX-License-Identifier: Apache-2.0
"""Whoever speaks another language: a catalogue that marks each text shows what no catalogue would reach.

Every page that can be walked to from the first one is asked for. What stands on it without a mark has to be what people
or the API named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from gettext import NullTranslations
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import pytest

from keepstone.portal import speech
from tests.service.test_portal import Browser, Somebody, browser, portal

from .client import Client
from .protecting import Vault

__all__ = ["browser", "portal"]

pytestmark = pytest.mark.portal
OPEN, SHUT = "⟦", "⟧"


class Marked(NullTranslations):
    """Each text in brackets."""

    def gettext(self, message: str) -> str:
        return f"{OPEN}{message}{SHUT}"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the language."""
    monkeypatch.setattr(speech, "languages", lambda: frozenset({"en", "qps"}))
    monkeypatch.setattr(speech, "catalogue", lambda name: Marked() if name == "qps" else NullTranslations())
    return "qps"


class Words(HTMLParser):
    """The texts of a page, and where it leads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []
        self._in: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag not in ("meta", "link", "input", "img", "br", "use", "path", "rect", "circle", "hr", "col"):
            self._in.append(tag)
        self.found += [given[name] for name in ("aria-label", "alt", "title", "placeholder") if given.get(name)]
        if tag == "a" and given.get("href", "").startswith("/portal"):
            self.links.append(urldefrag(given["href"]).url)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"code", "pre", "script", "style", "symbol"} & set(self._in):
            self.found.append(data)


def bare(text: str) -> list[str]:
    """What is outside of the marks, and has words in it."""
    without = text
    while OPEN in without:
        again = re.sub(f"{OPEN}[^{OPEN}{SHUT}]*{SHUT}", " ", without)
        if again == without:
            break
        without = again
    return [part for part in re.split(r"\s{2,}|\n", without) if re.search(r"[A-Za-z]{2,}", part)]


def walked(page: Somebody) -> Iterator[tuple[str, Words]]:
    """All pages, from the first one on: each kind of address a few times."""
    known, left = {"/portal/"}, ["/portal/"]
    kinds: dict[str, int] = {}
    while left:
        path = left.pop(0)
        kind = path.partition("?")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] > 6 or "/download" in kind or ".csv" in path or "format=csv" in path:
            continue
        answer = page.get(path)
        if "text/html" not in answer.headers.get("content-type", ""):
            continue
        words = Words(answer.text)
        yield path, words
        for link in words.links:
            if link not in known:
                known.add(link)
                left.append(link)


def test_pages_speak(client: Client, plane: Any, browser: Browser, marked: str, tmp_path: Path) -> None:
    vault = Vault(client, plane, "spoken")
    (tmp_path / "a.txt").write_text("a")
    item = vault.protect(tmp_path)
    vault.back_up(item)
    page = browser()
    page.headers["Accept-Language"] = marked
    seen: dict[str, set[str]] = {}
    for path, words in walked(page):
        for text in words.found:
            for part in bare(text):
                seen.setdefault(part.strip(), set()).add(path.partition("?")[0])
    for part, paths in sorted(seen.items(), key=lambda one: sorted(one[1])):
        print(repr(part), sorted(paths)[:3])
    assert not seen
