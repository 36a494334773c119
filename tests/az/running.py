# SPDX-License-Identifier: Apache-2.0
"""Running the Azure CLI as it is, each somebody with settings of his own, and looking at what it says and asks for."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

__all__ = ["Az", "Ran", "Request", "isolated"]

_REQUEST = re.compile(r'urllib3\.connectionpool : https://\S+ "(\w+) (\S+) HTTP/[\d.]+" (\d+)')
_OPERATION = re.compile(r"/((operations?|backupOperation)(Status|Results?|s)|backupJobs)/[\w-]", re.IGNORECASE)
_FOREIGN = ("AZURE_", "ARM_", "MSI_", "IDENTITY_", "REQUESTS_CA_BUNDLE", "SSL_CERT")


def isolated(ca: Path, **more: str) -> dict[str, str]:
    """The environment of a client that trusts `ca`, and takes nothing of what else the machine knows about Azure."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {"REQUESTS_CA_BUNDLE": str(ca), "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1"} | more


@dataclass(frozen=True, slots=True)
class Request:
    """One that az sent. `path`: with its query."""

    verb: str
    path: str
    status: int


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. `wall`: seconds. `requests`: what it asked the server for, in order."""

    command: str
    code: int
    out: str
    err: str
    wall: float
    requests: tuple[Request, ...]

    @property
    def json(self) -> Any:
        """The result; None where it has none."""
        return json.loads(self.out) if self.out.strip() else None

    @property
    def waits(self) -> int:
        """How many times it asked for an operation or a job again: az sleeps five seconds and more before each. (A wall
        would say the same on an idle machine alone.)"""
        asked = Counter(
            request.path for request in self.requests if request.verb == "GET" and _OPERATION.search(request.path)
        )
        return sum(asked.values()) - len(asked)

    def __repr__(self) -> str:
        lines = [f"az {self.command}", f"ended with {self.code} after {self.wall:.1f} s", self.err, self.out]
        return "\n".join(lines + [f"{one.verb} {one.path} {one.status}" for one in self.requests])


class Az:
    """Somebody with the Azure CLI of `program`, whose settings are in the new folder `home`."""

    def __init__(self, program: Path, home: Path, ca: Path, **variables: str) -> None:
        home.mkdir()
        self.program = program
        self.home = home
        self._ca = ca
        self._numbers = count()
        self._environment = isolated(
            ca,
            AZURE_CONFIG_DIR=str(home),
            AZURE_CORE_COLLECT_TELEMETRY="false",
            AZURE_CORE_NO_COLOR="true",
            AZURE_EXTENSION_USE_DYNAMIC_INSTALL="no",
            AZURE_LOGGING_ENABLE_LOG_FILE="true",
            **variables,
        )

    def __call__(self, command: str, *more: str) -> Any:
        """The JSON that a command prints, which has to end well and to wait for nothing. `more`: arguments that are not
        to be split at spaces."""
        ran = self.run(command, *more)
        assert ran.code == 0, ran
        assert ran.waits == 0, f"az waited for what was over: {ran}"
        assert all(request.status < 500 for request in ran.requests), f"az tried again after a fault: {ran}"
        return ran.json

    def table(self, command: str, *more: str) -> str:
        """What a command prints for people."""
        ran = self.run(command, *more, "-o", "table")
        assert ran.code == 0, ran
        assert "Table output unavailable" not in ran.err, ran
        return ran.out

    def refused(self, command: str, *more: str) -> str:
        """What a command that has to fail says."""
        ran = self.run(command, *more)
        assert ran.code != 0, ran
        assert "Traceback" not in ran.err, ran
        return ran.err

    def run(self, command: str, *more: str, folder: Path | None = None) -> Ran:
        """However it ends. `folder`: where it runs, if that matters."""
        log = self.home / "logs" / str(next(self._numbers))
        arguments = [*shlex.split(command), *more]
        began = time.perf_counter()
        done = subprocess.run(
            [str(self.program), *arguments],
            env=self._environment | {"AZURE_LOGGING_LOG_DIR": str(log)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=folder,
        )
        ran = Ran(shlex.join(arguments), done.returncode, done.stdout, done.stderr,
                  time.perf_counter() - began, _requests(log / "az.log"))  # fmt: skip
        _record(ran)
        return ran

    def another(self, home: Path, **variables: str) -> Az:
        """Somebody else, who knows the same clouds and is not logged in."""
        other = Az(self.program, home, self._ca, **variables)
        for name in ("clouds.config", "config"):
            shutil.copy(self.home / name, home / name)
        return other

    def log_in(self, client: str, secret: str, tenant: str) -> Any:
        """Log in as a service principal."""
        return self(f"login --service-principal -u {client} --tenant {tenant} -p", secret)


def _requests(log: Path) -> tuple[Request, ...]:
    if not log.exists():
        return ()
    found = _REQUEST.findall(log.read_text(encoding="utf-8"))
    return tuple(Request(verb, path, int(status)) for verb, path, status in found)


def _record(ran: Ran) -> None:
    """With `KEEPSTONE_RESULTS=<folder>`, a line for each command in `az.jsonl` there: what it cost."""
    folder = os.environ.get("KEEPSTONE_RESULTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = ran.command.partition(" -")[0]
    line = {"command": name, "code": ran.code, "seconds": round(ran.wall, 2), "requests": len(ran.requests)}
    with (Path(folder) / "az.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
