# SPDX-License-Identifier: Apache-2.0
"""The key file: how it is made, who may read it, and what is said when it is not there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from keepstone.crypto import PlatformKeyProvider, VaultKey
from keepstone.env import Env, FileSystem
from keepstone.errors import AccessDenied, AlreadyExists, CorruptObject, StorageError, StorageFull, WrongKey

pytestmark = pytest.mark.store

VAULT_KEY = VaultKey(bytes(range(32)))
SALT = bytes(range(64, 96))


class RecordingFileSystem(FileSystem):
    """The real file system; notes what is made durable, and fails one call with one error when told to."""

    def __init__(self, fail: str = "", error: int = 0) -> None:
        self.calls: list[str] = []
        self._paths: dict[int, str] = {}
        self._fail = fail
        self._error = error

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self._fail and what.startswith(self._fail):
            raise OSError(self._error, os.strerror(self._error))

    def open(self, path: Any, *rest: Any) -> int:  # type: ignore[override]
        self._call(f"open {Path(path).name}")
        descriptor = os.open(path, *rest)
        self._paths[descriptor] = Path(path).name
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        self._call(f"write {self._paths[descriptor]}")
        return os.write(descriptor, data[:5])  # a short write is allowed to happen

    def fsync(self, descriptor: Any) -> None:
        self._call(f"fsync {self._paths[descriptor]}")
        os.fsync(descriptor)


def provider_at(path: Path) -> PlatformKeyProvider:
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return PlatformKeyProvider(path)


def test_file_is_32_bytes_that_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.key"
    PlatformKeyProvider.create(Env(), path)
    PlatformKeyProvider.create(Env(), path.with_name("other.key"))

    assert len(path.read_bytes()) == 32
    assert path.read_bytes() != path.with_name("other.key").read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_file_and_every_new_folder_are_made_durable_in_order(tmp_path: Path) -> None:
    fs = RecordingFileSystem()
    path = tmp_path / "a" / "b" / "store.key"
    PlatformKeyProvider.create(Env(fs=fs), path)
    durable = [call.split()[1] for call in fs.calls if call.startswith("fsync")]

    assert durable == [tmp_path.name, "a", "store.key", "b"]
    assert len(path.read_bytes()) == 32


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.key"
    path.write_bytes(b"precious")
    with pytest.raises(AlreadyExists, match=str(path)):
        PlatformKeyProvider.create(Env(), path)

    assert path.read_bytes() == b"precious"


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "store.key"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyExists):
        PlatformKeyProvider.create(Env(), link)
    (tmp_path / "folder").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError):
        PlatformKeyProvider.create(Env(), tmp_path / "folder" / "store.key")

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("fail", "error", "raised"),
    [
        ("open", errno.EACCES, AccessDenied),
        ("open", errno.EROFS, StorageError),
        ("write", errno.ENOSPC, StorageFull),
        ("write", errno.EDQUOT, StorageFull),
        ("fsync", errno.EIO, StorageError),
    ],
)
def test_a_failure_leaves_no_file_and_names_the_path(
    tmp_path: Path, fail: str, error: int, raised: type[Exception]
) -> None:
    path = tmp_path / "store.key"
    with pytest.raises(raised, match=str(path)) as caught:
        PlatformKeyProvider.create(Env(fs=RecordingFileSystem(fail, error)), path)

    assert type(caught.value) is raised
    assert not path.exists()


def test_a_folder_that_cannot_be_made_durable_leaves_no_file(tmp_path: Path) -> None:
    fs = RecordingFileSystem(f"fsync {tmp_path.name}", errno.EIO)
    with pytest.raises(StorageError):
        PlatformKeyProvider.create(Env(fs=fs), tmp_path / "store.key")

    assert fs.calls[-1] == f"fsync {tmp_path.name}"
    assert not list(tmp_path.iterdir())


def test_slot_is_pinned(tmp_path: Path) -> None:
    slot = provider_at(tmp_path / "store.key").wrap(VAULT_KEY, b"context", SALT)

    assert slot == {
        "kind": "platform",
        "key_id": "c848afef94d9f143",
        "salt": "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=",
        "check": "kJO5wyOGjFsTm8SxzYOZboDKGvkJO2DTAPS0ulbUhUo=",
        "wrapped": "FfqhEyz9JAF7KAebW3fiso3Xu1E9I4sjJ2CF5wPGh5VSBz/f+qF2rz/ONXpIWgz+",
    }


def test_slot_opens_again(tmp_path: Path) -> None:
    provider = provider_at(tmp_path / "store.key")

    assert provider.unwrap(provider.wrap(VAULT_KEY, b"context", SALT), b"context") == VAULT_KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o700 | 0o010])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    provider = provider_at(tmp_path / "store.key")
    provider.path.chmod(mode)
    with pytest.raises(AccessDenied, match=rf"{provider.path} is open to others \(mode 0{mode:o}\).*chmod 600"):
        provider.wrap(VAULT_KEY, b"context", SALT)


def test_owner_may_keep_it_read_only(tmp_path: Path) -> None:
    provider = provider_at(tmp_path / "store.key")
    provider.path.chmod(0o400)

    assert provider.wrap(VAULT_KEY, b"context", SALT)["kind"] == "platform"


def test_a_missing_file_is_a_wrong_key_that_points_to_the_kit(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.key", tmp_path / "no" / "folder.key"):
        with pytest.raises(WrongKey, match=f"{path} is missing.*recovery kit"):
            PlatformKeyProvider(path).wrap(VAULT_KEY, b"context", SALT)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), bytes(4096)])
def test_a_file_of_another_length_is_no_key(tmp_path: Path, content: bytes) -> None:
    provider = provider_at(tmp_path / "store.key")
    provider.path.write_bytes(content)
    with pytest.raises(CorruptObject, match=f"{provider.path} is no key file"):
        provider.wrap(VAULT_KEY, b"context", SALT)


def test_a_fifo_or_folder_is_no_key_and_hangs_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("fifo", "folder"):
        with pytest.raises(CorruptObject):
            PlatformKeyProvider(tmp_path / name).wrap(VAULT_KEY, b"context", SALT)


def test_another_file_is_named_by_its_id(tmp_path: Path) -> None:
    provider = provider_at(tmp_path / "store.key")
    slot = provider.wrap(VAULT_KEY, b"context", SALT)
    provider.path.write_bytes(bytes(32))
    with pytest.raises(WrongKey, match=rf"{provider.path} .* wants the one with id {slot['key_id']}"):
        provider.unwrap(slot, b"context")
