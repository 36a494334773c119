# SPDX-License-Identifier: Apache-2.0
"""Hundreds of machines that begin a backup at one moment: all have to come to their end, and the service stays small.

Each has a folder of its own, half of which others have too. They are played by threads of a few processes, each by what
the agent itself uses.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sa

from bench.agents.crowd import Machine, crowd
from bench.agents.idle import shared_bytes
from keepstone.catalogue import insert, jobs
from keepstone.control.installation import Installation
from keepstone.control.sources import item_name
from keepstone.crypto import hashing
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.jobs import BACKUP, Status
from keepstone.remote.calls import Calls
from keepstone.remote.service import HttpSession
from keepstone.remote.veil import Plain
from keepstone.remote.wire import TRANSFER, Begin, Begun, Pulse, Pulsed, decode, encode
from keepstone.remote.writer import RemoteWriter
from keepstone.server.processes import Processes
from keepstone.store import DiskMemory
from keepstone.vault import Item, Vault
from keepstone.workloads import Silent
from keepstone.workloads.files import Selection, backup_files

__all__ = ["main", "measure"]

_PROCESSES = 4
_FILES, _SIZE = 16, 64 << 10
_PATIENCE = 900.0


def measure(folder: Path, count: int) -> dict[str, float]:
    """Seconds until all have ended, how many ended badly, and the most memory of the service."""
    root = folder / "data"
    folder.mkdir(parents=True)
    vault, machines = crowd(root, count)
    _ask(root, vault, machines, folder / "sources")
    program = str(Path(sys.executable).with_name("keepstone"))
    command = [program, "up", "--data", str(root), "--port", "0", "--detach", "--json", "--log-level", "warning"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    try:
        began = time.monotonic()
        arguments = [said["endpoint"], said["ca"], str(folder), str(count)]
        players = [
            subprocess.Popen([sys.executable, "-m", "bench.agents.uploads", *arguments, str(number)])
            for number in range(_PROCESSES)
        ]
        peak = 0
        while any(player.poll() is None for player in players):
            time.sleep(0.5)
            peak = max(peak, sum(shared_bytes(pid) for pid in Processes.read(root).pids.values()))
        wall = time.monotonic() - began
    finally:
        subprocess.run([program, "down", "--data", str(root)], check=True, capture_output=True)
    plane = Installation(Env(), root).plane()
    with plane.look() as connection:
        good = sa.select(sa.func.count()).where(jobs.c.operation == BACKUP, jobs.c.status == Status.COMPLETED)
        done = connection.execute(good).scalar_one()
    plane.database.close()
    return {"uploads": count, "uploads_failed": count - done, "uploads_s": wall, "uploads_server_bytes": peak}


def _ask(root: Path, vault: Vault, machines: list[Machine], sources: Path) -> None:
    """An item for each machine, and a job for it."""
    plane = Installation(Env(), root).plane()
    common = [os.urandom(_SIZE) for _ in range(_FILES // 2)]
    now = plane.env.utc()
    with plane.database.change() as connection:
        for machine in machines:
            place = sources / machine.name
            place.mkdir(parents=True)
            for number, content in enumerate([*common, *(os.urandom(_SIZE) for _ in range(_FILES // 2))]):
                (place / f"{number}.bin").write_bytes(content)
            item = Item(
                id=plane.new_id(), vault=vault.id, container=machine.container, name=item_name(str(place)),
                friendly=str(place), management="MAB", workload="FileFolder", state="Protected",
                source={"path": str(place)}, created=now,
            )  # fmt: skip
            insert(connection, item)
            arguments = {"management": "MAB", "part": "Full", "entity": str(place)}
            plane.queue.enqueue(connection, BACKUP, arguments, vault=vault.id, item=item.id, machine=machine.container)
    plane.database.close()


def _upload(url: str, ca: str, folder: Path, name: str) -> None:
    """What an agent does with a job."""
    env = Env(threads=1)
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(folder / "machines" / f"{name}.pem")
    asking = Calls(env, url, lambda: context, patience=_PATIENCE)
    work = decode(asking.post("pulse", encode(Pulse(version="bench", room=1, wait=30.0))), Pulsed).work[0]
    asking.close()
    context.set_alpn_protocols([TRANSFER])
    calls = Calls(env, url, lambda: context, patience=_PATIENCE)
    try:
        begin = encode(Begin(job=work.job, token=work.token, kind="files"))
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                begun = decode(calls.post("sessions/begin", begin), Begun)
                break
            except KeepstoneError as error:
                if error.code != "TooManySessions" or time.monotonic() > until:
                    raise
                time.sleep(1.0)
        veil = Plain(hashing(begun.hashing), begun.id_key)
        memory = DiskMemory(env, None, work.item, veil.derive, begun.parent_id)
        with RemoteWriter(env, HttpSession(calls, begun.session), begun, veil, memory=memory) as writer:
            backup_files(env, writer, os.fsencode(folder / "sources" / name), Selection(), Silent())
    finally:
        calls.close()


def main() -> int:
    """`uploads.py URL CA FOLDER COUNT NUMBER`: plays every `_PROCESSES`-th machine; 1 where one failed."""
    url, ca, folder, count, number = sys.argv[1:]
    names = [f"machine{one}" for one in range(int(number), int(count), _PROCESSES)]
    with ThreadPoolExecutor(len(names)) as pool:
        futures = [pool.submit(_upload, url, ca, Path(folder), name) for name in names]
    failed = [future.exception() for future in futures if future.exception() is not None]
    for error in failed[:3]:
        print(f"an upload failed: {error!r}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
