# SPDX-License-Identifier: Apache-2.0
"""Images without a machine, made and looked at by QEMU's own programs."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.machines.guest import until

__all__ = ["above", "image", "rebase", "shown", "states", "write", "writing"]


def image(path: Path, size: str, *options: str | Path, writes: tuple[str, ...] = ()) -> Path:
    """A qcow2 image, and what is written to it (commands of `qemu-io`)."""
    create: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", *options, path, size]
    subprocess.run(create, check=True)
    write(path, *writes)
    return path


def above(base: Path, format: str = "qcow2") -> tuple[str | Path, ...]:
    """Options of an image above this one."""
    return ("-b", base, "-F", format)


def rebase(path: Path, name: str, format: str) -> None:
    """Into its header, whatever is there."""
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", name, "-F", format, path], check=True)


def write(path: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    if words:
        subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, stdout=subprocess.DEVNULL)


def shown(path: Path, folder: Path) -> bytes:
    """The disk in a qcow2 image."""
    raw = folder / "shown"
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, raw], check=True)
    return raw.read_bytes()


def states(*paths: Path) -> list[tuple[str, int, int]]:
    """Content and times of files."""
    found = []
    for path in paths:
        status = path.stat()
        found.append((hashlib.sha256(path.read_bytes()).hexdigest(), status.st_mtime_ns, status.st_ctime_ns))
    return found


@contextlib.contextmanager
def writing(path: Path | str, format: str, socket: Path) -> Iterator[None]:
    """Somebody has it open for that."""
    process = subprocess.Popen(["qemu-nbd", "-f", format, f"--socket={socket}", "--persistent", path])
    asks = ["qemu-img", "info", f"nbd+unix:///?socket={socket}"]  # it has the socket before it has the image
    try:
        until(lambda: subprocess.run(asks, check=False, capture_output=True).returncode == 0, "the server")
        yield
    finally:
        process.kill()
        process.wait()
