# SPDX-License-Identifier: Apache-2.0
"""`keepstone store backup`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.mounts import mounted
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.progress import Meter, metered
from keepstone.cli.render import duration, path_text, plain, safe, size
from keepstone.cli.store.machines import CONNECT, FLEECING
from keepstone.cli.store.points import FILES, IMAGES, facts

if TYPE_CHECKING:
    from keepstone.disks import Disk
    from keepstone.env import Env
    from keepstone.store import Store

__all__ = ["FORMATS", "backup"]

_RAW_IMAGES = (".raw", ".img")
FORMATS = ("raw", "vhdx", "vhd", "vmdk", "qcow2")
_LEVELS = {"fast": 1, "balanced": 3}
_DAY = 86_400 * 10**9


class _Level(click.ParamType):  # type: ignore[type-arg] # generic in newer versions of click only
    """A zstd level by number or name."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        level = _LEVELS.get(str(value)) or (int(value) if str(value).isdecimal() else 0)
        if not 1 <= level <= 19:
            self.fail(f"{value!r} is none of 1 to 19, fast and balanced", param, ctx)
        return level


@dataclass(frozen=True, slots=True)
class _Source:
    """One thing to back up. `path` is absolute; `store`: where in it the store itself lies, empty where it does not.
    `format`: of a disk, None where its image says it; `parents`: folders for what else it is made of."""

    path: bytes
    kind: str
    item: str
    store: str
    format: str | None
    parents: tuple[Path, ...]


@store_command(name="backup")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--machine", metavar="MACHINE",
              help="Back up a machine: qemu: and its QMP socket, or libvirt: and its domain.")  # fmt: skip
@click.option("--connect", metavar="URI", help=f"The libvirt that has the machine [default: {CONNECT}].")
@click.option("--agent", metavar="SOCKET", help="The machine's guest agent, which brings it to rest for a moment.")
@click.option("--exclude-disk", multiple=True, metavar="NAME", help="Leave out this disk of the machine.")
@click.option("--fleece", type=click.Path(path_type=Path, file_okay=False), default=FLEECING, show_default=True,
              metavar="FOLDER", help="Where what a machine overwrites meanwhile is kept.")  # fmt: skip
@click.option("--full", is_flag=True, help="Read all of the machine, whatever is known of what changed.")
@click.option("--image/--no-image", default=None,
              help="Take regular files for disk images, or not "
                   "[default: .raw, .img, .vhdx, .avhdx, .vhd, .avhd, .vmdk and .qcow2 are].")  # fmt: skip
@click.option("--format", "disk_format", type=click.Choice(["auto", *FORMATS]), default="auto",
              help="Format of the disk images [default: what name and content both say, else raw].")  # fmt: skip
@click.option("--parents", multiple=True, metavar="FOLDER", type=click.Path(path_type=Path),
              help="Look here too for the parents of a disk image, and its other files.")  # fmt: skip
@click.option("--item", metavar="NAME", help="Name of the protected item, of one source [default: its path].")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out what matches, as .gitignore would.")
@click.option("--exclude-from", multiple=True, metavar="FILE", help="Patterns to leave out, one a line.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Take only what matches.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in folders marked by a CACHEDIR.TAG.")
@click.option("--one-file-system", "-x", is_flag=True, help="Leave out what is mounted beneath the source.")
@click.option("--level", type=_Level(), metavar="LEVEL",
              help="Compression, 1 to 19, fast (1) or balanced (3) [default: between these two].")  # fmt: skip
@click.option("--check-writes", is_flag=True, help="Open everything that is written again before it counts.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Remember this with the point.")
@click.option("--lock-days", type=click.IntRange(1, 36500), metavar="N", help="Nobody can purge the point for N days.")
@click.option("--dry-run", is_flag=True, help="Only say what would be backed up.")
@click.option("--list", "listed", is_flag=True, help="With --dry-run: name each file, with its size.")
def backup(
    console: Console,
    opening: Opening,
    sources: tuple[str, ...],
    machine: str | None,
    connect: str | None,
    agent: str | None,
    exclude_disk: tuple[str, ...],
    fleece: Path,
    full: bool,
    image: bool | None,
    disk_format: str,
    parents: tuple[Path, ...],
    item: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[str, ...],
    include: tuple[str, ...],
    exclude_caches: bool,
    one_file_system: bool,
    level: int | None,
    check_writes: bool,
    tags: tuple[str, ...],
    lock_days: int | None,
    dry_run: bool,
    listed: bool,
) -> int:
    """Make a recovery point of each SOURCE: a folder, a file, a disk image, or a block device. Or of a --machine.

    Only what is not in the store yet is stored. What cannot be read is reported and left out: exit code 4.

    A PATTERN is relative to the source: `/a` is what lies directly in it, and the source's own path matches nothing.
    The store's own folder is never taken.
    """
    from keepstone.errors import UsageError

    if listed and not dry_run:
        raise UsageError(
            "--list goes with --dry-run; `keepstone store find '*' --point latest` lists what was backed up"
        )
    if machine is None and not sources:
        raise UsageError(
            "what? give a folder, a file, an image or a device, or --machine; `keepstone store backup --help` shows how"
        )
    if machine is None and (agent or connect or exclude_disk or full):
        raise UsageError(
            "--agent, --connect, --exclude-disk and --full are about a machine; give --machine, or leave them out"
        )
    if machine is not None and (sources or dry_run or exclude or exclude_from or include or image is not None):
        raise UsageError("a machine is backed up by itself; leave out sources and their options")
    store = opening.store()
    env = store.context.env
    format = None if disk_format == "auto" else disk_format
    if format is not None:
        if image is False:
            raise UsageError("--format is for disk images; leave --no-image out")
        image = True
    found = _sources(console, sources, item, image, opening.place, (format, parents))
    if not any(source.kind == FILES for source in found) and (
        exclude or exclude_from or include or exclude_caches or one_file_system
    ):
        raise UsageError("a disk is backed up whole; leave the options out that choose among files")
    selection: dict[str, Any] = {
        "exclude": exclude,
        "exclude_from": exclude_from,
        "include": include,
        "one_file_system": one_file_system,
        "skip_caches": exclude_caches,
    }
    if dry_run:
        return _try(console, env, found, selection, listed)
    made: list[dict[str, Any]] = []
    lines: list[str] = []
    console.detail = {"points": made}  # whatever comes, these points are made
    options: dict[str, Any] = {"level": level} if level else {}
    options |= {
        "check": check_writes,
        "tags": tags,
        "lock_until": env.wall_time() + lock_days * _DAY if lock_days else 0,
    }
    if machine is not None:
        from keepstone.cli.store.machines import back_up_machine, machine_at

        address = machine_at(machine, agent, connect)
        with metered(console, "backup") as meter:
            commit = back_up_machine(
                store, address, item or address.address, options, meter,
                exclude=exclude_disk, fleecing=fleece, full=full,
            )  # fmt: skip
        made.append(_made(store, commit) | {"seconds": round(meter.seconds, 3)})
        console.event("point", **made[-1])
        lines.append(_line(made[-1]))
    for source in found:
        with metered(console, "backup") as meter:
            point = _back_up(store, source, _without_store(source, selection), options, meter)
        made.append(point | {"seconds": round(meter.seconds, 3)})
        console.event("point", **made[-1])
        lines.append(_line(made[-1]))
    console.result({"points": made}, lines)
    return console.ending()


def _sources(
    console: Console,
    paths: tuple[str, ...],
    item: str | None,
    image: bool | None,
    store: Path,
    disk: tuple[str | None, tuple[Path, ...]],
) -> list[_Source]:
    """What the paths are; each must be there before the first is begun."""
    from keepstone.disks import SUFFIXES
    from keepstone.errors import SourceMissing, UsageError
    from keepstone.objects import failure

    if item is not None and len(paths) > 1:
        raise UsageError("--item names one source; give one, or leave it out")
    found: dict[bytes, _Source] = {}
    for given in paths:
        path = os.path.abspath(os.fsencode(given))
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise failure(error, given, missing=SourceMissing) from error
        is_image = given.lower().endswith((*_RAW_IMAGES, *SUFFIXES)) if image is None else image
        if stat.S_ISDIR(mode):
            if image:
                raise UsageError(f"{given} is a folder, not a disk image; leave --image and --format out")
            kind = FILES
        elif stat.S_ISREG(mode):
            kind = IMAGES if is_image else FILES
        elif stat.S_ISBLK(mode):
            kind = IMAGES
            for place in mounted(os.stat(path).st_rdev):
                console.warn(f"is in use: it is mounted at {safe(place)}; back up a snapshot of it", given)
        else:
            raise UsageError(f"{given} is no folder, file or block device; it cannot be backed up")
        inside = _inside(path, store) if kind == FILES else ""
        if inside:
            console.say(f"{safe(given)}: the store itself, {safe(inside)} in it, is left out")
        found[path] = _Source(path, kind, item or path_text(path), inside, *disk)
    return list(found.values())


def _inside(source: bytes, store: Path) -> str:
    """Where the store lies in this source. `UsageError` where the source lies in the store."""
    from keepstone.errors import UsageError

    real, root = Path(os.fsdecode(source)).resolve(), store.resolve()
    if real.is_relative_to(root):
        raise UsageError(f"{real} is in the store itself; copy a store with any tool that copies files")
    return str(root.relative_to(real)) if root.is_relative_to(real) else ""


def _without_store(source: _Source, selection: dict[str, Any]) -> dict[str, Any]:
    """The selection without the store. The point knows of it, so that a restore in place that deletes spares it too."""
    return selection | {"never": (source.store,)} if source.store else selection


def _disk(env: Env, source: _Source) -> Disk:
    from keepstone.disks import open_disk

    return open_disk(env, Path(os.fsdecode(source.path)), source.format, folders=source.parents)


def _back_up(
    store: Store, source: _Source, selection: dict[str, Any], options: dict[str, Any], meter: Meter
) -> dict[str, Any]:
    """Make the point; what its record says."""
    env = store.context.env
    with store.writer(source.item, source.kind, **options) as writer:
        meter.new = lambda: writer.new_bytes
        if source.kind == IMAGES:
            from keepstone.workloads.images import backup_image

            with _disk(env, source) as disk:
                commit = backup_image(env, writer, disk, meter, name=source.path).commit
        else:
            from keepstone.workloads.files import Selection, backup_files

            commit = backup_files(env, writer, source.path, Selection(**selection), meter).commit
    return _made(store, commit)


def _made(store: Store, commit: str) -> dict[str, Any]:
    """What the record of a point says that was just made."""
    from keepstone.store import Point, PointRecord

    record = store.commits.get(commit)
    assert isinstance(record, PointRecord)
    return facts(Point(commit, record))


def _line(point: dict[str, Any]) -> str:
    files = f" in {point['files']:,} files" if point["kind"] == FILES else ""
    return (
        f"{point['short']}  {safe(point['item'])}  {size(point['logical_bytes'])}{files}, "
        f"{size(point['new_bytes'])} new, {size(point['stored_bytes'])} stored, {duration(point['seconds'])}"
        + (f", {point['warnings']:,} warnings" if point["warnings"] else "")
    )


def _try(console: Console, env: Env, sources: list[_Source], selection: dict[str, Any], listed: bool) -> int:
    """Say what would be backed up."""
    tried: list[dict[str, Any]] = []
    lines: list[str] = []
    for source in sources:
        about: dict[str, Any] = {"item": source.item, "kind": source.kind}
        with metered(console, "dry run") as meter:
            if source.kind == IMAGES:
                with _disk(env, source) as disk:
                    data = sum(extent.length for extent in disk.extents() if not extent.zero)
                    about |= {"bytes": disk.size, "data_bytes": data}
                lines.append(f"{safe(source.item)}  {size(about['bytes'])}, {size(data)} of them data")
            else:
                from keepstone.workloads.files import Selection, dry_run

                entries: list[dict[str, Any]] = []
                chosen = Selection(**_without_store(source, selection))
                report = dry_run(env, source.path, chosen, meter, _lister(console, entries) if listed else None)
                about |= plain(report) | ({"entries": entries} if listed else {})
                lines.append(f"{safe(source.item)}  {size(about['bytes'])} in {about['files']:,} files")
        tried.append(about)
    console.result({"dry_run": True, "sources": tried}, lines)
    return console.ending()


def _lister(console: Console, entries: list[dict[str, Any]]) -> Callable[[bytes, int], None]:
    """Tells people of each file as it comes, and programs of all of them in the end."""

    def told(path: bytes, length: int) -> None:
        if console.json:
            entries.append({"path": path_text(path), "size": length})
        else:
            console.line(f"{length:>14,}  {safe(path_text(path))}")

    return told
