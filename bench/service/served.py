# SPDX-License-Identifier: Apache-2.0
"""A server in processes of its own, as `keepstone up` starts it, and who asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, urlencode

from bench.measure import Failed
from bench.service.load import Order
from keepstone.control import logins
from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.identity import Principal
from keepstone.portal.application import COOKIE, PREFIX
from keepstone.server.processes import Processes

__all__ = ["Answers", "Served"]

# The comparison of the tables with the stores is left out: it would take away all points, for no store has them.
PROGRAM = """
from keepstone.cli import main
from keepstone.control import upkeep
assert upkeep.reconcile
upkeep.reconcile = lambda *_: None
main()
"""
VERSION = "api-version=2024-04-01"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked and answered. `seconds`: of each answer. `server_s`, `asker_s`: CPU seconds. `wall_s`: from the
    first request to the last answer."""

    seconds: list[float]
    server_s: float
    asker_s: float
    wall_s: float

    def quantile(self, part: float) -> float:
        """Of the seconds."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(part * len(self.seconds)))]


class Served:
    """A server on the data folder `root`; as a context it stops at the end. `who`: object id and login of whoever
    asks."""

    def __init__(self, root: Path, who: tuple[str, str], *, workers: int = 0) -> None:
        self._root = root
        self._who = who
        command = [sys.executable, "-c", PROGRAM, "up", "--data", str(root), "--port", "0", "--json"]
        self._log = (root / "bench.log").open("wb")
        self._process = subprocess.Popen(
            [*command, "--workers", str(workers)], stdout=subprocess.PIPE, stderr=self._log
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the server did not start; see {root / 'bench.log'}")
        said = json.loads(line)
        self.port = int(said["endpoint"].rpartition(":")[2])
        self.ca = said["ca"]
        self._address = f"https://localhost:{self.port}"
        issuer = Installation(Env(), root).issuer(said["tenant"])
        token = issuer.issue(Principal(*who), f"{self._address}/", self._address)
        plane = Installation(Env(), root).plane()
        self._cookie = f"{COOKIE}={logins.begin(plane, Principal(*who))}"
        plane.database.close()
        self._headers = (
            f"Host: localhost:{self.port}\r\nUser-Agent: AZURECLI/2.91.0\r\nAccept: application/json\r\n"
            f"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nAuthorization: Bearer {token}\r\n"
        )

    def get(self, path: str, query: str = "") -> str:
        """A request."""
        more = f"&$filter={quote(query)}" if query else ""
        return f"GET {quote(path, safe='/;')}?{VERSION}{more} HTTP/1.1\r\n{self._headers}\r\n"

    def page(self, path: str, **query: str) -> str:
        """A request for a page of the portal, of somebody who has logged in."""
        head = f"Host: localhost:{self.port}\r\nCookie: {self._cookie}\r\nAccept-Encoding: gzip\r\n"
        return f"GET {PREFIX}{path}{'?' if query else ''}{urlencode(query)} HTTP/1.1\r\n{head}\r\n"

    def put(self, path: str, body: object) -> str:
        """A request."""
        text = json.dumps(body)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(text.encode())}\r\n"
        return f"PUT {quote(path, safe='/;')}?{VERSION} HTTP/1.1\r\n{self._headers}{kind}\r\n{text}"

    def ask(self, requests: list[str], *, connections: int = 1, seconds: float = 0, rate: float = 0) -> Answers:
        """Have them asked by another process. `Failed` where an answer is an error."""
        order = Order(self.port, self.ca, requests, connections, seconds, rate)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(asdict(order), file)
            file.flush()
            before = self.cpu()
            command = [sys.executable, "-m", "bench.service.load", file.name]
            # Without a buffer, Python loses the end of a long line where a pipe takes a part of it.
            buffered = os.environ | {"PYTHONUNBUFFERED": ""}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=buffered)
        if done.returncode:
            raise Failed(f"the server did not answer: {done.stderr.strip()[-2000:]}")
        said = json.loads(done.stdout.splitlines()[-1])
        return Answers(said["seconds"], self.cpu() - before, said["cpu_s"], said["wall_s"])

    def settle(self, patience: float = 600) -> float:
        """Wait until the server has done what it does at its start; its CPU seconds until then."""
        until = time.monotonic() + patience
        before = self.cpu()
        while time.monotonic() < until:
            time.sleep(2)
            now = self.cpu()
            if now - before < 0.1:
                return now
            before = now
        raise Failed(f"the server has not come to rest within {patience:.0f} seconds")

    def cpu(self) -> float:
        """CPU seconds of the server and those that answer for it so far, without its workers."""
        known = Processes.read(self._root)
        return sum(_cpu(pid) for pid in (known.server, *known.answerers.alive.values()))

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK
