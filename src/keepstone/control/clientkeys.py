# SPDX-License-Identifier: Apache-2.0
"""The keys of sealed items: a machine has made them, its passphrase alone opens them, and they are kept here, so that
any machine which is told the passphrase can restore.

An item that is sealed stays sealed, and its keys are set once: without them its points are lost. Others take their
place only while there are no points. The same keys may get another passphrase; since nobody here can tell what opens
them, those with earlier passphrases are kept, so that a machine in wrong hands locks nobody out.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

from keepstone.catalogue import first, points
from keepstone.control import items
from keepstone.control.plane import Plane
from keepstone.crypto import is_next
from keepstone.errors import Conflict, GuardRefused, InvalidRequest
from keepstone.remote.wire import Begin
from keepstone.vault import Item, RecoveryPoint

__all__ = ["check_open", "keep", "of"]

KEYS, BEFORE = "clientKeys", "clientKeysBefore"
"""Properties of an item: its keys, base64, and a list of those with earlier passphrases; `arm` shows them to nobody."""
_MOST = 32  # earlier passphrases
_LONGEST = 96 * 1024  # characters: a keys object has 64 KiB at most


def of(item: Item) -> str:
    """The sealed keys of an item, as `wire.Work` has them; empty where its machine has made none."""
    found = item.properties
    return " ".join([found[KEYS], *reversed(found.get(BEFORE, []))]) if KEYS in found else ""


def check_open(item: Item) -> None:
    """`GuardRefused` where whoever backs this item up would have to seal it, and cannot."""
    if of(item):
        raise GuardRefused(
            f"'{item.friendly}' is sealed by its machine, and the service does not have the passphrase; it is backed "
            "up by the agent there alone"
        )


def keep(plane: Plane, item: Item, begin: Begin) -> None:
    """What a machine that begins a backup says of its keys. `GuardRefused` where it would not seal what was sealed,
    `Conflict` where its keys are others than those that there are, or none that follow them."""
    if not begin.sealed:
        if of(item):
            raise GuardRefused(
                f"'{item.friendly}' was sealed until now; give its agent the passphrase again ([sealed] in "
                "agent.toml), or delete the item and protect it anew"
            )
        return
    if not begin.keys or len(begin.keys) > _LONGEST or not begin.keys.isascii():
        raise InvalidRequest("a sealed backup has to bring the sealed keys of its item")
    if begin.keys == item.properties.get(KEYS):
        return
    with plane.change() as change:
        now = items.get(change.connection, item.id)
        before: list[str] = []
        if KEYS in now.properties and first(change.connection, RecoveryPoint, points.c.item == item.id) is not None:
            before = [*now.properties.get(BEFORE, []), now.properties[KEYS]]
            if not is_next(_decoded(begin.keys), _decoded(before[-1])):
                raise Conflict(
                    f"'{item.friendly}' has points that are sealed by other keys; nothing was changed. Its agent gets "
                    "these keys with its next job"
                )
            if len(before) > _MOST:
                raise Conflict(
                    f"the passphrase of '{item.friendly}' was changed {_MOST} times; keep the one that it has"
                )
        change.save(replace(now, properties=dict(now.properties) | {KEYS: begin.keys, BEFORE: before}))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
