# SPDX-License-Identifier: Apache-2.0
"""The start of a service, step by step: what can fail for its user's doing fails before anything is made.

The folder is held and the port listened at first. Then the installation is made, if it is not there, and what was
chosen is remembered. The rest may happen in the background (`background.py`): a process that is forked has the lock and
the listener too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa

from keepstone.control.installation import Installation, Welcome
from keepstone.env import Env
from keepstone.errors import StorageError, UsageError
from keepstone.notifier import Notifier
from keepstone.server import instance
from keepstone.server.address import Address, listen
from keepstone.server.choices import Choices
from keepstone.server.workers import PROGRAM

__all__ = ["DEFAULT_LOCATION", "Start"]

DEFAULT_LOCATION = "onprem1"
_OURS = {"run", "log", "tls"}  # what an interrupted first start may have left


class Start:
    """A service that is about to run. As a context it gives lock and port back at the end."""

    def __init__(
        self, env: Env, root: Path, hold: instance.Hold, listener: socket.socket, address: Address, known: bool,
        choices: Choices,
    ) -> None:  # fmt: skip
        self.address = address
        self.installation = Installation(env, root, choices.database, choices.allowed, choices.snapshots)
        self._env = env
        self._root = root
        self._hold = hold
        self._listener = listener
        self._known = known
        self._choices = choices

    @classmethod
    def prepare(
        cls,
        root: Path,
        host: str,
        port: int,
        *,
        database: str | None = None,
        names: Sequence[str] = (),
        allowed: Sequence[str] = (),
        snapshots: str | None = None,
    ) -> Start:
        """Hold the folder and listen. `Conflict` where another service does either, `UsageError`, `AccessDenied`."""
        env, root = Env(), root.absolute()
        os.umask(0o077)
        choices = Choices.of(root)
        if choices is None:
            _check_empty(root)
            given = Choices(database=database, names=tuple(names), allowed=tuple(allowed), snapshots=snapshots or "")
        else:
            given = choices.with_given(root, database, tuple(names), tuple(allowed), snapshots)
        hold = instance.take(root)
        try:
            listener = listen(host, port)
        except BaseException:
            hold.release()
            raise
        address = Address(host, listener.getsockname()[1], given.names)
        hold.announce(address.url, address.probe)
        return cls(env, root, hold, listener, address, choices is not None, given)

    def begin(self, location: str | None = None) -> Welcome | None:
        """Make what is missing of the installation; what to tell people where this was its first start.
        `StorageError` where the database does not answer."""
        try:
            welcome = self.installation.begin(location or ("" if self._known else DEFAULT_LOCATION))
        except sa.exc.OperationalError as error:
            raise StorageError(
                f"the database does not answer ({error.orig}); check that it runs, and what --database says"
            ) from error
        self._choices.save(self._env, self._root)
        return welcome

    def run(
        self,
        *,
        answerers: int | None = None,
        workers: int = 1,
        level: str = "info",
        program: Sequence[str] = PROGRAM,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve until a signal says to stop. `answerers`: how many; as many as help where that is None. `ready` is
        called when the service answers. `KeepstoneError` where it does not come to that."""
        from keepstone.server.answerers import as_many_as_help
        from keepstone.server.serving import Serving

        notifier = Notifier(self._env)  # before there are children: it takes its variables from them
        self._hold.announce(self.address.url, self.address.probe)  # as this process
        serving = Serving(
            self.installation,
            self.address,
            self._listener,
            answerers=answerers or as_many_as_help(),
            workers=workers,
            level=level,
            program=program,
        )

        def answers() -> None:
            notifier.ready(f"answers at {self.address.url}")
            ready()

        serving.run(answers, notifier.stopping)

    def close(self) -> None:
        """Give lock and port back, as far as this process has them. Once more does nothing."""
        self._listener.close()
        self._hold.release()

    def __enter__(self) -> Start:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_empty(root: Path) -> None:
    """`UsageError` where a new service would lie among other things."""
    try:
        found = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UsageError(f"{root} is no folder; choose another one as --data") from error
    except PermissionError as error:
        raise UsageError(f"{root} is not for this user to read; choose another folder as --data") from error
    if found - _OURS and "issuer.key" not in found:
        raise UsageError(f"{root} holds other things ({min(found - _OURS)} …); choose an empty folder as --data")
    root.chmod(0o700)
