# SPDX-License-Identifier: Apache-2.0
"""The shim sees every call that changes files, in the kernel's order, and its faults hit what they are aimed at."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.oplog import Kind
from tests.crash.recording import Incomplete, record
from tests.crash.runner import Outcome, Runner
from tests.crash.shim import Fault
from tests.crash.workload import Workload, scratch

pytestmark = pytest.mark.store

TOY = Path(__file__).with_name("toy")


def script(directory: Path, body: str) -> Workload:
    """A workload of a few lines, run in the watched directory."""
    path = directory / "script.py"
    head = "import os, sys, mmap, time\nif __name__ == '__main__':\n    os.chdir(sys.argv[1])\n"
    path.write_text(head + "".join(f"    {line}\n" for line in body.splitlines()))
    return Workload(path)


def run(directory: Path, body: str, fault: Fault, timeout: float = 60.0) -> tuple[Outcome, Path]:
    """Run `body` with `fault`; how it ended, and its directory."""
    disk = directory / "disk"
    disk.mkdir()
    with Runner(script(directory, body), timeout) as runner:
        return runner.run(disk, directory, fault), disk


def test_every_call_is_recorded() -> None:
    with scratch() as directory, Runner(Workload(TOY / "calls.py")) as runner:
        recording = record(runner, directory / "recording")  # refuses a log that does not explain the directory

    kinds = Counter(record.kind for record in recording.records)
    named = {record.name2 or record.name for record in recording.records}
    synced = [r for r in recording.records if r.inode == next(s.inode for s in recording.records if s.name == "synced")]
    assert kinds[Kind.SYNC_ALL] == 1
    assert [r.kind for r in synced] == [Kind.CREATE] + [Kind.SYNC] * 5
    assert {"libc.so.6", "renameat2", "syscall", "tmpfile", "by python", "rows.db-wal"} <= named


def test_order_is_the_same_for_all_threads_and_processes() -> None:
    with scratch() as directory, Runner(Workload(TOY / "racing.py")) as runner:
        recording = record(runner, directory / "recording")

    written: set[str] = set()
    acknowledged: list[str] = []
    for entry in recording.records:
        if entry.kind is Kind.WRITE:
            written.add(entry.data.decode().strip())
        elif entry.kind is Kind.ACK:
            acknowledged.append(json.loads(entry.data))
            assert acknowledged[-1] in written
    offsets = [entry.offset for entry in recording.records if entry.kind is Kind.WRITE]
    assert offsets == sorted(offsets)  # all of them appended
    assert len(set(acknowledged)) == len(offsets) == 6 * 200
    assert len({entry.pid for entry in recording.records}) == 2
    changes = [a.pid != b.pid for a, b in zip(recording.records, recording.records[1:], strict=False)]
    assert sum(changes) > 2, "the processes ran one after the other, which proves nothing"


def test_log_with_a_gap_is_refused(tmp_path: Path) -> None:
    body = """
fd = os.open("mapped", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 4096)
mmap.mmap(fd, 4096)[:3] = b"???"
"""
    with Runner(script(tmp_path, body)) as runner, pytest.raises(Incomplete, match="mapped"):
        record(runner, tmp_path / "recording")


def test_symbolic_link_is_refused(tmp_path: Path) -> None:
    with Runner(script(tmp_path, "os.symlink('a', 'b')")) as runner, pytest.raises(Incomplete, match="b is neither"):
        record(runner, tmp_path / "recording")


def test_failing_workload_is_no_recording(tmp_path: Path) -> None:
    with Runner(script(tmp_path, "raise ValueError('no')")) as runner, pytest.raises(RuntimeError, match="ValueError"):
        record(runner, tmp_path / "recording")


def test_recording_starts_from_a_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "deep").mkdir(parents=True)
    (base / "deep/old").write_bytes(b"was there")
    os.link(base / "deep/old", base / "deep/same")
    with Runner(script(tmp_path, "os.rename('deep', 'moved'); open('moved/old', 'a').write('!')")) as runner:
        recording = record(runner, tmp_path / "recording", base)

    model = recording.model(journal=False)
    deep = model.root.names and model.root.names["deep"].names
    assert deep
    assert deep["old"].durable.data == b"was there"


def test_kill_comes_before_the_operation(tmp_path: Path) -> None:
    outcome, disk = run(tmp_path, "[open(name, 'w').close() for name in 'abc']", Fault("kill", 2))

    assert (outcome.status, outcome.counters.killed) == (-signal.SIGKILL, True)
    assert os.listdir(disk) == ["a"]


def test_torn_write_leaves_its_half(tmp_path: Path) -> None:
    outcome, disk = run(tmp_path, "open('a', 'w').write('x' * 1000)", Fault("torn", 2))

    assert outcome.counters.killed
    assert (disk / "a").stat().st_size == 500


def test_torn_direct_write_is_aligned(tmp_path: Path) -> None:
    body = "os.pwrite(os.open('a', os.O_CREAT | os.O_RDWR | os.O_DIRECT), mmap.mmap(-1, 5 * 4096), 0)"
    _, disk = run(tmp_path, body, Fault("torn", 2))

    assert (disk / "a").stat().st_size == 2 * 4096


def test_short_write_says_so(tmp_path: Path) -> None:
    body = """
fd = os.open("a", os.O_CREAT | os.O_WRONLY)
assert (os.write(fd, b"12345678"), os.write(fd, b"90")) == (4, 2)
"""
    outcome, disk = run(tmp_path, body, Fault("short", 2))

    assert outcome.status == 0, outcome.output
    assert (disk / "a").read_bytes() == b"123490"


FULL = """
def fails(step):
    try:
        step()
    except OSError as error:
        return error.errno
fd = os.open("a", os.O_CREAT | os.O_WRONLY)
os.write(fd, b"before")
steps = dict(
    write=lambda: os.write(fd, b"x"), create=lambda: open("b", "w"), mkdir=lambda: os.mkdir("c"),
    extend=lambda: os.ftruncate(fd, 100), link=lambda: os.link("a", "d"),
    reserve=lambda: os.posix_fallocate(fd, 0, 100),
    shrink=lambda: os.ftruncate(fd, 1), sync=lambda: os.fsync(fd), rename=lambda: os.rename("a", "e"),
    unlink=lambda: os.unlink("e"),
)
import json
open(os.environ["FS_ACK"], "a").write(json.dumps({name: fails(step) for name, step in steps.items()}) + "\\n")
"""


def test_full_disk_refuses_only_what_takes_space(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, FULL.strip(), Fault("errno", 3, errno.ENOSPC, 0))

    refused = {name for name, error in outcome.acks[0].items() if error == errno.ENOSPC}
    assert refused == {"write", "create", "mkdir", "extend", "link", "reserve"}
    assert outcome.counters.hits == len(refused)


@pytest.mark.parametrize(("count", "failing"), [(1, 1), (3, 3), (0, 10)])
def test_dying_disk_refuses_everything(tmp_path: Path, count: int, failing: int) -> None:
    outcome, _ = run(tmp_path, FULL.strip(), Fault("errno", 3, errno.EIO, count))

    assert sum(error == errno.EIO for error in outcome.acks[0].values()) == failing


def test_kill_stops_the_other_processes_too(tmp_path: Path) -> None:
    body = """
if os.fork():
    os.wait()
open("after", "w").close()
"""
    outcome, disk = run(tmp_path, body, Fault("kill", 1))

    assert outcome.counters.killed
    assert outcome.status == -signal.SIGKILL
    assert not os.listdir(disk)


def test_hanging_run_ends(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, "time.sleep(600)", Fault("kill", 99), timeout=1.0)

    assert outcome.hung
    assert outcome.status == -signal.SIGKILL
