# SPDX-License-Identifier: Apache-2.0
"""Which virtual machines this machine has, where its `agent.toml` allows their backup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.env import Env
from keepstone.workloads.hypervisors import socket_of
from keepstone.workloads.hypervisors.discovery import Found, discover_domains, discover_monitors, document_of

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["discover"]


def discover(env: Env, order: Order, configuration: Configuration, report: Report) -> list[dict[str, Any]]:
    """Look at the place that the service names: `qemu`, a folder of monitors, or `libvirt`, a URI. `GuardRefused`, and
    what looking raises."""
    documents = [document_of(found) for found in _found(env, order, configuration, report)]
    report.step(f"{len(documents)} machines were found")
    return documents


def _found(env: Env, order: Order, configuration: Configuration, report: Report) -> Iterator[Found]:
    place = order.work.source
    paths = Paths(configuration, order.folders.configuration, order.folders)
    if "libvirt" in place:
        connect = str(place["libvirt"])
        paths.source(str(socket_of(connect)))
        return discover_domains(connect)
    folder = Path(str(place.get("qemu", "")))
    paths.source(str(folder))
    return discover_monitors(env, folder, lambda message: report.warn(b"", message))
