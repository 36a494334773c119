# SPDX-License-Identifier: Apache-2.0
"""`keepstone store ls` and `mount`: looking into points without restoring them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Cli, noise
from tests.unit.mount.mounting import mounts, needs_fuse

pytestmark = pytest.mark.store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "inner" / "deep").mkdir(parents=True)
    (root / "small").write_bytes(b"small")
    (root / "inner" / "large").write_bytes(noise(12_000_000))
    (root / "inner" / "line\nbreak").write_bytes(b"x")
    os.symlink("../small\\\udcff", root / "inner" / "link")
    return root


def test_ls_lists_a_directory(made: Cli, tree: Path) -> None:
    point = made.backup(tree)

    shown = made("ls", "latest", "--json").json
    assert (shown["point"], shown["item"]) == (point["id"], str(tree))
    assert [(entry["path"], entry["kind"]) for entry in shown["entries"]] == [("inner", "directory"), ("small", "file")]
    inner = {entry["path"]: entry for entry in made("ls", point["short"], "inner", "--json").json["entries"]}
    assert list(inner) == ["inner/deep", "inner/large", "inner/line\\nbreak", "inner/link"]
    assert inner["inner/large"]["size"] == 12_000_000
    assert inner["inner/link"]["target"] == "../small\\\\\\xff"
    for path in ("inner/line\\nbreak", "inner/line\nbreak", f"{tree}/inner/line\nbreak"):
        (entry,) = made("ls", "latest", path, "--json").json["entries"]
        assert (entry["path"], entry["size"]) == ("inner/line\\nbreak", 1)
    lines = made("ls", "latest", "/inner/").out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("-rw")
    assert lines[1].endswith("inner/large")
    assert lines[3].endswith("inner/link -> ../small\\\\\\xff")
    assert made("ls", "latest", "inner/deep").out == ""
    assert made("ls", "latest", "none", "--json", code=3).error == "ResourceNotFound"
    assert made("ls", "latest", "small/x", "--json", code=2).error == "BadRequest"


def test_ls_of_a_disk_shows_its_image(made: Cli) -> None:
    made.backup("--image", made.disk())

    (entry,) = made("ls", "latest", "--json").json["entries"]
    assert (entry["path"], entry["kind"], entry["size"]) == ("disk.img", "file", 700_001)
    made("ls", "latest", "disk.img")
    made("ls", "latest", "other", code=3)


@contextlib.contextmanager
def mounting(cli: Cli, where: Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, once it has mounted the newest point."""
    where.mkdir()
    code = "import sys; from keepstone.cli import main; sys.exit(main())"
    command = ["store", "mount", "--store", str(cli.store), "latest", str(where), "--json-progress"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            event = line(process)
            assert (event["event"], event["directory"]) == ("mounted", str(where))
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=60)


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the process says next."""
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


@needs_fuse
@pytest.mark.parametrize("end", ["interrupt", "terminate", "umount"])
def test_a_mount_lives_until_it_is_ended(made: Cli, tree: Path, end: str) -> None:
    point = made.backup(tree)
    where = made.path / "mounted"
    with mounting(made, where) as process:
        subprocess.run(["diff", "-r", "--no-dereference", tree, where], check=True)
        if end == "umount":
            subprocess.run(["umount", where], check=True)
        else:
            process.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"`umount {where}`" in err
    assert json.loads(out) == {"point": point["id"], "item": str(tree), "directory": str(where)}
    assert not mounts(where)


@needs_fuse
def test_what_is_damaged_is_told_and_makes_the_end_a_warning(made: Cli, tree: Path) -> None:
    made.backup(tree)
    pack = made.packs()[0]
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 8)  # of the large file, which comes first
        file.write(b"damage")
    where = made.path / "mounted"
    with mounting(made, where) as process:
        with pytest.raises(OSError, match="Input/output"):
            (where / "inner" / "large").read_bytes()
        assert (where / "small").read_bytes() == b"small"
        warning = line(process)
        assert (warning["event"], warning["path"]) == ("warning", "inner/large")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 4


def test_mounting_over_something_is_refused(made: Cli, tree: Path) -> None:
    made.backup(tree)

    assert "empty" in made("mount", "latest", tree, code=2).err
    assert "mkdir" in made("mount", "latest", made.path / "none", code=2).err
    made("mount", "nothing", tree, code=3)
