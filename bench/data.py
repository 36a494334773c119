# SPDX-License-Identifier: Apache-2.0
"""The data that is backed up, made once in the benchmark's folder and recognised when it is there.

| set | what |
|---|---|
| image, image2 | an ext4 disk image of real files, and its second generation with about 2 % changed |
| tree | many small real files and some large ones, symbolic and hard links, extended attributes |
| source | several slightly different copies of the machine's source text |
| incompressible | random bytes |
| million | a million tiny files, made only when asked for |

A set is there when its facts are: they are written last. `python -m bench.data [--small] [--million]` makes all sets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from bench.image import first_generation, second_generation
from bench.material import Found, altered, by_chance, read, real_files, real_links
from bench.setup import bench_dir

__all__ = ["FULL", "SMALL", "Facts", "Scale", "ensure", "main"]

RECIPE = 1  # raise it when a set changes its shape
SMALL_FILE = 256 << 10  # bytes; Keepstone and its peers treat files up to here as one piece
SOURCE_KINDS = (".py", ".pyi", ".h", ".hpp", ".c", ".js", ".ts", ".md", ".rst", ".txt", ".json", ".xml", ".pl", ".pm")

Facts = dict[str, int]  # of one set: files, folders, bytes as read, bytes allocated, and what its maker adds


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the sets are: bytes, or numbers of files."""

    name: str
    image_content: int
    image_capacity: int
    tree_small_files: int
    tree_large_bytes: int
    source_files: int
    incompressible: int
    million: int


FULL = Scale(
    name="full", image_content=1640 << 20, image_capacity=3 << 30, tree_small_files=152_000,
    tree_large_bytes=1_000_000_000, source_files=50_000, incompressible=2 << 30, million=1_000_000,
)  # fmt: skip
SMALL = Scale(
    name="small", image_content=48 << 20, image_capacity=128 << 20, tree_small_files=3_000,
    tree_large_bytes=16_000_000, source_files=1_500, incompressible=32 << 20, million=10_000,
)  # fmt: skip


def ensure(name: str, scale: Scale) -> tuple[Path, Facts]:
    """The place of a set, a file or a folder, and its facts; the set is made where it is missing."""
    folder = bench_dir() / scale.name / "data"
    place, facts = folder / name, folder / f"{name}.json"
    if facts.exists():
        said: Facts = json.loads(facts.read_text())
        if said["recipe"] == RECIPE:
            return place, said
    folder.mkdir(parents=True, exist_ok=True)
    facts.unlink(missing_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    made = {"recipe": RECIPE} | MAKERS[name](place, scale)
    made |= _measured(place)
    facts.write_text(json.dumps(made, indent=1) + "\n")
    return place, made


def _image(place: Path, scale: Scale) -> Facts:
    """Both generations at once: the second is made of the same look at the machine's files as the first."""
    first_generation(place, scale.image_content, scale.image_capacity)
    return second_generation(place.with_name("image2"), place, scale.image_content)


def _image2(place: Path, scale: Scale) -> Facts:
    """What the first generation's maker left here."""
    if not place.exists():
        place.with_name("image.json").unlink(missing_ok=True)
    ensure("image", scale)
    return {}


def _tree(place: Path, scale: Scale) -> Facts:
    """Real small files, as often as it takes with every copy altered, a sample of the large ones, links, attributes."""
    files = list(real_files())
    small = [file for file in files if file.size <= SMALL_FILE]
    small = sorted(by_chance(small)[: scale.tree_small_files], key=_path)
    facts = {"hard_links": 0, "symbolic_links": 0, "attributes": 0}
    for number in range(scale.tree_small_files):
        copy, which = divmod(number, len(small))
        target = _put(place / str(copy), small[which], copy)
        if number % 250 == 0:
            os.setxattr(target, "user.origin", f"copy {copy}".encode())
            facts["attributes"] += 1
        if number % 400 == 0:
            os.link(target, target.with_name(target.name + ".link"))
            facts["hard_links"] += 1
    filled = 0
    for file in by_chance(file for file in files if SMALL_FILE < file.size <= scale.tree_large_bytes // 16):
        if filled >= scale.tree_large_bytes:
            break
        filled += file.size
        _put(place / "0", file, 0)
    for path, text in real_links():
        link = Path(f"{place}/0{path}")
        if link.parent.is_dir() and not link.is_symlink():
            link.symlink_to(text)
            facts["symbolic_links"] += 1
    return facts


def _source(place: Path, scale: Scale) -> Facts:
    """Copies of one source tree; in each later one every twentieth file is altered."""
    files = [f for f in real_files() if f.path.endswith(SOURCE_KINDS) and f.size <= 1 << 20]
    base = sorted(by_chance(files)[: scale.source_files // 4], key=_path)
    for number in range(scale.source_files):
        copy, which = divmod(number, len(base))
        _put(place / f"version-{copy}", base[which], copy if (which + copy) % 20 == 0 else 0)
    return {"versions": -(-scale.source_files // len(base))}


def _incompressible(place: Path, scale: Scale) -> Facts:
    stream = Cipher(AES(bytes(32)), CTR(bytes(16))).encryptor()
    piece = bytes(8 << 20)
    with place.open("wb") as out:
        for _ in range(scale.incompressible // len(piece)):
            out.write(stream.update(piece))
    return {}


def _million(place: Path, scale: Scale) -> Facts:
    for number in range(scale.million):
        folder = place / f"{number // 1000:04}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"file-{number % 1000:03}").write_bytes(b"record %d\n" % number * (1 + number % 4))
    return {}


MAKERS: dict[str, Callable[[Path, Scale], Facts]] = {
    "image": _image, "image2": _image2, "tree": _tree, "source": _source, "incompressible": _incompressible,
    "million": _million,
}  # fmt: skip


def _put(root: Path, file: Found, edit: int) -> Path:
    """Copy a file of the machine beneath the root, altered where `edit` is not 0; its times are kept."""
    target = Path(f"{root}{file.path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    data = read(file)
    target.write_bytes(altered(data, edit) if edit else data)
    shutil.copystat(file.path, target)
    target.chmod(target.stat().st_mode & 0o777)  # no copy of ours is to be a set-uid program
    return target


def _path(file: Found) -> str:
    return file.path


def _measured(place: Path) -> Facts:
    """Files, folders, bytes as read and bytes allocated; in bytes, a file with several names counts once."""
    facts = {"files": 0, "folders": 0, "bytes": 0, "allocated": 0}
    seen: set[int] = set()
    found = [str(place)] if place.is_file() else []
    for folder, _, names in os.walk(place):
        facts["folders"] += 1
        found += [f"{folder}/{name}" for name in names]
    for path in found:
        status = os.lstat(path)
        facts["files"] += 1
        if status.st_ino not in seen:
            facts["bytes"] += status.st_size
            facts["allocated"] += status.st_blocks * 512
        if status.st_nlink > 1:
            seen.add(status.st_ino)
    return facts


def main() -> None:
    """Make the sets and print their facts."""
    parser = argparse.ArgumentParser(prog="python -m bench.data", description="Make the data of the benchmark.")
    parser.add_argument("--small", action="store_true", help="a smoke test's sizes")
    parser.add_argument("--million", action="store_true", help="also the tree of a million files")
    parser.add_argument("set", nargs="*", help=f"only these: {', '.join(MAKERS)}")
    given = parser.parse_args()
    for name in given.set or [name for name in MAKERS if name != "million" or given.million]:
        print(name, json.dumps(ensure(name, SMALL if given.small else FULL)[1]), flush=True)


if __name__ == "__main__":
    main()
