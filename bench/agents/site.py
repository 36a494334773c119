# SPDX-License-Identifier: Apache-2.0
"""A service and this machine's agent, in processes of their own, driven by the command line as people drive them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.measure import Failed
from keepstone.server.processes import Processes

__all__ = ["Cost", "Site"]

_TICK = os.sysconf("SC_CLK_TCK")
_PROGRAM = str(Path(sys.executable).with_name("keepstone"))


@dataclass(frozen=True, slots=True)
class Cost:
    """`wall_s`: from the agent's claim of a job to its end. `agent_s`, `server_s`: CPU seconds. `agent_bytes`: the most
    memory that the job's process had."""

    wall_s: float
    agent_s: float
    server_s: float
    agent_bytes: int

    @property
    def cpu_s(self) -> float:
        """Of both."""
        return self.agent_s + self.server_s


class Site:
    """In `folder`; as a context it is gone at the end."""

    def __init__(self, folder: Path) -> None:
        self.restored = folder / "restored"
        self._root = folder / "service"
        home = folder / "home"
        folder.mkdir(parents=True)
        self._environment = os.environ | {"KEEPSTONE_DATA": str(self._root), "KEEPSTONE_HOME": str(home)}
        self.ask("up", "--port", "0", "--detach", "--log-level", "warning")
        self.ask("group", "create", "-n", "g")
        self.ask("vault", "create", "-g", "g", "-n", "vault1")
        credentials = folder / "credentials.json"
        self.ask("vault", "credentials", "download", "--file", str(credentials))
        self.ask("agent", "register", "--credentials", str(credentials))
        settings = home / "agent" / "etc" / "agent.toml"
        settings.parent.mkdir(mode=0o700, parents=True)
        settings.write_text(f"[restore]\nallow = [{json.dumps(str(folder))}]\n")
        self._log = (folder / "agent.log").open("wb")
        self._agent = subprocess.Popen([_PROGRAM, "agent", "run"], env=self._environment, stderr=self._log)

    def ask(self, *arguments: str) -> Any:
        """A command; its result. `Failed`."""
        done = subprocess.run(
            [_PROGRAM, *arguments, "--json"], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"keepstone {' '.join(arguments)}: {done.stderr.strip()[-1000:]}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def protect(self, source: Path, *, disk: bool) -> None:
        """Make an item of it."""
        self.ask("protection", "enable", "--path", str(source), *(["--disk"] if disk else []))

    def back_up(self, source: Path) -> Cost:
        """Make a point."""
        return self._cost("protection", "backup-now", "-i", str(source))

    def restore(self, source: Path, *, disk: bool) -> Cost:
        """Restore the newest point to `restored`."""
        point = self.ask("recoverypoint", "list", "-i", str(source))[0]["name"]
        kind = "disk" if disk else "files"
        return self._cost("restore", kind, point, "-i", str(source), "--target", str(self.restored))

    def idle_bytes(self) -> int:
        """Resident memory of the agent."""
        return _memory(self._agent.pid, "VmRSS")

    def _cost(self, *arguments: str) -> Cost:
        self._settled()
        os.sync()  # as `measure` does: nobody is to wait for what others have written and deleted
        before = self._cpu()
        process = subprocess.Popen(
            [_PROGRAM, *arguments, "--json"], env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        peak = 0
        while process.poll() is None:
            for child in _children(self._agent.pid):
                peak = max(peak, _memory(child, "VmHWM"))
            time.sleep(0.05)
        if process.returncode:
            assert process.stderr is not None
            raise Failed(process.stderr.read().decode()[-1000:])
        self._settled()
        after = self._cpu()
        job = self.ask("job", "list")[0]["properties"]
        began, ended = (datetime.fromisoformat(job[key]) for key in ("startTime", "endTime"))
        return Cost(
            wall_s=(ended - began).total_seconds(),
            agent_s=after[0] - before[0],
            server_s=after[1] - before[1],
            agent_bytes=peak,
        )

    def _settled(self) -> None:
        """Wait until the agent has no job."""
        until = time.monotonic() + 60
        while _children(self._agent.pid) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1.0)

    def _cpu(self) -> tuple[float, float]:
        """CPU seconds of the agent and its jobs; of those that answer it."""
        known = Processes.read(self._root)
        server = [*known.answerers.alive.values(), *known.receivers.alive.values()]
        return _seconds(self._agent.pid), sum(_seconds(pid) for pid in server)

    def close(self) -> None:
        """Stop both."""
        self._agent.terminate()
        self._agent.wait(60)
        self.ask("down")
        self._log.close()

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _seconds(pid: int) -> float:
    """CPU of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICK


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


def _memory(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
