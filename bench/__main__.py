# SPDX-License-Identifier: Apache-2.0
"""`python -m bench`: measure, and where that made new results write the tables of the documents."""

from __future__ import annotations

import subprocess
import sys

from bench.run import main
from bench.table import RESULTS

if __name__ == "__main__":
    before = RESULTS.stat().st_mtime_ns if RESULTS.exists() else 0
    ended = main()
    if RESULTS.exists() and RESULTS.stat().st_mtime_ns != before:
        subprocess.run([sys.executable, "-m", "bench.table"], check=True)
    sys.exit(ended)
