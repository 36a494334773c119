# SPDX-License-Identifier: Apache-2.0
"""The agent: asks its service for jobs, has each done by a process of its own, and tells how they go.

It keeps one question open at the service, which answers when there is something to do. It never stops for a service
that is away, a certificate that has ended or a job that failed; only for a signal, or when its identity was taken away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import msgspec

from keepstone import __version__
from keepstone.agent import system
from keepstone.agent.identity import Identity
from keepstone.agent.job import Order, Said
from keepstone.agent.plan import Plans
from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import AccessDenied, KeepstoneError, ServiceUnavailable, Unauthenticated
from keepstone.notifier import Notifier
from keepstone.remote.calls import Broken, Calls
from keepstone.remote.wire import Beat, End, Pulse, Pulsed, Step, Work, decode, encode

__all__ = ["PROGRAM", "Agent"]

_log = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "keepstone.agent.job")
"""What a job is."""
_JOBS = 2  # at a time; mounts are beside them, for they go on for days (the service bounds them)
_MOUNT = "Mount"
_IDLE_WAIT, _BUSY_WAIT = 50.0, 3.0  # seconds that one question stays open
_FIRST, _LONGEST = 1.0, 60.0  # seconds between two tries to reach the service
_TURNED_AWAY = 2
"""So often in a row the service has hung up on a greeting: its clock may be another one than this machine's, and the
certificate have ended there. It does not say so: TLS 1.3 has no place for that."""
_ENDING = 0.2
"""Seconds until the next question where a job is to end: while it does, the service does not let one wait."""
_STOP = 20.0  # seconds that a job has to end


@dataclass(slots=True)
class _Running:
    """A job. `said`: the newest that it told. `ends`: it was told to, once: signals that come while one is taken would
    be taken within it."""

    work: Work
    process: subprocess.Popen[bytes]
    said: Said = field(default_factory=Said)
    lost: bool = False
    ends: bool = False


class Agent:
    """`folders`: where its things are."""

    def __init__(self, env: Env, identity: Identity, folders: system.Folders) -> None:
        self._env = env
        self._identity = identity
        self._folders = folders
        self._notifier = Notifier(env)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, _Running] = {}
        self._plans = Plans(env, folders.state / "plan.json")
        self._turned_away = 0
        self._calls = Calls(env, identity.url, identity.context, patience=0.0)

    def run(self) -> None:
        """Until `stop`. `Unauthenticated` where this machine is not let in any more."""
        self._notifier.ready(f"serves {self._identity.url}")
        _log.info("%s is the agent of %s", self._identity.container, self._identity.vault)
        pause = _FIRST
        try:
            while not self._stopping.is_set():
                self._notifier.alive()
                try:
                    self._renew()
                    self._pulse()
                except (Broken, ServiceUnavailable) as error:
                    if self._stopping.is_set():
                        break
                    away = isinstance(error.__cause__, ssl.SSLError | ConnectionResetError)
                    self._turned_away = self._turned_away + 1 if away else 0
                    overdue = self._plans.overdue()
                    _log.warning("%s cannot be reached (%s)%s", self._identity.url, error, overdue)
                    self._notifier.status(f"cannot reach {self._identity.url}{overdue}")
                    self._wait(self._plans.patience(pause))
                    pause = min(_LONGEST, 2 * pause)
                except Unauthenticated:
                    raise
                except KeepstoneError as error:  # such as an authority that is not to be trusted
                    _log.error("%s", error)
                    self._notifier.status(str(error))
                    self._wait(_LONGEST)
                else:
                    pause = _FIRST
                    self._turned_away = 0
        finally:
            self._notifier.stopping()
            self._end_all()
            self._calls.close()

    def stop(self) -> None:
        """Take no more jobs, cancel none: those that run are ended, and done again later."""
        self._stopping.set()
        self._calls.close()

    def _wait(self, seconds: float) -> None:
        """The watchdog is fed meanwhile."""
        until = self._env.boot_time() + int(seconds * 1e9)
        while self._env.boot_time() < until and not self._stopping.wait(min(seconds, 2.0)):
            self._notifier.alive()

    def _renew(self) -> None:
        if not self._identity.is_due() and self._turned_away < _TURNED_AWAY:
            return
        self._turned_away = 0
        self._identity.renew()
        _log.info("this machine has a new certificate")
        self._calls.close()
        self._calls = Calls(self._env, self._identity.url, self._identity.context, patience=0.0)

    # ------------------------------------------------------------------ the open question

    def _pulse(self) -> None:
        with self._lock:
            running = list(self._running.values())
        beats = [self._beat(one) for one in running]
        room = 0 if self._stopping.is_set() else _JOBS - sum(one.work.operation != _MOUNT for one in running)
        wait = min(_BUSY_WAIT if running else _IDLE_WAIT, (self._notifier.watchdog or 1000.0) / 3)
        asks = self._plans.is_old()
        body = encode(Pulse(version=__version__, beats=beats, room=room, wait=0.0 if asks else wait, plan=asks))
        answer = decode(self._calls.once("pulse", [body]), Pulsed)
        if answer.plan is not None:
            self._plans.keep(answer.plan)
        self._notifier.status(f"{len(running) + len(answer.work)} jobs, serves {self._identity.url}")
        for told in answer.told:
            mine = self._running.get(told.job)
            if mine is not None:
                mine.lost = mine.lost or told.lost
                if not mine.ends:
                    mine.ends = True
                    _log.info("job %s is %s", told.job, "not ours any more" if told.lost else "cancelled")
                    mine.process.terminate()
        for work in answer.work:
            self._start(work)
        if answer.told:
            self._wait(_ENDING)

    def _start(self, work: Work) -> None:
        _log.info("job %s: %s of %s", work.job, work.operation, work.name)
        order = Order.of(work, self._folders)
        process = system.start(PROGRAM, os.environ, given=subprocess.PIPE, errors=None)
        running = _Running(work, process)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        with self._lock:
            self._running[work.job] = running
        threading.Thread(target=self._listen, args=(running,), name=work.job, daemon=True).start()

    def _listen(self, running: _Running) -> None:
        assert running.process.stdout is not None
        with running.process.stdout as lines:
            for line in lines:
                try:
                    running.said = from_json(Said).decode(line)
                except msgspec.MsgspecError:
                    _log.warning("a job said %r", line[:200])
        running.process.wait()
        self._finish(running)

    def _finish(self, one: _Running) -> None:
        """Tell the service how a job ended, as soon as it can be told; until then it is kept alive."""
        said = one.said
        status, code, message = said.status, said.code, said.message
        if not said.over and one.ends and one.process.returncode == -signal.SIGTERM:
            status = "Cancelled"  # before it could take the signal itself
        elif not said.over:
            status, code = "Failed", "AgentJobDied"
            message = f"the process of this job ended with {one.process.returncode}; the agent's log says more"
        elif not status and said.kept is not None:
            status = "Completed"  # which its service knows, but not what stays of it
        end = self._end(one, status, code, message)
        pause = _FIRST
        while status and (not one.lost or said.kept is not None) and not self._stopping.is_set():
            try:
                self._calls.once("end", [end])
                break
            except (Broken, ServiceUnavailable, AccessDenied) as error:
                _log.warning("how job %s ended cannot be told yet: %s", one.work.job, error)
                self._stopping.wait(pause)
                pause = min(_LONGEST, 2 * pause)
            except KeepstoneError as error:
                _log.warning("how job %s ended is not wanted: %s", one.work.job, error)
                break
        _log.info("job %s: %s", one.work.job, message or status or "Completed")
        if one.process.stdin is not None:
            one.process.stdin.close()
        with self._lock:
            self._running.pop(one.work.job, None)

    def _end_all(self) -> None:
        """The jobs that run are ended as if this machine had failed: they are done again when it is back. Mounts are
        not, so the service is told of their end, where it can be."""
        every = list(self._running.values())
        for one in every:
            if one.process.stdin is not None:
                one.process.stdin.close()
        for one in every:
            try:
                one.process.wait(_STOP)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        last = Calls(self._env, self._identity.url, self._identity.context, patience=_FIRST)
        with contextlib.suppress(Broken, KeepstoneError):
            for one in every:
                if one.work.operation == _MOUNT:
                    last.once(
                        "end",
                        [self._end(one, "Cancelled", "AgentStopped", "the mount ended with this machine's agent")],
                    )
        last.close()

    def _beat(self, one: _Running) -> Beat:
        work, said = one.work, one.said
        return Beat(work.job, work.token, said.done, said.expected, said.line, said.target, self._steps(said))

    def _end(self, one: _Running, status: str, code: str, message: str) -> bytes:
        said = one.said
        return encode(
            End(
                job=one.work.job, token=one.work.token, status=status, code=code, message=message, done=said.done,
                expected=said.expected, files=said.files, target=said.target, warnings=said.warnings, found=said.found,
                kept=said.kept, near=said.near, steps=self._steps(said),
            )
        )  # fmt: skip

    def _steps(self, said: Said) -> list[Step]:
        now = self._env.boot_time()
        return [Step(text, max(0, now - at) // 1_000_000) for at, text in said.steps]
