# SPDX-License-Identifier: Apache-2.0
"""The log: every line one JSON object with what is known, and no secret in any."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.catalogue import Database, metadata, principals
from keepstone.crypto import generate_identity
from keepstone.env import Env
from keepstone.identity import Authority, hash_secret, new_secret
from keepstone.server import logs

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("logging_as_before")]

_log = logging.getLogger("keepstone.somewhere")
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwcyJ9.c2lnbmF0dXJlLW9mLWl0"


Said = pytest.CaptureFixture[str]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_has_what_is_known(capsys: Said) -> None:
    formatter = logs.to_stderr("server", "info")
    about = {"request": "r", "correlation": "c", "operation": "vaults.get", "status": 200, "seconds": 0.25}

    _log.info("GET %s", "/a\nb", extra=about)
    formatter.about = {"job": "j", "operation": "Backup"}
    threading.Thread(target=lambda: _log.warning("slow")).start()

    first, second = lines(capsys.readouterr().err)
    assert first == first | {"level": "info", "process": "server", "message": "GET /a\nb", **about}
    assert second == second | {"level": "warning", "message": "slow", "job": "j", "operation": "Backup"}
    assert first["time"] <= second["time"]
    assert len(first["time"]) == len("2026-11-26T12:00:00.000000Z")


def test_who_is_heard(capsys: Said) -> None:
    logs.to_stderr("server", "warning")
    _log.info("not this")
    logging.getLogger("sqlalchemy.engine").info("nor this")
    logging.getLogger("alembic").warning("this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("and this", stacklevel=1)
    logging.captureWarnings(False)

    assert [
        line["message"].rpartition("Warning: ")[2].partition("\n")[0] for line in lines(capsys.readouterr().err)
    ] == [
        "this",
        "and this",
    ]


def test_what_workers_write_is_passed_on(capsys: Said) -> None:
    logs.to_stderr("server", "error")
    line = '{"time":"…","level":"debug","process":"worker-1","message":"as it is: password=x"}'

    logs.relay([line, line], "worker-1")
    logs.relay(["Fatal Python error: Segmentation fault", '"no object"', line], "worker-1")
    logs.relay([], "worker-1")

    first, second, *others, last = capsys.readouterr().err.splitlines()
    assert first == second == last == line
    assert [json.loads(other)["message"] for other in others] == [
        "worker-1: Fatal Python error: Segmentation fault",
        'worker-1: "no object"',
    ]


def test_a_thread_that_falls_is_told(capsys: Said) -> None:
    logs.to_stderr("server", "info")

    def fall() -> None:
        raise ValueError("over a stone")

    thread = threading.Thread(target=fall, name="walker")
    thread.start()
    thread.join()

    (line,) = lines(capsys.readouterr().err)
    assert line["message"] == "thread walker fell over a fault"
    assert line["trace"].endswith("ValueError: over a stone")


def test_a_statement_that_fails_takes_no_secret_with_it(capsys: Said, tmp_path: Path) -> None:
    logs.to_stderr("server", "info")
    database = Database(f"sqlite:///{tmp_path / 'db'}")
    metadata.create_all(database.engine)
    secret = new_secret(Env())

    try:
        with database.change() as connection:
            connection.execute(
                sa.text("insert into principals (id, secret) values (:id, :secret)"), {"id": "one", "secret": secret}
            )
    except sa.exc.IntegrityError:
        _log.exception("it failed")
    try:
        with database.change() as connection:
            connection.execute(principals.insert(), [{"id": secret}, {"id": secret}])
    except sa.exc.SQLAlchemyError as error:
        _log.error("%s", error)
    database.close()

    err = capsys.readouterr().err
    assert len(lines(err)) == 2
    assert "insert into principals" in lines(err)[0]["trace"]
    assert secret not in err


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer …"),
        (f"the token {JWT} is none", "the token … is none"),
        ("Basic dXNlcjpwYXNz tried", "Basic … tried"),
        ("POST /t?client_secret=hunter2&x=1", "POST /t?client_secret=…&x=1"),
        ("{'password': 'hunter2', 'user': 'u'}", "{'password': '…', 'user': 'u'}"),
        ("{\"client_assertion\":\"hunter2\"}", '{"client_assertion":"…"}'),
        ("postgresql+psycopg://u:hunter2@host/db is away", "postgresql+psycopg://u:…@host/db is away"),
        ("vault 'a' has 3 secrets and a password policy", "vault 'a' has 3 secrets and a password policy"),
        ("https://localhost:8443/x@y", "https://localhost:8443/x@y"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_struck_out(text: str, left: str) -> None:
    assert logs.struck_out(text) == left


def test_real_secrets_are_struck_out() -> None:
    env = Env()
    identity, recipient = generate_identity()
    key = Authority.create(env, "x").issued.key.decode()
    for secret in (identity, key, hash_secret(env, "x")):
        text = logs.struck_out(f"before {secret} after {recipient}")

        assert all(part not in text for part in secret.split("\n")[1:-2] or [secret])
        assert text.startswith("before ")
        assert recipient in text


def test_striking_out_is_quick_whatever_the_text() -> None:
    for text in ("a" * 200_000, "secret" * 30_000, "eyJ" * 60_000, "://" * 60_000, "[parameters: " * 15_000):
        assert logs.struck_out(text)  # a pattern that looks back would take minutes


def test_files_are_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LARGEST", 2000)
    logs.to_file(tmp_path / "log", "server", "info")

    for number in range(200):
        _log.info("line %d", number)

    names = {path.name for path in (tmp_path / "log").iterdir()}
    assert names == {"keepstone.log", *(f"keepstone.log.{number}" for number in range(1, 6))}
    assert all(path.stat().st_size <= 2000 for path in (tmp_path / "log").iterdir())
    assert json.loads(logs.tail(tmp_path / "log", 3)[-1])["message"] == "line 199"
    assert len(logs.tail(tmp_path / "log", 3)) == 3
    assert logs.tail(tmp_path, 3) == []
