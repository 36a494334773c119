# SPDX-License-Identifier: Apache-2.0
"""The portal without a browser: who gets in and how long for, what a form may do and how often, what answers say to
browsers, and what pages of a large vault cost."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from html import unescape
from importlib.resources import files
from itertools import count
from statistics import quantiles
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from bench.service.estate import GROUP, VAULT, Estate, Size, fill
from keepstone.arm.service import Service
from keepstone.catalogue import jobs, logins, submissions
from keepstone.control import logins as control
from keepstone.control import users
from keepstone.control.plane import Plane
from keepstone.errors import Unauthenticated
from keepstone.portal import Portal
from keepstone.portal.application import COOKIE
from keepstone.portal.assets import address, asset
from keepstone.portal.rendering import environment
from keepstone.portal.speech import language_of
from tests.service.conftest import Clock
from tests.service.test_scale import heard

from .client import ADDRESS, Client

pytestmark = pytest.mark.portal

PASSWORD = "correct horse battery"
_numbers = count(1)


class Somebody(TestClient):
    """A browser of somebody; `name`: what he logs in with."""

    name = ""


Browser = Callable[..., Somebody]


@pytest.fixture(scope="module")
def portal(plane: Plane, service: Service) -> Portal:
    return Portal(plane, service)


@pytest.fixture
def browser(portal: Portal, plane: Plane) -> Browser:
    """Of somebody with a role, who has logged in."""

    def begin(role: str | None = "Owner", scope: str = "/", *, enters: bool = True) -> Somebody:
        name = f"somebody{next(_numbers)}"
        users.create(plane, name, None, PASSWORD, role=role, scope=scope)
        client = Somebody(portal, base_url=ADDRESS, follow_redirects=False)
        client.headers["Origin"] = ADDRESS
        if enters:
            answer = client.post("/portal/login", data={"name": name, "password": PASSWORD})
            assert (answer.status_code, answer.headers["location"]) == (303, "/portal/")
        client.name = name
        return client

    return begin


@pytest.fixture(scope="module")
def estate(client: Client, plane: Plane) -> Estate:
    client.group(GROUP)
    client.vault(GROUP, VAULT)
    return fill(plane, Size("portal", vaults=1, items=10_000, points=30, jobs=20_000), ("", ""))


def test_a_cookie_is_for_this_origin_alone(browser: Browser, plane: Plane) -> None:
    client = browser(enters=False)
    name = client.name

    answer = client.post("/portal/login", data={"name": name, "password": PASSWORD})

    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; Path=/; Secure; HttpOnly; SameSite=Strict", cookie)
    with plane.look() as connection:
        kept = connection.execute(sa.select(logins.c.key)).scalars().all()
    assert cookie.partition("=")[2].partition(";")[0].encode() not in kept


def test_nobody_gets_in_by_a_wrong_password(browser: Browser) -> None:
    client = browser(enters=False)
    name = client.name

    answer = client.post("/portal/login", data={"name": name, "password": "wrong" * 4, "to": "/portal/jobs?x=<b>"})

    assert answer.status_code == 401
    assert "Invalid client secret or name" in unescape(answer.text)
    assert 'value="/portal/jobs?x=&lt;b&gt;"' in answer.text
    assert client.get("/portal/items").headers["location"] == "/portal/login?to=%2Fportal%2Fitems"


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/portalx", "javascript:1"]
)
def test_a_login_leads_nowhere_else(browser: Browser, to: str) -> None:
    client = browser(enters=False)
    form = {"name": client.name, "password": PASSWORD, "to": to}
    assert client.post("/portal/login", data=form).headers["location"] == "/portal/"


def test_a_login_ends_when_it_is_not_used(browser: Browser, clock: Clock) -> None:
    client = browser()
    before = clock.ahead
    try:
        clock.ahead += timedelta(minutes=29)
        assert client.get("/portal/items").status_code == 200
        clock.ahead += timedelta(minutes=29)
        assert client.get("/portal/items").status_code == 200
        clock.ahead += timedelta(minutes=31)
        assert client.get("/portal/items").headers["location"].startswith("/portal/login")
        answer = client.get("/portal/items", headers={"HX-Request": "true", "HX-Request-Type": "partial"})
        assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/portal/login")
    finally:
        clock.ahead = before


def test_a_login_ends_after_twelve_hours(browser: Browser, clock: Clock) -> None:
    client = browser()
    before = clock.ahead
    try:
        for _ in range(29):
            clock.ahead += timedelta(minutes=25)
            assert client.get("/portal/items").status_code == (200 if clock.ahead - before < control.LONGEST else 303)
    finally:
        clock.ahead = before


def test_a_page_that_is_followed_keeps_no_login(plane: Plane, browser: Browser, clock: Clock) -> None:
    client = browser()
    token = client.cookies[COOKIE]
    before = clock.ahead
    try:
        for _ in range(3):
            clock.ahead += timedelta(minutes=9)
            control.find(plane, token, note=False)
        clock.ahead += timedelta(minutes=9)
        with pytest.raises(Unauthenticated):
            control.find(plane, token, note=False)
    finally:
        clock.ahead = before


def test_whoever_logs_out_is_out(browser: Browser) -> None:
    client = browser()
    token = client.cookies[COOKIE]
    assert client.post("/portal/logout").status_code == 303
    client.cookies.set(COOKIE, token)
    assert client.get("/portal/items").status_code == 303


def test_another_password_ends_all_logins(browser: Browser, plane: Plane) -> None:
    client = browser()
    users.set_password(plane, client.name)
    assert client.get("/portal/items").status_code == 303


def test_whoever_is_removed_is_out(browser: Browser, plane: Plane) -> None:
    client = browser("Reader")
    with plane.change() as change:
        users.delete(change, users.find(change.connection, client.name))
    assert client.get("/portal/items").status_code == 303


def test_forms_of_other_places_do_nothing(browser: Browser) -> None:
    client = browser()
    for origin in ("https://evil.example", "null", "http://localhost:8443", "https://localhost:8444", ""):
        answer = client.post("/portal/logout", headers={"Origin": origin})
        assert answer.status_code == 403
        assert client.get("/portal/items").status_code == 200


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"x" * ((1 << 20) + 1), "application/x-www-form-urlencoded"),
        (b"&".join(b"a=1" for _ in range(2001)), "application/x-www-form-urlencoded"),
        (b"\xff\xfe=1", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused(browser: Browser, body: bytes, kind: str) -> None:
    client = browser()
    assert client.post("/portal/logout", content=body, headers={"Content-Type": kind}).status_code == 400
    assert client.get("/portal/items").status_code == 200


def test_ids_that_are_none(browser: Browser) -> None:
    client = browser()
    for path in ("/item", "/job", "/do/backup-now", "/do/cancel-job", "/live/job"):
        for identity in ("", "x", "/subscriptions/../..", "/subscriptions/a/resourceGroups/b", "/" * 5000, "\x00", "%"):
            answer = client.get(f"/portal{path}?id={quote(identity)}")
            assert answer.status_code in (200, 400, 404)
            assert "fault of its own" not in answer.text


def test_answers_tell_browsers_to_load_nothing_else(browser: Browser) -> None:
    client = browser()
    for path in ("/portal/", "/portal/login", "/portal/nothing", "/portal/static/0/x.js", "/portal/item"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")


def test_files_are_kept_by_browsers_and_small(browser: Browser) -> None:
    """All script and style of the portal: at most 60 kB as they are sent."""
    client = browser(enters=False)
    for path in re.findall(r'(?:src|href)="(/portal/static/[^"]+)"', client.get("/portal/login").text):
        answer = client.get(path)
        assert "immutable" in answer.headers["cache-control"]
        assert (answer.headers["content-encoding"], len(answer.content) > 100) == ("gzip", True)

    every = [entry.name for entry in files("keepstone.portal").joinpath("static").iterdir()]
    sent = {name: len(asset(address(name))[0]) for name in every if name.endswith((".js", ".css"))}
    assert sum(sent.values()) <= 60_000, sent


def test_a_form_counts_once(browser: Browser, client: Client, plane: Plane) -> None:
    """However often it is sent, and also at the same time."""
    client.group("once")
    vault = client.vault("once", "v1")
    page = browser()
    form = page.get(f"/portal/do/protect-path?id={quote(vault)}").text
    once = re.search(r'name="once" value="([\w-]+)"', form)
    assert once is not None
    given = {"id": vault, "once": once.group(1), "path": "/etc/hostname", "policy": "FilesPolicy"}

    first = page.post("/portal/do/protect-path", data=given)
    again = page.post("/portal/do/protect-path", data=given)

    assert first.status_code == again.status_code == 303
    assert first.headers["location"] == again.headers["location"]
    assert "/portal/job?" in first.headers["location"]
    with plane.look() as connection:
        query = sa.select(sa.func.count()).where(jobs.c.operation == "ConfigureBackup")
        assert connection.execute(query).scalar_one() == 1


def test_a_form_that_was_refused_may_be_sent_again(browser: Browser, client: Client, plane: Plane) -> None:
    client.group("again")
    vault = client.vault("again", "v1")
    page = browser()
    given = {"id": vault, "once": "a-form", "path": "relative", "policy": "FilesPolicy"}

    refused = page.post("/portal/do/protect-path", data=given)

    assert refused.status_code == 400
    assert "no absolute path" in refused.text
    with plane.look() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(submissions)).scalar_one() >= 0
    assert page.post("/portal/do/protect-path", data=given | {"path": "/etc/hostname"}).status_code == 303


def test_somebody_elses_form_tells_nothing(browser: Browser, client: Client) -> None:
    client.group("other")
    vault = client.vault("other", "v1")
    given = {"id": vault, "once": "shared", "path": "/etc/hostname", "policy": "FilesPolicy"}
    one, other = browser(), browser()
    assert "/portal/job?" in one.post("/portal/do/protect-path", data=given).headers["location"]
    assert other.post("/portal/do/protect-path", data=given).headers["location"] == "/portal/jobs"


@pytest.mark.parametrize("role", ["Reader", "Backup Reader", None])
def test_who_may_not_is_refused_and_offered_nothing(browser: Browser, client: Client, role: str | None) -> None:
    name = f"roles{next(_numbers)}"
    client.group(name)
    vault = client.vault(name, "v1")
    page = browser(role)
    for path in ("/portal/", "/portal/items", "/portal/infrastructure"):
        assert "/portal/do/" not in page.get(path).text
    given = {"id": vault, "once": name, "path": "/etc/hostname", "policy": "FilesPolicy"}
    answer = page.post("/portal/do/protect-path", data=given)
    assert answer.status_code == 403
    assert "does not have authorization" in unescape(answer.text)


def test_things_of_others_are_not_there(browser: Browser, client: Client) -> None:
    """Somebody with a role in one vault sees that one."""
    client.group("mine")
    client.group("theirs")
    mine, theirs = client.vault("mine", "vmine"), client.vault("theirs", "vtheirs")
    page = browser("Backup Contributor", mine)
    assert page.get("/portal/infrastructure").status_code == 200
    assert "vtheirs" not in page.get("/portal/infrastructure").text
    assert page.get(f"/portal/do/protect-path?id={quote(theirs)}").status_code == 403


LARGE = ["/portal/", "/portal/items", "/portal/items?kind=AzureIaasVM", "/portal/jobs", "/portal/jobs?status=Failed"]
LARGE += [f"/portal/{name}" for name in ("policies", "restore", "drills", "alerts", "reports", "security", "settings")]


@pytest.mark.parametrize("path", [*LARGE, "/portal/infrastructure", "/portal/protectable", "item", "following"])
def test_pages_of_ten_thousand_items(path: str, estate: Estate, browser: Browser, plane: Plane) -> None:
    """At most 250 kB, 150 ms of a processor (19 times of 20), and nothing goes through everything."""
    client = browser()
    if path == "item":
        path = f"/portal/item?id={quote(estate.vault + estate.items[0])}"
    if path == "following":
        found = re.search(r'href="(/portal/items\?[^"]*from=[^"]+)"', client.get("/portal/items").text)
        assert found is not None
        path = unescape(found.group(1))
    client.get(path)
    # A machine that does much else makes a processor slower, and never faster: the best of three rounds is the page's.
    rounds: list[float] = []
    while len(rounds) < 3 and min(rounds, default=1.0) >= 0.150:
        took = []
        for _ in range(20):
            began = time.process_time()
            answer = client.get(path)
            took.append(time.process_time() - began)
            assert answer.status_code == 200
        rounds.append(quantiles(took, n=20, method="inclusive")[-1])
    with heard(plane) as seen:
        client.get(path)
    assert len(answer.content) < 250_000
    assert min(rounds) < 0.150, rounds
    assert seen.scans == []


def test_a_language_that_there_is() -> None:
    assert language_of("de-CH, de;q=0.9, *;q=0.5") == "en"  # there is no other catalogue yet
    assert language_of("") == language_of("\x00;;,,") == "en"


def test_what_is_said_is_escaped_and_never_a_format() -> None:
    """Texts that go through the catalogue may hold what people wrote."""
    shown = {"label": "100 % of <b> {0} %(x)s"}
    assert environment().from_string("{{ _(label) }}").render(shown) == "100 % of &lt;b&gt; {0} %(x)s"
    named = "{{ _('of %(name)s', name=label) }}"
    assert environment().from_string(named).render(shown) == "of 100 % of &lt;b&gt; {0} %(x)s"
    marked = "{{ _('<of> %(name)s %(when)s', name=label, when='2026-01-02T03:04:05Z' | when) }}"
    assert environment().from_string(marked).render(shown) == (
        '&lt;of&gt; 100 % of &lt;b&gt; {0} %(x)s <time datetime="2026-01-02T03:04:05Z">2026-01-02 03:04</time>'
    )
    counted = "{{ counted('%(number)s of %(name)s', '%(number)s of all %(name)s', 1, name=label) }}"
    assert environment().from_string(counted).render(shown) == "1 of 100 % of &lt;b&gt; {0} %(x)s"
    assert environment().from_string("[{{ _('') }}]").render() == "[]"


def test_what_is_not_ours_is_as_it_came() -> None:
    """With its licence, and nothing else is foreign."""
    folder = files("keepstone.portal")
    known = tomllib.loads(folder.joinpath("licences", "vendored.toml").read_text())
    static = {entry.name: entry.read_bytes() for entry in folder.joinpath("static").iterdir()}
    for name, about in known.items():
        assert folder.joinpath("licences", about["text"]).read_text().strip()
        if name in static:
            assert sha256(static[name]).hexdigest() == about["sha256"], name
    assert set(static) - set(known) == {"portal.css", "portal.js", "keepstone.svg"}
    for name in set(static) - set(known) - {"keepstone.svg"}:
        assert b"SPDX-License-Identifier: Apache-2.0" in static[name]
