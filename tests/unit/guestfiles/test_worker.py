# SPDX-License-Identifier: Apache-2.0
"""The process that looks at a disk: what it can reach, and what becomes of one that fails, hangs or lies."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from keepstone.disks import Extent, RawSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, FormatError, KeepstoneError, SourceFailed
from keepstone.workloads.guestfiles import worker as module
from keepstone.workloads.guestfiles.wire import DONE, HEADER, MOST, PART, WANT, WANTED, Item, Piece
from keepstone.workloads.guestfiles.worker import Worker
from tests.unit.guestfiles.filesystems import MIB, ext, fat, looked_into, ntfs, plain_tree, xfs

pytestmark = pytest.mark.vm

TRY = """
import ctypes, os, resource, socket, sys
from keepstone.workloads.guestfiles import jail
held = os.open("/dev/null", os.O_WRONLY)
libc = ctypes.CDLL(None, use_errno=True)
print(jail.enter(1 << 30))
def refused(name, do):
    try:
        got = do()
    except (OSError, MemoryError, ValueError) as error:
        print(name, "refused")
    else:
        print(name, "done" if got is None or got != -1 else "refused")
for name, do in {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create": lambda: os.open("/tmp/nobody-made-this", os.O_RDWR | os.O_CREAT),
    "unlink": lambda: os.unlink(sys.argv[1]),
    "socket": lambda: socket.socket(),
    "unix": lambda: socket.socketpair(),
    "pipe": lambda: os.pipe(),
    "dup": lambda: os.dup(0),
    "fork": lambda: libc.fork(),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(int(sys.argv[2]), 0),
    "root": lambda: os.setuid(0),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99)),
    "memory": lambda: len(bytearray(2 << 30)),
}.items():
    refused(name, do)
"""


def test_it_can_reach_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"")
    kept.chmod(0o666)
    tmp_path.chmod(0o777)
    command = [sys.executable, "-c", TRY, str(kept), str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.split("\n")
    assert lines[0] == "True", done.stderr
    assert [line for line in lines[1:] if line and not line.endswith(" refused")] == []
    assert len(lines) == 15
    assert kept.exists()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return ext(tmp_path / "image", plain_tree(tmp_path / "tree"), 16 * MIB)


@pytest.fixture
def worker(image: Path) -> Iterator[Worker]:
    with RawSource(Env(), image) as disk, Worker(Env(), disk, seconds=3) as one:
        yield one


def test_one_that_is_killed_is_replaced(worker: Worker) -> None:
    before = worker.items(0, 0)
    pid = worker.pid
    assert pid is not None
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status
    if os.geteuid() == 0:
        assert "Uid:\t65534\t65534\t65534\t65534" in status
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(CorruptObject, match="SIGKILL"):
        worker.items(0, 0)
    assert worker.items(0, 0) == before
    assert worker.pid != pid


def test_one_that_stands_still_is_ended(worker: Worker) -> None:
    worker.volumes()
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(CorruptObject, match="more than 3 s"):
        worker.items(0, 0)
    assert time.monotonic() - began < 10
    assert not Path(f"/proc/{pid}").exists()
    assert worker.items(0, 0)


def test_none_is_left_behind(image: Path) -> None:
    with looked_into(image) as tree:
        tree.listing(b"0")
        pids = [worker.pid for worker in tree.reader._workers]
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


LIAR = """
import os, sys
from keepstone.workloads.guestfiles.wire import HEADER
sys.stdin.buffer.raw.read(9)
answer = bytes.fromhex(sys.argv[-5])
while answer:
    answer = answer[os.write(0, answer):]
while os.read(0, 1000):
    pass
"""


def said(kind: int, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def items(*names: bytes, **more: object) -> bytes:
    listed = [Item(name, 0o100644, 0, 0, 1, 0, 0, 1) for name in names]
    rows = [msgspec.to_builtins(item) for item in listed]
    return said(PART, msgspec.msgpack.encode(rows)) + said(DONE, b"")


@pytest.mark.parametrize(
    "answer",
    [
        HEADER.pack(PART, MOST + 1),
        HEADER.pack(99, 0),
        said(PART, b"\xc1"),
        said(PART, msgspec.msgpack.encode([["x", -1]])),
        said(WANT, WANTED.pack(2**60, 10)),
        said(WANT, WANTED.pack(0, 2**31)),
        said(PART, b"\x91" * 20_000),
    ],
    ids=["too long", "unknown", "no msgpack", "wrong types", "beyond", "too much", "deep"],
)
def test_a_liar_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(module, "PROGRAM", (sys.executable, "-c", LIAR, answer.hex()))
    with pytest.raises(CorruptObject, match="failed"):
        worker.items(0, 0)
    assert worker.pid is None


@pytest.mark.parametrize("names", [(b"..",), (b"a/b",), (b"b", b"a"), (b"a", b"a"), (b"",)])
def test_names_that_would_lead_elsewhere(
    image: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[bytes, ...]
) -> None:
    with looked_into(image) as tree:
        tree.listing(b"")
        monkeypatch.setattr(module, "PROGRAM", (sys.executable, "-c", LIAR, items(*names).hex()))
        tree.reader._workers[0].close()
        with pytest.raises(FormatError):
            tree.listing(b"0")


class Broken:
    """A disk of which a part cannot be read."""

    block_size = 4096

    def __init__(self, disk: RawSource, bad: range) -> None:
        self._disk, self._bad, self.size = disk, bad, disk.size
        self.close = disk.close

    def token(self) -> None:
        return None

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        return self._disk.extents(since)

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        if offset < self._bad.stop and offset + len(buffer) > self._bad.start:
            raise SourceFailed("the disk is broken there")
        return self._disk.pread_into(buffer, offset)


def test_a_disk_that_cannot_be_read(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    at = data.index((tmp_path / "tree" / "large.bin").read_bytes()[2 * MIB : 2 * MIB + 1000])
    with looked_into(Broken(RawSource(Env(), image), range(at, at + 512))) as tree:
        found = tree.find(b"0/large.bin")
        assert found is not None
        with pytest.raises(SourceFailed, match="broken there"):
            tree.content(found).read(0, found.entry.size)
        assert (
            b"".join(tree.content(found).read(0, 100))
            == data[data.index(b"".join(tree.content(found).read(0, 100))) :][:100]
        )
        assert tree.reader._workers[0].pid is not None
    with looked_into(Broken(RawSource(Env(), image), range(1024))) as tree, pytest.raises(SourceFailed):
        tree.listing(b"")


def test_more_than_one_answer_holds(worker: Worker) -> None:
    with pytest.raises(ValueError, match="room"):
        worker.read([Piece(0, 12, 0, False, 0, MIB)] * 5, lambda _at, _data: None)


def made_ntfs(path: Path, tree: Path) -> Path:
    ntfs(path, 8 * MIB)
    for one in tree.iterdir():
        if one.is_file():
            subprocess.run(["ntfscp", "-q", "-f", path, one, one.name], check=True, capture_output=True)
    return path


@pytest.mark.parametrize(
    "make",
    [lambda path, tree: ext(path, tree, 16 * MIB), made_ntfs, fat, xfs],
    ids=["ext4", "ntfs", "fat", "xfs"],
)
def test_flipped_bytes(tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    """Whatever is damaged fails by itself, and the next question is answered."""
    tree = plain_tree(tmp_path / "tree")
    (tree / "large.bin").write_bytes(bytes(100_000))
    image = make(tmp_path / "image", tree)
    whole = image.read_bytes()
    used = [at for at in range(0, len(whole), 512) if whole[at : at + 512] != bytes(512)][:4000]
    dice = random.Random(11)
    seen = 0
    for _ in range(12):
        flips = [dice.choice(used) + dice.randrange(512) for _ in range(60)]
        with image.open("r+b") as file:
            for at in flips:
                file.seek(at)
                file.write(bytes([whole[at] ^ 1 << dice.randrange(8)]))
        with looked_into(image) as found:
            try:
                for one in found.walk(lost=lambda _path, _error: None):
                    seen += 1
                    if one.entry.kind == "file" and one.path != b"disk.img" and one.entry.size < MIB:
                        with contextlib.suppress(KeepstoneError):
                            found.content(one).read(0, one.entry.size)
            except KeepstoneError:
                pass
        with image.open("r+b") as file:
            for at in flips:
                file.seek(at)
                file.write(whole[at : at + 1])
    assert seen > 12
