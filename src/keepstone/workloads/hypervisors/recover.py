# SPDX-License-Identifier: Apache-2.0
"""Instant recovery to its end: the machine of a point runs at once, is moved to images of its own, and runs on alone.

Until it is moved it ends with its caller, however that ends. The same again goes on with what is in the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.store import Reader
from keepstone.workloads.hypervisors.address import QemuAddress
from keepstone.workloads.progress import Progress
from keepstone.workloads.running import Network, boot, startable

__all__ = ["network_of", "recover_vm"]

_PACE = 0.5  # seconds


def network_of(text: object) -> Network:
    """What a job says of it: `user`, `bridge=NAME`, and nothing for none."""
    kind, _, bridge = str(text or "none").partition("=")
    return Network(kind, bridge)


def recover_vm(
    env: Env,
    reader: Reader,
    folder: Path,
    progress: Progress,
    *,
    point: str,
    network: Network,
    runs: Callable[[Path], None],
    check: Callable[[], None],
) -> QemuAddress:
    """Where it is reached in the end. `point`: names it, the same each time; `runs` is told of its monitor as soon as
    it runs, `check` asked whether this is to go on. `SourceFailed` where the machine ends early; what `boot` and `move`
    raise."""
    with boot(env, startable(reader), folder, point=point, network=network) as running:
        runs(running.monitor)
        running.move(progress)
        while running.needs_point:
            check()
            if (ended := running.wait(_PACE)) is not None:
                raise SourceFailed(f"the machine ended before it was moved: {ended.said or 'QEMU does not say why'}")
            if (error := running.unread()) is not None:
                progress.warn(b"", f"the machine stood still, because its disk could not be read: {error}")
        running.let_go()
        return QemuAddress(running.monitor, running.agent)
