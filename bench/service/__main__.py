# SPDX-License-Identifier: Apache-2.0
"""See the package."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import bench.service
from bench.service import minute, pages, portal, rate, sweep
from bench.service.estate import FULL, SMALL, copied
from bench.service.served import Served
from bench.setup import bench_dir

__all__ = ["main"]


def main() -> int:
    """See the package."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m bench.service", description=bench.service.__doc__, formatter_class=about
    )
    parser.add_argument("--small", action="store_true", help="1,000 items, 50,000 points, 50,000 jobs")
    parser.add_argument("parts", nargs="*", metavar="PART", help="only these, of: sweep, rate, portal, pages, minute")
    given = parser.parse_args()
    size = SMALL if given.small else FULL
    wanted = given.parts or ["sweep", "rate", "portal", "pages", "minute"]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        root = Path(folder) / "service"
        estate = copied(size, root)
        if "sweep" in wanted:
            figures |= sweep.measure(root, size)
        if {"pages", "portal", "rate"} & set(wanted):
            with Served(root, estate.who) as server:
                server.settle()
                if "rate" in wanted:
                    figures |= rate.measure(server, estate, 3 if given.small else 15)
                if "portal" in wanted:
                    figures |= portal.measure(server, estate, 20 if given.small else 100)
                if "pages" in wanted:  # after them: this one makes policies, which the others list
                    figures |= pages.measure(server, estate, 40 if given.small else 200)
        if "minute" in wanted:
            figures |= minute.measure(root, estate, 100 if given.small else 1000)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
