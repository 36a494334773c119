# SPDX-License-Identifier: Apache-2.0
"""What a connection through the proxy suffers, as values. Bytes count from the first, each way for itself."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf

__all__ = ["CLEAN", "BlackHole", "Cut", "End", "Plan", "Reset", "Way"]


class End(StrEnum):
    """How a connection ends, for both its ends at once: in order, or with a reset that is an error to whoever reads."""

    FIN = "fin"
    RST = "rst"


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends when exactly `after` bytes have gone this way."""

    after: int
    how: End = End.FIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One direction. `latency`: seconds that each byte is under way. `bandwidth`: bytes a second.

    `half_close`: after so many bytes the receiver sees the end of this direction, while the other one goes on; what
    the sender sends from then on is taken and thrown away. Not over TLS, which has no such thing.
    """

    cut: Cut | None = None
    latency: float = 0.0
    bandwidth: float | None = None
    half_close: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackHole:
    """When `after` bytes of the client's have arrived, nothing goes on either way for `seconds`; a connection that is
    opened meanwhile is accepted. `inf`: until the proxy's `release`. Then the connection ends so, or goes on for None.
    """

    after: int = 0
    seconds: float = inf
    then: End | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Every connection is reset with this `chance` (0 to 1), after a number of bytes `within` which all are equally
    likely, in a direction of equal chance. The same seed gives the same resets, whatever the timing."""

    chance: float
    within: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One connection. `up`: from the client to the target; `down`: back."""

    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    black_hole: BlackHole | None = None
    reset: Reset | None = None

    def settled(self, chance: random.Random) -> Plan:
        """With the dice thrown."""
        if self.reset is None:
            return self
        hit, where, name = chance.random() < self.reset.chance, chance.randrange(self.reset.within), chance.random()
        settled = replace(self, reset=None)
        if not hit:
            return settled
        cut = Cut(where, End.RST)
        if name < 0.5:
            return replace(settled, up=replace(self.up, cut=cut))
        return replace(settled, down=replace(self.down, cut=cut))


CLEAN = Plan()
