# SPDX-License-Identifier: Apache-2.0
"""One job of the agent, in a process of its own: what it needed is given back when it ends, and what goes wrong with it
does not touch the agent.

`python -m keepstone.agent.job` reads what it is to do from its stdin, one line of JSON, and tells on its stdout how far
it is, a line each. When its stdin closes, the agent is gone, and it ends; SIGTERM cancels the job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from keepstone.agent import system
from keepstone.agent.configuration import Configuration, ConfigurationFile
from keepstone.agent.limits import Limits
from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import JobCancelled, KeepstoneError, UsageError
from keepstone.remote.wire import CREATE, INTO_GUEST, LOOK, REPLACE, STEPS, Work

__all__ = ["Order", "Said", "main"]

_log = logging.getLogger("keepstone.agent.job")  # also where this is the program
_KEPT = 20  # warnings by name
_DISCREET = "the item is sealed; the log of this machine's agent says why"
_CANCELLED = "the job was cancelled"
_OFTEN = 0.5  # seconds between two lines


class Order(msgspec.Struct, frozen=True):
    """What to do, and where the agent's things are (`system.Folders`)."""

    work: Work
    state: str
    cache: str
    restored: str
    configuration: str

    @classmethod
    def of(cls, work: Work, folders: system.Folders) -> Order:
        """A job of the agent whose things are there."""
        return cls(work, str(folders.state), str(folders.cache), str(folders.restored), str(folders.configuration))

    @property
    def folders(self) -> system.Folders:
        """Where the agent's things are."""
        return system.Folders(
            configuration=Path(self.configuration),
            state=Path(self.state),
            cache=Path(self.cache),
            restored=Path(self.restored),
        )


class Said(msgspec.Struct, frozen=True):
    """How far it is. `status`: empty until the end; a committed backup has none either, for the service knows. `steps`:
    all so far, each with its moment (`Env.boot_time`). `kept`, `near`: as in `End`."""

    done: int = 0
    expected: int = 0
    files: int = 0
    line: str = ""
    over: bool = False
    status: str = ""
    code: str = ""
    message: str = ""
    target: str = ""
    warnings: list[str] = []
    found: list[dict[str, Any]] = []
    steps: list[tuple[int, str]] = []
    kept: list[int] | None = None
    near: int | None = None


class Report:
    """The workload's `Progress`: writes lines, keeps warnings, and stops the job where it was cancelled.

    `discreet`: the service is not to learn names out of warnings and errors; they go into this machine's log.
    `kept`, `near`: as in `End`."""

    def __init__(self, env: Env, pause: Callable[[], None]) -> None:
        self._env = env
        self._pause = pause
        self._lock = threading.Lock()
        self._next = 0
        self._cancelled = False
        self.begin()
        self.discreet = False
        self.target = ""
        self._steps: list[tuple[int, str]] = []
        self.kept: list[int] | None = None
        self.near: int | None = None
        self._let_go: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """From the start, also where a try before this one told of itself."""
        self.done = self.expected = self.files = self.count = 0
        self.warnings: list[str] = []

    def go_on(self) -> None:
        """With the next part of the job, which is measured by itself; what was told until now stays."""
        self.done = self.expected = self.files = 0

    def cancel(self) -> None:
        """Somebody asked for the end. A handler of signals calls this: it takes no lock."""
        self._cancelled = True

    def check(self) -> None:
        """`JobCancelled`."""
        if self._cancelled:
            raise JobCancelled(_CANCELLED)

    def holds(self, let_go: Callable[[], None]) -> None:
        """What has to be done before this process goes, however it does."""
        self._let_go = let_go

    def leave(self) -> None:
        """Do it."""
        self._let_go()

    def mounted(self, where: Path) -> None:
        """A point can be looked at there."""
        self.target = os.fsdecode(os.fspath(where))
        self.step("the point is mounted")
        self.say(Said(line="mounted", target=self.target))

    def runs(self, monitor: Path) -> None:
        """A machine does, which is reached there."""
        self.target = os.fsdecode(os.fspath(monitor))
        self.say(Said(line="the machine runs", target=self.target))

    def expect(self, size: int) -> None:
        self.expected = size

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        with self._lock:
            self.done += size
            self.files += files
            now = self._env.boot_time()
            tell = now >= self._next
            if tell:
                self._next = now + int(_OFTEN * 1e9)
        if tell:
            line = f"{self.files:,} files" if self.files else ""
            self.say(Said(self.done, self.expected, self.files, line))
            self._pause()
        self.check()

    def warn(self, path: bytes, message: str) -> None:
        with self._lock:
            self.count += 1
            name = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
            if self.discreet:
                _log.warning("%s", f"{name} {message}".strip())
                self.warnings[:] = [f"{self.count} warnings, which the log of this machine's agent has"]
            elif len(self.warnings) < _KEPT:
                self.warnings.append(f"{name} {message}".strip())

    def step(self, text: str) -> None:
        """A line of the job's log, which the service keeps: so nothing that only this machine is to know."""
        with self._lock:
            if len(self._steps) < STEPS:
                self._steps.append((self._env.boot_time(), text))
        self.say(Said(self.done, self.expected, self.files))

    def say(self, said: Said) -> None:
        """A line for the agent."""
        with self._lock:
            said = msgspec.structs.replace(said, steps=self._steps)
            sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
            sys.stdout.flush()


def carry_out(env: Env, order: Order, configuration: Configuration, report: Report, limits: Limits) -> Said:
    """The job; how it ended. Whatever goes wrong is told there."""
    from keepstone.agent.backup import backup
    from keepstone.agent.restore import restore

    def said(status: str, **more: Any) -> Said:
        more = {"target": report.target, "kept": report.kept, "near": report.near} | more
        return Said(report.done, report.expected, report.files, "", True, status, warnings=report.warnings, **more)

    try:
        if order.work.operation == "Backup":
            backup(env, order, configuration, report, limits)
            return said("")
        if order.work.operation == "Restore":
            if order.work.arguments.get("mode") == REPLACE:
                from keepstone.agent.replacing import replace

                place = replace(env, order, configuration, report, limits)
                return said("CompletedWithWarnings" if report.count else "Completed", target=place)
            if order.work.arguments.get("mode") == CREATE:
                from keepstone.agent.recovering import recover

                place, found = recover(env, order, configuration, report)
                return said("CompletedWithWarnings" if report.count else "Completed", target=place, found=[found])
            if order.work.arguments.get("mode") == INTO_GUEST:
                from keepstone.agent.intoguest import into_guest

                place = into_guest(env, order, configuration, report)
                return said("CompletedWithWarnings" if report.count else "Completed", target=place)
            target, lost = restore(env, order, configuration, report)
            return said("CompletedWithWarnings" if lost or report.count else "Completed", target=str(target))
        if order.work.operation == "Mount":
            from keepstone.agent.mount import mount

            mount(env, order, configuration, report)
            return said("CompletedWithWarnings" if report.count else "Completed")
        if order.work.operation == "DiscoverMachines":
            from keepstone.agent.discovery import discover

            machines = discover(env, order, configuration, report)
            return said("CompletedWithWarnings" if report.count else "Completed", found=machines)
        if order.work.operation == LOOK:
            from keepstone.agent.snapshots import look

            gone = look(env, order, configuration, report)
            return said("CompletedWithWarnings" if report.count else "Completed", found=gone)
        raise UsageError(f"this agent does no {order.work.operation}; upgrade it")
    except JobCancelled as error:
        told = {} if str(error) == _CANCELLED else {"code": error.code, "message": str(error)}
        return said("Cancelled", **told)
    except KeepstoneError as error:
        if report.discreet:
            _log.error("job %s: %s", order.work.job, error)
            return said("Failed", code=error.code, message=_DISCREET)
        return said("Failed", code=error.code, message=str(error))
    except Exception:
        _log.exception("a fault of the agent stopped job %s", order.work.job)
        return said("Failed", code="AgentFault", message="a fault of the agent stopped this job; its log says more")


def main() -> int:
    """Be a job; the exit code is 0 whenever the agent was told how it ended."""
    system.tune()
    order = from_json(Order).decode(sys.stdin.buffer.readline())
    file = ConfigurationFile(Env(), Path(order.configuration), needed=False)
    configuration = file.load()
    env = Env(threads=configuration.threads)
    system.lower_priority(configuration.limits.nice, configuration.limits.io)
    limits = Limits(env, configuration.limits)
    report = Report(env, limits.cpu().pause)
    signal.signal(signal.SIGTERM, lambda *_: report.cancel())

    def listen() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            with contextlib.suppress(KeepstoneError):
                changed = file.reload()
                if changed is not None:
                    limits.change(changed.limits)
        report.leave()
        os._exit(3)  # the agent is gone, and whoever comes next begins anew

    threading.Thread(target=listen, name="listen", daemon=True).start()
    report.say(carry_out(env, order, configuration, report, limits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
