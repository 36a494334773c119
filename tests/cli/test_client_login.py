# SPDX-License-Identifier: Apache-2.0
"""Whom a command speaks for: this machine's administrator, somebody who logged in, a service principal; or nobody."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.catalogue import every, first, principals
from keepstone.cli.client.http import Wire
from keepstone.cli.client.tokens import Tokens
from keepstone.control import people
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.identity import Authority
from keepstone.vault import Identity
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service
READER, OWNER = "a-reader", "an-owner"
SECRET = "a secret of nobody's"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    made = Answering(tmp_path_factory.mktemp("login") / "service")
    made.principal(READER, SECRET, "Backup Reader")
    made.principal(OWNER, SECRET, "Owner")
    made.principal("nobody", SECRET)
    made.start()
    yield made
    made.close()


def tokens(cli: Cli) -> list[Path]:
    return sorted((cli.home / "cache" / "tokens").glob("*"))


def test_somebody_logs_in_and_out(service: Answering, far: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert far.run("vault", "list", "--json", code=5).error == "AuthenticationFailed"
    monkeypatch.setenv("KEEPSTONE_PASSWORD", service.password)
    said = far.run("login", "-u", "admin", "-o", "json").json
    assert said["user"] == "admin"
    assert said["subscription"] == service.plane.place.subscription
    monkeypatch.delenv("KEEPSTONE_PASSWORD")
    far.run("group", "list")
    (kept,) = tokens(far)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert service.password not in kept.read_text()
    assert "admin is logged out" in far.run("logout").err
    assert tokens(far) == []
    far.run("group", "list", code=5)


def test_a_wrong_secret_leaves_nothing_behind(far: Cli, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong\n")
    refused = far.run("login", "--client-id", OWNER, "--secret-file", file, "--json", code=5)
    assert refused.error == "AuthenticationFailed"
    assert "Invalid client secret" in refused.err
    assert tokens(far) == []


def test_a_principal_from_the_environment(far: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For programs: with both variables no login is needed, and with a file none of them."""
    monkeypatch.setenv("KEEPSTONE_CLIENT_ID", READER)
    assert "KEEPSTONE_CLIENT_SECRET" in far.run("group", "list", code=2).err
    monkeypatch.setenv("KEEPSTONE_CLIENT_SECRET", SECRET)
    far.run("group", "list")
    assert far.run("group", "create", "-n", "g", "-l", "onprem1", "--json", code=5).error == "AuthorizationFailed"
    assert SECRET not in "".join(path.read_text() for path in tokens(far))
    monkeypatch.delenv("KEEPSTONE_CLIENT_ID")
    monkeypatch.delenv("KEEPSTONE_CLIENT_SECRET")
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    far.run("login", "--client-id", OWNER, "--secret-file", file)
    far.run("group", "create", "-n", "from-afar")


def test_one_token_serves_many_commands(service: Answering, far: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_CLIENT_ID", READER)
    monkeypatch.setenv("KEEPSTONE_CLIENT_SECRET", SECRET)
    far.run("group", "list")
    begun = len(service.asked)
    far.run("group", "list")
    assert not [name for name in service.asked[begun:] if name.startswith("login.")]


def test_who_has_no_role_is_told_so(far: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_CLIENT_ID", "nobody")
    monkeypatch.setenv("KEEPSTONE_CLIENT_SECRET", SECRET)
    assert "no role" in far.run("group", "list", code=5).err


def test_who_may_read_the_key_needs_no_login(service: Answering, near: Cli) -> None:
    near.run("group", "create", "-n", "from-here")
    near.run("group", "list")
    with service.plane.look() as connection:
        (local,) = every(connection, Identity, principals.c.login == "local")
        roles = [one.role.name for one in people.assignments_of(connection, local.id)]
    assert roles == ["Owner"]
    assert local.secret is None  # nobody logs in as it
    with pytest.raises(KeepstoneError, match="Invalid client secret"):
        people.log_in(service.plane, "local", "")


def test_the_administrator_of_this_machine_may_have_lost_his_role(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that somebody took away does not come back by itself."""
    service = Answering(tmp_path / "service")
    service.start()
    try:
        monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
        cli.run("group", "create", "-n", "g")
        with service.plane.change() as change:
            local = first(change.connection, Identity, principals.c.login == "local")
            assert local is not None
            (given,) = people.listing(change.connection, "/", principal=local.id)
            people.unassign(change, given)
        cli.run("group", "list", code=5)
        for path in tokens(cli):
            path.unlink()
        cli.run("group", "list", code=5)
    finally:
        service.close()


def test_a_login_goes_before_the_key(near: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever chose to be a reader stays one, until he logs out."""
    monkeypatch.setenv("KEEPSTONE_CLIENT_SECRET", SECRET)
    near.run("login", "--client-id", READER)
    near.run("group", "create", "-n", "g", "-l", "onprem1", code=5)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3590)
    over = near.run("group", "list", code=5)
    assert f"the login of {READER} is over" in over.err
    assert "logout" in over.err
    near.run("logout")
    near.run("group", "create", "-n", "g")


def test_a_token_that_the_service_does_not_take_is_replaced(near: Cli) -> None:
    """As after a new installation in the same folder, at the same port."""
    near.run("group", "list")
    (kept,) = tokens(near)
    document = json.loads(kept.read_text())
    kept.write_text(json.dumps(document | {"value": document["value"][:-8] + "AAAAAAAA"}))
    near.run("group", "list")
    assert json.loads(kept.read_text())["value"] != document["value"][:-8] + "AAAAAAAA"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"url": 1}'])
def test_a_file_that_is_no_token_is_none(tmp_path: Path, data: bytes) -> None:
    kept = Tokens(tmp_path)
    kept._path("x").write_bytes(data)
    assert kept.get("x") is None


def test_another_authority_is_not_believed(service: Answering, far: Cli, tmp_path: Path) -> None:
    """Nothing is sent to a service whose certificate comes from elsewhere: no secret above all."""
    foreign = tmp_path / "ca.pem"
    foreign.write_bytes(Authority.create(Env(), "somebody else").issued.certificate)
    (tmp_path / "secret").write_text(SECRET)
    begun = len(service.asked)
    refused = far.run("login", "--client-id", OWNER, "--secret-file", "secret", "--ca", foreign, "--json", code=5)
    assert refused.error == "AccessDenied"
    assert "not vouched for" in refused.err
    assert service.asked[begun:] == []


def test_the_systems_authorities_do_not_know_it(service: Answering, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    refused = cli.run("login", "--endpoint", service.url, "--client-id", OWNER, "--secret-file", "secret", code=5)
    assert "by this system's authorities" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--endpoint", "http://vault.example"), 2, "https://HOST:PORT"),
        (("--endpoint", "https://me@vault.example"), 2, "https://HOST:PORT"),
        (("--endpoint", "https://vault.example/path"), 2, "https://HOST:PORT"),
        (("--endpoint", "https://vault.example:99999"), 2, "https://HOST:PORT"),
        (("--endpoint", "127.0.0.1:1", "--ca", "nothing"), 3, "check --ca"),
        (("--endpoint", "127.0.0.1:1", "--ca", "text"), 2, "holds no certificate"),
        (("--endpoint", "127.0.0.1:1", "--data", "x"), 2, "give one of them"),
        (("--ca", "text"), 2, "goes with --endpoint"),
        (("--endpoint", "127.0.0.1:1"), 1, "does not answer"),
    ],
)
def test_which_service(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "secret").write_text(SECRET)
    assert says in cli.run("login", "--client-id", "x", "--secret-file", "secret", *arguments, code=code).err


def test_what_is_given_goes_before_the_environment(near: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEEPSTONE_ENDPOINT", "https://127.0.0.1:1")
    data = near.run("group", "list", "--data", tmp_path / "empty", "--json", code=10)
    assert data.error == "StoreMissing"
    assert near.run("group", "list", "--json", code=5).error == "AuthenticationFailed"  # an address before a folder


def test_a_token_goes_to_its_own_service_alone(service: Answering) -> None:
    with Wire(service.url, service.installation.ca, near=True) as wire:
        for address in ("https://elsewhere.example/x", f"{service.url}.example/x", f"{service.url}@example/x"):
            with pytest.raises(KeepstoneError, match="nothing was sent there"):
                wire.send("GET", address, token="secret")


def test_what_is_no_service_is_said_to_be_none(near: Cli, service: Answering) -> None:
    with Wire(service.url, service.installation.ca, near=True) as wire:
        answered: Any = wire.send("GET", "/nothing")
    assert answered.status == 404
