# SPDX-License-Identifier: Apache-2.0
"""A world whose chance and clock are known, so that every byte of a format can be pinned."""

from __future__ import annotations

import hashlib

from keepstone.env import Env

__all__ = ["STORE_ID", "KnownEnv"]

STORE_ID = bytes.fromhex("000102030405060708090a0b0c0d0e0f")


class KnownEnv(Env):
    """The real world, except that chance is SHAKE-256 of a counter and that it is always the same moment."""

    def __init__(self) -> None:
        super().__init__(threads=0)
        self._draws = 0

    def random(self, count: int) -> bytes:
        self._draws += 1
        return hashlib.shake_256(b"keepstone test %d" % self._draws).digest(count)

    def wall_time(self) -> int:
        return 1_790_000_000 * 10**9
