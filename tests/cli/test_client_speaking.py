# SPDX-License-Identifier: Apache-2.0
"""How the client speaks: tables, JSON, what a query chooses; and what the API refused, as the exception that it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from keepstone import errors
from keepstone.arm.failures import failure
from keepstone.cli.client.dates import day
from keepstone.cli.client.output import Column, Output, at, count, moment, octets
from keepstone.cli.client.refusals import refused
from keepstone.cli.client.tags import tags_of
from keepstone.cli.program import keepstone
from keepstone.errors import InvalidPolicy, InvalidRequest, KeepstoneError, NoOperation, UsageError
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service

COLUMNS = (
    Column("name", "name"),
    Column("size", "properties.size", octets),
    Column("parts", "properties.parts"),
    Column("long", lambda document: len(document["name"]), count),
)
DOCUMENTS = [
    {"name": "a", "properties": {"size": 2048, "parts": ["x", "y"]}},
    {"name": "b\x1b[31m", "properties": {"parts": {"k": True}}},
]


# Results


def test_a_list_for_people() -> None:
    assert Output("table").lines(DOCUMENTS, COLUMNS) == [
        "name       size   parts  long",
        "a          2 KiB  x, y   1",
        "b\\x1b[31m         k=yes  6",
    ]


def test_one_thing_for_people_leaves_out_what_it_has_not() -> None:
    assert Output("table").lines(DOCUMENTS[1], COLUMNS) == ["name:   b\\x1b[31m", "parts:  k=yes", "long:   6"]


def test_shells_get_the_same_without_the_heading() -> None:
    assert Output("tsv").lines(DOCUMENTS[0], COLUMNS) == ["a\t2 KiB\tx, y\t1"]
    assert Output("none").lines(DOCUMENTS, COLUMNS) == []


def test_programs_get_what_was_answered() -> None:
    (line,) = Output("json").lines(DOCUMENTS, COLUMNS)
    assert json.loads(line) == DOCUMENTS


@pytest.mark.parametrize(
    ("query", "form", "lines"),
    [
        ("[].name", "tsv", ["a", "b\\x1b[31m"]),
        ("[0].properties.size", "tsv", ["2048"]),
        ("[0].properties.nothing", "tsv", []),
        ("[].[name, properties.size]", "tsv", ["a\t2048", "b\\x1b[31m\t"]),
        ("[0].{it: name, parts: properties.parts}", "table", ["it  parts", 'a   ["x","y"]']),
        ("[?name == 'a'] | [0].name", "json", ['"a"']),
        ("length(@)", "table", ["2"]),
        ("[1].properties.parts.k", "tsv", ["true"]),
    ],
)
def test_a_query_chooses(query: str, form: str, lines: list[str]) -> None:
    assert Output(form, query).lines(DOCUMENTS, COLUMNS) == lines


@pytest.mark.parametrize("query", ["[", "nothing(@)", "sort(@)"])
def test_a_query_that_is_none(query: str) -> None:
    with pytest.raises(UsageError, match="JMESPath"):
        Output("json", query).lines([1, "a"], ())


def test_cells() -> None:
    assert at({"a": {"b": 1}}, "a.b") == 1
    assert at({"a": 1}, "a.b") is None
    assert moment("2026-11-26T05:32:06.2367090Z") == "2026-11-26T05:32:06Z"
    assert moment(None) == ""
    assert count(12345) == "12,345"
    assert octets(None) == ""


@pytest.mark.parametrize(
    ("text", "end", "wanted"),
    [
        ("2026-12-31", False, "2026-12-31T00:00:00Z"),
        ("31-12-2026", True, "2026-12-31T23:59:59Z"),
        (None, True, None),
    ],
)
def test_days(text: str | None, end: bool, wanted: str | None) -> None:
    assert day("--end-date", text, end=end) == wanted


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "31/12/2026"])
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(UsageError, match="--end-date"):
        day("--end-date", text)


def test_tags() -> None:
    assert tags_of(()) is None
    assert tags_of(("",)) == {}
    assert tags_of(("a=b c='d e'", "f=")) == {"a": "b", "c": "d e", "f": ""}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        tags_of(("=b",))


# Refusals


def _every(kind: type[KeepstoneError]) -> Iterator[type[KeepstoneError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _every(below)


def _made(kind: type[KeepstoneError]) -> KeepstoneError:
    if issubclass(kind, InvalidPolicy):
        return kind("a message", target="properties.x")
    if issubclass(kind, NoOperation):
        return kind("a message", verbs=[])
    return kind("a message")


@pytest.mark.parametrize("kind", [kind for kind in _every(KeepstoneError) if kind.__module__ == errors.__name__])
def test_what_the_service_raised_is_raised_here(kind: type[KeepstoneError]) -> None:
    """The same code, sentence and exit code; and the same class, unless it has its code from the one above."""
    there = _made(kind)
    here = refused(*failure(there, "1"))
    assert (here.code, str(here), here.status, here.exit_code) == (
        there.code,
        "a message",
        there.status,
        there.exit_code,
    )
    assert isinstance(there, type(here))
    assert type(here) is kind or "code" not in vars(kind)


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "BMSUserErrorSomething", 2),
        (401, "InvalidAuthenticationToken", 5),
        (403, "LinkedAuthorizationFailed", 5),
        (404, "BMSUserErrorContainerNotFound", 3),
        (409, "ScopeLocked", 1),
        (500, "InternalServerError", 1),
    ],
)
def test_a_code_that_no_class_has_is_told_by_its_status(status: int, code: str, exit_code: int) -> None:
    error = refused(status, {"error": {"code": code, "message": "why"}})
    assert (error.code, error.exit_code, str(error)) == (code, exit_code, "why")


@pytest.mark.parametrize("body", [None, [], {"error": "no"}, {"message": "x"}])
def test_an_answer_that_is_no_error_of_arms(body: Any) -> None:
    assert "502" in str(refused(502, body))


def test_a_target_is_no_hindrance() -> None:
    assert isinstance(refused(*failure(InvalidRequest("m", target="x", code="Other"), "1")), UsageError)


def test_failures_for_programs(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    for form in (("--json",), ("-o", "json"), ("--output", "json")):
        ended = cli.run("vault", "show", "-g", "g", "-n", "nothing", *form, code=3)
        assert ended.json["error"]["message"] in ended.err
    assert cli.run("vault", "show", "-g", "g", "-n", "nothing", code=3).out == ""


def test_an_empty_list(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    ended = cli.run("vault", "list")
    assert ended.out == ""
    assert "keepstone vault create" in ended.err
    assert cli.run("vault", "list", "-o", "json").out == "[]\n"
    assert cli.run("vault", "list", "-o", "json").err == ""


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_what_is_no_name_is_not_asked_for(
    service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    assert "is no name" in cli.run("group", "show", "-n", name, code=2).err


def test_a_name_of_any_letters(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    cli.run("group", "create", "-n", "größe(1)")
    cli.run("vault", "create", "-g", "größe(1)", "-n", "v1")
    (tmp_path / "x").mkdir()
    cli.run("protection", "enable", "--path", "x")  # whose policy is named by an id in the document
    cli.run("item", "set-policy", "-i", "x", "-p", "FilesPolicy", "-g", "größe(1)", "-v", "v1")


# Help


def _commands(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below, context)


@pytest.mark.parametrize("name", keepstone.list_commands(click.Context(keepstone)))
def test_every_command_says_what_it_is(cli: Cli, name: str) -> None:
    context = click.Context(keepstone, info_name="keepstone")
    command = keepstone.get_command(context, name)
    assert command is not None
    for one in _commands(command, context):
        assert one.help, one.name
        for parameter in one.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (one.name, parameter.name)
    assert f"Usage: keepstone {name}" in cli.run(name, "--help").out


_ALONE = """
import sys
from keepstone.cli import main
code = main({arguments!r})
heavy = {{"sqlalchemy", "starlette", "uvicorn", "alembic", "joserfc", "keepstone.arm", "keepstone.control"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.exit(code)
"""


def test_a_client_is_no_server(service: Answering, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server needs is not imported by a command from elsewhere, nor on its machine once there is a token."""
    service.principal("somebody", "secret", "Owner")
    far = {"KEEPSTONE_ENDPOINT": service.url, "KEEPSTONE_CA": str(service.installation.ca),
           "KEEPSTONE_CLIENT_ID": "somebody", "KEEPSTONE_CLIENT_SECRET": "secret"}  # fmt: skip
    near = {"KEEPSTONE_DATA": str(service.root)}
    cli.run("group", "list", "--data", service.root)
    for variables in (far, near):
        program = _ALONE.format(arguments=["group", "list"])
        environment = {"KEEPSTONE_HOME": str(cli.home), "PATH": "/usr/bin:/bin"} | variables
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 0, ended.stderr
