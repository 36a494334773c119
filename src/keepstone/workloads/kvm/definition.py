# SPDX-License-Identifier: Apache-2.0
"""What one needs to make a machine anew: what its QEMU says of itself, and how it was started, where that can be seen.

It may hold secrets that were given on the command line; in the store it is sealed like all else.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import msgspec

from keepstone.env import Env
from keepstone.workloads.kvm.qmp import Monitor, Refused

__all__ = ["DOCUMENT", "definition", "name_of"]

DOCUMENT = "qemu.json"
_QUERIES = (
    *("version", "name", "uuid", "status", "target", "current-machine", "kvm", "cpus-fast", "memory-size-summary"),
    *("memdev", "memory-devices", "iothreads", "block", "chardev", "pci", "rx-filter", "vnc", "spice", "tpm"),
)
_COMMAND = 1 << 20


def definition(env: Env, monitor: Monitor) -> dict[str, bytes]:
    """One document, in JSON: the answer to each query that this QEMU knows, and `command`, its command line."""
    told: dict[str, Any] = {}
    for query in _QUERIES:
        with contextlib.suppress(Refused):
            told[query] = monitor.execute(f"query-{query}")
    told["command"] = _command(env, monitor.process)
    return {DOCUMENT: msgspec.json.encode(told)}


def name_of(monitor: Monitor) -> str:
    """As it was called when it was started; else as its socket is called."""
    return str(monitor.execute("query-name").get("name") or monitor.path.stem)[:200]


def _command(env: Env, process: int) -> list[str]:
    """Empty where it cannot be seen: another user's, another container's, or nobody's any more."""
    try:
        fd = env.fs.open(f"/proc/{process}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        words = env.fs.read(fd, _COMMAND)
    except OSError:
        return []
    finally:
        env.fs.close(fd)
    command = [word.decode("utf-8", "backslashreplace") for word in words.split(b"\0")[:-1]]
    return command if command and "qemu" in command[0] else []
