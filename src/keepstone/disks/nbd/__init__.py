# SPDX-License-Identifier: Apache-2.0
"""Disks over the network: reading from NBD servers and writing to them, and serving any disk as one."""

from __future__ import annotations

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.server import NbdServer
from keepstone.disks.nbd.sink import NbdSink
from keepstone.disks.nbd.source import NbdSource

__all__ = ["Address", "NbdServer", "NbdSink", "NbdSource"]
