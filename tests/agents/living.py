# SPDX-License-Identifier: Apache-2.0
"""A service of real processes, machines with agents that are processes too, and an agent by hand where a test has to do
what none does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keepstone.agent.identity import Credentials, Identity, register
from keepstone.cli import main
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.remote.calls import Calls
from keepstone.remote.wire import Beat, Begin, Begun, End, Pulse, Pulsed, Work, decode, encode
from keepstone.store import Store
from tests.cli.services import PROGRAM, Service, until

__all__ = ["Hand", "Living", "Machine"]

PATIENCE = 60.0


class Living:
    """A service in `root` with one vault."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.service = Service(root / "service")
        self.vault = ""
        self._plane: Plane | None = None

    def up(self, *arguments: object) -> None:
        """Start it."""
        self.service.up("--answerers", 1, "--workers", 1, *arguments)
        if not self.vault:
            self("group", "create", "-n", "g")
            self.vault = self("vault", "create", "-n", "v1", "-g", "g")["id"]

    def down(self) -> None:
        """Stop it."""
        self.close()
        self.service("down")

    def close(self) -> None:
        """Let go of the database."""
        if self._plane is not None:
            self._plane.database.close()
            self._plane = None

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        """A command of its administrator; the result."""
        out, err = io.StringIO(), io.StringIO()
        ours = {"KEEPSTONE_DATA": str(self.service.root), "KEEPSTONE_HOME": str(self.root / "home"),
                "KEEPSTONE_GROUP": "g", "KEEPSTONE_VAULT": "v1"}  # fmt: skip
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                ended = main([*map(str, arguments), "-o", "json"])
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        assert ended == code, (arguments, out.getvalue(), err.getvalue())
        return json.loads(out.getvalue() or "null") if code == 0 else err.getvalue() + out.getvalue()

    @property
    def url(self) -> str:
        """Where it answers."""
        url: str = json.loads((self.service.root / "run" / "lock").read_text())["probe"]
        return url

    @property
    def port(self) -> int:
        """At which port."""
        return int(self.url.rpartition(":")[2])

    @property
    def plane(self) -> Plane:
        """Its database, as its processes have it."""
        if self._plane is None:
            self._plane = Installation(Env(), self.service.root).plane()
        return self._plane

    @property
    def store(self) -> Store:
        """The vault's."""
        from keepstone.catalogue import first, vaults
        from keepstone.vault import Vault

        with self.plane.look() as connection:
            vault = first(connection, Vault, vaults.c.name == "v1")
        assert vault is not None
        return self.plane.stores.open(vault.id)

    def processes(self, kind: str) -> list[int]:
        """Those that are `receiver`, `answerer` or `worker`."""
        found = []
        for one in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (one / "cmdline").read_bytes().split(b"\0") if one.name.isdigit() else []
                if f"keepstone.server.{kind}".encode() in words and str(self.service.root).encode() in words:
                    found.append(int(one.name))
        return found

    def machine(self, name: str, *, url: str | None = None, vault: str = "v1") -> Machine:
        """A machine that registers."""
        file = self.credentials(name, *(("--url", url) if url else ()), vault=vault)
        home = self.root / "machines" / name
        made = register(Env(), home / "agent" / "state", Credentials.read(file), name, {"os": "Linux"})
        assert made.container == f"Windows;{name}"
        return Machine(self, name, home)

    def credentials(self, name: str, *more: object, vault: str = "v1") -> Path:
        """A file of vault credentials."""
        file = self.root / f"{name}.json"
        self("vault", "credentials", "download", "-v", vault, "--file", file, *more)
        return file

    def points(self, item: Path) -> list[dict[str, Any]]:
        """Those that the service knows, the newest first."""
        found: list[dict[str, Any]] = self("recoverypoint", "list", "-i", item)
        return found

    def commits(self, item: Path) -> list[str]:
        """Those that the store has."""
        return [point.id for point in self.store.points.list() if str(item) in point.record.item]


class Machine:
    """A machine of its own home, whose agent is a process while it runs."""

    def __init__(self, living: Living, name: str, home: Path) -> None:
        self.living, self.name, self.home = living, name, home
        self.log = home / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.restored = home / "agent" / "restored"
        self.environment = living.service.environment | {"KEEPSTONE_HOME": str(home)}

    def configure(self, text: str) -> None:
        """Its `agent.toml`."""
        path = self.home / "agent" / "etc" / "agent.toml"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text)

    def start(self) -> Machine:
        """Be there."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "agent", "run"], stdin=subprocess.DEVNULL, stderr=log, stdout=log, env=self.environment
            )
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Not any more; how it ended."""
        assert self.process is not None
        self.process.send_signal(number)
        ended = self.process.wait(PATIENCE)
        self.process = None
        return ended

    def jobs(self) -> list[int]:
        """The processes of its jobs."""
        found = []
        for one in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if one.name.isdigit() and b"keepstone.agent.job" in (one / "cmdline").read_bytes():
                    environment = (one / "environ").read_bytes().split(b"\0")
                    if f"KEEPSTONE_HOME={self.home}".encode() in environment:
                        found.append(int(one.name))
        return found

    @contextmanager
    def running(self) -> Iterator[Machine]:
        """Until the end of the block."""
        self.start()
        try:
            yield self
        finally:
            if self.process is not None:
                self.stop()

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def hears(self, text: str) -> str:
        """Wait until its log has this."""
        return until(lambda: self.said() if text in self.said() else None, f"{text!r} in the log of {self.name}")

    def protect(self, path: Path, *more: object) -> None:
        """An item of it."""
        self.living("protection", "enable", "--path", path, "-c", self.name, "-p", "FilesPolicy", *more)

    def back_up(self, path: Path, *, code: int = 0) -> Any:
        """Run a backup to its end; what became of its job."""
        return self.living("protection", "backup-now", "-i", path, code=code)

    def ask(self, path: Path) -> str:
        """Ask for a backup, and do not wait; the job."""
        asked: str = self.living("protection", "backup-now", "-i", path, "--no-wait")["name"]
        return asked

    def ended(self, job: str) -> dict[str, Any]:
        """Wait for its end; what became of it."""

        def look() -> dict[str, Any] | None:
            shown: dict[str, Any] = self.living("job", "show", "-n", job)
            return shown if shown["properties"]["status"] not in ("InProgress", "Cancelling", "Queued") else None

        return until(look, f"the end of job {job}")

    def restore(self, item: Path, *more: object, point: str = "latest", code: int = 0) -> Any:
        """Run a restore to its end."""
        return self.living("restore", "files", "-i", item, point, *more, code=code)

    def hand(self, url: str | None = None, **more: Any) -> Hand:
        """An agent by hand, in this process."""
        return Hand(self, url, **more)


class Hand:
    """What an agent does, step by step. `url`: of a proxy."""

    def __init__(self, machine: Machine, url: str | None = None, *, patience: float = 30.0, **more: Any) -> None:
        self.env = Env(threads=0)
        self.machine = machine
        self.identity = Identity.load(self.env, machine.home / "agent" / "state")
        self.direct = Calls(self.env, machine.living.url, self.identity.context, patience=patience)
        self.calls = Calls(self.env, url or machine.living.url, self.identity.transfers, patience=patience, **more)

    def pulse(self, *, room: int = 1, wait: float = 20.0, beats: tuple[Beat, ...] = ()) -> Pulsed:
        """One question."""
        asked = encode(Pulse(version="0", beats=list(beats), room=room, wait=wait))
        return decode(self.direct.once("pulse", [asked]), Pulsed)

    def work(self, item: Path) -> Work:
        """Ask for a backup of this, and take it."""
        job = self.machine.ask(item)
        return self.take(job)

    def take(self, job: str) -> Work:
        """Take this job."""

        def look() -> Work | None:
            found = [work for work in self.pulse().work if work.job == job]
            return found[0] if found else None

        return until(look, f"job {job}")

    def begin(self, work: Work, kind: str = "files") -> Begun:
        """A session for it."""
        return decode(
            self.calls.post("sessions/begin", encode(Begin(job=work.job, token=work.token, kind=kind))), Begun
        )

    def end(self, work: Work, status: str = "Failed") -> None:
        """Say how it ended."""
        self.direct.post(
            "end", encode(End(job=work.job, token=work.token, status=status, code="Test", message="told so"))
        )

    def close(self) -> None:
        self.direct.close()
        self.calls.close()


Say = Callable[..., Any]
