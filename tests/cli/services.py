# SPDX-License-Identifier: Apache-2.0
"""A real service for tests: commands in processes of their own, and what can be asked of it over HTTPS.

`python -m tests.cli.services server|worker …` is a service whose jobs are the test's own: each takes steps, notes them
in a file, and waits at a step until the test lets it go on.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import Database, jobs
from keepstone.cli import main
from keepstone.env import Env
from keepstone.jobs import Context, JobQueue

__all__ = ["PROGRAM", "ROOT", "Said", "Service", "Stepping", "until"]

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "import sys; from keepstone.cli import main; sys.exit(main())"]
PATIENCE = 60.0
VAULT = UUID(int=1)


def until(look: Callable[[], T | None], what: str) -> T:
    """What `look` sees once it sees something."""
    end = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer over HTTPS."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class Service:
    """Commands on the service in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log" / "keepstone.log"
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("KEEPSTONE_", "PYTHON"))
        } | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}

    def __call__(self, verb: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        """Run `keepstone <verb> --json` in this process; its result."""
        result: dict[str, Any] = json.loads(self.text(verb, "--json", *arguments, code=code))
        return result

    def text(self, verb: str, *arguments: object, code: int = 0) -> str:
        """What it tells people."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = main([verb, "--data", str(self.root), *map(str, arguments)])
        assert ended == code, (out.getvalue(), err.getvalue())
        return out.getvalue()

    def start(self, *arguments: object, code: int = 0) -> str:
        """`up` in the background, at a free port; what it says."""
        command = [*PROGRAM, "up", "--data", str(self.root), "--port", "0", "--detach", *map(str, arguments)]
        ended = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, check=False, timeout=PATIENCE
        )
        assert ended.returncode == code, ended
        return ended.stdout

    def up(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """The same for programs."""
        result: dict[str, Any] = json.loads(self.start("--json", *arguments, code=code))
        return result

    @contextmanager
    def running(self, *arguments: object) -> Iterator[dict[str, Any]]:
        """In the background until the end of the block."""
        try:
            yield self.up(*arguments)
        finally:
            self("down")

    @contextmanager
    def attached(
        self, *arguments: str, command: Sequence[str] = ()
    ) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """In the foreground, by `command` or else `up`: the process, and what it said when it answered. One process
        answers, and none works."""
        few = ["--answerers", "1", "--workers", "0"]
        begin = [*PROGRAM, "up", "--data", str(self.root), "--port", "0", *few, "--json", *arguments]
        log = self.root.with_name(f"{self.root.name}.stderr")
        with log.open("a") as stderr:
            process = subprocess.Popen(
                command or begin, stdout=subprocess.PIPE, stderr=stderr, text=True, env=self.environment
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE)
            process.stdout.close()

    def ask(self, verb: str, path: str, body: str | None = None, token: str = "") -> Said:
        """Ask the service that runs here, or ran last, trusting its own authority."""
        url = urlsplit(json.loads((self.root / "run" / "lock").read_text())["probe"])
        context = ssl.create_default_context(cafile=self.root / "tls" / "ca.pem")
        assert url.hostname is not None
        connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=PATIENCE, context=context)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if verb == "POST" else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(verb, path, body, headers)
            response = connection.getresponse()
            return Said(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def log_in(self, setup: dict[str, Any]) -> str:
        """The token of a principal that `az-setup` made."""
        form = {"grant_type": "client_credentials"} | {name: setup[name] for name in ("client_id", "client_secret")}
        said = self.ask("POST", f"/{setup['tenant']}/oauth2/v2.0/token", urlencode(form))
        assert said.status == 200, said
        token: str = said.body["access_token"]
        return token

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Stepping:
    """A service whose jobs are `steps`: what the test sees of them, and how it lets them go on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = [sys.executable, "-m", "tests.cli.services", "server", str(root)]
        self.steps = root.with_name("steps")
        self.gate = root.with_name("gate")

    def ask(self) -> UUID:
        """A job."""
        with self._queue() as (database, queue), database.change() as connection:
            arguments = {"steps": str(self.steps), "gate": str(self.gate)}
            return queue.enqueue(connection, "Steps", arguments, vault=VAULT)

    def row(self, job: UUID) -> dict[str, Any]:
        """The job in the database."""
        with self._queue() as (database, _), database.look() as connection:
            return dict(connection.execute(sa.select(jobs).where(jobs.c.id == job)).mappings().one())

    def taken(self) -> list[tuple[int, int]]:
        """The steps that were taken: (process, step)."""
        if not self.steps.exists():
            return []
        return [(int(who), int(step)) for who, step in map(str.split, self.steps.read_text().splitlines())]

    def wait_for(self, step: int, but: int = 0) -> int:
        """Until a worker, another one than `but`, is at this step; its process."""
        found = until(lambda: [who for who, at in self.taken() if at == step and who != but], f"step {step}")
        return found[-1]

    @contextmanager
    def _queue(self) -> Iterator[tuple[Database, JobQueue]]:
        database = Database(f"sqlite:///{self.root / 'keepstone.db'}")
        try:
            yield database, JobQueue(database, Env())
        finally:
            database.close()


def steps(context: Context) -> None:
    """Note each step, behind a checkpoint, and stop at the gate until it is open."""
    arguments = context.claim.arguments
    for step in range((context.state or {"next": 0})["next"], 4):
        with Path(arguments["steps"]).open("a") as file:
            file.write(f"{os.getpid()} {step}\n")
        while step == 2 and not Path(arguments["gate"]).exists():
            context.check()
            time.sleep(0.01)
        context.checkpoint({"next": step + 1})


def _serve(root: Path) -> None:
    from keepstone.server import logs
    from keepstone.server.starting import Start

    logs.to_file(root / "log", "server", "debug")
    with Start.prepare(root, "127.0.0.1", 0) as start:
        start.begin()
        program = [sys.executable, "-m", "tests.cli.services", "worker"]
        start.run(program=program, ready=lambda: print(json.dumps({"endpoint": start.address.url}), flush=True))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        _serve(Path(sys.argv[2]))
    else:
        from keepstone.server import worker

        sys.exit(worker.main(sys.argv[2:], {"Steps": steps}, grace=0.1))
