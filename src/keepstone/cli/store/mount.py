# SPDX-License-Identifier: Apache-2.0
"""`keepstone store mount`: a recovery point in the tree of this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import escaped, safe, text

__all__ = ["mount"]


@store_command(name="mount")
@click.argument("name", metavar="POINT")
@click.argument("where", type=click.Path(path_type=Path), metavar="DIRECTORY")
@click.option("--allow-other", is_flag=True,
              help="For all users, with the permissions of the entries [default: for you, who read all].")  # fmt: skip
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def mount(console: Console, opening: Opening, name: str, where: Path, allow_other: bool, item: str | None) -> int:
    """Show POINT at the empty DIRECTORY, read-only, until it is unmounted.

    Of files the whole tree, of a disk its image as the one file disk.img. The command runs as long as the mount is
    there: Ctrl-C or SIGTERM unmounts, and so does `umount DIRECTORY`, without root `fusermount3 -u DIRECTORY`.
    """
    from keepstone.mount import mount_point

    store = opening.store()
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    with store.reader(point) as reader:
        mounted = mount_point(
            store.context.env,
            reader,
            where,
            shared=allow_other,
            lost=lambda path, error: console.warn(f"cannot be read: {error}", escaped(path)),
        )
        with contextlib.suppress(KeyboardInterrupt), mounted:  # an interrupt is how it is meant to end
            console.event("mounted", point=point.id, directory=str(mounted.where))
            unmount = f"{'umount' if os.geteuid() == 0 else 'fusermount3 -u'} {shlex.quote(str(mounted.where))}"
            console.say(
                f"recovery point {point.short} is at {safe(str(where))}; unmount it with Ctrl-C or `{safe(unmount)}`"
            )
            mounted.wait()
    console.result({"point": point.id, "item": point.record.item, "directory": str(mounted.where)}, ["unmounted"])
    return console.ending()
