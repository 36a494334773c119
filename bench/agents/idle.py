# SPDX-License-Identifier: Apache-2.0
"""Thousands of agents that wait: each a TLS connection of its own, with its own certificate and one open question.

Measured are heartbeats (a question that does not wait), at the pace of idle agents and all at once, and from when a
backup is asked for until its agent hears of it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path

from bench.agents.crowd import crowd
from bench.measure import Failed
from keepstone.remote.wire import Pulse, encode
from keepstone.server.processes import Processes

__all__ = ["main", "measure", "shared_bytes"]

_OPENING = 200  # handshakes under way
_HEAD = "POST /agent/v1/pulse HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"


class Agent:
    """One connection."""

    def __init__(self, number: int, port: int, ca: str, pem: str) -> None:
        self._number = number
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(ca)
        self._context.load_cert_chain(pem)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        """The handshake. Source addresses differ, for one has too few ports."""
        source = f"127.0.0.{2 + self._number // 5000}"
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost", local_addr=(source, 0), limit=4096
        )

    async def pulse(self, wait: float) -> tuple[float, bytes]:
        """(seconds, answer)."""
        body = encode(Pulse(version="bench", room=1, wait=wait))
        began = time.perf_counter()
        self._writer.write(_HEAD.format(len(body)).encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise ConnectionError(head[:200])
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        return time.perf_counter() - began, answer

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def quantile(seconds: list[float], part: float) -> float:
    """Of the seconds."""
    return sorted(seconds)[min(len(seconds) - 1, int(part * len(seconds)))]


async def run(port: int, ca: str, pems: list[str], pace: float) -> dict[str, float]:
    """Open all, let them be idle for `pace` seconds, then all speak at once."""
    agents = [Agent(number, port, ca, pem) for number, pem in enumerate(pems)]
    gate = asyncio.Semaphore(_OPENING)
    failures = 0

    async def begin(agent: Agent) -> float:
        async with gate:
            began = time.perf_counter()
            await agent.open()
            await agent.pulse(0)
            return time.perf_counter() - began

    began = time.perf_counter()
    opened = await asyncio.gather(*(begin(agent) for agent in agents))
    opening = time.perf_counter() - began

    async def live(agent: Agent, number: int) -> tuple[float, float]:
        """A heartbeat at its own moment; then wait for work until the end of the round."""
        await asyncio.sleep(pace * number / len(agents))
        beat, _ = await agent.pulse(0)
        waited, _ = await agent.pulse(pace / 2)
        return beat, waited - pace / 2

    lived = await asyncio.gather(*(live(agent, number) for number, agent in enumerate(agents)), return_exceptions=True)
    failures += sum(isinstance(one, BaseException) for one in lived)
    beats = [one[0] for one in lived if not isinstance(one, BaseException)]
    late = [one[1] for one in lived if not isinstance(one, BaseException)]
    burst = await asyncio.gather(*(agent.pulse(0) for agent in agents), return_exceptions=True)
    failures += sum(isinstance(one, BaseException) for one in burst)
    at_once = [one[0] for one in burst if not isinstance(one, BaseException)]
    for agent in agents:
        agent.close()
    return {
        "agents": len(agents), "failures": failures, "opening_s": opening, "opened_p99_s": quantile(opened, 0.99),
        "beat_p50_s": quantile(beats, 0.5), "beat_p99_s": quantile(beats, 0.99), "late_p99_s": quantile(late, 0.99),
        "burst_p50_s": quantile(at_once, 0.5), "burst_p99_s": quantile(at_once, 0.99),
    }  # fmt: skip


def measure(folder: Path, count: int, pace: float) -> dict[str, float]:
    """All of it, and the most memory that the service had meanwhile. `Failed`."""
    root = folder / "data"
    root.parent.mkdir(parents=True)
    crowd(root, count)
    program = str(Path(sys.executable).with_name("keepstone"))
    command = [program, "up", "--data", str(root), "--port", "0", "--detach", "--json", "--log-level", "warning"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    try:
        port = said["endpoint"].rpartition(":")[2]
        arguments = [port, said["ca"], str(root.parent / "machines"), str(count), str(pace)]
        asking = subprocess.Popen(
            [sys.executable, "-m", "bench.agents.idle", *arguments], stdout=subprocess.PIPE, text=True
        )
        peak = 0
        while asking.poll() is None:
            time.sleep(1)
            peak = max(peak, sum(shared_bytes(pid) for pid in Processes.read(root).pids.values()))
        if asking.returncode or asking.stdout is None:
            raise Failed("those that play the agents fell over")
        found: dict[str, float] = json.loads(asking.stdout.read())
    finally:
        subprocess.run([program, "down", "--data", str(root)], check=True, capture_output=True)
    return {f"idle_{name}": value for name, value in found.items()} | {"idle_server_bytes": peak}


def shared_bytes(pid: int) -> int:
    """Memory of a process, with its part of what it shares with others (PSS)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    """`idle.py PORT CA FOLDER COUNT PACE`: prints one JSON object."""
    port, ca, folder, count, pace = sys.argv[1:]
    pems = [str(Path(folder) / f"machine{number}.pem") for number in range(int(count))]
    import uvloop

    print(json.dumps(uvloop.run(run(int(port), ca, pems, float(pace)))))


if __name__ == "__main__":
    main()
