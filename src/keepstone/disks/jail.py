# SPDX-License-Identifier: Apache-2.0
"""Where the tables of foreign images are read: a process that can do nothing else.

It is given open files and a pipe, and before it reads the first byte it gives up the rest: it cannot open, make or
lengthen a file, start a process, or use more than `MEMORY` and `PROCESSOR`; it is nobody where it was root, and has no
network where the system lets it have none. What it answers is read with a limit and a deadline, and believed in
nothing: `layout.check` comes after.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from keepstone.decoders import from_msgpack
from keepstone.disks.layout import MOST_RUNS, Layout, Link
from keepstone.disks.vmdk import Description
from keepstone.env import Env
from keepstone.errors import SourceFailed, Unsupported

__all__ = ["MEMORY", "PROCESSOR", "PROGRAM", "Answer", "confine", "described", "packed", "parsed"]

PROGRAM = (sys.executable, "-P", "-m", "keepstone.disks.parse")
MEMORY = 3 << 30
"""Bytes of address space."""
PROCESSOR = 120
"""Seconds of processor time."""

_PATIENCE, _SPEED, _LONGEST = 120, 50 << 20, 3600  # seconds, and one more for so many bytes, and never more
_FAREWELL = 10.0  # seconds to end in, once all is said
_MOST_ANSWER = 19 * MOST_RUNS + (4 << 20)
_PIECE = 1 << 20
_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # prctl(2)
_NEW_USER, _NEW_NET, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000  # unshare(2)


class _Table(msgspec.Struct, array_like=True):
    """A layout in an answer."""

    size: int
    starts: memoryview
    kinds: memoryview
    places: memoryview
    files: memoryview
    unit: int
    id: str
    names: list[str] | None
    ids: list[str]


class Answer(msgspec.Struct):
    """Either `layouts` or a `description`, or what is wrong: whether with the image, or with what we know of it."""

    layouts: list[_Table] = []
    description: Description | None = None
    wrong: str = ""
    unknown: str = ""


def packed(layout: Layout) -> _Table:
    """A layout as an answer has it."""
    link = layout.parent
    return _Table(
        layout.size,
        _bytes(layout.starts),
        _bytes(layout.kinds),
        _bytes(layout.places),
        _bytes(layout.files),
        layout.unit,
        layout.id,
        None if link is None else [*link.names],
        [] if link is None else [*link.ids],
    )


def _bytes(column: NDArray[Any]) -> memoryview:
    return column.data.cast("B") if len(column) else memoryview(b"")  # what is empty cannot be cast


def _unpacked(table: _Table) -> Layout:
    try:
        starts, places = np.frombuffer(table.starts, np.int64), np.frombuffer(table.places, np.int64)
        kinds, files = np.frombuffer(table.kinds, np.uint8), np.frombuffer(table.files, np.uint16)
    except ValueError:
        raise SourceFailed("its tables do not fit together") from None
    parent = None if table.names is None else Link(tuple(table.names), tuple(table.ids))
    return Layout(table.size, starts, kinds, places, files, table.unit, table.id, parent)


def parsed(env: Env, what: str, files: Sequence[int], size: int) -> list[Layout]:
    """The layouts of these open files of `size` bytes together, not checked yet. `what`: a name in `parse.PARSERS`.

    `SourceFailed` where they are damaged or want more than the jail has, `Unsupported` where nobody here knows them.
    """
    layouts = [_unpacked(table) for table in _ask(env, what, files, size).layouts]
    if len(layouts) != len(files):
        raise SourceFailed("its tables could not be read")
    return layouts


def described(env: Env, file: int, size: int) -> Description:
    """The same of the description of a VMDK disk."""
    description = _ask(env, "vmdk", [file], size).description
    if description is None:
        raise SourceFailed("its description could not be read")
    return description


def _ask(env: Env, what: str, files: Sequence[int], size: int) -> Answer:
    seconds = min(_LONGEST, _PATIENCE + size // _SPEED)
    process = subprocess.Popen(
        [*PROGRAM, what, *map(str, files)],
        pass_fds=files,
        cwd="/",
        env=_surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt of a terminal is ours to answer
    )
    try:
        answer = _heard(env, process, env.boot_time() + seconds * 10**9)
        code = process.wait(_FAREWELL)
    except subprocess.TimeoutExpired:
        answer, code = None, 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if answer is None or code in (-signal.SIGXCPU, -signal.SIGKILL):
        raise SourceFailed(f"its tables are not read after {PROCESSOR} seconds of work, or {seconds} in all")
    try:
        found = from_msgpack(Answer).decode(answer)
    except msgspec.MsgspecError:
        raise SourceFailed("its tables cannot be made sense of") from None
    if found.unknown:
        raise Unsupported(found.unknown[:4096])
    if found.wrong:
        raise SourceFailed(found.wrong[:4096])
    return found


def _heard(env: Env, process: subprocess.Popen[bytes], deadline: int) -> bytearray | None:
    """All that it says; None where it takes too long. `SourceFailed` where it says too much."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    said = bytearray()
    while (left := deadline - env.boot_time()) > 0:
        if not poll.poll(left // 10**6 + 1):
            continue
        piece = os.read(fd, _PIECE)
        if not piece:
            return said
        said += piece
        if len(said) > _MOST_ANSWER:
            raise SourceFailed(f"its disk is in more than {MOST_RUNS:,} pieces; convert it with `qemu-img convert`")
    return None


def _surroundings() -> dict[str, str]:
    """The environment of the child: what it takes to start, and no secret of ours. One thread: several have namespaces
    refused."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


def confine() -> None:
    """Give up everything but the files that are open. Of this process, for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # root in a container may have no right to be somebody else
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, int(value), 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC)  # not everywhere; without it the limits below still hold
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, PROCESSOR),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
