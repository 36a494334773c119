# SPDX-License-Identifier: Apache-2.0
"""Making a store: its keys, its kit, and nothing left where it fails."""

from __future__ import annotations

import errno
import os
import re
import stat
from binascii import a2b_base64
from pathlib import Path

import pytest

from keepstone.crypto import open_kit
from keepstone.env import FileSystem
from tests.cli.running import IDENTITY, RECIPIENT, Cli

pytestmark = pytest.mark.store


def everything(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*")}


def test_platform_key_and_kit_belong_to_their_owner_only(cli: Cli) -> None:
    made = cli.init()

    key, kit = Path(made["key_file"]), Path(made["kit"]["file"])
    assert key == cli.home / "keys" / f"{made['store']}.key"
    assert kit == cli.home / "kits" / f"{made['store']}.age"
    for path, mode in ((key, 0o600), (kit, 0o600), (key.parent, 0o700), (kit.parent, 0o700), (cli.store, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert made["opens_by"] == ["platform"]
    assert made["kit"]["recipients"] == [RECIPIENT]
    assert open_kit(kit.read_bytes(), identity=IDENTITY).keyring.store_id.hex() == made["store"]


def test_made_up_passphrase_is_shown_once_and_opens_the_kit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = cli("init", "--kit", "kit.age")

    passphrase = re.search(r"passphrase is  (\S+)", ended.err)
    assert passphrase is not None
    assert "Keep the kit" in ended.err
    assert passphrase[1] not in ended.out
    assert not any(passphrase[1].encode() in path.read_bytes() for path in cli.path.rglob("*") if path.is_file())
    for path in (cli.home / "keys").iterdir():
        path.unlink()
    assert cli("list", "--json", code=12).error == "WrongKey"
    monkeypatch.setenv("KEEPSTONE_PASSPHRASE", passphrase[1])
    assert cli("list", "--kit", "kit.age", "--json").json == {"points": []}


def test_made_up_passphrase_is_in_the_result_of_json(cli: Cli) -> None:
    ended = cli("init", "--json")

    kit = ended.json["kit"]
    assert re.fullmatch(r"([0-9a-z]{5}-){7}[0-9a-z]{5}", kit["passphrase"])
    assert b"scrypt" in a2b_base64(Path(kit["file"]).read_text().splitlines()[1])
    assert ended.err == ""


def test_passphrase_and_key_file_both_open(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = cli.path / "secret"
    secret.write_text("correct horse\n")

    made = cli.init("--passphrase-file", secret, "--key-file", "my.key")

    assert made["opens_by"] == ["platform", "passphrase"]
    assert list((cli.home / "keys").glob("*")) == []
    assert cli("list", "--json", "--key-file", "my.key").json == {"points": []}
    assert cli("list", "--json", "--passphrase-file", secret).json == {"points": []}
    assert cli("list", "--json", "--passphrase-command", f"cat {secret}").json == {"points": []}
    monkeypatch.setenv("KEEPSTONE_PASSPHRASE", "correct horse")
    assert cli("list", "--json").json == {"points": []}
    monkeypatch.setenv("KEEPSTONE_PASSPHRASE", "wrong horse")
    assert cli("list", "--json", code=12).error == "WrongKey"


def test_existing_key_file_is_used_as_it_is(cli: Cli) -> None:
    cli.init("--key-file", "my.key")
    before = Path("my.key").read_bytes()

    cli.run("store", "init", "--store", "other", "--key-file", "my.key", "--kit-recipient", RECIPIENT)

    assert Path("my.key").read_bytes() == before
    assert cli.run("store", "list", "--store", "other", "--key-file", "my.key", "--json").json == {"points": []}


def test_place_that_is_not_empty_is_left_alone(cli: Cli) -> None:
    cli.store.mkdir()
    (cli.store / "file").write_text("mine")
    before = everything(cli.path)

    assert cli("init", "--json", code=1).error == "StoreExists"

    assert everything(cli.path) - before <= {"home", "home/keys"}
    assert (cli.store / "file").read_text() == "mine"


def test_store_is_not_made_twice(made: Cli) -> None:
    before = everything(made.path)

    assert made("init", "--json", code=1).error == "StoreExists"

    assert everything(made.path) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--kit-recipient", "age1nobody"), 2),
        (("--passphrase-file", "missing"), 2),
        (("--passphrase-command", "false"), 2),
        (("--passphrase-command", "true"), 2),
        (("--passphrase-command", "'"), 2),
        (("--passphrase-file", "a", "--passphrase-command", "b"), 2),
        (("--hashing", "md5"), 2),
        (("--soft-delete-days", "-1"), 2),
        (("--kit", "taken"), 1),
    ],
)
def test_what_cannot_be_leaves_nothing(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    (cli.path / "taken").touch()

    ended = cli("init", "--json", *arguments, code=code)

    assert ended.json["error"]["message"]
    assert ended.err.startswith("keepstone: ")
    assert everything(cli.path) == {"taken"}


@pytest.mark.parametrize("at", ["keys/", "rescue.py", "heads/", "keepstone.json"])
def test_full_disk_leaves_neither_key_nor_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    from keepstone.errors import StorageFull
    from keepstone.objects import FolderStorage

    put = FolderStorage.put

    def full(storage: FolderStorage, name: str, data: bytes) -> None:
        if name.startswith(at):
            raise StorageFull("no room")
        put(storage, name, data)

    monkeypatch.setattr(FolderStorage, "put", full)

    assert cli("init", "--json", code=1).error == "StorageFull"

    assert everything(cli.path) == {"home", "home/keys"}


@pytest.mark.parametrize("kit", ["/proc/none/kit.age", "/dev/null/kit.age", "file/kit.age"])
def test_kit_that_cannot_be_written_leaves_no_store(cli: Cli, kit: str) -> None:
    """Nobody is left with a store whose kit is missing: the next try begins from nothing."""
    (cli.path / "file").touch()

    ended = cli("init", "--json", "--kit-recipient", RECIPIENT, "--kit", kit, code=3)

    assert ended.error == "ResourceNotFound"
    assert f"{kit}: " in ended.err
    assert "check the path" in ended.err
    assert "disk" not in ended.err
    assert everything(cli.path) <= {"file", "home", "home/keys"}
    cli.init()


def test_full_disk_of_the_kit_leaves_no_store(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write = FileSystem.write

    def full(descriptor: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("kit.age"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(FileSystem, "write", staticmethod(full))

    ended = cli("init", "--json", "--kit-recipient", RECIPIENT, "--kit", "away/kit.age", code=1)

    assert ended.error == "StorageFull"
    assert "away/kit.age" in ended.err
    assert everything(cli.path) == {"home", "home/keys"}


@pytest.mark.parametrize("place", ["afile", "dangling"])
def test_place_that_is_no_folder(cli: Cli, place: str) -> None:
    (cli.path / "afile").touch()
    (cli.path / "dangling").symlink_to("nowhere")

    ended = cli.run("store", "init", "--store", place, "--json", code=1)

    assert ended.error == "StoreExists"
    assert f"{place} is there already and is no folder" in ended.err
    assert everything(cli.path) == {"afile", "dangling"}


def test_place_beneath_a_file(cli: Cli) -> None:
    (cli.path / "afile").touch()

    ended = cli.run("store", "init", "--store", "afile/x", "--json", "--kit-recipient", RECIPIENT, code=3)

    assert "check the path" in ended.err
    assert "keepstone store init" not in ended.err


def test_taken_place_is_named(cli: Cli) -> None:
    cli.store.mkdir()
    (cli.store / "file").touch()

    assert f"{cli.store}: there is something already (file)" in cli("init", code=1).err


@pytest.mark.parametrize("kit", ["store/kit.age", "store/a/kit.age", "link/kit.age"])
def test_kit_in_the_store_is_refused(cli: Cli, kit: str) -> None:
    """It would be lost with the store, and whoever finds the store would find it."""
    (cli.path / "link").symlink_to("store")

    assert "keep the recovery kit away from it" in cli("init", "--kit", kit, code=2).err
    assert everything(cli.path) == {"link"}

    cli.init()
    assert cli("key kit", "--out", kit, "--kit-recipient", RECIPIENT, "--json", code=2).error == "BadRequest"
