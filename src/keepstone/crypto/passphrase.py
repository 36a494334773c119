# SPDX-License-Identifier: Apache-2.0
"""A passphrase as root key, made expensive to guess by Argon2id."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Annotated

import msgspec

from keepstone.crypto.keys import KEY_SIZE, VaultKey
from keepstone.crypto.providers import Bytes32, Slot, Wrapped, read_slot, write_slot
from keepstone.crypto.slots import open_slot, seal_slot, slot_check, slot_fits
from keepstone.errors import CorruptObject, KeepstoneError, UsageError, WrongKey

__all__ = ["Argon2Cost", "PassphraseProvider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """What one guess at a passphrase costs (RFC 9106): passes over the memory, the memory in KiB, lanes."""

    iterations: int = 3
    memory_kib: int = 256 * 1024
    lanes: int = 4

    def covers(self, other: Argon2Cost) -> bool:
        """Whether no part of this cost is below the other's."""
        return self.iterations >= other.iterations and self.memory_kib >= other.memory_kib and self.lanes >= other.lanes


_MINIMUM = Argon2Cost(iterations=3, memory_kib=64 * 1024, lanes=4)


class _PassphraseSlot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="passphrase"):
    iterations: Annotated[int, msgspec.Meta(ge=1, le=64)]
    memory_kib: Annotated[int, msgspec.Meta(ge=8, le=4 * 1024 * 1024)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=64)]
    salt: Bytes32
    check: Bytes32
    wrapped: Wrapped


class PassphraseProvider:
    """A passphrase that somebody knows. The root key is Argon2id (RFC 9106) of it, 32 bytes, under the slot's salt.

    The passphrase is UTF-8 and is brought to Unicode's form NFC first, so that it does not matter on which keyboard it
    is typed. A cost below t=3, m=64 MiB, p=4 is refused unless `weak` says that it is meant; an existing slot opens at
    its own cost. Argon2id is no FIPS-approved function: where only such ones may run, use a key file.
    """

    kind = "passphrase"

    def __init__(self, passphrase: bytes, *, cost: Argon2Cost = Argon2Cost(), weak: bool = False) -> None:
        if not passphrase:
            raise UsageError("the passphrase is empty; give one with at least a few words")
        if not weak and not cost.covers(_MINIMUM):
            raise UsageError(f"{cost} is below the minimum of {_MINIMUM}; raise it")
        try:
            self._passphrase = unicodedata.normalize("NFC", passphrase.decode()).encode()
        except UnicodeDecodeError:
            raise UsageError("the passphrase is not UTF-8 text; give it in UTF-8") from None
        self._cost = cost

    def __repr__(self) -> str:
        return "PassphraseProvider()"

    def wrap(self, vault_key: VaultKey, context: bytes, salt: bytes) -> dict[str, str | int]:
        cost = self._cost
        root = self._root(cost, salt)
        slot = _PassphraseSlot(
            iterations=cost.iterations,
            memory_kib=cost.memory_kib,
            lanes=cost.lanes,
            salt=salt,
            check=slot_check(root, context, salt),
            wrapped=seal_slot(root, vault_key, context, salt),
        )
        return write_slot(slot)

    def unwrap(self, slot: Slot, context: bytes) -> VaultKey:
        form = read_slot(slot, _PassphraseSlot)
        cost = Argon2Cost(iterations=form.iterations, memory_kib=form.memory_kib, lanes=form.lanes)
        if cost.memory_kib < 8 * cost.lanes:
            raise CorruptObject("a slot asks for less memory than its lanes need")
        root = self._root(cost, form.salt)
        if not slot_fits(root, context, form.salt, form.check):
            raise WrongKey("the passphrase is not this store's")
        return open_slot(root, form.wrapped, context, form.salt)

    def _root(self, cost: Argon2Cost, salt: bytes) -> bytes:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # with a key file it is not needed

        kdf = Argon2id(
            salt=salt, length=KEY_SIZE, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
        )
        try:
            return kdf.derive(self._passphrase)
        except MemoryError:
            raise KeepstoneError(
                f"to check the passphrase takes {cost.memory_kib // 1024} MiB of memory, which this machine does not "
                "have free; free some, or open the store with its key file or recovery kit"
            ) from None
