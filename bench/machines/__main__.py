# SPDX-License-Identifier: Apache-2.0
"""See the package."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import bench.machines
from bench.data import FULL, SMALL
from bench.machines import booting, files, reading, restoring, scattered
from bench.measure import Failed
from bench.setup import bench_dir

__all__ = ["main"]

PARTS = {
    "scattered": scattered.measure_all,
    "reading": reading.measure_all,
    "restoring": restoring.measure_all,
    "files": files.measure_all,
    "booting": booting.measure_all,
}


def main() -> int:
    """See the package."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bench.machines", description=bench.machines.__doc__, formatter_class=about
    )
    parser.add_argument("--small", action="store_true", help="small disks")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these, of: {', '.join(PARTS)}")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    scale = SMALL if given.small else FULL
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        for name in given.parts or PARTS:
            place = Path(folder) / name
            place.mkdir()
            try:
                figures |= PARTS[name](place, scale)
                shutil.rmtree(place)
            except (Failed, pytest.skip.Exception) as missing:  # the second is how the tests' guests say what they need
                print(f"{name}: {missing}", file=sys.stderr)
                return 1
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
