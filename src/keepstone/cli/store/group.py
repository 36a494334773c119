# SPDX-License-Identifier: Apache-2.0
"""`keepstone store …`: a store on this machine, without a service."""

from __future__ import annotations

import click

from keepstone.cli.lazy import LazyGroup

__all__ = ["store"]

_HERE = "keepstone.cli.store"


@click.group(
    cls=LazyGroup,
    commands={
        "init": (f"{_HERE}.init:init", "Make a store, its keys and its recovery kit."),
        "backup": (f"{_HERE}.backup:backup", "Make recovery points of folders, files, images and block devices."),
        "machines": (f"{_HERE}.machines:machines", "List the machines of libvirt that could be backed up."),
        "list": (f"{_HERE}.listing:list_points", "List the recovery points."),
        "show": (f"{_HERE}.listing:show", "Show what is known of a recovery point."),
        "restore": (f"{_HERE}.restore:restore", "Restore a recovery point, or what is chosen of it."),
        "ls": (f"{_HERE}.ls:ls", "List a directory of a recovery point."),
        "mount": (f"{_HERE}.mount:mount", "Look into a recovery point with any program, without restoring it."),
        "serve": (f"{_HERE}.serve:serve", "Let virtual machines and other programs read the disk of a recovery point."),
        "boot": (f"{_HERE}.boot:boot", "Go on from a recovery point of a machine at once, and move it while it runs."),
        "drill": (f"{_HERE}.drill:drill", "See whether the machine of a recovery point starts."),
        "find": (f"{_HERE}.find:find", "Find files in all recovery points."),
        "diff": (f"{_HERE}.diff:diff", "Show where two recovery points differ."),
        "verify": (f"{_HERE}.verify:verify", "Check that everything is there, and with --deep every byte."),
        "forget": (f"{_HERE}.forget:forget", "Delete recovery points, so that it can be taken back for a while."),
        "undelete": (f"{_HERE}.forget:undelete", "Take a deletion back."),
        "reclaim": (f"{_HERE}.reclaim:reclaim", "Give back the space of what no recovery point needs."),
        "stat": (f"{_HERE}.stat:stat", "Show how much the store holds."),
        "rebuild-index": (f"{_HERE}.stat:rebuild_index", "Make this machine's chunk index anew."),
        "key": (f"{_HERE}.key:key", "Change what opens the store, or make a recovery kit."),
    },
)
def store() -> None:
    """Back up to a store and restore from it.

    A store is a folder. POINT is a recovery point's id, the unambiguous beginning of one, or `latest`.
    """
