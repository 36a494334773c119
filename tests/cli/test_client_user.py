# SPDX-License-Identifier: Apache-2.0
"""`keepstone user …`: from another machine, and on the service's own."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from keepstone.cli import main
from keepstone.control.installation import Installation
from keepstone.env import Env
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service
PASSWORD, OTHER = "correct horse battery", "another good password"


def log_in(far: Cli, name: str, password: str, code: int = 0) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEEPSTONE_PASSWORD", password)
        return far.run("login", "-u", name, code=code)


def properties(said: Any) -> dict[str, Any]:
    found: dict[str, Any] = said.json["properties"]
    return found


def test_a_second_person(near: Cli, service: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    made = near.run("user", "create", "-n", "anna", "--display-name", "Anna A.", "--role", "Owner", "-o", "json")
    password = properties(made)["password"]
    assert properties(made)["roles"] == [{"roleName": "Owner", "scope": "/"}]
    shown = near.run("user", "show", "-n", "anna")
    assert "Owner at /" in shown.out
    assert password not in shown.out
    listed = near.run("user", "list").out
    assert "anna" in listed
    assert "admin" in listed
    monkeypatch.delenv("KEEPSTONE_DATA")
    monkeypatch.setenv("KEEPSTONE_ENDPOINT", service.url)
    monkeypatch.setenv("KEEPSTONE_CA", str(service.installation.ca))
    log_in(near, "anna", password)
    near.run("user", "create", "-n", "berta", "--role", "Reader")
    assert properties(near.run("user", "show", "-n", "berta", "-o", "json"))["passwordChangedTime"] is None
    near.run("user", "update", "-n", "berta", "--display-name", "Berta B.")
    assert "Berta B." in near.run("user", "list").out
    near.run("user", "delete", "-n", "berta", "-y")
    assert (
        near.run("user", "update", "-n", "berta", "--display-name", "X", "--json", code=3).error == "ResourceNotFound"
    )
    assert near.run("user", "show", "-n", "berta", "--json", code=3).error == "ResourceNotFound"
    near.run("user", "delete", "-n", "anna", "-y")
    assert near.run("user", "list", "--json", code=5).error == "AuthorizationFailed"


def test_a_password_that_is_made_up_is_told_once(near: Cli) -> None:
    said = near.run("user", "create", "-n", "carla", "--role", "Reader")
    assert "shown this once" in said.err
    (line,) = [line for line in said.out.splitlines() if line.startswith("password:")]
    log_in(near, "carla", line.split()[1])
    near.run("logout")
    again = near.run("user", "create", "-n", "carla", "--json", code=1)
    assert again.error == "AlreadyExists"


def test_passwords_come_from_everywhere_but_arguments(
    near: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    said = near.run("user", "create", "-n", "doris", "--role", "Reader", "--password-file", file, "-o", "json")
    assert "password" not in properties(said)
    log_in(near, "doris", PASSWORD)
    near.run("logout")

    near.run("user", "set-password", "-n", "doris", "--password-command", f"echo {OTHER!r}")
    log_in(near, "doris", OTHER)
    near.run("logout")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PASSWORD}\n".encode())))
    near.run("user", "set-password", "-n", "doris", "--password-file", "-")
    log_in(near, "doris", PASSWORD)
    near.run("logout")

    monkeypatch.setenv("KEEPSTONE_NEW_PASSWORD", OTHER)
    near.run("user", "set-password", "-n", "doris")
    log_in(near, "doris", OTHER)
    near.run("logout")
    monkeypatch.delenv("KEEPSTONE_NEW_PASSWORD")

    file.write_text("short\n")
    refused = near.run("user", "set-password", "-n", "doris", "--password-file", file, "--json", code=2)
    assert refused.error == "InvalidRequestContent"
    file.write_bytes(b"no text \xff\xff\xff\xff\xff\n")
    near.run("user", "set-password", "-n", "doris", "--password-file", file, code=2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert near.run("user", "set-password", "-n", "doris", "--json", code=12).error == "WrongKey"
    log_in(near, "doris", OTHER)
    near.run("logout")


def test_ones_own_password(service: Answering, far: Cli, tmp_path: Path) -> None:
    service.principal("emma", PASSWORD, "Reader", user=True)
    log_in(far, "emma", PASSWORD)
    current, new = tmp_path / "current", tmp_path / "new"
    current.write_text("wrong\n")
    new.write_text(OTHER)
    change = "user", "set-password", "--current-file", current, "--password-file", new
    assert far.run(*change, "--json", code=2).error == "InvalidRequestContent"
    current.write_text(PASSWORD)
    far.run(*change)
    assert far.run("user", "set-password", "-n", "admin", "--password-file", new, "--json", code=5).error == (
        "AuthorizationFailed"
    )
    assert "AADSTS7000215" in log_in(far, "emma", PASSWORD, code=5).err
    log_in(far, "emma", OTHER)


def test_from_afar_a_reset_needs_a_role(service: Answering, far: Cli) -> None:
    far.run("user", "reset-password", "-n", "admin", code=5)
    log_in(far, "admin", service.password)
    service.principal("fiona", PASSWORD, "Reader", user=True)
    made = properties(far.run("user", "reset-password", "-n", "fiona", "-o", "json"))["password"]
    log_in(far, "fiona", made)


@pytest.mark.skipif(os.geteuid() != 0, reason="may read everything, or nothing")
def test_a_lost_password_is_no_loss(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the service's own machine, while it does not run; and the very command that stands in the documents."""
    root = tmp_path / "service"
    installation = Installation(Env(), root)
    installation.begin("onprem1")
    monkeypatch.setenv("KEEPSTONE_ENDPOINT", "https://localhost:1")  # what is given goes before
    made = properties(cli.run("user", "reset-password", "-n", "Admin", "--data", root, "-o", "json"))["password"]

    from keepstone.control import people
    from keepstone.errors import Unauthenticated

    plane = installation.plane()
    try:
        assert people.log_in(plane, "admin", made).client == "admin"
        with pytest.raises(Unauthenticated):
            people.log_in(plane, "admin", "wrong")
    finally:
        plane.database.close()
    assert (
        cli.run("user", "reset-password", "-n", "nobody", "--data", root, "--json", code=3).error == "ResourceNotFound"
    )
    assert cli.run("user", "reset-password", "-n", "admin", "--data", tmp_path / "none", "--json", code=10).error == (
        "StoreMissing"
    )
    assert main(["user", "list", "--data", str(root)]) == 1  # everything else asks the service
