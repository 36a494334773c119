# SPDX-License-Identifier: Apache-2.0
"""The option that says which format of image a disk is restored into."""

from __future__ import annotations

import click

__all__ = ["NAMES", "format_option"]

NAMES = ("raw", "vhd", "vhd-dynamic", "vhdx", "vmdk", "vmdk-sparse", "qcow2")
"""Of `keepstone.disks.writing.FORMATS`, which help does not import."""

format_option = click.option(
    "--format", "kind", type=click.Choice(NAMES), help="Of a disk's new file: vhd is fixed, vmdk a stream [raw]."
)
