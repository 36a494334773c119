# SPDX-License-Identifier: Apache-2.0
"""Storage and recovery kit suffice: the store whose own keys are lost, by commands; and what of a kit is seen where."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest

from keepstone.crypto import Keyring, open_kit
from keepstone.env import FileSystem
from tests.cli.running import IDENTITY, RECIPIENT, Cli

pytestmark = pytest.mark.store

COMMAND = "keepstone store key rotate --kit KIT"
LOSSES = {"removed": 3, "truncated": 1, "zeros": 1, "another store's": 1}
"""What happens to `keys/`, and the exit code of every command without a kit."""


@pytest.fixture
def kit(made: Cli) -> list[str | Path]:
    """The options that open the store by the kit that `init` made."""
    Path("identity").write_text(IDENTITY)
    (found,) = (made.home / "kits").iterdir()
    return ["--kit", found, "--kit-identity", "identity"]


def other_kit(cli: Cli) -> list[str | Path]:
    """The same of another store, which is in `other`."""
    cli.run("store", "init", "--store", "other", "--kit", "other.age", "--kit-recipient", RECIPIENT)
    return ["--kit", "other.age", "--kit-identity", "identity"]


def lose(cli: Cli, how: str) -> None:
    place = cli.store / "keys"
    (path,) = place.iterdir()
    data = path.read_bytes()
    if how == "removed":
        shutil.rmtree(place)
    elif how == "truncated":
        path.write_bytes(data[:100])
    elif how == "zeros":
        path.write_bytes(bytes(len(data)))
    else:
        other_kit(cli)
        path.write_bytes(Path("other", "keys", "00000001").read_bytes())


@pytest.mark.parametrize(("how", "code"), LOSSES.items())
def test_lost_keys_are_named_with_the_way_out(made: Cli, how: str, code: int) -> None:
    lose(made, how)

    for verb in ("list", "verify", "key rotate", "key kit"):
        ended = made(verb, "--json", code=code)

        assert ended.error == ("ObjectMissing" if how == "removed" else "CorruptObject")
        message = ended.json["error"]["message"]
        assert message.startswith("keys/ is empty" if how == "removed" else "keys/00000001 is damaged or forged: ")
        assert message.endswith(COMMAND)


@pytest.mark.parametrize("how", LOSSES)
def test_the_kit_opens_a_store_whose_keys_are_lost(made: Cli, kit: list[str | Path], how: str) -> None:
    disk = made.disk()
    point = made.backup(disk)
    lose(made, how)

    assert [found["id"] for found in made("list", *kit, "--json").json["points"]] == [point["id"]]
    made("restore", "latest", *kit, "--target", "restored")
    assert Path("restored").read_bytes() == disk.read_bytes()
    verified = made("verify", "--deep", *kit, "--json", code=1).json
    assert verified["damaged_points"] == []
    assert all(finding["object"].startswith("keys/") for finding in verified["findings"])
    assert any(finding["message"].endswith(COMMAND) for finding in verified["findings"])
    assert COMMAND in made("verify", *kit, code=1).out
    again = made("backup", disk, *kit, "--json").json["points"][0]
    assert again["new_bytes"] == 0
    assert made("restore", again["id"], *kit, "--target", "again").code == 0
    assert Path("again").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("how", LOSSES)
def test_the_kit_of_another_store_is_refused(made: Cli, kit: list[str | Path], how: str) -> None:
    (key,) = (made.home / "keys").iterdir()
    lose(made, how)
    other = ["--kit", "other.age", "--kit-identity", "identity"] if Path("other").exists() else other_kit(made)
    before = sorted((path, path.read_bytes()) for path in made.store.rglob("*") if path.is_file())

    for verb in ("list", "verify", "key rotate"):
        ended = made(verb, *other, "--json", code=12)

        assert ended.error == "WrongKey"
        message = ended.json["error"]["message"]
        assert message.startswith("the recovery kit is that of store ")
        assert key.stem in message
        assert str(Path("other").absolute()) in message
    assert sorted((path, path.read_bytes()) for path in made.store.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("how", LOSSES)
def test_rotation_by_the_kit_writes_the_keys_anew(made: Cli, kit: list[str | Path], how: str) -> None:
    disk = made.disk()
    point = made.backup(disk)
    (key,) = (made.home / "keys").iterdir()
    key.rename("old.key")
    lose(made, how)

    ended = made("key rotate", *kit, "--json")

    assert ended.json == {"store": key.stem, "opens_by": ["platform"], "key_file": str(key)}
    assert [path.name for path in (made.store / "keys").iterdir()] == ["00000002"]
    assert [found["id"] for found in made.points()] == [point["id"]]
    assert made("verify", "--deep", "--json").json["ok"] is True
    assert made("list", "--key-file", "old.key", "--json", code=12).error == "WrongKey"
    assert made.backup(disk)["new_bytes"] == 0
    made("reclaim")
    assert len(made("list", *kit, "--json").json["points"]) == 2
    made("key rotate")
    assert made("verify", "--deep", *kit, "--json").json["ok"] is True


def test_rotation_by_the_kit_to_a_passphrase(made: Cli, kit: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> None:
    lose(made, "removed")
    Path("secret").write_text("correct horse\n")

    assert made("key rotate", *kit, "--new-passphrase-file", "secret", "--json").json["opens_by"] == ["passphrase"]

    assert made("verify", "--passphrase-file", "secret", "--json").json["ok"] is True


def test_a_passphrase_kit_opens_a_store_whose_keys_are_lost(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = cli("init", "--json").json["kit"]
    lose(cli, "removed")
    Path("secret").write_text(kit["passphrase"])

    assert cli("list", "--kit", kit["file"], "--passphrase-file", "secret", "--json").json == {"points": []}

    cli("key rotate", "--kit", kit["file"], "--passphrase-file", "secret")
    assert cli.points() == []


def test_another_kit_is_made_by_a_kit(made: Cli, kit: list[str | Path]) -> None:
    """The new one holds the keys as well, and not what is in `keys/`."""
    lose(made, "removed")

    made("key kit", *kit, "--out", "second.age", "--kit-recipient", RECIPIENT)

    assert made("list", "--kit", "second.age", "--kit-identity", "identity", "--json").json == {"points": []}


def test_rotation_by_the_kit_may_be_interrupted(
    made: Cli, kit: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from keepstone.cli.store import key as command

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    lose(made, "removed")
    with monkeypatch.context() as patch:
        patch.setattr(command, "replace_private", killed)
        assert made("key rotate", *kit, "--json", code=130).error == "Interrupted"

    assert made.points() == []
    made("key rotate", *kit)
    assert made("verify", "--json").json["ok"] is True
    assert len(list((made.home / "keys").iterdir())) == 1


def text_of(path: Path) -> bytes:
    """What `age --decrypt` shows."""
    return bytes(pyrage.decrypt(path.read_bytes(), [pyrage.x25519.Identity.from_str(IDENTITY)]))


def test_what_the_kit_tells_people_to_do_works(made: Cli, kit: list[str | Path]) -> None:
    """Word by word, on the day on which only the store and the kit are left."""
    disk = made.disk()
    made.backup(disk)
    text = text_of(Path(kit[1]))
    lines = [line.partition(":")[2].strip() for line in json.loads(text)["instructions"]]
    restore, rotate, rescue = (line for line in lines if line.startswith(("keepstone ", "age ")))
    shutil.rmtree(made.home / "keys")
    lose(made, "removed")

    def words(line: str, folder: str) -> list[str]:
        meant = {"STORE": str(made.store), "KIT": str(kit[1]), "FOLDER": folder}
        found = [meant.get(word, word.replace("STORE/", f"{made.store}/")) for word in shlex.split(line)]
        return [*found[1:], *map(str, kit[2:])]

    made.run(*words(restore, "one"))
    decrypt, _, program = rescue.partition(" | python ")
    assert decrypt == "age --decrypt KIT"
    command = [sys.executable, *words(f"python {program}", "two")[:-2]]
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    made.run(*words(rotate, ""))

    assert (done.returncode, done.stderr.count(b"\n")) == (4, 1), done.stderr  # it says that keys/ is lost
    assert Path("one").read_bytes() == Path("two").read_bytes() == disk.read_bytes()
    assert made("verify", "--deep", "--json").json["ok"] is True


# What is seen of it


def faces(keyring: Keyring) -> list[bytes]:
    """How the secrets of a store could show: as they are, in hex, in base64; 24 bytes of each count."""
    keys = keyring.keys
    secrets = [keyring.vault_key.secret, keys.id, keys.encryption, keys.metadata, keys.audit, keys.signing_seed]
    shown = [face(secret[:24]) for secret in secrets for face in (bytes, lambda one: one.hex().encode())]
    return [*shown, *(base64.b64encode(secret[:24]) for secret in secrets), b'"vault_key": "']


def test_the_text_of_a_kit_is_seen_nowhere(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every byte that a command writes or says, every file that is left, and every process that it starts."""
    seen: list[bytes] = []

    def spying(call: Any) -> Any:
        def write(fd: int, data: Any, *rest: Any) -> Any:
            seen.append(bytes(data))
            return call(fd, data, *rest)

        return staticmethod(write)

    def started(words: list[str], **given: Any) -> Any:
        seen.append(repr((words, sorted(given), given.get("input"), given.get("env"))).encode())
        return run(words, **given)

    run = subprocess.run
    monkeypatch.setattr(FileSystem, "write", spying(os.write))
    monkeypatch.setattr(FileSystem, "pwrite", spying(os.pwrite))
    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    Path("identity").write_text(IDENTITY)
    kit = ["--kit", "kit.age", "--kit-identity", "identity"]

    def say(verb: str, *arguments: object, code: int = 0) -> None:
        for how in ("--debug", "--json") if code or verb in ("list", "verify") else ("--debug",):
            ended = cli(verb, *arguments, how, code=code)
            seen.extend([ended.out.encode(), ended.err.encode()])

    say("init", "--kit", "kit.age", "--kit-recipient", RECIPIENT)
    say("backup", cli.disk())
    say("key kit", "--out", "second.age", "--kit-recipient", RECIPIENT)
    say("list", *kit)
    say("verify", "--deep", *kit)
    say("restore", "latest", "--target", "out", *kit)
    say("list", "--kit", "kit.age", "--passphrase-command", "echo wrong", code=12)
    say("list", "--kit", "kit.age", "--kit-identity", "kit.age", code=2)
    lines = Path("kit.age").read_text().splitlines()
    Path("cut.age").write_text("\n".join([*lines[:9], *lines[-1:]]))
    say("list", "--kit", "cut.age", "--kit-identity", "identity", code=1)
    say("list", *other_kit(cli), code=12)
    lose(cli, "removed")
    say("list", code=3)
    say("verify", *kit, code=1)
    say("key rotate", *kit)
    say("key rotate", *kit, "--new-key-file", "identity", code=1)

    opened = open_kit(Path("kit.age").read_bytes(), identity=IDENTITY).keyring
    canaries = faces(opened)
    left = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(canary in text_of(Path("kit.age")) for canary in canaries) == 2  # the search finds what does show
    assert len(seen) > 50
    assert b"-----BEGIN AGE" in b"".join(seen)
    for text in [*seen, *left]:
        assert not [canary for canary in canaries if canary in text]
