# SPDX-License-Identifier: Apache-2.0
"""Instant recovery: a machine goes on from a point at once, and is moved to its own images while it runs.

Its disks are overlays in a folder, which outlive everything: a machine that ended, in order or not, is started on them
again. As long as they lack something of the point, whoever started the machine serves that, and the machine ends with
him. When they have all, it is released and runs on without us: the keeper of its process stays, for its sockets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import Conflict, KeepstoneError, TargetExists
from keepstone.files import exists
from keepstone.objects import failure
from keepstone.workloads.kvm.qmp import Gone, Monitor, Refused
from keepstone.workloads.machines import PointOfMachine, Role
from keepstone.workloads.progress import Progress
from keepstone.workloads.running.command import Network, Surroundings
from keepstone.workloads.running.disks import needs_point
from keepstone.workloads.running.home import Home
from keepstone.workloads.running.keeper import Ended, Keeper
from keepstone.workloads.running.launch import Launch, Limits, reachable
from keepstone.workloads.running.leaving import ask_down
from keepstone.workloads.running.moving import move
from keepstone.workloads.running.program import Accel

__all__ = ["Running", "boot", "move_running"]

_ALONE = Network()


class Running:
    """A machine that runs from a point. `process`: of its QEMU; `monitor`, `agent`, `console`: its sockets, and one
    more monitor where it was asked for.

    Whoever has it asks `goes_on` from time to time, calls `let_go` when it says so, and `close` in the end.
    """

    def __init__(self, env: Env, home: Home, keeper: Keeper, launch: Launch) -> None:
        self._env, self._home, self._keeper, self._launch = env, home, keeper, launch
        self._failure: KeepstoneError | None = None
        self.process = launch.process
        self.accel = launch.accel
        self.monitor, self.agent = launch.around.monitor, launch.around.agent
        self.console, self.second = launch.around.console, launch.around.second

    @property
    def read(self) -> int:
        """Bytes that were read of the point."""
        return self._launch.read

    @property
    def needs_point(self) -> bool:
        """Whether it would miss us. QEMU says it last in an image's header, when it opens the point no more."""
        disks = [drive for drive in self._launch.drives if drive.disk.role is Role.DISK]
        return any(needs_point(self._env, drive.image) for drive in disks)

    def wait(self, seconds: float | None) -> Ended | None:
        """How it ended, if it does within this time."""
        return self._launch.ended(seconds)

    def move(self, progress: Progress) -> None:
        """Copy what its images lack; see `moving.move`."""
        with self._launch.monitor() as monitor:
            move(self._env, monitor, progress)

    def unread(self) -> KeepstoneError | None:
        """Why something of the point could not be read since this was asked last. The machine stood still for it, and
        has been let go on: it tries again."""
        served = self._launch.served
        if served is None or served.failure is self._failure:
            return None
        self._failure = served.failure
        with contextlib.suppress(Gone, Refused), Monitor(self._env, self.monitor, timeout=2) as monitor:
            if monitor.execute("query-status")["status"] == "io-error":
                monitor.execute("cont")
        return self._failure

    def let_go(self) -> None:
        """It runs on without us from now on. `Conflict` where it needs its point, or has ended."""
        if self.needs_point:
            raise Conflict("the machine needs its point still; move it first")
        try:
            self._keeper.release()
        except OSError as error:
            raise Conflict("the machine has ended") from error
        self._shut()

    def stop(self, seconds: float) -> bool:
        """Ask the guest to shut down; whether it does within this time."""
        with contextlib.suppress(Gone), self._launch.monitor() as monitor:
            ask_down(self._env, monitor, self.agent)
        return self.wait(seconds) is not None

    def close(self) -> None:
        """End it, as a power failure does, unless it was let go. Its images stay. Harmless when repeated."""
        self._keeper.close()
        self._shut()

    def _shut(self) -> None:
        self._launch.close()
        self._home.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def boot(
    env: Env,
    machine: PointOfMachine,
    folder: Path,
    *,
    point: str,
    network: Network = _ALONE,
    vnc: str = "",
    monitor: Path | None = None,
    agent: Path | None = None,
    memory: int | None = None,
    accel: Accel | None = None,
) -> Running:
    """Start the machine of this point on its images in `folder`, which are made where they are not there.

    `point`: the point's id. `network`: none unless it is said. `vnc`: as QEMU's option has it. `monitor`, `agent`:
    sockets for others, in other places than `folder`. `memory`: bytes that it gets, else its own. `Conflict` where a
    machine runs from the folder, or it is of another point; `TargetExists` where there is something at one of the
    sockets; what `Home` and `Launch` raise.
    """
    home = Home(env, folder, point)
    with contextlib.ExitStack() as stack:
        stack.callback(home.close)
        if home.taken:
            raise Conflict(f"a machine runs from {folder} already; its monitor is {home.monitor}")
        home.tidy()
        screen = Path(vnc.removeprefix("unix:")) if vnc.startswith("unix:") else None
        others = [reachable(path) for path in (monitor, agent, screen) if path is not None]
        _free(env, others)
        around = Surroundings(
            monitor=reachable(home.monitor),
            second=monitor,
            agent=agent or home.agent,
            console=reachable(home.console),
            network=network,
            vnc=vnc,
        )
        try:
            keeper = Keeper(remove=[*home.sockets, *others], hold=[home.lock])
        except OSError as error:
            raise failure(error, str(folder)) from error
        stack.callback(keeper.close)
        launch = Launch(env, machine, folder, keeper, Limits(memory=memory, accel=accel), around)
        stack.pop_all()
    return Running(env, home, keeper, launch)


def move_running(env: Env, folder: Path, point: str, progress: Progress) -> bool:
    """Move the machine of this point that somebody else has running from `folder`; False where there is none. What
    `Home` and `move` raise."""
    with Home(env, folder, point) as home:
        if not home.taken:
            return False
        with Monitor(env, home.monitor) as monitor:
            move(env, monitor, progress)
        return True


def _free(env: Env, sockets: Sequence[Path]) -> None:
    """QEMU would replace what is there."""
    for path in sockets:
        if exists(env.fs, path, follow=False):
            raise TargetExists(f"{path}: there is something already; remove it if nobody uses it, or take another path")
