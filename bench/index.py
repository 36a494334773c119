# SPDX-License-Identifier: Apache-2.0
"""The chunk index at scale: 100 million synthetic ids, in the segments that the product writes.

    python -m bench.index [--small]

Ten segments of a tenth each are written as backups would, merged into one as the product does, mapped, and asked in
batches of 64 (a segment of a disk) and of 1,000: half of the ids are there. Private memory is what the process
holds beside mapped files. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.setup import bench_dir
from keepstone.env import Env
from keepstone.store.segment import Segment, merge_segments, read_segment, write_segment

_PACK_CHUNKS = 128
_PARTS = 10


def _prefixes(part: int, rows: int) -> npt.NDArray[np.uint64]:
    """Random ids, as a keyed hash makes them; the same for the same part."""
    return np.random.default_rng(part).integers(0, 2**64, rows, dtype=np.uint64)


def _private() -> int:
    """Bytes of this process that no file backs."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    return 0


def _rate(segment: Segment, present: npt.NDArray[np.uint64], batch: int, count: int) -> float:
    """Lookups per CPU second; half of them find something."""
    wanted = np.concatenate((present[: count // 2], _prefixes(_PARTS + batch, count // 2)))
    np.random.default_rng(7).shuffle(wanted)
    found = 0
    begin = time.process_time()
    for at in range(0, len(wanted), batch):
        found += len(segment.find(wanted[at : at + batch].data))
    spent = time.process_time() - begin
    if found < count // 2:
        raise SystemExit(f"{found} of {count // 2} ids were found: the index lost some")
    return len(wanted) / spent


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a hundredth of the ids")
    rows = (1_000_000 if parser.parse_args().small else 100_000_000) // _PARTS
    env = Env()
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        begin = time.process_time()
        paths = []
        for part in range(_PARTS):
            packs = [part.to_bytes(16, "big") + pack.to_bytes(16, "big") for pack in range(-(-rows // _PACK_CHUNKS))]
            numbers = np.arange(rows, dtype=np.uint64)
            place = (numbers // np.uint64(_PACK_CHUNKS)) << np.uint64(32) | numbers % np.uint64(_PACK_CHUNKS)
            prefix = _prefixes(part, rows)
            order = np.argsort(prefix)
            paths.append(f"{folder}/{part}.segment")
            write_segment(env, paths[-1], packs, rows, [(prefix[order].data, place[order].data)])
            del packs, numbers, place, prefix, order
        built = time.process_time() - begin
        begin = time.process_time()
        parts = [segment for path in paths if (segment := read_segment(env, path)) is not None]
        merged = f"{folder}/merged.segment"
        packs, total, columns = merge_segments(parts, set())
        write_segment(env, merged, packs, total, columns)
        merging = time.process_time() - begin
        size = Path(merged).stat().st_size
        del parts, packs, columns
        segment = read_segment(env, merged)
        if segment is None or len(segment) != total:
            raise SystemExit("the merged segment cannot be read")
        present = np.concatenate([_prefixes(part, rows)[:50_000].copy() for part in range(_PARTS)])
        count = min(len(present) * 2, 1_000_000)
        np.random.default_rng(3).shuffle(present)
        rates = {batch: _rate(segment, present, batch, count) for batch in (64, 1000)}
        result = {
            "ids": total,
            "build_cpu_s": round(built, 2),
            "merge_cpu_s": round(merging, 2),
            "disk_bytes": size,
            "private_bytes": _private(),
            "lookups_per_cpu_s": round(rates[64]),
            "lookups_per_cpu_s_batch_1000": round(rates[1000]),
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
