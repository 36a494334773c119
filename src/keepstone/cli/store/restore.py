# SPDX-License-Identifier: Apache-2.0
"""`keepstone store restore`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from keepstone.cli.console import Console
from keepstone.cli.formats import format_option
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.progress import Meter, metered
from keepstone.cli.render import duration, lines_of, plain, safe, size, text
from keepstone.cli.store.entries import paths as meant
from keepstone.cli.store.machines import CONNECT, FLEECING, MACHINES, Libvirt, machine_at, restore_machine
from keepstone.cli.store.points import FILES, IMAGES
from keepstone.cli.store.returning import files_into_guest, into_machine, make_safety_point

if TYPE_CHECKING:
    from keepstone.disks.writing import Format
    from keepstone.env import Env
    from keepstone.store import LocalReader, Point, Reader
    from keepstone.workloads.images import Lost
    from keepstone.workloads.kvm import Qemu

__all__ = ["restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the command line says."""

    target: Path | None
    in_place: bool
    conflict: str | None
    delete: bool
    compare_content: bool
    numeric_ids: bool
    plain: bool
    kind: str | None


@store_command(name="restore")
@click.argument("name", metavar="POINT")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--target", type=click.Path(path_type=Path), metavar="TARGET",
              help="Where to: a folder; for a disk a file, or with --overwrite a block device.")  # fmt: skip
@click.option("--in-place", is_flag=True,
              help="TARGET may hold something; only what differs is written [default TARGET: the source].")  # fmt: skip
@click.option("--machine", metavar="MACHINE",
              help="With --in-place: put the disks of a machine back into this one, which begins anew.")  # fmt: skip
@click.option("--connect", metavar="URI", help=f"The libvirt that has the machine [default: {CONNECT}].")
@click.option("--safety-point/--no-safety-point", default=True,
              help="Make a point of that machine first, of the same item [default: do].")  # fmt: skip
@click.option("--into-guest", metavar="MACHINE",
              help="Put PATH... back to where they were, in the running guest of this machine.")  # fmt: skip
@click.option("--guest-target", metavar="FOLDER", help="Into the guest, but beneath this folder of it.")
@click.option("--agent", metavar="SOCKET", help="The guest agent of the machine.")
@click.option("--fleece", type=click.Path(path_type=Path, file_okay=False), default=FLEECING, show_default=True,
              metavar="FOLDER", help="Where a safety point keeps what the guest overwrites meanwhile.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask before a machine is reset.")
@click.option("--tar", metavar="FILE", help="Write a tar stream to FILE, or to the standard output with `-`.")
@click.option("--overwrite", "conflict", flag_value="overwrite",
              help="Replace what is there and differs: the default in place.")  # fmt: skip
@click.option("--skip", "conflict", flag_value="skip", help="Leave what is there and differs.")
@click.option("--keep-both", "conflict", flag_value="keep-both", help="Restore beside what is there and differs.")
@click.option("--delete", is_flag=True, help="Remove what is in restored folders and not in the point.")
@click.option("--compare-content", is_flag=True, help="Also compare the content of files of equal size and time.")
@click.option("--numeric-ids", is_flag=True, help="Restore owners by number, not by name.")
@click.option("--no-attributes", is_flag=True,
              help="Restore no extended attributes, ACLs, capabilities, setuid bits and devices.")  # fmt: skip
@format_option
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def restore(
    console: Console,
    opening: Opening,
    name: str,
    paths: tuple[str, ...],
    target: Path | None,
    in_place: bool,
    machine: str | None,
    connect: str | None,
    safety_point: bool,
    into_guest: str | None,
    guest_target: str | None,
    agent: str | None,
    fleece: Path,
    yes: bool,
    tar: str | None,
    conflict: str | None,
    delete: bool,
    compare_content: bool,
    numeric_ids: bool,
    no_attributes: bool,
    kind: str | None,
    item: str | None,
) -> int:
    """Restore POINT, or with PATH... only these parts of it, as `find` shows them; of a machine, these disks.

    Of a disk PATH... are files and folders in its volumes, as `ls` shows them, such as 1/etc/fstab.

    Nothing is overwritten without --in-place, or an option that says what to do with what is there.

    \b
    The disks of a machine back into it, which is there, in QEMU or in libvirt:
      restore POINT [DISK...] --machine qemu:SOCKET --in-place
      restore POINT [DISK...] --machine libvirt:DOMAIN --in-place
    Files out of its disks into its guest, which goes on:
      restore POINT PATH... --into-guest qemu:SOCKET --agent SOCKET
      restore POINT PATH... --into-guest libvirt:DOMAIN
    """
    from keepstone.errors import RestoreIncomplete, UsageError

    guest = None if into_guest is None else machine_at(into_guest, agent, connect)
    there = None if machine is None else machine_at(machine, agent, connect)
    files_only = bool(delete or compare_content or numeric_ids or no_attributes or kind or tar or target)
    if machine is not None and (not in_place or into_guest or guest_target or conflict or files_only):
        raise UsageError("--machine puts disks back where they are: it goes with --in-place and names of disks alone")
    if into_guest is not None and (in_place or files_only):
        raise UsageError("--into-guest takes paths, --guest-target, --overwrite, --skip and --keep-both, and no more")
    if there is None and guest is None and (agent or guest_target):
        raise UsageError("--agent and --guest-target are about a machine; give --machine or --into-guest")
    if there is None and guest is None and connect is not None:
        raise UsageError("--connect is about a machine of libvirt; give --machine libvirt:DOMAIN, or --into-guest")
    if tar is not None and (target is not None or in_place or conflict or delete):
        raise UsageError("--tar writes a stream; it takes no target and none of the options for one")
    if tar is None and target is None and not in_place and guest is None:
        raise UsageError("where to? give --target, --in-place, --tar, or --into-guest")
    store = opening.store()
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    safety = None
    if there is not None:
        safety = make_safety_point(console, store, point, there, paths, wanted=safety_point, fleecing=fleece, yes=yes)
    wanted = _Wanted(
        target=target,
        in_place=in_place or (conflict is not None and point.record.kind == FILES) or delete or compare_content,
        conflict=conflict,
        delete=delete,
        compare_content=compare_content,
        numeric_ids=numeric_ids,
        plain=no_attributes,
        kind=kind,
    )
    if kind is not None and point.record.kind not in (IMAGES, MACHINES):
        raise UsageError("--format is for the image that a disk becomes; leave it out")
    with store.reader(point) as reader, metered(console, "restore") as meter:
        env = store.context.env
        if guest is not None:
            if point.record.kind == FILES:
                raise UsageError("the point is of files, of no disk; restore it with --target or --tar")
            result, lines = _into_guest(env, reader, guest, paths, guest_target, conflict, meter)
        elif there is not None:
            result, lines = into_machine(console, env, reader, there, paths, meter)
            result["safety_point"] = safety
        elif point.record.kind != FILES and _inside(point, paths):
            result, lines = _guest_files(console, env, reader, paths, tar, wanted, meter)
        elif point.record.kind == MACHINES:
            if tar is not None or wanted.in_place or conflict or delete:
                raise UsageError("a machine is restored into new files of a folder; give --target alone")
            result, lines = restore_machine(env, reader, target, paths, kind, meter)
        elif point.record.kind != FILES:
            streamed = tar is not None or bool(paths)
            result, lines = _image(console, env, reader, point, wanted, meter, streamed=streamed)
        elif tar is not None:
            result, lines = _tar(console, reader, _chosen(reader, paths), tar, meter)
        else:
            result, lines = _files(console, env, reader, _chosen(reader, paths), wanted, meter)
    result = {"point": point.id, "item": point.record.item, **result, "seconds": round(meter.seconds, 3)}
    if failed := len(result.get("failed", ())):
        console.detail = result
        raise RestoreIncomplete(
            f"{failed:,} {'parts' if point.record.kind != FILES else 'entries'} of recovery point {point.short} could "
            "not be restored, all others are; `keepstone store verify --deep` shows the damage, and another point may "
            "have them"
        )
    lines = [*lines, f"{size(meter.done)} in {duration(meter.seconds)}, {size(meter.rate)}/s"]
    if tar == "-":
        for line in lines:
            console.say(line)
    else:
        console.result(result, lines)
    return console.ending()


def _into_guest(
    env: Env,
    reader: LocalReader,
    machine: Qemu | Libvirt,
    paths: tuple[str, ...],
    target: str | None,
    conflict: str | None,
    meter: Meter,
) -> tuple[dict[str, Any], list[str]]:
    from keepstone.workloads.guestfiles.tree import guest_reader

    with guest_reader(env, reader) as guest:
        return files_into_guest(env, guest, reader.point.kind, machine, _chosen(guest, paths), target, conflict, meter)


def _inside(point: Point, paths: tuple[str, ...]) -> bool:
    """Whether files in a disk are meant, and not disks."""
    return bool(paths) and (point.record.kind != MACHINES or any("/" in path.strip("/") for path in paths))


def _guest_files(
    console: Console,
    env: Env,
    reader: LocalReader,
    paths: tuple[str, ...],
    tar: str | None,
    wanted: _Wanted,
    meter: Meter,
) -> tuple[dict[str, Any], list[str]]:
    """Files out of the file systems of a disk: what would lend a guest's identity to somebody here is left out."""
    from keepstone.errors import UsageError
    from keepstone.workloads.guestfiles.tree import guest_reader

    if wanted.target is None and tar is None:
        raise UsageError("where to? files of a disk do not go back by themselves; give --target or --tar")
    with guest_reader(env, reader) as guest:
        chosen = _chosen(guest, paths)
        if tar is not None:
            return _tar(console, guest, chosen, tar, meter)
        return _files(console, env, guest, chosen, replace(wanted, plain=True, numeric_ids=True), meter)


def _chosen(reader: Reader, paths: tuple[str, ...]) -> list[bytes]:
    """Paths as the point has them: given as `find` shows them, or as they are where that names nothing."""
    from keepstone.errors import NotFound
    from keepstone.workloads.files import walk

    chosen = []
    for path in paths:
        *likelier, given = meant(reader.point, path)
        for shown in likelier:
            try:
                next(walk(reader, [shown]), None)
                given = shown
            except NotFound:
                pass
        chosen.append(given)
    return chosen


def _holds_something(target: Path) -> bool:
    try:
        return bool(os.listdir(target))
    except OSError:
        return False


@contextlib.contextmanager
def _unfinished(console: Console, begun: Callable[[], bool], note: str) -> Iterator[None]:
    """Say what is left behind where the block fails after something was `begun`."""
    from keepstone.errors import KeepstoneError

    try:
        yield
    except KeyboardInterrupt:
        if begun():
            console.warn(note)
        raise
    except KeepstoneError as error:
        if begun():
            error.args = (f"{error}. {note}",)
        raise


def _files(
    console: Console, env: Env, reader: Reader, paths: list[bytes], wanted: _Wanted, meter: Meter
) -> tuple[dict[str, Any], list[str]]:
    from keepstone.workloads.files import Conflict, RestoreOptions, folder_of, restore_files

    options = RestoreOptions(
        paths=tuple(paths),
        in_place=wanted.in_place,
        conflict=Conflict(wanted.conflict or Conflict.OVERWRITE),
        compare_content=wanted.compare_content,
        delete=wanted.delete,
        numeric_ids=wanted.numeric_ids,
        xattrs=not wanted.plain,
        capabilities=not wanted.plain,
        setuid=not wanted.plain,
        devices=not wanted.plain,
    )
    target = wanted.target or folder_of(reader)
    shown = safe(str(target))
    note = (
        f"{shown} holds what was restored until then, complete files only; the same command with --in-place restores "
        "the rest"
    )
    held = _holds_something(target)
    with _unfinished(console, lambda: bool(meter.files) if held else _holds_something(target), note):
        report = restore_files(env, reader, target, options, meter)
    return {"target": str(target), **plain(report)}, [
        f"restored to {safe(str(target))}",
        *lines_of(report, zeros=False),
    ]


def _image(
    console: Console, env: Env, reader: LocalReader, point: Point, wanted: _Wanted, meter: Meter, *, streamed: bool
) -> tuple[dict[str, Any], list[str]]:
    from keepstone.disks import RawSink, RawSource, refuse_image
    from keepstone.disks.writing import RAW
    from keepstone.errors import NotFound, UsageError
    from keepstone.workloads.images import image_size, restore_image, restore_into

    if streamed or wanted.conflict in ("skip", "keep-both") or wanted.delete or wanted.compare_content:
        raise UsageError("a disk is restored whole, to a file or device; leave out paths, --tar and options for files")
    overwrite = wanted.in_place or wanted.conflict == "overwrite"
    target, format = _disk_target(point, wanted)
    if not target.parent.is_dir():
        raise NotFound(f"the folder of {target} does not exist; make it, or choose another target")
    if format.name != RAW:
        if overwrite:
            raise UsageError(f"a {format.name} is written into a new file; leave out --in-place and --overwrite")
        return _written(target, restore_into(env, reader, target, format, meter), meter)
    if target.exists() or (wanted.target is None and wanted.kind is None):
        refuse_image(env, target)
    note = (
        f"{safe(str(target))} is now neither what it was nor the whole point: restore again before anybody uses it; "
        "with --in-place only what differs is written"
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_unfinished(console, lambda: overwrite and bool(meter.expected), note))
        sink = stack.enter_context(RawSink(env, target, image_size(reader), overwrite=overwrite))
        existing = stack.enter_context(RawSource(env, target)) if wanted.in_place else None
        lost = restore_image(env, reader, sink, meter, existing=existing)
    return _written(target, lost, meter)


def _disk_target(point: Point, wanted: _Wanted) -> tuple[Path, Format]:
    """Where a disk goes, and as what. A file that the source named, not the user, may be called anything."""
    from keepstone.disks.writing import RAW, chosen

    source = _source(point)
    if wanted.target is None:
        return source, chosen(source, wanted.kind or RAW)
    if not wanted.target.is_dir():
        return wanted.target, chosen(wanted.target, wanted.kind)
    format = chosen(source, wanted.kind or RAW)
    return wanted.target / (source.name if format.name == RAW else source.stem + format.suffixes[0]), format


def _written(target: Path, lost: list[Lost], meter: Meter) -> tuple[dict[str, Any], list[str]]:
    written = meter.done - meter.reused
    result = {"target": str(target), "size": meter.done, "written_bytes": written}
    if lost:
        result["failed"] = [plain(piece) for piece in lost]
    return result, [f"restored to {safe(str(target))}, {size(written)} written"]


def _source(point: Point) -> Path:
    return Path(os.fsdecode(point.record.source))


def _tar(
    console: Console, reader: Reader, paths: list[bytes], file: str, meter: Meter
) -> tuple[dict[str, Any], list[str]]:
    from keepstone.workloads.files import write_tar

    with _stream(console, file) as stream:
        report = write_tar(reader, paths, stream, meter)
    return {"target": file, **plain(report)}, lines_of(report, zeros=False)


@contextlib.contextmanager
def _stream(console: Console, file: str) -> Iterator[BinaryIO]:
    """The standard output, or a new file that is removed again where the block fails."""
    from keepstone.errors import NotFound, TargetExists, UsageError
    from keepstone.objects import failure

    if file == "-":
        if console.json:
            raise UsageError("with --tar - the standard output is the stream; leave --json out, or name a file")
        if sys.stdout.isatty():
            raise UsageError("a tar stream does not belong on a terminal; send the output into a file or a program")
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise failure(error, "the standard output") from error
        return
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise TargetExists(f"{file} is there already; choose another file") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"the folder of {file} does not exist; make it, or choose another file") from error
    except OSError as error:
        raise failure(error, file) from error
    try:
        with open(file, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException as error:
        os.unlink(file)
        if isinstance(error, OSError):
            raise failure(error, file) from error
        raise
