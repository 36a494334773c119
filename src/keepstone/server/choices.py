# SPDX-License-Identifier: Apache-2.0
"""What somebody chose when the service was first started, and that every later command has to know: `service.json` in
the data folder. It may hold the password of a database, so nobody else can read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import FormatError, StoreMissing, UsageError
from keepstone.objects import replace_private, write_private

if TYPE_CHECKING:
    from keepstone.control.installation import Installation

__all__ = ["Choices", "installed"]

_OWN = "keepstone.db"


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`database`: its URL; None for the one in the data folder. `names`: by which else clients know this machine.
    `allowed`: the paths that its workers read from and write to, with everything beneath; all where there are none.
    `snapshots`: the folder for snapshots that stay on this host; empty: none do."""

    database: str | None = None
    names: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    snapshots: str = ""

    @classmethod
    def of(cls, root: Path) -> Choices | None:
        """Those of this data folder; None where it was never started. `FormatError` where the file is none."""
        path = root / "service.json"
        try:
            return from_json(cls).decode(path.read_bytes())
        except FileNotFoundError:
            return cls() if (root / _OWN).exists() else None
        except msgspec.DecodeError as error:
            raise FormatError(f"{path} does not say what it should ({error}); put it back from a copy") from error

    def save(self, env: Env, root: Path) -> None:
        """Remember them."""
        made = root / "service.json.new"
        made.unlink(missing_ok=True)
        write_private(env, made, msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        replace_private(env, made, root / "service.json")

    def with_given(
        self,
        root: Path,
        database: str | None,
        names: tuple[str, ...],
        allowed: tuple[str, ...] = (),
        snapshots: str | None = None,
    ) -> Choices:
        """With what a later start asks for: names are added, all else takes the place of what was. `UsageError` for
        another database: there, the service would be a new one that knows none of its vaults."""
        if database is not None and database != self.database:
            raise UsageError(
                f"the service in {root} has its database elsewhere; leave --database out, or, where its tables were "
                f"moved, change {root / 'service.json'}"
            )
        return Choices(
            database=self.database,
            names=tuple(dict.fromkeys([*self.names, *names])),
            allowed=allowed or self.allowed,
            snapshots=self.snapshots if snapshots is None else snapshots,
        )


def installed(env: Env, root: Path) -> Installation:
    """The installation in a data folder, as it was first started. `StoreMissing` where there is none."""
    from keepstone.control.installation import Installation

    choices = Choices.of(root)
    if choices is None:
        raise StoreMissing(f"there is no Keepstone service in {root}; start one with `keepstone up`, or check --data")
    return Installation(env, root, choices.database, choices.allowed, choices.snapshots)
