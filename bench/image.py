# SPDX-License-Identifier: Apache-2.0
"""An ext4 disk image full of real files, and its second generation after a day in a real system's life.

No root is needed: `mkfs.ext4 -d` fills the image, `debugfs -w` changes it. The changes are those of a package upgrade
(whole folders: new versions are written first and then take the old names, as dpkg does), of new and deleted files,
and of databases and logs that are rewritten in place, 4 to 512 KiB at a time. Both generations pass `e2fsck -fn`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.material import Found, altered, by_chance, read, real_files

__all__ = ["first_generation", "second_generation"]

BLOCK = 4096
LARGEST = 64 << 20  # bytes; no single file may make out the image
PLAIN = re.compile(r"[A-Za-z0-9._+/-]+")  # names that debugfs takes without quotes
ENVIRONMENT = {
    **os.environ,
    "E2FSPROGS_FAKE_TIME": "1700000000",
    "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
    "DEBUGFS_PAGER": "cat",
}
UUID = "6b656570-7374-6f6e-6521-62656e636821"
UPGRADED, NEW, DELETED, REWRITTEN = 0.010, 0.004, 0.002, 0.005  # shares of the content


def first_generation(image: Path, content: int, capacity: int) -> None:
    """Make the image: a file system of `capacity` bytes that holds `content` bytes of this machine's files."""
    stage = image.with_suffix(".stage")
    shutil.rmtree(stage, ignore_errors=True)
    for file in _chosen(content)[0]:
        target = Path(f"{stage}{file.path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.path, target)
    image.unlink(missing_ok=True)
    with image.open("wb") as empty:
        empty.truncate(capacity)
    _run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-U", UUID, "-E", f"hash_seed={UUID}", "-d", str(stage), str(image))
    shutil.rmtree(stage)
    _run("e2fsck", "-fn", str(image))


def second_generation(image: Path, first: Path, content: int) -> dict[str, int]:
    """Make the changed image beside the first one, its holes kept, and say how much was changed, in bytes and files."""
    _run("cp", "--sparse=auto", str(first), str(image))
    present, others = _chosen(content)
    fresh = iter([file for file in others if 0 < file.size <= 1 << 20])
    kept, upgraded = _whole_folders(present, int(content * UPGRADED))
    kept, deleted = _whole_folders(kept, int(content * DELETED))
    stage = image.with_suffix(".stage")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    changes, new = _changes(stage, upgraded, deleted, fresh, int(content * NEW))
    script = stage / "script"
    script.write_text("\n".join(changes) + "\n")
    _debugfs(image, "-w", "-f", str(script))
    shutil.rmtree(stage)
    rewritten = _rewrite_in_place(image, kept, next(f for f in others if f.size > 8 << 20 or f is others[-1]), content)
    _run("e2fsck", "-fn", str(image))
    return {
        "upgraded_files": len(upgraded), "upgraded_bytes": _size(upgraded),
        "new_files": len(new), "new_bytes": _size(new),
        "deleted_files": len(deleted), "deleted_bytes": _size(deleted),
        "rewritten_places": len(rewritten), "rewritten_bytes": sum(rewritten),
    }  # fmt: skip


def _chosen(content: int) -> tuple[list[Found], list[Found]]:
    """A fair sample of the machine's files that fills `content` bytes of blocks, and the files that are left."""
    files = by_chance(f for f in real_files() if f.size <= min(LARGEST, content // 8) and PLAIN.fullmatch(f.path))
    filled = 0
    for count, file in enumerate(files):
        filled += -(-file.size // BLOCK) * BLOCK
        if filled >= content:
            return files[: count + 1], files[count + 1 :]
    raise LookupError(f"this machine has only {filled} bytes of files for an image of {content}; make it smaller")


def _whole_folders(files: Sequence[Found], wanted: int) -> tuple[list[Found], list[Found]]:
    """What is left, and a fair sample of whole folders that has `wanted` bytes; no file above 1 MiB is among them."""
    folders: dict[str, list[Found]] = defaultdict(list)
    for file in files:
        if file.size <= 1 << 20:
            folders[os.path.dirname(file.path)].append(file)
    taken: list[Found] = []
    for folder in by_chance(Found(name, 0) for name in folders):
        if _size(taken) >= wanted:
            break
        taken += folders[folder.path]
    gone = {file.path for file in taken}
    return [file for file in files if file.path not in gone], taken


def _changes(
    stage: Path, upgraded: Sequence[Found], deleted: Sequence[Found], fresh: Iterator[Found], new_bytes: int
) -> tuple[list[str], list[Found]]:
    """The commands for debugfs, the new contents being written to the stage; and which files were added."""
    lines: list[str] = []
    for number, file in enumerate(upgraded):
        content = stage / str(number)
        content.write_bytes(altered(read(file), number) if number % 2 else read(next(fresh)))
        lines += [f"cd {os.path.dirname(file.path)}", f"write {content} {os.path.basename(file.path)}.new"]
    for file in upgraded:
        lines += [f"rm {file.path}", f"ln {file.path}.new {file.path}", f"unlink {file.path}.new"]
    added: list[Found] = []
    lines += ["cd /", "mkdir new", "cd /new"]
    while _size(added) < new_bytes:
        added.append(next(fresh))
        lines.append(f"write {added[-1].path} {len(added)}")
    return [*lines, *(f"rm {file.path}" for file in deleted)], added


def _rewrite_in_place(image: Path, kept: Sequence[Found], source: Found, content: int) -> list[int]:
    """Overwrite runs of 1 to 128 blocks within larger files with other real bytes; the length of each run in bytes."""
    chance = random.Random(2)
    foreign = read(source)
    large = [file for file in kept if file.size >= min(1 << 20, content // 256)]
    done: list[int] = []
    with image.open("r+b") as disk:
        while sum(done) < content * REWRITTEN:
            file = chance.choice(large)
            blocks = [int(b) for b in _debugfs(image, "-R", f"blocks {file.path}").split()]
            length = min(2 ** chance.randrange(8), file.size // BLOCK)
            start = chance.randrange(file.size // BLOCK - length + 1)
            taken = chance.randrange(max(1, len(foreign) - length * BLOCK))
            for number, block in enumerate(blocks[start : start + length]):
                piece = foreign[taken + number * BLOCK :][:BLOCK]
                disk.seek(block * BLOCK)
                disk.write(piece)
            done.append(length * BLOCK)
    return done


def _size(files: Sequence[Found]) -> int:
    return sum(file.size for file in files)


def _debugfs(image: Path, *arguments: str) -> str:
    """Let debugfs work on the image. It ends with 0 whatever happens, so its complaints are looked for."""
    ended = subprocess.run(
        ["debugfs", *arguments, str(image)], check=True, capture_output=True, text=True, env=ENVIRONMENT
    )
    complaints = [line for line in ended.stderr.splitlines() if not re.match(r"debugfs \d", line)]
    if complaints:
        raise RuntimeError(f"debugfs on {image.name}: {complaints[0]} ({len(complaints)} complaints)")
    return ended.stdout


def _run(*command: str) -> str:
    """Run a tool of e2fsprogs; its standard output. CalledProcessError where it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout
