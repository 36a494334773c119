# SPDX-License-Identifier: Apache-2.0
"""The platform key: a file of this machine that holds a root key."""

from __future__ import annotations

import errno
import hmac
import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec

from keepstone.crypto.keys import KEY_SIZE, VaultKey
from keepstone.crypto.providers import Bytes32, Slot, Wrapped, read_slot, write_slot
from keepstone.crypto.slots import open_slot, seal_slot, slot_check, slot_fits
from keepstone.env import Env, FileSystem
from keepstone.errors import (
    AccessDenied,
    AlreadyExists,
    CorruptObject,
    KeepstoneError,
    StorageError,
    StorageFull,
    WrongKey,
)
from keepstone.files import write_new

__all__ = ["PlatformKeyProvider"]


class _PlatformSlot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="platform"):
    key_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    salt: Bytes32
    check: Bytes32
    wrapped: Wrapped


class PlatformKeyProvider:
    """A file of 32 random bytes that only its owner may read (mode 0600). The file's bytes are the root key.

    `key_id` in the slot, the first 16 hex digits of HMAC-SHA256(root, "keepstone/platform/id/v1"), says which file is
    meant.
    """

    kind = "platform"

    def __init__(self, path: Path, *, fs: FileSystem | None = None) -> None:
        self.path = path
        self._fs = fs or FileSystem()

    def __repr__(self) -> str:
        return f"PlatformKeyProvider({str(self.path)!r})"

    @classmethod
    def create(cls, env: Env, path: Path) -> PlatformKeyProvider:
        """Make a new key file, durable on return; its missing folders get mode 0700.

        `AlreadyExists` where there is something at `path`; `AccessDenied`, `StorageFull`, `StorageError`.
        """
        fs = env.fs
        try:
            write_new(fs, path, env.random(KEY_SIZE))
        except OSError as error:
            raise _failure(error, f"the key file {path} cannot be created") from error
        return cls(path, fs=fs)

    def wrap(self, vault_key: VaultKey, context: bytes, salt: bytes) -> dict[str, str | int]:
        root = self._root()
        slot = _PlatformSlot(
            key_id=_key_id(root),
            salt=salt,
            check=slot_check(root, context, salt),
            wrapped=seal_slot(root, vault_key, context, salt),
        )
        return write_slot(slot)

    def unwrap(self, slot: Slot, context: bytes) -> VaultKey:
        form = read_slot(slot, _PlatformSlot)
        root = self._root()
        if not slot_fits(root, context, form.salt, form.check):
            raise WrongKey(
                f"the key file {self.path} (id {_key_id(root)}) is not this store's, "
                f"which wants the one with id {form.key_id}"
            )
        return open_slot(root, form.wrapped, context, form.salt)

    def _root(self) -> bytes:
        fs = self._fs
        try:
            descriptor = fs.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo must not hang us
            try:
                mode = fs.fstat(descriptor).st_mode
                if mode & 0o077:
                    raise AccessDenied(
                        f"the key file {self.path} is open to others (mode {stat.S_IMODE(mode):04o}); "
                        f"if nobody has copied it, run: chmod 600 {self.path}"
                    )
                root = fs.read(descriptor, KEY_SIZE + 1) if stat.S_ISREG(mode) else b""
            finally:
                fs.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            raise WrongKey(
                f"the key file {self.path} is missing; put it back, or open the store with its recovery kit"
            ) from None
        except OSError as error:
            raise _failure(error, f"the key file {self.path} cannot be read") from error
        if len(root) != KEY_SIZE:
            raise CorruptObject(
                f"{self.path} is no key file of {KEY_SIZE} bytes; put it back, or open the store with its recovery kit"
            )
        return root


def _key_id(root: bytes) -> str:
    return hmac.digest(root, b"keepstone/platform/id/v1", "sha256").hex()[:16]


def _failure(error: OSError, what: str) -> KeepstoneError:
    if isinstance(error, FileExistsError):
        return AlreadyExists(f"{what}: there is one already; use it, or choose another path")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{what}: {error.strerror}; run as its owner")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{what}: {error.strerror}; make room and try again")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StorageError(f"{what}: {error.strerror}; check the path")
    return StorageError(f"{what}: {error.strerror}; check the disk")
