# SPDX-License-Identifier: Apache-2.0
"""`keepstone recoverypoint browse` and `download`: what is in a point, and files out of it, through the service."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at, count, moment
from keepstone.cli.client.session import item_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["browse", "download"]

Document = dict[str, Any]
_POINT = click.argument("point")
_PATH = click.argument("path", required=False, default="", metavar="[PATH]")


def _shown(one: Any) -> str:
    target = at(one, "properties.target")
    return f"{at(one, 'properties.path')}{f' -> {target}' if target is not None else ''}"


_COLUMNS = (
    Column("mode", "properties.mode"),
    Column("size", "properties.size", count),
    Column("modified", "properties.modified", moment),
    Column("path", _shown),
)


@item_command(name="browse")
@_POINT
@_PATH
@click.option(
    "--find", "pattern", metavar="PATTERN", help="The entries beneath PATH of this name; * ? [ ] as in shells."
)
def browse(session: Session, vault: str, item: Document, point: str, path: str, pattern: str | None) -> int:
    """List what is in POINT, or at PATH in it, without restoring anything.

    Of a directory what is in it, of anything else the entry itself; a disk is the file disk.img, and a folder for each
    of its volumes. A PATTERN with a slash in it is compared with whole paths. Paths are shown so that each is one line:
    a backslash is doubled, and what cannot be printed is escaped; PATH may be given so.
    """
    from keepstone.cli.client.finding import find_point
    from keepstone.workloads.escaping import escaped

    address = find_point(session, item, point)["id"]
    path, found = _looked_up(session, address, item, path)
    if pattern is not None:
        query = {"path": path, "pattern": escaped(os.fsencode(pattern))}
        first = session.arm.get(f"{address}/search", query)
        pages = [first, *session.arm.rest(first)]
    elif at(found, "entry.properties.kind") == "directory":
        pages = [found, *session.arm.rest(found)]
    else:
        pages = [{"value": [found["entry"]]}]
    for page in pages:
        if page.get("incomplete"):
            session.console.warn(page["incomplete"])
    session.show([one for page in pages for one in page["value"]], _COLUMNS, "nothing")
    return session.console.ending()


@item_command(name="download")
@_POINT
@_PATH
@click.option("--target", type=click.Path(path_type=Path), metavar="FILE",
              help="A new file here [default: the standard output].")  # fmt: skip
@click.option("--format", "archive", type=click.Choice(("tar", "zip")),
              help="How a folder comes [default: zip where FILE is called so, else tar].")  # fmt: skip
def download(
    session: Session, vault: str, item: Document, point: str, path: str, target: Path | None, archive: str | None
) -> int:
    """Take the file at PATH out of POINT; a folder as a tar or a zip; of a disk its image.

    What is cut off goes on where it was: by itself, and with --target also when the command is run again.
    """
    from keepstone.cli.client.finding import find_point
    from keepstone.cli.client.saving import save, send
    from keepstone.cli.progress import metered

    address = find_point(session, item, point)["id"]
    path, found = _looked_up(session, address, item, path)
    entry = found["entry"]
    if found["kind"] == "disk" and not path.strip("/"):
        entry = next((one for one in found["value"] if one["name"] == "disk.img"), entry)
        path = entry["name"]
    is_folder = at(entry, "properties.kind") == "directory"
    if archive is None:
        archive = "zip" if target is not None and target.suffix.casefold() == ".zip" else "tar"
    query = {"path": path} | ({"format": archive} if is_folder else {})
    size = None if is_folder else int(at(entry, "properties.size"))

    def pieces(begin: int) -> Iterator[bytes]:
        return session.arm.content(f"{address}/content", query, begin)

    with metered(session.console, "download") as meter:
        meter.expected = size or 0
        if target is None:
            send(pieces, size, meter)
            return 0
        save(pieces, size, target, f"{address} {path}", meter)
    session.show(
        {"target": str(target), "bytes": meter.done}, (Column("target", "target"), Column("bytes", "bytes", count))
    )
    return session.console.ending()


def _looked_up(session: Session, address: str, item: Document, given: str) -> tuple[str, Document]:
    """What somebody means, and its first page: the path as it was shown to him, else as it stands there."""
    from keepstone.errors import NotFound
    from keepstone.workloads.escaping import escaped

    source = str(at(item, "properties.sourcePath") or "").rstrip("/") + "/"
    if (given + "/").startswith(source) and source != "/":
        given = given[len(source) :]
    plain = escaped(os.fsencode(given))
    if given != plain:
        with contextlib.suppress(NotFound):
            return given, session.arm.get(f"{address}/entries", {"path": given})
    return plain, session.arm.get(f"{address}/entries", {"path": plain})
