# SPDX-License-Identifier: Apache-2.0
"""Access tokens that this user has got, each in a file of mode 0600 in the cache until it is over.

A token counts for an hour. Losing one costs a login.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgspec

from keepstone.decoders import from_json

__all__ = ["Token", "Tokens"]

_SPARE = 60  # seconds before its end at which a token is not used any more


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """`value` speaks for `who` at the service at `url` until `end`, in seconds since 1970."""

    url: str
    who: str
    value: str
    end: int

    @property
    def is_good(self) -> bool:
        """Whether it lasts for another request."""
        return time.time() < self.end - _SPARE

    def __repr__(self) -> str:
        return f"Token(url={self.url!r}, who={self.who!r}, end={self.end})"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Those in `folder`. Each has a `purpose`, such as the login at an address."""

    folder: Path

    def get(self, purpose: str) -> Token | None:
        """None where there is none."""
        try:
            return from_json(Token).decode(self._path(purpose).read_bytes())
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def keep(self, purpose: str, token: Token) -> None:
        """In place of an earlier one."""
        from keepstone.env import Env
        from keepstone.objects import replace_private, write_private

        env, path = Env(), self._path(purpose)
        made = path.with_suffix(f".{os.getpid()}")
        made.unlink(missing_ok=True)
        write_private(env, made, msgspec.json.encode(token))
        replace_private(env, made, path)

    def drop(self, purpose: str) -> bool:
        """Forget one; whether there was any."""
        try:
            self._path(purpose).unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, purpose: str) -> Path:
        name = blake2b(os.fsencode(purpose), digest_size=12).hexdigest()
        return self.folder / f"{name}.json"
