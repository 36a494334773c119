# SPDX-License-Identifier: Apache-2.0
"""The port through which a store is opened: a provider knows a root key and turns it into a slot of the keys object.

`keyfile` and `passphrase` implement it; `slots` has the cryptography, `keyring` the object. A slot is a dictionary of
text and whole numbers with `kind`, `salt`, `check`, `wrapped`, and what else the provider needs to find its root key
again; bytes stand in it as base64. What a slot asks for is bounded before anything is computed, because whoever can
write to the storage can write a slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol, TypeVar

import msgspec

from keepstone.crypto.keys import KEY_SIZE, VaultKey
from keepstone.decoders import known
from keepstone.errors import CorruptObject

__all__ = ["Bytes32", "KeyProvider", "Slot", "Wrapped", "read_slot", "write_slot"]

Slot = Mapping[str, str | int]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=KEY_SIZE, max_length=KEY_SIZE)]
Wrapped = Annotated[bytes, msgspec.Meta(min_length=KEY_SIZE + 16, max_length=KEY_SIZE + 16)]
_Form = TypeVar("_Form")


class KeyProvider(Protocol):
    """One way to open a store. `kind` names it in the slot."""

    @property
    def kind(self) -> str: ...

    def wrap(self, vault_key: VaultKey, context: bytes, salt: bytes) -> dict[str, str | int]:
        """A slot that this provider can unwrap; `salt` is 32 fresh random bytes."""

    def unwrap(self, slot: Slot, context: bytes) -> VaultKey:
        """The vault key of a slot of this kind; `WrongKey` for another root key's slot, `CorruptObject` for damage."""


def read_slot(slot: Slot, form: type[_Form]) -> _Form:
    """The slot as `form` declares it; `CorruptObject` for anything else."""
    try:
        return msgspec.convert(slot, known(form))
    except msgspec.ValidationError as error:
        raise CorruptObject(f"a slot is not valid ({str(error)!r})") from None


def write_slot(form: msgspec.Struct) -> dict[str, str | int]:
    """The inverse of `read_slot`."""
    slot: dict[str, str | int] = msgspec.to_builtins(form)
    return slot
