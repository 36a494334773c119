# SPDX-License-Identifier: Apache-2.0
"""Does a point start? Its machine is booted where it can reach nobody, looked at, and thrown away.

The machine has no network, writes into overlays that are dropped, and is bounded in memory, processors, what it writes,
and time. That it does not come up is an outcome; an error is raised only where this host cannot try, or the point
cannot be read before the machine starts.

It is up when its guest agent answers, or its serial console asks for a login. Where neither comes, it is left alone
until nothing happens any more: nothing is read of the point, nothing comes over the console, and the screen shows no
more than two pictures in turns, as a cursor that blinks does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.objects import failure
from keepstone.workloads.guestfiles.worker import Worker
from keepstone.workloads.images import PointDisk
from keepstone.workloads.kvm.agent import Agent, AgentFailed
from keepstone.workloads.kvm.qmp import Gone, Monitor
from keepstone.workloads.machines import PointOfMachine, Role
from keepstone.workloads.running.command import Surroundings
from keepstone.workloads.running.keeper import Keeper
from keepstone.workloads.running.launch import Launch, Limits, reachable
from keepstone.workloads.running.leaving import ask_down
from keepstone.workloads.running.outcome import FileSystem, Outcome, Reached, State
from keepstone.workloads.running.program import Accel
from keepstone.workloads.running.screen import Console, Screen

__all__ = ["drill"]

_SECOND = 10**9
_MOST = 2 << 30  # bytes of memory, unless the caller says more
_CPUS = 2
_WRITES = 8 << 30  # bytes of an overlay
_TRY = 0.5  # seconds that one question to the agent waits
_PACE = 2 * _SECOND  # between two looks at the screen
_STILL = {Accel.KVM: 30.0, Accel.TCG: 120.0}  # seconds without anything
_BESIDE = 30.0  # seconds that a login prompt waits for an agent that the machine had
_DOWN = 30.0  # seconds that the guest has to shut down
_GOING = 5.0  # seconds that a QEMU takes to be gone that does not answer any more
_FILE_SYSTEMS = 1000


def drill(
    env: Env,
    machine: PointOfMachine,
    folder: Path,
    *,
    memory: int | None = None,
    seconds: float = 600,
    still: float | None = None,
    accel: Accel | None = None,
) -> Outcome:
    """Start the machine, see how far it comes within `seconds`, and throw it away. `folder`: where there is room for
    what it writes, half of which it may take. `memory`: bytes that it gets [its own, at most 2 GiB]. `still`: seconds
    without anything that are enough.

    `Unsupported`, `SourceMissing`, `SourceFailed` where this host cannot try; `CorruptObject` where the point has no
    sound disks; what `failure` makes of an `OSError`.
    """
    place = folder / f"keepstone-{env.random(6).hex()}"
    around = Surroundings(monitor=reachable(place / "qmp"), agent=place / "agent", throwaway=True)
    began, start = env.wall_time(), env.boot_time()
    try:
        largest = min(_WRITES, _room(env, folder) // 2)
        with contextlib.closing(Keeper(folder=place)) as keeper:
            limits = Limits(memory=memory, most=_MOST, cpus=_CPUS, largest=largest, accel=accel)
            with contextlib.closing(Launch(env, machine, place, keeper, limits, around)) as launch:
                patience = _STILL[launch.accel] if still is None else still
                seen = _Drill(env, launch, place, start + int(seconds * _SECOND), patience).run()
                keeper.close()
                read = launch.read
    except OSError as error:
        raise failure(error, str(folder)) from error
    return Outcome(
        level=seen.level,
        reason=seen.reason,
        began=began,
        seconds=None if seen.up is None else round((seen.up - start) / _SECOND, 2),
        read=read,
        size=sum(disk.size for disk in machine.about.disks if disk.role is Role.DISK),
        accel=launch.accel,
        memory=launch.hardware.memory,
        shut_down=seen.shut_down,
        file_systems=seen.mounted + list(_in_the_point(env, machine)),
        console=seen.console,
        screenshot=seen.screenshot,
        total=round((env.boot_time() - start) / _SECOND, 2),
    )


@dataclass(slots=True)
class _Seen:
    """What came of it. `up`: when, by the clock since boot."""

    level: Reached = Reached.NONE
    reason: str = ""
    up: int | None = None
    mounted: list[FileSystem] = field(default_factory=list)
    console: str = ""
    screenshot: bytes = b""
    shut_down: bool = False


class _Over(Exception):
    """There is no point in going on."""


class _Drill:
    """A machine that has been started. `end`: when it has to be done; `still`: seconds without anything."""

    def __init__(self, env: Env, launch: Launch, folder: Path, end: int, still: float) -> None:
        self._env, self._launch, self._folder = env, launch, folder
        self._end, self._still = end, int(still * _SECOND)
        self._seen = _Seen()

    def run(self) -> _Seen:
        seen = self._seen
        try:
            with self._launch.monitor() as monitor:
                self._console, self._screen = Console(monitor), Screen(self._env, monitor, self._folder)
                try:
                    self._watch(monitor)
                except _Over as over:
                    seen.reason = str(over)
                self._console.look()
                seen.console = self._console.text
                seen.screenshot = self._screen.picture()
                if seen.level.is_up:
                    seen.shut_down = self._shut_down(monitor)
        except Gone as error:
            seen.reason = seen.reason or self._ending(_GOING) or str(error)
        return seen

    def _watch(self, monitor: Monitor) -> None:
        """Until it is up, or it is of no use to wait any longer."""
        stillness = _Stillness(self._still)
        looked = 0
        while True:
            answers, now = self._agent(), self._env.boot_time()
            if answers:
                return
            self._console.look()
            if self._console.asks_for_login and self._seen.up is None:
                self._reached(Reached.LOGIN, "the serial console asks for a login", now)
            if self._seen.up is not None:
                if now - self._seen.up >= (_BESIDE * _SECOND if self._launch.hardware.agent else 0) or now >= self._end:
                    return
                continue
            self._check(monitor)
            if now - looked >= _PACE:
                looked = now
                picture = self._screen.look()
                if stillness.lasts(now, picture, (self._console.count, self._launch.read)):
                    self._rests(picture, "no agent and no login came, and nothing happens any more")
                    return
            if now >= self._end:
                raise _Over("neither an agent nor a login came within the time limit, and it is still busy")

    def _reached(self, level: Reached, reason: str, now: int) -> None:
        self._seen.level, self._seen.reason = level, reason
        self._seen.up = self._seen.up or now

    def _rests(self, picture: bytes, reason: str) -> None:
        if picture:
            self._seen.level, self._seen.reason = Reached.SCREEN, f"{reason}; look at the screen"
        else:
            self._seen.reason = f"{reason}; nothing is on the screen"

    def _agent(self) -> bool:
        """Whether it answers; then it is asked for the file systems too."""
        try:
            agent = Agent(self._env, self._launch.around.agent, timeout=_TRY)
        except AgentFailed:
            return False
        with contextlib.closing(agent):
            try:
                agent.ask("guest-ping", timeout=5)
            except AgentFailed:
                return False
            self._reached(Reached.AGENT, "the guest agent answers", self._env.boot_time())
            try:
                self._seen.mounted = _mounted(agent.ask("guest-get-fsinfo", timeout=20))
            except AgentFailed as error:
                self._seen.reason = f"the guest agent answers, but does not tell its file systems: {error}"
        return True

    def _check(self, monitor: Monitor) -> None:
        """`_Over` where the machine goes no further."""
        ending = self._ending()
        if ending:
            raise _Over(ending)
        status = str(monitor.execute("query-status")["status"])
        if status == "io-error":
            why = self._launch.failure or "there is no more room for what it writes, or it writes too much"
            raise _Over(f"it stands still, because its disk cannot be read or written: {why}")
        if status in ("internal-error", "guest-panicked"):
            raise _Over(f"it stands still; QEMU says {status}")

    def _ending(self, seconds: float = 0) -> str:
        ended = self._launch.ended(seconds)
        if ended is None:
            return ""
        if ended.status == 0:
            return "it shut down by itself"
        return f"QEMU ended: {ended.said or f'with {ended.status}'}"

    def _shut_down(self, monitor: Monitor) -> bool:
        """Ask it to go down; whether it does."""
        ask_down(self._env, monitor, self._launch.around.agent)
        ended = self._launch.ended(_DOWN)
        return ended is not None and ended.status == 0


class _Stillness:
    """Nothing was different for so many ns, but for a second picture."""

    def __init__(self, span: int) -> None:
        self._span = span
        self._pictures: list[bytes] = []
        self._counts: object = None
        self._since = 0

    def lasts(self, now: int, picture: bytes, counts: object) -> bool:
        """Whether it has lasted so long with what is there now."""
        sign = blake2b(picture).digest()
        if counts != self._counts or (sign not in self._pictures and len(self._pictures) == 2) or not self._since:
            self._pictures, self._counts, self._since = [sign], counts, now
        elif sign not in self._pictures:
            self._pictures.append(sign)
        return now - self._since >= self._span


class _Told(msgspec.Struct, frozen=True):
    """A file system as the guest agent tells it (qemu-ga, guest-get-fsinfo)."""

    mountpoint: str
    kind: str = msgspec.field(name="type")
    size: int = msgspec.field(name="total-bytes", default=0)
    used: int = msgspec.field(name="used-bytes", default=0)


def _room(env: Env, folder: Path) -> int:
    """The bytes that are free there for us."""
    found = env.fs.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _mounted(told: Any) -> list[FileSystem]:
    """`AgentFailed` where the answer is none."""
    try:
        found = msgspec.convert(told, list[_Told])
    except msgspec.MsgspecError as error:
        raise AgentFailed(f"it describes them in a way that is not known: {error}") from error
    return [
        FileSystem(state=State.MOUNTED, kind=one.kind[:50], name=one.mountpoint[:500], size=one.size, used=one.used)
        for one in found[:_FILE_SYSTEMS]
    ]


def _in_the_point(env: Env, machine: PointOfMachine) -> Iterator[FileSystem]:
    """What its disks have, read from the point without the guest."""
    for disk, reader in machine.disks:
        if disk.role is not Role.DISK:
            continue
        try:
            with PointDisk(env, reader) as source, Worker(env, source) as worker:
                for number, volume in enumerate(worker.volumes()):
                    state, note = State.UNKNOWN, volume.note
                    if volume.filesystem:
                        state, note = _readable(worker, number, note)
                    yield FileSystem(
                        state=state,
                        kind=volume.filesystem,
                        name=volume.label,
                        disk=disk.name,
                        volume=volume.name,
                        size=volume.size,
                        note=note,
                    )
        except KeepstoneError as error:
            yield FileSystem(state=State.UNREADABLE, disk=disk.name, note=str(error))


def _readable(worker: Worker, number: int, note: str) -> tuple[State, str]:
    if note:
        return State.UNREADABLE, note
    try:
        worker.items(number, 0)
    except KeepstoneError as error:
        return State.UNREADABLE, str(error)
    return State.READABLE, ""
