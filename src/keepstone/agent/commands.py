# SPDX-License-Identifier: Apache-2.0
"""Commands of this machine's administrator, before a job and after it.

    with around(env, configuration.before, configuration.after, facts, say=log, check=context.check) as outcome:
        …                                                   # the job
        outcome.result = "CompletedWithWarnings"            # where it is not plainly "Completed"

Invariants
* They come from this machine's own configuration, and no shell reads them. Of what a service says they see the values
  of a few variables, and no part of their arguments.
* Where one of those before fails, the job has read nothing; the rest of them is not run. `ignore` makes it a warning.
* Those after run in any case, each of them: also where one before has failed or the job was cancelled. What they do is
  too late for the job: where one fails, that is a warning.
* No command runs longer than its time; it is ended with all that it started. One before ends also when the job is
  cancelled. What a command leaves in the background when it ends by itself goes on, and its output is nobody's.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from keepstone.agent import system
from keepstone.agent.configuration import Command
from keepstone.env import Env
from keepstone.errors import JobCancelled, KeepstoneError

__all__ = ["OUTPUT", "Facts", "Outcome", "Ran", "around", "run"]

OUTPUT = 1 << 16
"""Bytes of a command's output that are kept: its last ones."""
_TICK = 0.1  # seconds between looks at whether the job is cancelled
_GRACE = 5.0  # seconds for an end of its own accord
_DRAIN = 1.0  # seconds for the last output of a command that has ended
_SHOWN = 500  # characters of the output in an error
_WITHHELD = ("KEEPSTONE_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "CREDENTIALS_")  # secrets and systemd's are not theirs


@dataclass(frozen=True, slots=True)
class Facts:
    """What commands are told, in variables: `KEEPSTONE_JOB`, `KEEPSTONE_ITEM` (its path)."""

    job: str
    item: str

    def environ(self, result: str | None = None) -> dict[str, str]:
        """The whole environment of a command. `result`: for those after the job, `KEEPSTONE_RESULT`."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
        told = {"KEEPSTONE_JOB": self.job, "KEEPSTONE_ITEM": self.item}
        if result is not None:
            told["KEEPSTONE_RESULT"] = result
        return environ | {name: value.replace("\0", "") for name, value in told.items()}


@dataclass(slots=True)
class Outcome:
    """`result`: how the job ends, in the words of its status. `warnings`: for the job's log."""

    result: str = "Completed"
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ran:
    """`code`: as subprocess has it, negative for a signal; None where it did not start. `output`: its end. `failed`:
    why, in words; empty where all is well."""

    argv: tuple[str, ...]
    code: int | None
    seconds: float
    output: str
    failed: str = ""


def _no_end() -> None:
    """The job goes on."""


@contextmanager
def around(
    env: Env,
    before: Sequence[Command],
    after: Sequence[Command],
    facts: Facts,
    *,
    say: Callable[[Ran], None],
    check: Callable[[], None] = _no_end,
) -> Iterator[Outcome]:
    """Run the block between them. `say` gets each command that ran; `check` raises where the job is to end.
    `KeepstoneError` for a command before that failed."""
    outcome = Outcome()
    try:
        for command in _wanted(before, facts):
            ran = run(env, command, facts.environ(), check)
            say(ran)
            if ran.failed and command.ignore:
                outcome.warnings.append(_told("before", ran))
            elif ran.failed:
                raise KeepstoneError(
                    f"{_told('before', ran)}; nothing was read. Mend the command, or set `ignore` for it in agent.toml"
                )
        yield outcome
    except JobCancelled:
        outcome.result = "Cancelled"
        raise
    except BaseException:
        outcome.result = "Failed"
        raise
    finally:
        for command in _wanted(after, facts):
            ran = run(env, command, facts.environ(outcome.result))
            say(ran)
            if ran.failed and not command.ignore:
                outcome.warnings.append(_told("after", ran))


def run(env: Env, command: Command, environ: Mapping[str, str], check: Callable[[], None] = _no_end) -> Ran:
    """Run one to its end, or to that of its time. What `check` raises ends it."""
    began = env.boot_time()
    try:
        process = system.start(command.run, environ)
    except (OSError, ValueError) as error:
        return Ran(command.run, None, 0.0, "", failed=f"could not be started: {error}")
    output = _Output(process)
    failed = ""
    try:
        until = began + int(command.timeout * 1e9)
        while True:
            check()
            left = (until - env.boot_time()) / 1e9
            try:
                process.wait(max(0.0, min(_TICK, left)))
                break
            except subprocess.TimeoutExpired:
                if left <= _TICK:
                    failed = f"took longer than {command.timeout:g} seconds, and was ended"
                    break
    finally:
        system.end(env, process, _GRACE)
    if not failed and process.returncode:
        code = process.returncode
        failed = f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
    return Ran(command.run, process.returncode, (env.boot_time() - began) / 1e9, output.end(), failed)


class _Output(threading.Thread):
    """Reads what a command says, to the end, and keeps the last of it. Something that the command left behind may hold
    the other end of the pipe for ever: the thread goes on then, so that it is not stopped by a full pipe."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(name="output of a command", daemon=True)
        assert process.stdout is not None
        self._pipe = process.stdout
        self._kept = bytearray()
        self._lock = threading.Lock()
        self.start()

    def run(self) -> None:
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), OUTPUT):
                with self._lock:
                    self._kept += piece
                    del self._kept[:-OUTPUT]

    def end(self) -> str:
        """What it said until now, as far as it is kept."""
        self.join(_DRAIN)
        with self._lock:
            return self._kept.decode("utf-8", "replace")


def _wanted(commands: Sequence[Command], facts: Facts) -> list[Command]:
    return [one for one in commands if not one.items or any(fnmatch.fnmatch(facts.item, item) for item in one.items)]


def _told(when: str, ran: Ran) -> str:
    said = ran.output.strip()[-_SHOWN:]
    return f"the command {when} the job, {ran.argv[0]}, {ran.failed}" + (f", and said: {said}" if said else "")
