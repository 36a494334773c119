# SPDX-License-Identifier: Apache-2.0
"""A domain is backed up while it runs, whole and by what changed, and every disk comes back to the byte."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keepstone.workloads.machines import Level
from tests.libvirt.yard import Yard, oracle, same

pytestmark = pytest.mark.vm

_MIB = 1 << 20


def test_what_changed_makes_the_whole_of_the_same_moment(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = yard.little
    writing = "while [ ! -f /run/stop ]; do dd if=/dev/urandom of=/a/busy bs=64k count=32 2>/dev/null; sync; done"
    little.sh(f"rm -f /run/stop; {writing}", wait=False)
    with oracle(monkeypatch, tmp_path / "copies1") as copies:
        full = yard.backup(full=True)
    same(yard.restore(full, tmp_path / "one"), copies)

    little.sh("dd if=/dev/urandom of=/a/old bs=64k seek=100 count=16 conv=notrunc 2>/dev/null; sync")
    with oracle(monkeypatch, tmp_path / "copies2") as copies:
        changed = yard.backup()
    little.sh("touch /run/stop")
    restored = yard.restore(changed, tmp_path / "two")

    same(restored, copies)
    assert full.report.read > 40 * _MIB
    assert changed.report.read < 16 * _MIB
    assert changed.warnings == [
        "vdb is read in full: its image is raw, and keeps no record of what changed on it; a qcow2 image would"
    ]
    about = changed.machine.about
    assert about.consistency.level is Level.APPLICATION
    assert 0 < about.consistency.frozen < 3 * 10**9  # a tenth of that, where nobody else has the processors
    for disk in restored.values():
        # Frozen and thawed in between, so there is nothing in the journal either.
        assert subprocess.run(["e2fsck", "-fn", disk], check=False, capture_output=True).returncode == 0
    assert changed.tokens.keys() == {"vda"}
    assert yard.left() == changed.checkpoints
    assert yard.store.verify(deep=True).ok
