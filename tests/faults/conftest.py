# SPDX-License-Identifier: Apache-2.0
"""A proxy for one test. Elsewhere: `from tests.faults.conftest import fault_proxy`, or the class as a context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.faults.proxy import FaultProxy

__all__ = ["fault_proxy"]


@pytest.fixture
def fault_proxy() -> Iterator[Callable[..., FaultProxy]]:
    """Makes proxies that run until the test's end: `fault_proxy(("127.0.0.1", port), Plan(…), seed=…)`."""
    with ExitStack() as stack:

        def make(*arguments: Any, **named: Any) -> FaultProxy:
            return stack.enter_context(FaultProxy(*arguments, **named))

        yield make
