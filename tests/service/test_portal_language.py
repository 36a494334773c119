# SPDX-License-Identifier: Apache-2.0
"""Whoever speaks another language: a catalogue that marks each text shows what no catalogue would reach.

Every page that can be walked to from the first one is asked for. What stands on it without a mark has to be what people
or the API named.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from gettext import NullTranslations
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import pytest
import sqlalchemy as sa

from keepstone.catalogue import items
from keepstone.control import alerts
from keepstone.disks.writing import FORMATS
from keepstone.portal import speech
from keepstone.portal.rendering import environment
from keepstone.vault.alerts import Kind, Subject
from keepstone.vault.zones import windows_names
from keepstone.workloads.running import Reached
from tests.service.test_portal import Browser, Somebody, browser, portal

from .client import Client
from .protecting import CONTAINER, Vault
from .test_overview import drill

__all__ = ["browser", "portal"]

pytestmark = pytest.mark.portal
OPEN, SHUT = "⟦", "⟧"
PORTAL = Path(speech.__file__).parent
EXAMPLES = {"/srv/data", "0.02"}
"""Of what may be given, in fields that are empty."""
# What is for people of what is called: its places and its names.
SAID = {
    "Field": (slice(0), ("label", "help")),
    "Choice": (slice(1, 2), ("label",)),
    "Plan": (slice(0), ("notice",)),
    "replace": (slice(0), ("notice",)),
    "Redirect": (slice(0), ("notice",)),
    "Offer": (slice(1), ("title",)),
    "Tile": (slice(0, 3), ("title", "says")),
    "Check": (slice(0, 1), ("title",)),
    "InvalidRequest": (slice(1), ()),
    "NotFound": (slice(1), ()),
    "Unsupported": (slice(1), ()),
}
REASON = "it asks for a login"
ROLES = "providers/Microsoft.Authorization/roleDefinitions"


class Marked(NullTranslations):
    """Each text in brackets, but for the values in it: what is a value has to be looked up by itself, or be data."""

    def gettext(self, message: str) -> str:
        return OPEN + re.sub(r"%\(\w+\)s", lambda found: f"{SHUT}{found[0]}{OPEN}", message) + SHUT

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
        self._is_reference = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag not in ("meta", "link", "input", "img", "br", "use", "path", "rect", "circle", "hr", "col"):
            self._in.append(tag)
        if tag == "table":
            self._is_reference = given.get("class") == "reference"
        self.found += [given[name] for name in ("aria-label", "alt", "title", "placeholder") if given.get(name)]
        if tag == "a" and given.get("href", "").startswith("/portal"):
            self.links.append(urldefrag(given["href"]).url)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        # What operations say of themselves stands in the rows of their table.
        is_data = {"code", "pre", "samp", "script", "style", "symbol"} & set(self._in)
        if not is_data and not (self._is_reference and "tbody" in self._in):
            self.found.append(data)


def bare(text: str) -> list[str]:
    """What is outside of the marks, and has words in it that are not data."""
    without = text
    while (again := re.sub(f"{OPEN}[^{OPEN}{SHUT}]*{SHUT}", "\n", without)) != without:
        without = again
    return [part.strip() for part in re.split(r"\n| · ", without) if re.search(r"[^\W\d_]{2,}", part)]


class Data:
    """What people, Azure's API or the service's operations say, in the words that they have for it.

    `given`: names that people gave, wherever they stand. `said`: what operations say, each as a whole, by where."""

    # Azure's words of operations, kinds and types.
    AZURE = ("Backup", "ConfigureBackup", "CountUsage", "FileFolder", "DiskImage", "FileSystemConsistent",
             "CrashConsistent", "DeleteBackupData", "Full", "Log")  # fmt: skip
    # Programs, formats and names that are the same in every language.
    NAMES = (
        "az",
        "keepstone",
        "Keepstone",
        "REST",
        "zip",
        "tar",
        "UTC",
        "openapi.json",
        "*.docx",
        "disk.img",
        *FORMATS,
    )
    PATTERNS = (
        r"\d+\.\d [KMGTP]iB",
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        r"spoken / vault1 / .*",  # where something is
    )
    # What jobs and the service tell of themselves.
    SAID: Mapping[str, Sequence[str]] = {
        "/portal/job": ("New Bytes", "Files", "Recovery Point", "Policy Name"),
        "/portal/welcome": ("SQLite, in the same folder",),
    }

    def __init__(self, given: Iterable[str], said: Mapping[str, Sequence[str]]) -> None:
        names = {*self.AZURE, *self.NAMES, *windows_names(), *given}
        known = sorted((re.escape(name) for name in names), key=len, reverse=True)
        self._known = re.compile(rf"(?<!\w)(?:{'|'.join((*self.PATTERNS, *known))})(?!\w)")
        self._said = {**self.SAID, **said}

    def left(self, part: str, path: str) -> str:
        """What of a text is none of it; empty where nothing has words."""
        if any(part in whole for where, whole in self._said.items() if path.startswith(where)):
            return ""
        rest = self._known.sub(" ", part)
        return rest.strip() if re.search(r"[^\W\d_]{2,}", rest) else ""


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


def told(client: Client, path: str, **query: str) -> list[str]:
    """What the service says that a deletion takes with it."""
    found = client.arm("GET", f"{path}/blastRadius", params=query)["properties"]
    return [*(text for line in found["lines"] for text in (line["label"], line["text"])), *found["refused"]]


def listed(plane: Any) -> Iterator[tuple[str, ...]]:
    """What the service says in alerts."""
    with plane.look() as connection:
        for one in alerts.listing(connection, limit=100):
            yield one.rule.name, one.rule.todo, one.message


def test_pages_speak(client: Client, plane: Any, browser: Browser, marked: str, tmp_path: Path) -> None:
    vault = Vault(client, plane, "spoken")
    folder, disk, gone = tmp_path / "f1", tmp_path / "d1.img", tmp_path / "f2"
    for one in (folder, gone):
        one.mkdir()
        (one / "a.txt").write_text("a")
    disk.write_bytes(bytes(1 << 20))
    item, image, deleted = vault.protect(folder), vault.protect(disk, sourceType="DiskImage"), vault.protect(gone)
    for each in (item, image, deleted):
        vault.back_up(each)
    client.ask("DELETE", deleted)
    with plane.look() as connection:
        found = connection.execute(sa.select(items.c.id).where(items.c.workload == "DiskImage")).scalar_one()
    drill(vault, found, timedelta(days=1), Reached.LOGIN)
    subject = Subject(kind=Kind.STORE_DAMAGED, vault=vault.uuid, part="")
    with plane.change() as change:
        alerts.fire(change.connection, plane.env, subject, "what happened", resource=vault.path, entity="vault1")
    page = browser()
    page.headers["Accept-Language"] = marked
    roles = client.arm("GET", f"{client.subscription}/{ROLES}")["value"]
    people = client.arm("GET", "/providers/Keepstone.Identity/users")["value"]
    data = Data(
        (
            *map(str, (folder, disk, gone, plane.root, CONTAINER, CONTAINER.partition(";")[2])),
            *("f1", "a.txt", "d1.img", "f2", "vault1", "spoken", "onprem1"),
            *(name for one in people for name in (one["name"], one["properties"]["displayName"])),
            *(one["properties"]["roleName"] for one in roles),
            *(one["name"] for one in client.arm("GET", f"{vault.path}/backupPolicies")["value"]),
        ),
        {
            "/portal/do/": [
                *(text for each in (item, image, deleted, vault.path) for text in told(client, each)),
                *(
                    text
                    for each in (item, image)
                    for way in ("ever", "policy")
                    for text in told(client, each, retain=way)
                ),
            ],
            "/portal/alert": [text for one in listed(plane) for text in one],
            "/portal/drill": [REASON],
            "/portal/item": [REASON],
        },
    )
    seen: dict[str, set[str]] = {}
    paths = set()
    for path, words in walked(page):
        kind = path.partition("?")[0]
        paths.add(kind)
        for text in words.found:
            for part in bare(text):
                if left := data.left(part, kind):
                    seen.setdefault(left, set()).add(kind)
    assert not seen
    assert {"/portal/alert", "/portal/drill", "/portal/point", "/portal/do/restore-disk", "/portal/do/undelete"} < paths


def test_what_comes_of_an_action_speaks(
    client: Client, plane: Any, browser: Browser, marked: str, tmp_path: Path
) -> None:
    vault = Vault(client, plane, "answered")
    item = vault.protect(tmp_path)
    page = browser()
    page.headers["Accept-Language"] = marked

    page.post("/portal/do/backup-now", data={"id": item, "once": "1"})
    refused = page.post("/portal/do/vault-tags", data={"id": vault.path, "once": "2", "tags": "none"})
    nowhere = page.get("/portal/nowhere")
    made = page.post("/portal/do/create-user", data={"name": "new1", "once": "3", "to": "/portal/settings"})
    stopped = page.post("/portal/do/stop", data={"id": item, "once": "4", "keep": "ever"})
    notice = page.get(stopped.headers["location"])

    assert f"{OPEN}write a tag as name=value, one a line{SHUT}" in refused.text
    assert f"{OPEN}there is no page {SHUT}/nowhere" in nowhere.text
    assert f"{OPEN}Make a user{SHUT}" in made.text
    assert f"{OPEN}Password{SHUT}" in made.text
    assert f"{OPEN}Its protection is stopped.{SHUT}" in notice.text


def test_templates_say_nothing_by_themselves() -> None:
    """Also where no page of the walk comes by."""
    data = Data((), {})
    for path in sorted(PORTAL.rglob("*.html")):
        tokens = list(environment().lex(path.read_text()))
        outside, depth = [], 0
        for _, kind, text in tokens:
            depth += kind.endswith("_begin") - kind.endswith("_end")
            outside.append(text if kind == "data" else "")
        assert depth == 0
        said = {part for text in Words("".join(outside)).found for part in bare(text) if data.left(part, "")}
        assert said - EXAMPLES == set(), path.name


def test_what_is_made_in_python_is_looked_up() -> None:
    """The texts of what pages are made of are no constants; and nothing hides what looks them up."""
    for path in sorted(PORTAL.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAID:
                places, names = SAID[node.func.id]
                given = [*node.args[places], *(word.value for word in node.keywords if word.arg in names)]
                for one in given:
                    parts = one.values if isinstance(one, ast.JoinedStr) else [one]
                    fixed = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
                    assert not re.search(r"[^\W\d_]{2,}", fixed), (path.name, one.lineno, fixed)
            if isinstance(node, ast.FunctionDef):
                names_ = [one for one in ast.walk(node) if isinstance(one, ast.Name) and one.id == "_"]
                assert len({type(one.ctx) for one in names_}) < 2, (path.name, node.name)
