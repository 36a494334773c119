# SPDX-License-Identifier: Apache-2.0
"""Deleting on a full disk: what gives room back needs a little room itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from keepstone.errors import StorageFull
from keepstone.objects import ObjectStorage

__all__ = ["with_reserve"]

T = TypeVar("T")


def with_reserve(storage: ObjectStorage, work: Callable[[], T]) -> T:
    """Do `work`, which must be safe to repeat; once more from the storage's reserve where there is no room."""
    try:
        return work()
    except StorageFull:
        if not storage.spend_reserve():
            raise
        return work()
