# SPDX-License-Identifier: Apache-2.0
"""What the quickstart backs up: a folder and a disk image of this machine's own files, and a day's changes to both.

Copies are made of real files, as many as a budget of bytes allows. The folder also gets what backups are bad at: hard
links, holes, a pipe, extended attributes, names that are no text. The image is an ext4 file system that `mkfs.ext4 -d`
fills and `debugfs -w` changes, without root; where e2fsprogs is missing, the files lie one after the other in it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["change_folder", "change_image", "has_ext4", "make_folder", "make_image"]

BLOCK = 4096
LARGEST = 32 << 20  # bytes; no single file may make out a sample
PLAIN = re.compile(r"[A-Za-z0-9._+/-]+")  # names that debugfs takes without quotes
TOOLS = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "DEBUGFS_PAGER": "cat"}


def make_folder(folder: Path, size: int) -> None:
    """A tree of about `size` bytes: Python's library, documents and data of the system, and some odd entries."""
    paths = sysconfig.get_paths()
    left = _gather(folder, [paths["stdlib"], "/usr/share", paths["purelib"]], size, most=4_000)
    _gather(folder, [paths["purelib"], "/usr/share", "/usr/lib", "/usr/bin"], left, least=256 << 10)
    odd = folder / "odd"
    (odd / "empty folder").mkdir(parents=True)
    (odd / "first name").write_bytes(b"one file, two names\n")
    (odd / "second name").hardlink_to(odd / "first name")
    (odd / "link to nowhere").symlink_to("../not/there")
    os.mkfifo(odd / "pipe")
    Path(os.fsdecode(bytes(odd) + b"/not \xff text")).write_bytes(b"a name that is not UTF-8\n")
    with (odd / "mostly a hole").open("wb") as sparse:
        sparse.write(b"beginning")
        sparse.seek(8 << 20)
        sparse.write(b"end")
    (odd / "private").write_bytes(b"for its owner\n")
    (odd / "private").chmod(0o600)
    os.utime(odd / "private", ns=(1, 1_234_567_890_123_456_789))
    with suppress(OSError):  # not every file system has them
        os.setxattr(odd / "first name", "user.origin", b"quickstart")


def change_folder(folder: Path) -> None:
    """About two per cent: files edited, added, renamed and removed, a mode, a link and an attribute changed."""
    files = _regular(folder)
    for number, path in enumerate(files[::50]):
        _edit(path, number)
    for path in [path for path in files if path.stat().st_size < 1 << 20][7::200]:
        path.unlink()
    new = folder / "new"
    new.mkdir()
    for number in range(10):
        (new / f"{number}.bin").write_bytes(random.Random(number).randbytes(64 << 10))
    odd = folder / "odd"
    (odd / "private").rename(new / "private")
    (odd / "empty folder").chmod(0o750)
    (odd / "link to nowhere").unlink()
    (odd / "link to nowhere").symlink_to("somewhere else")
    (odd / "third name").hardlink_to(odd / "first name")
    with suppress(OSError):
        os.setxattr(odd / "first name", "user.origin", b"changed")


def has_ext4() -> bool:
    """Whether e2fsprogs is here."""
    return all(shutil.which(tool, path=TOOLS["PATH"]) for tool in ("mkfs.ext4", "debugfs", "e2fsck"))


def make_image(image: Path, stage: Path, size: int) -> None:
    """A disk with about `size` bytes of this machine's programs and libraries, a fifth of it free.

    `stage` is a new folder, needed again by `change_image`.
    """
    _gather(stage, ["/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share", sysconfig.get_paths()["stdlib"]], size)
    with image.open("wb") as disk:
        disk.truncate(size * 6 // 5 + (32 << 20))
        if not has_ext4():
            for path in _regular(stage):
                disk.write(path.read_bytes())
                disk.seek(-disk.tell() % BLOCK, os.SEEK_CUR)
    if has_ext4():
        _run("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-d", str(stage), str(image))
        _run("e2fsck", "-fn", str(image))


def change_image(image: Path, stage: Path) -> None:
    """About two per cent: programs replaced and removed, new files, and blocks of a file rewritten in place."""
    files = [path for path in _regular(stage) if PLAIN.fullmatch(str(path))]
    large = max(files, key=lambda path: path.stat().st_size)
    if not has_ext4():
        _overwrite(image, range(0, image.stat().st_size // BLOCK, 1009))
        return
    lines = ["mkdir /new"]
    for number, path in enumerate(files[::60]):
        inside = path.relative_to(stage)
        _edit(path, number)
        lines += [f"rm /{inside}", f"cd /{inside.parent}", f"write {path} {path.name}", "cd /new"]
        lines += [f"write {path} {number}"] if number % 2 else []
    lines += [f"rm /{path.relative_to(stage)}" for path in files[7::200] if path != large]
    script = stage / "changes"
    script.write_text("\n".join(lines) + "\n")
    _debugfs(image, "-w", "-f", str(script))
    blocks = [int(block) for block in _debugfs(image, "-R", f"blocks /{large.relative_to(stage)}").split()]
    _overwrite(image, [block for start in range(0, len(blocks), 512) for block in blocks[start : start + 16]])
    _run("e2fsck", "-fn", str(image))


def _gather(target: Path, roots: list[str], size: int, *, most: int = 5_000, least: int = 0) -> int:
    """Copy files and links, or files of `least` bytes or more, beneath `target`, each at its path, until it is enough.

    How many of `size` bytes there was nothing for.
    """
    for path, status in (found for root in roots for found in _entries(root)):
        copy = Path(f"{target}{path}")
        if size <= 0 or most <= 0:
            break
        if copy.exists() or copy.is_symlink():
            continue
        if stat.S_ISLNK(status.st_mode) and not least:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(os.readlink(path))
            most -= 1
        elif stat.S_ISREG(status.st_mode) and least <= status.st_size <= LARGEST and os.access(path, os.R_OK):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copy.chmod(status.st_mode & 0o777)  # no copy of ours is to be a set-uid program
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            size -= status.st_size
            most -= 1
    return max(size, 0)


def _entries(root: str) -> Iterator[tuple[str, os.stat_result]]:
    root = os.path.realpath(root)
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name != "__pycache__")
        for name in sorted(names):
            with suppress(FileNotFoundError):
                yield f"{folder}/{name}", os.lstat(f"{folder}/{name}")


def _regular(folder: Path) -> list[Path]:
    """The regular files of a tree with content, in order."""
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if stat.S_ISREG(path.lstat().st_mode) and 0 < path.stat().st_size <= LARGEST)


def _edit(path: Path, seed: int) -> None:
    """Insert some bytes and overwrite some, as an editor or a new version would."""
    data = bytearray(path.read_bytes())
    chance = random.Random(seed)
    at = chance.randrange(len(data))
    data[at:at] = chance.randbytes(100)
    data[: min(len(data), 16)] = chance.randbytes(16)
    path.chmod(path.stat().st_mode | stat.S_IWUSR)
    path.write_bytes(data)


def _overwrite(image: Path, blocks: Iterable[int]) -> None:
    """Fill these blocks with other bytes, as a database does with its pages."""
    with image.open("r+b") as disk:
        for block in blocks:
            disk.seek(block * BLOCK)
            disk.write(random.Random(block).randbytes(BLOCK))


def _debugfs(image: Path, *arguments: str) -> str:
    """What debugfs says. It ends with 0 whatever happens, so its complaints are looked for: RuntimeError."""
    done = subprocess.run(["debugfs", *arguments, str(image)], check=True, capture_output=True, text=True, env=TOOLS)
    complaints = [line for line in done.stderr.splitlines() if not re.match(r"debugfs \d", line)]
    if complaints:
        raise RuntimeError(f"debugfs on {image}: {complaints[0]}")
    return done.stdout


def _run(*command: str) -> None:
    """Run a tool of e2fsprogs; RuntimeError with its words where it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=TOOLS)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
