# SPDX-License-Identifier: Apache-2.0
"""The process that reads tables can do nothing else, and what it says is believed in nothing."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pytest

from keepstone.disks import jail, open_disk
from keepstone.disks.layout import DATA, DEFLATED, PARENT, Layout, Link
from keepstone.env import Env
from keepstone.errors import SourceFailed, Unsupported

pytestmark = pytest.mark.vm


def put(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Another program in the jail."""
    monkeypatch.setattr(jail, "PROGRAM", (sys.executable, "-P", "-c", textwrap.dedent(body)))


def test_a_parser_that_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever took over the jail can make up a disk, and gets no byte from elsewhere."""
    (tmp_path / "disk.vhd").write_bytes(b"conectix" + bytes(1016))
    for place, kind in ((600, DATA), (-1, DATA), (0, PARENT), (1024, DEFLATED)):
        kinds, places = np.array([kind], np.uint8), np.array([place], np.int64)
        lie = Layout(512, np.array([0], np.int64), kinds, places, np.array([0], np.uint16))
        said = msgspec.msgpack.encode(jail.Answer([jail.packed(lie)]))
        put(monkeypatch, f"import os; os.write(1, {said!r})")
        with pytest.raises(SourceFailed, match=r"disk\.vhd: its? "):
            open_disk(Env(), tmp_path / "disk.vhd")


def ask(path: Path) -> list[Layout]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return jail.parsed(Env(), "vhd", [fd], 0)
    finally:
        os.close(fd)


CONFINED = """
import os, resource, socket, sys
import msgspec
from keepstone.disks.jail import Answer, confine
def attempt(name, work):
    try:
        work()
    except (OSError, MemoryError, RuntimeError) as error:
        return f"{name}: no"
    return f"{name}: yes"
file = int(sys.argv[2])
confine()
tried = [
    attempt("read", lambda: os.pread(file, 1, 0)),
    attempt("open", lambda: os.open("/dev/null", os.O_RDONLY)),
    attempt("socket", lambda: socket.socket()),
    attempt("fork", lambda: os._exit(0) if not os.fork() else None),
    attempt("memory", lambda: bytearray(4 << 30)),
    attempt("copy", lambda: os.dup(0)),
]
said = msgspec.msgpack.encode(Answer(wrong=", ".join(tried) + f"; {os.geteuid()}; {sorted(os.environ)}"))
os.write(1, said)
"""


def test_nothing_is_possible_but_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setenv("KEEPSTONE_PASSPHRASE", "secret")
    put(monkeypatch, CONFINED)
    with pytest.raises(SourceFailed) as caught:
        ask(tmp_path / "file")
    tried, user, names = str(caught.value).split("; ")

    assert tried == "read: yes, open: no, socket: no, fork: no, memory: no, copy: no"
    assert int(user) != 0
    assert "KEEPSTONE_PASSPHRASE" not in names


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "not read after 120 seconds of work"),
        ("import os; os.kill(os.getpid(), 11)", "cannot be made sense of"),
        ("raise SystemExit(1)", "cannot be made sense of"),
        ("import os; os.write(1, b'nonsense')", "cannot be made sense of"),
        ("import os, time; os.close(1); time.sleep(60)", "not read after"),
        ("import time; time.sleep(60)", "not read after"),
        ("import os\nwhile True: os.write(1, bytes(1 << 16))", "in more than"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass", "not read after"),
    ],
)
def test_a_parser_that_broke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(jail, "_PATIENCE", 2)
    monkeypatch.setattr(jail, "_MOST_ANSWER", 1 << 20)
    monkeypatch.setattr(jail, "_FAREWELL", 0.5)
    put(monkeypatch, body)
    with pytest.raises(SourceFailed, match=reason):
        ask(tmp_path / "file")


def test_what_it_says_comes_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    layout = Layout(
        10, np.array([0], np.int64), np.array([DATA], np.uint8), np.array([7], np.int64), np.array([0], np.uint16),
        5, "id", Link(("a", "b"), ("c",)),
    )  # fmt: skip
    said = msgspec.msgpack.encode(jail.Answer([jail.packed(layout)]))
    put(monkeypatch, f"import os; os.write(1, {said!r})")
    [found] = ask(tmp_path / "file")
    assert (found.size, found.starts.tolist(), found.kinds.tolist()) == (10, [0], [DATA])
    assert (found.places.tolist(), found.files.tolist(), found.unit, found.id) == ([7], [0], 5, "id")
    assert found.parent == layout.parent

    put(monkeypatch, f"import os; os.write(1, {msgspec.msgpack.encode(jail.Answer(unknown='new'))!r})")
    with pytest.raises(Unsupported, match="new"):
        ask(tmp_path / "file")
    put(monkeypatch, f"import os; os.write(1, {msgspec.msgpack.encode(jail.Answer())!r})")
    with pytest.raises(SourceFailed, match="could not be read"):
        ask(tmp_path / "file")
    odd = said.replace(b"\xc4\x08", b"\xc4\x07").replace(b"\x07\0\0\0\0\0\0\0", b"\x07\0\0\0\0\0\0")
    put(monkeypatch, f"import os; os.write(1, {odd!r})")
    with pytest.raises(SourceFailed, match="tables"):
        ask(tmp_path / "file")
