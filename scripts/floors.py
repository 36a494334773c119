# SPDX-License-Identifier: Apache-2.0
"""The floors in docs/PERFORMANCE.md: what the machine's own primitives would cost for the work of each job.

    python scripts/floors.py

Measures the calls that the product makes (hash, cut, compress, seal, open, expand, look at a file, read one, make one)
on one thread over the data of the benchmark, and adds up for every job what it cannot do without. What was measured for
the job stands beside it, out of bench/results.json.

Leave a virtual machine alone for six minutes before, as the benchmark does: right after gigabytes were deleted it made
2,700 and 11,500 files a CPU second, and 23,400 later. So between two runs of this as well, which deletes what it made.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from marked import ROOT, settle

from keepstone.crypto import Blake3Hashing, BlockMac, open_frame, seal_frame
from keepstone.store import DISK_CHUNK, cut_file
from keepstone.store.frame import DEFAULT_LEVEL, FRAME_LIMIT, expand, make_frame

sys.path.insert(0, str(ROOT))

from bench.setup import bench_dir
from bench.table import RESULTS, WORDS

__all__ = ["floors", "main", "measure"]

PAGE = ROOT / "docs" / "PERFORMANCE.md"
SAMPLE = 128  # blocks of the image, each as long as a frame
FILES = 20_000  # of the tree
ROUNDS = 3
RATES = {
    "hash": "BLAKE3, keyed, per chunk of 256 KiB",
    "hash again": "the same of what was just decompressed: it is in the core's own cache",
    "code": "GMAC, per chunk of 256 KiB",
    "cut": "FastCDC 256 KiB / 1 MiB / 4 MiB",
    "compress": f"compress, by default, {FRAME_LIMIT / 2**20:g} MiB, with the digest of the frame",
    "compress random": "the same of random bytes, then stored as they are",
    "seal": "AES-256-GCM, seal",
    "open": "AES-256-GCM, open",
    "expand": "decompress",
    "look": "scandir and lstat, entries",
    "read": "open, fstat, read, close a small file, files",
    "make": "create, write, set mode and times, close a small file, files",
}
COUNTED = ("look", "read", "make")

T = TypeVar("T")
Rates = dict[str, float]  # bytes, or entries, per CPU second


def _rate(amount: float, items: Sequence[T], work: Callable[[T], object]) -> float:
    """`amount` divided by the CPU seconds of `work` on all items, the best of some rounds. What one makes is let go of
    before the next: memory that is new costs more than most of these calls."""
    spent = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for item in items:
            work(item)
        spent.append(time.process_time() - begin)
    return amount / min(spent)


def measure(image: Path, tree: Path) -> Rates:
    """The rates of this machine."""
    blocks = _blocks(image)
    size = len(blocks) * FRAME_LIMIT
    hashing, key, data = Blake3Hashing(), bytes(32), memoryview(bytearray(FRAME_LIMIT))
    room = memoryview(bytearray(2 * FRAME_LIMIT))
    random = [os.urandom(FRAME_LIMIT) for _ in range(16)]
    frames = [make_frame(hashing, DEFAULT_LEVEL, block, [], []) for block in blocks]
    stored = sum(len(frame.payload) for frame in frames)
    sealed = []
    for frame in frames:
        whole = bytearray(len(frame.payload) + 16)
        seal_frame(key, frame.payload, b"", memoryview(whole))
        sealed.append(whole)
    large = memoryview(b"".join(blocks[:64]))
    chunks = [memoryview(block)[at : at + DISK_CHUNK] for block in blocks for at in range(0, FRAME_LIMIT, DISK_CHUNK)]
    again = [data[at : at + DISK_CHUNK] for at in range(0, FRAME_LIMIT, DISK_CHUNK)] * len(blocks)
    mac = BlockMac(key)
    names = list(islice(_files(tree), FILES))
    return {
        "hash": _rate(size, chunks, lambda chunk: hashing.keyed(key, chunk)),
        "hash again": _rate(size, again, lambda chunk: hashing.keyed(key, chunk)),
        "code": _rate(size, chunks, lambda chunk: mac.of(0, chunk)),
        "cut": _rate(len(large), [large], lambda whole: cut_file(whole, True)),
        "compress": _rate(size, blocks, lambda block: make_frame(hashing, DEFAULT_LEVEL, block, [], [])),
        "compress random": _rate(
            len(random) * FRAME_LIMIT, random, lambda block: make_frame(hashing, DEFAULT_LEVEL, block, [], [])
        ),
        "seal": _rate(stored, frames, lambda f: seal_frame(key, f.payload, b"", room[: len(f.payload) + 16])),
        "open": _rate(stored, sealed, lambda whole: open_frame(key, whole, b"", room[: len(whole) - 16])),
        "expand": _rate(size, frames, lambda frame: expand(frame.payload, frame.codec, frame.raw_length, into=data)),
        "look": _rate(sum(1 for _ in _entries(tree)), [tree], lambda tree: sum(1 for _ in _entries(tree))),
        "read": _rate(len(names), names, _read),
        "make": _made(names[: FILES // 4]),
    }


def _blocks(image: Path) -> list[bytes]:
    """Blocks from all over the image, without those of zeros."""
    with image.open("rb") as disk:
        count = image.stat().st_size // FRAME_LIMIT
        found = []
        for number in range(0, count, max(1, count // (2 * SAMPLE))):
            disk.seek(number * FRAME_LIMIT)
            block = disk.read(FRAME_LIMIT)
            if block.strip(b"\0"):
                found.append(block)
    return found[:SAMPLE]


def _entries(tree: Path) -> Iterable[os.stat_result]:
    for folder, _, names in os.walk(tree):
        for name in names:
            yield os.lstat(f"{folder}/{name}")


def _files(tree: Path) -> Iterable[str]:
    for folder, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(f"{folder}/{name}")
            if stat.S_ISREG(status.st_mode) and status.st_size < DISK_CHUNK:
                yield f"{folder}/{name}"


def _read(name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    os.fstat(fd)
    os.read(fd, DISK_CHUNK)
    os.close(fd)


def _made(names: list[str]) -> float:
    contents = [Path(name).read_bytes() for name in names]
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        begin = time.process_time()
        for number, content in enumerate(contents):
            fd = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(fd, content)
            os.fchmod(fd, 0o644)
            os.utime(fd, ns=(1, 1))
            os.close(fd)
        spent = time.process_time() - begin
    return len(names) / spent


def floors(rates: Rates, results: dict[str, Any]) -> dict[str, float]:
    """CPU seconds of each job that was measured, of its primitives alone."""
    found: dict[str, float] = {}

    def add(job: str, **amounts: float) -> None:
        if job in results["jobs"]:
            found[job] = sum(amount / rates[name.replace("_", " ")] for name, amount in amounts.items())

    def stored(job: str, figure: str = "stored_bytes") -> float:
        figures = results["jobs"].get(job, {}).get("keepstone", {})
        return float(figures[figure]["median"]) if figure in figures else 0.0

    data = results["data"]
    if "image" in data and stored("image-first"):
        disk, kept = data["image"]["allocated"], stored("image-first")
        added = stored("image-second", "added_bytes")
        back = {"open": kept, "expand": disk, "hash_again": disk}
        add("image-first", hash=disk, code=disk, compress=disk, seal=kept)
        changed = added * disk / kept
        add("image-second", code=data["image2"]["allocated"], hash=changed, compress=changed, seal=added)
        add("image-restore", **back)
        add("verify-image", **back)
    if "tree" in data and stored("tree-first"):
        files, size, kept = data["tree"]["files"], data["tree"]["bytes"], stored("tree-first")
        back = {"open": kept, "expand": size, "hash_again": size}
        add("tree-first", look=files, read=files, hash=size, compress=size, seal=kept)
        add("tree-unchanged", look=files)
        add("tree-restore", make=files, **back)
        add("verify-tree", **back)
    if "incompressible" in data:
        size = data["incompressible"]["bytes"]
        add("incompressible-first", cut=size, hash=size, compress_random=size, seal=size)
    return found


def _text(rates: Rates, results: dict[str, Any] | None) -> str:
    lines = ["| primitive, one thread | per CPU second |", "|---|---|"]
    for name, about in RATES.items():
        rate = f"{rates[name]:,.0f}" if name in COUNTED else f"{rates[name] / 1e9:.2f} GB"
        lines.append(f"| {about} | {rate} |")
    if results is not None:
        lines += ["", "| job | floor, CPU s | measured, CPU s | times the floor |", "|---|---|---|---|"]
        for job, floor in floors(rates, results).items():
            cpu = results["jobs"][job]["keepstone"]["cpu_s"]["median"]
            lines.append(f"| {WORDS[job]} | {floor:.2f} | {cpu:.2f} | {cpu / floor:.1f} |")
    return "\n".join(lines)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE, help="another page than docs/PERFORMANCE.md")
    given = parser.parse_args()
    data = bench_dir() / "full" / "data"
    if not (data / "image.json").exists() or not (data / "tree.json").exists():
        parser.error("the data of the benchmark is not there; run `make bench-setup`")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None
    text = _text(measure(data / "image", data / "tree"), results)
    return settle(given.page, "floors", text, check=False, again="python scripts/floors.py")


if __name__ == "__main__":
    sys.exit(main())
