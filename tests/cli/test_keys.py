# SPDX-License-Identifier: Apache-2.0
"""What opens a store, and changing that."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.cli.running import IDENTITY, RECIPIENT, Cli

pytestmark = pytest.mark.store


@pytest.fixture
def key(made: Cli) -> Path:
    """The store's key file."""
    (found,) = (made.home / "keys").iterdir()
    return found


def test_rotation_changes_the_key_file_and_keeps_the_kit(made: Cli, key: Path) -> None:
    point = made.backup(made.disk())
    old = key.read_bytes()
    Path("old.key").write_bytes(old)
    Path("old.key").chmod(0o600)
    (kit,) = (made.home / "kits").iterdir()
    Path("identity").write_text(IDENTITY)

    ended = made("key rotate", "--json")

    assert ended.json == {"store": key.stem, "opens_by": ["platform"], "key_file": str(key)}
    assert list((made.home / "keys").iterdir()) == [key]
    assert key.read_bytes() != old
    assert [found["id"] for found in made.points()] == [point["id"]]
    assert made("list", "--key-file", "old.key", "--json", code=12).error == "WrongKey"
    assert len(made("list", "--kit", kit, "--kit-identity", "identity", "--json").json["points"]) == 1


def test_rotation_to_a_passphrase_and_back(made: Cli, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_NEW_PASSPHRASE", "correct horse")
    assert made("key rotate", "--json").json["opens_by"] == ["passphrase"]
    monkeypatch.delenv("KEEPSTONE_NEW_PASSPHRASE")
    assert made("list", "--json", code=12).error == "WrongKey"
    monkeypatch.setenv("KEEPSTONE_PASSPHRASE", "correct horse")
    assert made.points() == []

    made("key rotate", "--new-key-file", "new.key")

    monkeypatch.delenv("KEEPSTONE_PASSPHRASE")
    assert made("list", "--key-file", "new.key", "--json").json == {"points": []}
    assert made("list", "--json", code=12).error == "WrongKey"


@pytest.mark.parametrize("when", ["before the store knew", "after the store knew"])
def test_interrupted_rotation_still_opens_and_is_finished(
    made: Cli, key: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from keepstone.cli.store import key as command
    from keepstone.store import Store

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "before the store knew":
            patch.setattr(Store, "rekey", killed)
        else:
            patch.setattr(command, "replace_private", killed)
        assert made("key rotate", "--json", code=130).error == "Interrupted"
    assert {path.name for path in key.parent.iterdir()} == {key.name, f"{key.name}.new"}

    assert made.points() == []
    made("key rotate")

    assert list(key.parent.iterdir()) == [key]
    assert made.points() == []


def test_missing_key_file_says_what_to_do(made: Cli, key: Path) -> None:
    key.unlink()

    ended = made("list", "--json", code=12)

    assert ended.error == "WrongKey"
    assert str(key) in ended.err
    assert "recovery kit" in ended.err


def test_key_file_that_others_may_read_is_refused(made: Cli, key: Path) -> None:
    key.chmod(0o644)

    ended = made("list", "--json", code=5)

    assert ended.error == "AccessDenied"
    assert f"chmod 600 {key}" in ended.err


def test_key_of_another_store_is_wrong(made: Cli, key: Path) -> None:
    made.run("store", "init", "--store", "other", "--kit-recipient", RECIPIENT)
    (other,) = set(key.parent.iterdir()) - {key}

    assert made("list", "--key-file", other, "--json", code=12).error == "WrongKey"


def test_new_kit_opens_and_old_ones_stay(made: Cli, key: Path) -> None:
    first = made("key kit", "--kit-recipient", RECIPIENT, "--json").json["kit"]["file"]
    second = made("key kit", "--kit-recipient", RECIPIENT, "--out", "kit.age", "--json").json["kit"]["file"]
    Path("identity").write_text(f"# made today\n{IDENTITY}\n")
    key.unlink()

    assert Path(first).name == f"{key.stem}.2.age"
    assert second == "kit.age"
    for kit in (first, second, first.replace(".2.", ".")):
        assert made("list", "--kit", kit, "--kit-identity", "identity", "--json").json == {"points": []}
    assert made("key kit", "--out", "kit.age", "--kit", first, "--kit-identity", "identity", code=1)


@pytest.mark.parametrize("kit", ["missing", "empty"])
def test_kit_that_is_none(made: Cli, kit: str) -> None:
    Path("empty").touch()
    Path("identity").write_text(IDENTITY)

    code = 3 if kit == "missing" else 1
    assert made("list", "--kit", kit, "--kit-identity", "identity", "--json", code=code).json["error"]["message"]


def test_without_a_terminal_nobody_is_asked(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_NEW_PASSPHRASE", "correct horse")
    made("key rotate")
    monkeypatch.delenv("KEEPSTONE_NEW_PASSPHRASE")

    ended = made("list", "--json", code=12)

    assert "--passphrase-file" in ended.err


def test_passphrase_is_asked_for_at_the_terminal(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    asked: list[tuple[str, dict[str, object]]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append((text, options))
        return "correct horse"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(click, "prompt", prompt)
    made("key rotate", "--new-passphrase")

    assert made.points() == []

    assert [text for text, _ in asked] == ["New passphrase", "Passphrase"]
    assert all(options["hide_input"] and options["err"] for _, options in asked)
    assert [options["confirmation_prompt"] for _, options in asked] == [True, False]


def test_secrets_do_not_reach_output_or_arguments(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not with --debug, and not where a secret is wrong."""
    Path("secret").write_text("correct horse battery")
    spoken = made("key rotate", "--new-passphrase-file", "secret", "--json", "--debug")
    spoken_wrong = made("list", "--passphrase-command", "echo wrong donkey battery", "--debug", "--json", code=12)

    for ended in (spoken, spoken_wrong):
        assert "battery" not in ended.out
        assert "battery" not in ended.err.replace("echo wrong donkey battery", "")
    assert os.environ.get("KEEPSTONE_PASSPHRASE") is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--kit-identity", "identity"), "--kit"),
        (("--kit", "kit.age", "--key-file", "my.key"), "--key-file"),
        (("--key-file", "my.key", "--passphrase-file", "secret"), "--key-file"),
        (("--kit", "kit.age", "--kit-identity", "identity", "--passphrase-command", "true"), "--kit-identity"),
    ],
)
def test_options_that_would_count_for_nothing(made: Cli, options: tuple[str, ...], named: str) -> None:
    ended = made("list", "--json", *options, code=2)

    assert ended.error == "BadRequest"
    assert named in ended.err


def test_whether_a_file_may_be_read_shows_when_it_is_opened(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is 5, not allowed; what access(2) thinks beforehand is nobody's wrong use of the command."""
    cli.init("--key-file", "my.key", "--kit", "kit.age")
    Path("identity").write_text(IDENTITY)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    cli("list", "--key-file", "my.key")
    cli("list", "--kit", "kit.age", "--kit-identity", "identity")

    opened = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "kit.age":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    ended = cli("list", "--kit", "kit.age", "--kit-identity", "identity", "--json", code=5)
    assert ended.error == "AccessDenied"
    assert "kit.age: Permission denied; check its owner and permissions" in ended.err


def test_kit_that_is_none_is_named(made: Cli) -> None:
    Path("none.age").write_text("hello")
    Path("identity").write_text(IDENTITY)

    ended = made("list", "--kit", "none.age", "--kit-identity", "identity", code=1)

    assert "none.age: this is no recovery kit" in ended.err
    assert "faster machine" not in ended.err
