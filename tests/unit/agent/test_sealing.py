# SPDX-License-Identifier: Apache-2.0
"""What this machine seals, the passphrase's file, and the keys of an item."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from keepstone.agent import sealing
from keepstone.agent.configuration import Configuration
from keepstone.agent.sealing import is_sealed, keys_for_backup, keys_for_restore, read_passphrase
from keepstone.crypto import Argon2Cost, PassphraseProvider, is_next, rewrap
from keepstone.env import Env
from keepstone.errors import AccessDenied, CorruptObject, NotFound, UsageError, WrongKey
from keepstone.remote.wire import Work

pytestmark = pytest.mark.agents

ITEM = "0e9f6a4c-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses at a passphrase cost as little as is allowed."""
    monkeypatch.setattr(sealing, "_COST", Argon2Cost(iterations=3, memory_kib=64 * 1024, lanes=4))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    return path


def work(keys: str = "", path: str = "/srv/data") -> Work:
    return Work(
        job="j", token=1, operation="Backup", attempt=1, item=ITEM, name=path, source={"path": path},
        workload="FileFolder", arguments={}, keys=keys,
    )  # fmt: skip


def settings(file: Path, *items: str) -> Configuration:
    return Configuration.parse(f"[sealed]\npassphrase_file = '{file}'\nitems = {list(items)}")


@pytest.mark.parametrize(
    ("path", "sealed"),
    [
        ("/srv/data", True),
        ("/srv/data/below", True),
        ("/srv", True),  # it has what is to be sealed in it
        ("/", True),
        ("/srv/other", False),
        ("/home", True),
        ("/var", False),
        ("/home/anna/secret", True),
        ("/home/anna/secret/deep/down", True),
        ("/home/anna", True),
        ("/dev/null", True),  # a device shows all files on it
    ],
)
def test_what_is_sealed(path: str, sealed: bool) -> None:
    configuration = settings(Path("/etc/p"), "/srv/data", "/home/anna/sec*")
    assert is_sealed(configuration, path, Path(path)) is sealed


def test_another_way_to_write_a_path_is_no_way_around(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    by_place = settings(Path("/etc/p"), f"{tmp_path}/secret")
    by_link = settings(Path("/etc/p"), f"{tmp_path}/link")
    for configuration in (by_place, by_link):
        for path in ("link", "secret", "secret/../secret", "."):
            given = f"{tmp_path}/{path}"
            assert is_sealed(configuration, given, Path(os.path.realpath(given)))


def test_all_is_sealed_where_nothing_else_is_said() -> None:
    assert is_sealed(settings(Path("/etc/p")), "/home", Path("/home"))
    assert not is_sealed(Configuration(), "/home", Path("/home"))


@pytest.mark.parametrize(
    "text",
    ["items = ['/srv']", "passphrase_file = 'p'", "passphrase_file = '/p'\nitems = ['x']", "passphrase = 'text'"],
)
def test_settings_that_would_seal_less_than_they_seem_to(text: str) -> None:
    with pytest.raises(UsageError):
        Configuration.parse(f"[sealed]\n{text}")


def test_keys_are_made_once(file: Path) -> None:
    env = Env()
    made = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert made is not None
    assert b"correct horse" not in base64.b64decode(made.text)

    again = keys_for_backup(env, work(made.text), settings(file), Path("/srv/data"))
    assert again is not None
    assert (again.text, again.keyring.keys) == (made.text, made.keyring.keys)
    assert keys_for_restore(env, work(made.text), settings(file)).keys == made.keyring.keys
    other = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert other is not None
    assert other.keyring.keys != made.keyring.keys


def test_a_wrong_passphrase(file: Path) -> None:
    env = Env()
    made = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert made is not None
    file.write_text("a passphrase that is another one\n")
    for attempt in (
        lambda: keys_for_backup(env, work(made.text), settings(file), Path("/srv/data")),
        lambda: keys_for_restore(env, work(made.text), settings(file)),
    ):
        with pytest.raises(WrongKey, match="is not the one that '/srv/data' is sealed by") as raised:
            attempt()
        assert "another one" not in str(raised.value)


def test_what_was_sealed_stays_sealed(file: Path) -> None:
    env = Env()
    made = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert made is not None
    for configuration in (Configuration(), settings(file, "/home")):
        with pytest.raises(WrongKey, match="was sealed until now"):
            keys_for_backup(env, work(made.text), configuration, Path("/srv/data"))
        assert keys_for_backup(env, work(), configuration, Path("/srv/data")) is None
    with pytest.raises(WrongKey, match="has no passphrase"):
        keys_for_restore(env, work(made.text), Configuration())
    file.unlink()
    with pytest.raises(NotFound):
        keys_for_backup(env, work(), settings(file), Path("/srv/data"))


def test_keys_of_another_item_and_damaged_ones(file: Path) -> None:
    env = Env()
    made = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert made is not None
    raw = base64.b64decode(made.text)
    for text in (made.text[:-8], "!!", base64.b64encode(raw.replace(b"wrapped", b"wrappad")).decode(), ""):
        with pytest.raises(CorruptObject):
            keys_for_restore(env, work(text), settings(file))
    other = Work(**{name: getattr(work(made.text), name) for name in Work.__struct_fields__} | {"item": "another"})
    with pytest.raises(CorruptObject, match="belongs to store"):
        keys_for_restore(env, other, settings(file))


def test_a_file_that_others_may_read(file: Path) -> None:
    for mode in (0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(AccessDenied, match="chmod"):
            read_passphrase(Env(), file)
    file.chmod(0o400)
    assert read_passphrase(Env(), file) == b"correct horse battery staple"


def test_a_credential_of_systemd(file: Path) -> None:
    """With User= its folder belongs to root, and an access list lets the user in, which shows as the group's."""
    file.chmod(0o440)
    assert read_passphrase(Env(), file, {"CREDENTIALS_DIRECTORY": str(file.parent)})
    with pytest.raises(AccessDenied):
        read_passphrase(Env(), file, {"CREDENTIALS_DIRECTORY": "/run/credentials/other"})
    file.chmod(0o444)
    with pytest.raises(AccessDenied):
        read_passphrase(Env(), file, {"CREDENTIALS_DIRECTORY": str(file.parent)})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else(file: Path) -> None:
    os.chown(file, 1234, 1234)
    with pytest.raises(AccessDenied, match="others may write"):
        read_passphrase(Env(), file)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short\n", b"fifteen letters\n", b"two lines are\nnot one\n", b"\xff" * 20, b"x" * 9000]
)
def test_what_is_no_passphrase(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        read_passphrase(Env(), file)
    assert not content.strip() or content.strip().decode("latin-1") not in str(raised.value)


def test_how_it_was_typed_has_no_say(file: Path) -> None:
    file.write_text("a\u0308 passphrase of words\r\n")
    assert read_passphrase(Env(), file) == "ä passphrase of words".encode()


def test_a_passphrase_is_changed_with_the_next_backup(file: Path) -> None:
    env = Env()
    first = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert first is not None
    new = file.with_name("new")
    new.write_text("a new passphrase for all\n")
    new.chmod(0o600)
    both = Configuration.parse(f"[sealed]\npassphrase_file = '{new}'\nprevious_file = '{file}'")

    assert keys_for_restore(env, work(first.text), both).keys == first.keyring.keys
    second = keys_for_backup(env, work(first.text), both, Path("/srv/data"))
    assert second is not None
    assert second.keyring.keys == first.keyring.keys
    assert is_next(base64.b64decode(second.text), base64.b64decode(first.text))

    known = f"{second.text} {first.text}"
    again = keys_for_backup(env, work(known), settings(new), Path("/srv/data"))
    assert again is not None
    assert (again.text, again.keyring.keys) == (second.text, first.keyring.keys)
    assert keys_for_backup(env, work(known), both, Path("/srv/data")) == again
    with pytest.raises(WrongKey):
        keys_for_backup(env, work(second.text), settings(file), Path("/srv/data"))


def test_keys_that_somebody_else_put_there_lock_nobody_out(file: Path) -> None:
    env = Env()
    made = keys_for_backup(env, work(), settings(file), Path("/srv/data"))
    assert made is not None
    stranger = PassphraseProvider(b"a stranger's passphrase", cost=sealing._COST)
    theirs = base64.b64encode(rewrap(env, made.keyring, [stranger])[1]).decode()
    known = f"{theirs} {made.text}"
    assert keys_for_restore(env, work(f"{theirs[:-40]} ?? {made.text}"), settings(file)).keys == made.keyring.keys
    assert keys_for_restore(env, work(known), settings(file)).keys == made.keyring.keys
    again = keys_for_backup(env, work(known), settings(file), Path("/srv/data"))
    assert again is not None
    assert (again.text, again.keyring.keys) == (theirs, made.keyring.keys)
