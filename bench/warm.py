# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.warm PLACE…`: bring files and folders into the page cache."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

__all__ = ["main"]

_PIECE = 1 << 20


def _files(place: str) -> Iterator[str]:
    if not os.path.isdir(place):
        yield place
    for folder, _, names in os.walk(place):
        yield from (os.path.join(folder, name) for name in names)


def main() -> int:
    """Read every regular file there."""
    for place in sys.argv[1:]:
        for name in _files(place):
            if stat.S_ISREG(os.lstat(name).st_mode):
                with open(name, "rb", buffering=0) as file:
                    while file.read(_PIECE):
                        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
