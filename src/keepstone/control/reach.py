# SPDX-License-Identifier: Apache-2.0
"""Which paths of this machine the service's own workers read from and write to for those who ask.

Whoever may back up and restore names any path, and the workers have the rights of the service. So whoever runs the
service can bound that. Its own folder, which has the keys of all vaults, is out of reach in any case.

A path counts as what it leads to now: symbolic links are followed. So it is looked at when somebody asks, and again by
the worker.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from keepstone.errors import GuardRefused

__all__ = ["Reach"]


class Reach:
    """`root`: the folder of the service. `allowed`: what may be read and written, with everything beneath; everything
    where that is empty."""

    def __init__(self, root: Path, allowed: Sequence[str | Path] = ()) -> None:
        self._root = root
        self._allowed = tuple(allowed)

    @property
    def root(self) -> Path:
        """The folder of the service, as it lies on the disk."""
        return Path(os.path.realpath(self._root))

    def check(self, path: str | Path) -> None:
        """`GuardRefused` where a path is out of reach."""
        real = Path(os.path.realpath(path))
        if real.is_relative_to(self.root):
            raise GuardRefused(
                f"{path} is in the service's own folder, with the keys of all vaults; it is neither backed up nor "
                "written to"
            )
        if self._allowed and not any(real.is_relative_to(os.path.realpath(one)) for one in self._allowed):
            raise GuardRefused(
                f"{path} is none of the paths that this service reads and writes; whoever runs it allows more with "
                "`keepstone up --allow PATH`"
            )
