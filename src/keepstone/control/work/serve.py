# SPDX-License-Identifier: Apache-2.0
"""A session of file recovery: the disks of a point are served to those who have a script of it.

Nobody gets anything but by TLS, and with a certificate that was made for this very session. What a client has begun to
read when the session ends is cut off.
"""

from __future__ import annotations

import ssl
import threading
from contextlib import ExitStack

from keepstone.control import file_recovery, points
from keepstone.control.plane import Plane
from keepstone.control.work.loading import subject
from keepstone.control.work.near import nearest
from keepstone.disks import BlockSource
from keepstone.disks.nbd import Address, NbdServer
from keepstone.jobs import Context, Status
from keepstone.store import Reader
from keepstone.workloads.images import PointDisk
from keepstone.workloads.machines import KIND, Role, machine_of

__all__ = ["DISK", "serve"]

DISK = "disk"
"""What the disk of a point that has one is called."""
_LOOK = 0.5  # seconds between two looks at who may come, and whether it is over


def serve(plane: Plane, context: Context, host: str) -> None:
    """The handler: until the job is cancelled, or the time of the session is over. `host`: the address to listen
    at."""
    about = subject(plane, context)
    with plane.look() as connection:
        point = points.find(connection, about.item, context.claim.arguments["point"])
    tls = _tls(plane)
    pause = threading.Event()
    known: set[str] = set()
    begun = False
    with ExitStack() as stack:
        reader = stack.enter_context(nearest(plane, about, point))
        exports: dict[str, BlockSource] = {
            name: stack.enter_context(PointDisk(plane.env, disk)) for name, disk in _disks(reader)
        }
        server = stack.enter_context(NbdServer(plane.env, exports, Address(host=host, port=0), tls=tls))
        while True:
            with plane.look() as connection:
                status, until, clients = file_recovery.wanted(connection, context.claim.id)
            for client in clients:
                if client not in known:
                    tls.load_verify_locations(cadata=client)
                    known.add(client)
            if status == Status.CANCELLING:
                context.beat()  # and not when the next one is due
            context.progress(0, 0, f"{server.clients} clients", target=f"{server.address.port} {' '.join(exports)}")
            if not begun:
                context.beat()  # somebody waits for it
                begun = True
            context.check()
            if plane.env.utc() >= until:
                return
            pause.wait(_LOOK)


def _disks(reader: Reader) -> list[tuple[str, Reader]]:
    if reader.point.kind != KIND:
        return [(DISK, reader)]
    return [(disk.name, one) for disk, one in machine_of(reader).disks if disk.role is Role.DISK]


def _tls(plane: Plane) -> ssl.SSLContext:
    """What the service shows everywhere, and nobody is known yet."""
    folder = plane.root / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context
