# SPDX-License-Identifier: Apache-2.0
"""`keepstone alert`: what people see and say of alerts, and whom they have told, with no address in anybody's sight."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepstone.control.postman import Postman
from tests.cli.answering import Answering
from tests.cli.running import Cli, Ended
from tests.service.mailbox import Mailbox

pytestmark = pytest.mark.service
_numbers = count(1)


@pytest.fixture
def vault(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that the commands of this test mean."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    name = f"vault{next(_numbers)}"
    cli.run("group", "create", "-n", name)
    cli.run("vault", "create", "-g", name, "-n", name)
    monkeypatch.setenv("KEEPSTONE_VAULT", name)
    return name


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def found(ended: Ended) -> Any:
    return json.loads(ended.out.splitlines()[-1])


def weaken(cli: Cli, vault: str) -> str:
    """Give reason for an alert; its id."""
    cli.run("vault", "update", "-n", vault, "--soft-delete-state", "disable")
    return str(found(cli.run("alert", "list", "--json"))[0]["properties"]["essentials"]["sourceCreatedId"])


def test_alerts_are_listed_shown_acknowledged_and_closed(cli: Cli, vault: str) -> None:
    assert "no alerts" in cli.run("alert", "list").err
    identity = weaken(cli, vault)
    listed = cli.run("alert", "list").out
    assert "Sev0" in listed
    assert "Soft Delete Disabled for Vault" in listed
    shown = cli.run("alert", "show", "-n", identity[:6]).out
    assert "what to do:" in shown
    assert "New" in shown
    cli.run("alert", "acknowledge", "-n", identity)
    assert (
        identity
        in cli.run("alert", "list", "--state", "acknowledged", "--severity", "sev0", "--condition", "fired").out
    )
    assert "no alerts" in cli.run("alert", "list", "--state", "new").err
    closed = found(cli.run("alert", "close", "-n", identity, "-o", "json"))["properties"]["essentials"]
    assert closed["alertState"] == "Closed"
    assert closed["lastModifiedUserName"] != "System"
    assert cli.run("alert", "show", "-n", "ffffffff", "--json", code=3).error == "ResourceNotFound"
    cli.run("alert", "close", "-n", "a/b", code=2)


def test_alerts_of_all_vaults_of_a_group_and_of_one_that_is_deleted(
    cli: Cli, vault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = weaken(cli, vault)
    cli.run("vault", "delete", "-n", vault)
    monkeypatch.delenv("KEEPSTONE_VAULT")
    everywhere = [
        one["properties"]["essentials"]["sourceCreatedId"] for one in found(cli.run("alert", "list", "--json"))
    ]
    assert identity in everywhere
    here = found(cli.run("alert", "list", "-g", vault, "--json"))
    assert {one["name"] for one in here} == {"Soft Delete Disabled for Vault", "Vault Deleted"}
    cli.run("alert", "close", "-n", identity)


def test_targets_come_are_tested_and_go(
    cli: Cli, vault: str, mailbox: Mailbox, service: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nobody is told" in cli.run("alert", "target", "list").err
    file = tmp_path / "address"
    file.write_text(mailbox.url("secret-path") + "\n")
    made = cli.run("alert", "target", "add", "-n", "hook", "--url-file", file)
    assert f"json://127.0.0.1:{mailbox.port}/…" in made.out
    assert "was told" in cli.run("alert", "target", "test", "-n", "hook").err
    assert len(mailbox.messages) == 1

    monkeypatch.setenv("KEEPSTONE_ALERT_URL", mailbox.url("secret-other"))
    cli.run("alert", "target", "add", "-n", "other")
    cli.run("alert", "target", "add", "-n", "command", "--url-command", f"cat {file}")
    listed = cli.run("alert", "target", "list")
    assert listed.out.count("json://127.0.0.1") == 3
    assert "secret" not in listed.out + listed.err

    weaken(cli, vault)
    assert Postman(service.plane).run() == 3
    assert "Soft Delete Disabled for Vault" in mailbox.messages[-1]["title"]
    mailbox.status = 500
    refused = cli.run("alert", "target", "test", "-n", "hook", "--json", code=1)
    assert "error=500" in refused.json["error"]["message"]
    cli.run("alert", "target", "remove", "-n", "hook", "-y")
    assert "hook" not in cli.run("alert", "target", "list").out
    assert cli.run("alert", "target", "remove", "-n", "hook", "-y", "--json", code=3).error == "ResourceNotFound"


def test_an_address_comes_from_the_standard_input(
    cli: Cli, vault: str, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(mailbox.url("secret-path").encode() + b"\n")))
    cli.run("alert", "target", "add", "-n", "hook", "--url-file", "-")
    cli.run("alert", "target", "test", "-n", "hook")
    assert mailbox.paths == ["/secret-path"]
    for wrong in ("", "\n", "json://a\njson://b\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(wrong))
        cli.run("alert", "target", "add", "-n", "hook", "--url-file", "-", code=2)


def test_an_address_is_no_argument(cli: Cli, vault: str, mailbox: Mailbox) -> None:
    cli.run("alert", "target", "add", "-n", "hook", "--url", mailbox.url(), code=2)
    cli.run("alert", "target", "add", "-n", "hook", mailbox.url(), code=2)
    refused = cli.run("alert", "target", "add", "-n", "hook", "--json", code=2)  # there is nobody to ask
    assert "--url-file" in refused.json["error"]["message"]
    assert found(cli.run("alert", "target", "list", "--json")) == []


def test_what_is_no_address_is_refused(cli: Cli, vault: str, tmp_path: Path) -> None:
    file = tmp_path / "address"
    file.write_text("http://127.0.0.1/\n")
    refused = cli.run("alert", "target", "add", "-n", "hook", "--url-file", file, "--json", code=2)
    assert "no address" in refused.json["error"]["message"]
