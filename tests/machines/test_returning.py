# SPDX-License-Identifier: Apache-2.0
"""`keepstone store restore` into machines that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import cli, made
from tests.cli.running import Cli
from tests.machines.guest import Guest, make_disk

__all__ = ["cli", "made"]

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("g")
    with Guest(folder, [("d0", make_disk(folder / "d0.qcow2", 48))]) as guest:
        yield guest


def test_files_and_then_the_whole(made: Cli, guest: Guest) -> None:
    guest.sh("mkdir -p /a/etc; echo one > /a/etc/which; chmod 640 /a/etc/which; echo 1 > /a/etc/other; sync")
    machine, agent = f"qemu:{guest.qmp}", ("--agent", guest.qga)
    first = made.backup("--machine", machine, *agent, "--fleece", made.path)
    guest.sh("echo two > /a/etc/which; rm /a/etc/other; sync")
    into = ("--into-guest", machine, *agent)

    ended = made("restore", first["id"], "disk0/0/etc", *into, code=1)
    assert "/a/etc/which is there in the guest; nothing was written" in ended.err
    assert guest.sh("ls /a/etc") == "which\n"
    restored = made("restore", first["id"], "/disk0/0/etc/other", *into, "--json").json
    assert (restored["files"], restored["bytes"], restored["failed"]) == (1, 2, [])
    said = made("restore", first["id"], "disk0/0/etc/which", *into, "--keep-both").out
    assert "restored into the guest of" in said
    assert "beside what was there: /a/etc/which.restored" in said
    guest.sh("mkdir /a/apart")
    made("restore", first["id"], "disk0/0/etc/which", *into, "--guest-target", "/a/apart")
    assert guest.sh(
        "cd /a; cat etc/which etc/which.restored etc/other apart/etc/which; stat -c %a apart/etc/which"
    ) == ("two\none\n1\none\n640\n")

    back = ("--machine", machine, "--in-place", "--fleece", made.path, "--yes")
    replaced = made("restore", first["id"], *back, *agent, "--json").json
    assert (replaced["running"], replaced["left"], [disk["name"] for disk in replaced["disks"]]) == (
        True,
        [],
        ["disk0"],
    )
    assert 0 < replaced["disks"][0]["written_bytes"] < 48 << 20
    safety = made.points()[-1]
    assert (safety["id"], safety["tags"], safety["item"]) == (replaced["safety_point"], ["safety"], machine)
    guest.again()
    assert guest.sh("cd /a/etc; grep . *; ls -d /a/apart || true") == (
        "other:1\nwhich:one\nls: /a/apart: No such file or directory\n"
    )

    said = made("restore", safety["id"], "disk0", *back, "--no-safety-point").out
    assert "the machine begins anew" in said
    assert len(made.points()) == 2
    guest.again()
    assert guest.sh("cat /a/etc/which; ls /a/apart") == "two\netc\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--machine", "qemu:/run/x"], "goes with --in-place"),
        (["--machine", "qemu:/run/x", "--in-place", "--target", "/x"], "goes with --in-place and names of disks alone"),
        (["--machine", "qemu:/run/x", "--in-place", "--overwrite"], "goes with --in-place and names of disks alone"),
        (["--machine", "vm1", "--in-place"], "give qemu: and the path"),
        (["--into-guest", "qemu:/run/x", "--in-place"], "--into-guest takes paths"),
        (["--into-guest", "qemu:/run/x", "--machine", "qemu:/run/x", "--in-place"], "goes with --in-place"),
        (["--target", "/x", "--agent", "/run/x"], "are about a machine"),
        (["--machine", "qemu:/run/x", "--in-place"], "is of no machine"),
        (["--into-guest", "qemu:/run/x", "--agent", "/run/y"], "the point is of files"),
    ],
)
def test_wrong_usage(made: Cli, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "folder").mkdir()
    made.backup(tmp_path / "folder")
    assert said in made("restore", "latest", *arguments, code=2).err


def test_a_point_of_a_disk(made: Cli, guest: Guest, tmp_path: Path) -> None:
    """Where its volumes are mounted nobody knows."""
    image = make_disk(tmp_path / "x.raw", 8, "raw")
    made.backup(image)
    into = ("--into-guest", f"qemu:{guest.qmp}")
    assert "say by --guest-target" in made("restore latest 0/lost+found", *into, "--agent", guest.qga, code=2).err
    assert "name its socket by --agent" in made("restore latest 0/lost+found", *into, code=2).err
    guest.sh("mkdir /run/at")
    made("restore latest 0/lost+found", *into, "--agent", guest.qga, "--guest-target", "/run/at")
    assert guest.sh("ls /run/at") == "lost+found\n"
