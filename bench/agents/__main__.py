# SPDX-License-Identifier: Apache-2.0
"""See the package."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import bench.agents
from bench.agents import idle, journey, uploads
from bench.data import FULL, SMALL
from bench.setup import bench_dir

__all__ = ["main"]


def main() -> int:
    """See the package."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bench.agents", description=bench.agents.__doc__, formatter_class=about
    )
    parser.add_argument("--small", action="store_true", help="small data, 500 agents, 50 uploads")
    parser.add_argument("parts", nargs="*", metavar="PART", help="only these, of: idle, uploads, journey, million")
    given = parser.parse_args()
    wanted = given.parts or ["idle", "uploads", "journey", "million"]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        place = Path(folder)
        if "idle" in wanted:
            figures |= idle.measure(place / "idle", 500 if given.small else 10_000, 5.0 if given.small else 50.0)
        if "uploads" in wanted:
            figures |= uploads.measure(place / "uploads", 50 if given.small else 500)
        if "journey" in wanted:
            scale = SMALL if given.small else FULL
            figures |= journey.measure_all(place / "journey", scale, million="million" in wanted)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
