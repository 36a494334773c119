# SPDX-License-Identifier: Apache-2.0
"""Which machine a client certificate belongs to. What was looked up is remembered, as long as somebody vouches for it:
a machine whose identity was taken away is out within seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from keepstone.control import agents
from keepstone.control.plane import Plane
from keepstone.errors import Unauthenticated
from keepstone.identity import key_id, read_certificate

__all__ = ["Callers", "key_of"]

_TRUST = 300.0  # seconds for which an agent is not looked up again, whoever vouches
_KNOWN = 100_000  # agents


class _Known(NamedTuple):
    """Whose key it is: what was true at the moment `looked` (boot time), and is so until a moment, seconds since 1970,
    unless something changes."""

    machine: UUID
    looked: int
    until: float


class Callers:
    """`still`: whether what was looked up of a machine, not before a moment (boot time), is true yet."""

    def __init__(self, plane: Plane, still: Callable[[UUID, int], bool]) -> None:
        self._plane = plane
        self._still = still
        self._known: dict[str, _Known] = {}

    def remembered(self, certificate: bytes | None) -> UUID | None:
        """Who has this certificate (DER), as far as that is known without a question."""
        known = None if certificate is None else self._known.get(key_of(certificate))
        if known is None or self._plane.env.wall_time() / 1e9 > known.until:
            return None
        return known.machine if self._still(known.machine, known.looked) else None

    def look_up(self, certificate: bytes | None) -> UUID:
        """The same, by the database. `Unauthenticated` for whoever may not come in, or has none."""
        if certificate is None:
            raise Unauthenticated("an agent's certificate is needed here; register this machine first")
        key = key_of(certificate)
        self._known.pop(key, None)
        looked, now = self._plane.env.boot_time(), self._plane.env.utc()
        with self._plane.look() as connection:
            found = agents.find(connection, key, now)
        if len(self._known) > _KNOWN:
            self._known.clear()
        until = min(found.until.timestamp(), now.timestamp() + _TRUST)
        self._known[key] = _Known(found.container, looked, until)
        return found.container


@lru_cache(maxsize=20_000)
def key_of(certificate: bytes) -> str:
    """Who the owner of a certificate (DER) is: what its key is known by."""
    return key_id(read_certificate(certificate)[1])
