# SPDX-License-Identifier: Apache-2.0
"""How connections over which agents transfer data come to the process that does it: those that answer accept them, and
hand them on, before anything was read, through a socket in the data folder that belongs to the service's user alone."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

__all__ = ["hand_on", "listening", "received"]

_BYTE = b"\0"  # a descriptor does not travel alone


@contextlib.contextmanager
def _place(root: Path) -> Iterator[str]:
    """The address of the socket, short however deep the data folder lies: one may have 107 bytes (unix(7))."""
    folder = os.open(root / "run", os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/receiver.sock"
    finally:
        os.close(folder)


def hand_on(root: Path, connection: socket.socket) -> None:
    """Give a connection away; whoever did closes it then. `BlockingIOError` where too many wait to be taken, `OSError`
    where nobody takes them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with _place(root) as place:
            sender.connect(place)
        socket.send_fds(sender, [_BYTE], [connection.fileno()])


def listening(root: Path) -> socket.socket:
    """Where they come to."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with _place(root) as place:
        Path(place).unlink(missing_ok=True)
        found.bind(place)
        Path(place).chmod(0o600)
    return found


def received(listener: socket.socket) -> socket.socket | None:
    """The next one; None for a message that brought none. `OSError` where the listener is closed."""
    data, descriptors, _, _ = socket.recv_fds(listener, len(_BYTE), 1)
    if not data and not descriptors:
        raise OSError("the listener is shut")
    return socket.socket(fileno=descriptors[0]) if descriptors else None
