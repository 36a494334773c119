# SPDX-License-Identifier: Apache-2.0
"""A workload: a self-contained script that is run, and that knows how to check what it left.

The script imports only the package under test and third-party modules. It has

- under `if __name__ == "__main__"`: the work. `sys.argv[1]` is an empty directory (or a copy of the base given to
  `record`), the whole watched disk. Each thing it was promised it appends, as one line of JSON, to the file `$FS_ACK`.
- `check(disk: Path, acks: list) -> list[str]`: opens what a crash left in `disk`, as the product does after one, and
  returns the violations of what `acks` promise, each as `KIND` or `KIND: detail`. It may change the disk. It catches
  the product's errors itself: one that escapes is an error of the check and stops everything.
- `again(disk: Path) -> list[str]`, for faults.py: uses the store as if nothing had happened; violations as above.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["REPOSITORY", "Check", "Workload", "patiently", "scratch"]

Check = Callable[[Path, list[Any]], list[str]]

REPOSITORY = Path(__file__).resolve().parents[2]
_ROOM = 2**30  # bytes that /dev/shm must have free; a container's default of 64 MiB is too little


@dataclass(frozen=True, slots=True)
class Workload:
    """The script at `script`; directories of `pythonpath` come first when it imports."""

    script: Path
    pythonpath: tuple[Path, ...] = ()

    def environment(self, *more: Path) -> dict[str, str]:
        """The environment for a Python that imports as this workload does, then from `more`."""
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = [str(path) for path in (*self.pythonpath, *more)] + [path for path in inherited if path]
        return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def check(self) -> Check:
        """Its check, in this process. Raises LookupError where the script has none."""
        return self._function("check")  # type: ignore[no-any-return]

    def again(self) -> Callable[[Path], list[str]]:
        """Its second use of the store, in this process. Raises LookupError where the script has none."""
        return self._function("again")  # type: ignore[no-any-return]

    def _function(self, name: str) -> Any:
        missing = [str(path) for path in self.pythonpath if str(path) not in sys.path]
        if missing:
            raise LookupError(f"{self.script} must be loaded with PYTHONPATH={os.pathsep.join(missing)}")
        found = runpy.run_path(str(self.script), run_name="crash_check").get(name)
        if not callable(found):
            raise LookupError(f"{self.script} has no function {name}()")
        return found


class _Late(BaseException):
    """Time is up; no Exception, so that no handler of the code under test takes it for one of its own."""


def patiently(check: Callable[[], list[str]], seconds: float, where: str) -> list[str]:
    """The violations that `check` finds, or `HUNG` after `seconds`; only in a main thread.

    An error that escapes from the check is none of the store's: it goes on, with a note of `where` it arose.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return check()
    except _Late:
        return [f"HUNG: the check took more than {seconds:.0f} s"]
    except Exception as error:
        error.add_note(f"the check itself failed: {where}")
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A new directory, in memory where there is room, removed at the end.

    Recordings do not belong here, but where they outlive a failed test, such as pytest's `tmp_path`.
    """
    memory, place = Path("/dev/shm"), None
    if os.access(memory, os.W_OK):
        free = os.statvfs(memory)
        place = memory if free.f_bavail * free.f_frsize >= _ROOM else None
    with tempfile.TemporaryDirectory(prefix="crash-", dir=place) as directory:
        yield Path(directory)
