# SPDX-License-Identifier: Apache-2.0
"""One process for a data folder: who it is, and how it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepstone.errors import Conflict, KeepstoneError
from keepstone.server import instance
from keepstone.server.instance import Running

pytestmark = pytest.mark.service

HOLD = """
import signal, sys
from pathlib import Path
from keepstone.server import instance
hold = instance.take(Path(sys.argv[1]))
hold.announce("https://there:1", "https://127.0.0.1:1")
print("held", flush=True)
signal.sigwait([signal.SIGTERM])
"""


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until SIGTERM."""
    command = [sys.executable, "-c", f"import signal; signal.pthread_sigmask(0, [15])\n{HOLD}", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_folder_is_held_by_one_and_free_after_it(tmp_path: Path) -> None:
    root = tmp_path / "service"
    assert instance.running(root) is None
    with holder(root) as process:
        assert instance.running(root) == Running(
            pid=process.pid, url="https://there:1", probe="https://127.0.0.1:1"
        )  # fmt: skip
        with pytest.raises(Conflict, match=rf"https://there:1 \(process {process.pid}\).*keepstone down"):
            instance.take(root)

    assert instance.running(root) is None
    assert instance.last(root) == Running(pid=process.pid, url="https://there:1", probe="https://127.0.0.1:1")
    hold = instance.take(root)
    assert instance.running(root) == Running(pid=os.getpid())
    hold.release()
    hold.release()
    assert instance.running(root) is None


def test_a_stop_ends_the_process_and_no_other(tmp_path: Path) -> None:
    with holder(tmp_path) as process, holder(tmp_path / "other") as other:
        assert instance.stop(tmp_path, 60) == Running(
            pid=process.pid, url="https://there:1", probe="https://127.0.0.1:1"
        )

        assert process.wait(60) == 0
        assert other.poll() is None
        assert instance.stop(tmp_path, 60) is None


def test_a_process_that_goes_on_is_named(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(KeepstoneError, match=f"kill -9 {process.pid}"):
            instance.stop(tmp_path, 0.05)


def test_a_holder_of_another_machine_cannot_be_stopped(tmp_path: Path) -> None:
    hold = instance.take(tmp_path)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    (tmp_path / "run" / "lock").write_text(f'{{"pid": {gone.pid}}}')

    with pytest.raises(KeepstoneError, match="not one of this machine"):
        instance.stop(tmp_path, 1)
    (tmp_path / "run" / "lock").write_text("")
    with pytest.raises(KeepstoneError, match="without saying who"):
        instance.running(tmp_path)
    hold.release()


def test_who_only_looks_is_in_nobodys_way(tmp_path: Path) -> None:
    instance.take(tmp_path).release()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            instance.running(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(300):
            instance.take(tmp_path).release()
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
