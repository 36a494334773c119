# SPDX-License-Identifier: Apache-2.0
"""`keys/`: which keys object of a store counts, and opening it by a key, or the store by its recovery kit without it.

The object with the highest number counts. A recovery kit holds the same keys, so that whatever happened to `keys/`, the
storage and the kit suffice; the next rotation then writes a sound object, under a number that is higher than any that
the storage or the head chain tells of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from keepstone.crypto import KeyProvider, Keyring, Kit, open_keyring, read_keyring
from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, StorageError, UnsupportedFormat, WrongKey
from keepstone.objects import ObjectStorage
from keepstone.store.chain import Chain
from keepstone.store.context import Context
from keepstone.store.layout import KEYS, keys_name, names

__all__ = ["check_keys", "last_number", "newest_number", "open_by_kit", "open_keys"]

_REMEDY = "put it back from a copy, or write a new one by the recovery kit: keepstone store key rotate --kit KIT"


def newest_number(storage: ObjectStorage) -> int:
    """The number of the keys object that counts; 0 where there is none."""
    return max((int(name.removeprefix(KEYS)) for name in names(storage, KEYS)), default=0)


def last_number(context: Context) -> int:
    """The number of the keys object of which the head chain tells last; 0 where it tells of none."""
    heads, _, _ = Chain(context).entries(lambda name, error: None)
    return max((int(head.object.removeprefix(KEYS)) for head in heads if head.event == "keys"), default=0)


def open_keys(storage: ObjectStorage, store_id: bytes, providers: Sequence[KeyProvider]) -> Keyring:
    """The store's keys, by the first of `providers` that fits.

    `ObjectMissing`, `CorruptObject` or `StorageError` where the keys object is gone, damaged or cannot be read: each
    names it and the way out. `WrongKey` and `UnsupportedFormat` as from `open_keyring`.
    """
    number = newest_number(storage)
    if not number:
        raise ObjectMissing(f"{KEYS} is empty: the store's keys object is gone, and no key opens it; {_REMEDY}")
    return _read(storage, number, lambda data: open_keyring(data, store_id, providers))


def open_by_kit(storage: ObjectStorage, store_id: bytes, kit: Kit) -> Keyring:
    """The store's keys, out of its keys object, or out of the kit where that is gone, damaged or cannot be read.

    `WrongKey` for the kit of another store; `UnsupportedFormat` where the keys object is newer, because then the rest
    of the store may be as well.
    """
    if kit.keyring.store_id != store_id:
        raise WrongKey(
            f"the recovery kit is that of store {kit.keyring.store_id.hex()} ({kit.description!r}), and this is store "
            f"{store_id.hex()}; take the kit of this one"
        )
    number = 0
    try:
        number = newest_number(storage)
        return _read(storage, number, lambda data: read_keyring(data, store_id, kit.keyring.vault_key))
    except UnsupportedFormat:
        raise
    except KeepstoneError:
        return replace(kit.keyring, sequence=number)


def check_keys(storage: ObjectStorage, keyring: Keyring, problem: Callable[[str, KeepstoneError], None]) -> None:
    """Tell which keys objects are gone, damaged, or not readable."""
    there = set(names(storage, KEYS))
    newest = keys_name(keyring.sequence) if keyring.sequence else KEYS
    if newest not in there:
        problem(newest, ObjectMissing(f"{newest}: the keys object is gone, and no key opens the store; {_REMEDY}"))
    for name in sorted(there):
        try:
            _read(
                storage,
                int(name.removeprefix(KEYS)),
                lambda data: read_keyring(data, keyring.store_id, keyring.vault_key),
            )
        except KeepstoneError as error:
            problem(name, error)


def _read(storage: ObjectStorage, number: int, read: Callable[[bytes], Keyring]) -> Keyring:
    name = keys_name(number)
    with _named(name):
        keyring = read(storage.read(name))
        if keyring.sequence != number:
            raise CorruptObject(f"it is keys object {keyring.sequence} under another name")
        return keyring


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Failures say which object it was and what to do."""
    try:
        yield
    except CorruptObject as error:
        raise CorruptObject(f"{name} is damaged or forged: {error}; {_REMEDY}") from None
    except (ObjectMissing, StorageError) as error:  # these name the object already
        raise type(error)(f"{error}; {_REMEDY}") from error
