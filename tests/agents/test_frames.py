# SPDX-License-Identifier: Apache-2.0
"""Whose data comes in frames: that of a machine which brought all that there is in its vault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keepstone.crypto import hashing
from keepstone.remote.framed import Taker
from keepstone.remote.reader import RemoteReader
from keepstone.remote.service import HttpPoint
from keepstone.remote.veil import Plain
from keepstone.remote.wire import Fetch
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from tests.agents.living import Living, Machine

pytestmark = pytest.mark.agents


class Counting(HttpPoint):
    """How many chunks came in frames."""

    checked = 0

    def fetch(self, fetch: Fetch, taker: Taker) -> None:
        check = taker.check

        def counted(node: int, index: int, chunk: memoryview) -> None:
            assert check is not None
            self.checked += 1
            check(node, index, chunk)

        super().fetch(fetch, taker if check is None else replace(taker, check=counted))


def test_until_another_one_writes(living: Living, machine: Machine, source: Path, tmp_path: Path) -> None:
    with machine.running():
        machine.protect(source)
        machine.back_up(source)
    whole = {path.name: path.read_bytes() for path in source.rglob("*") if path.is_file()}

    assert restored(living, machine, source, tmp_path / "one") == (whole, True)

    other = living.machine("another")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "large").write_bytes((source / "large").read_bytes())
    with other.running():
        other.protect(mine)
        other.back_up(mine)
    assert restored(living, machine, source, tmp_path / "two") == (whole, False)
    assert restored(living, other, mine, tmp_path / "three") == ({"large": whole["large"]}, False)


def restored(living: Living, machine: Machine, item: Path, target: Path) -> tuple[dict[str, bytes], bool]:
    """(what is in a restore, whether it came in frames)."""
    wanted = ("--target", machine.restored / target.name, "--no-wait")
    job = living("restore", "files", "-c", machine.name, "-i", item, "latest", *wanted)["name"]
    one = machine.hand()
    try:
        work = one.take(job)
        point = Counting(one.calls, work.job, work.token)
        opened = point.open()
        veil = Plain(hashing(opened.hashing), opened.id_key)
        with RemoteReader(one.env, point, opened, veil) as reader:
            restore_files(one.env, reader, target, RestoreOptions(), Silent())
        one.end(work, "Failed")
        assert opened.frames is bool(point.checked)
        return {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}, bool(point.checked)
    finally:
        one.close()
