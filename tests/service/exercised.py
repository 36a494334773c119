# SPDX-License-Identifier: Apache-2.0
"""Which test exercises which operation: a test says so, and fails where it does not.

    @exercises("vaults.get", "vaults.begin_update")
    def test_tags_are_kept(client: Client) -> None: ...

`scripts/compatibility.py` writes the names of these tests' files into docs/AZURE-COMPATIBILITY.md.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

from keepstone.arm.operations import OPERATIONS

__all__ = ["exercises"]

P = ParamSpec("P")


def exercises(*names: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Says that a test has each of these operations answered. `LookupError` for one that there is not."""
    unknown = set(names) - {operation.name for operation in OPERATIONS}
    if unknown:
        raise LookupError(f"there is no operation {', '.join(sorted(unknown))}")

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            log, answered = logging.getLogger("keepstone.arm.service"), _Answered()
            level = log.level
            log.addHandler(answered)
            log.setLevel(logging.INFO)
            try:
                test(*args, **kwargs)
            finally:
                log.removeHandler(answered)
                log.setLevel(level)
            missing = set(names) - answered.names
            assert not missing, f"this test does not exercise {', '.join(sorted(missing))}"

        return run

    return decorate


class _Answered(logging.Handler):
    """The operations of the requests that the service's log tells of."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(getattr(record, "operation", ""))
