# SPDX-License-Identifier: Apache-2.0
"""`keepstone store serve`: the disk of a recovery point, as a network block device."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import safe, text
from keepstone.cli.store.points import IMAGES

if TYPE_CHECKING:
    import ssl

    from keepstone.disks import BlockSource
    from keepstone.disks.nbd import Address
    from keepstone.store import LocalReader, Reader

__all__ = ["serve"]

_FILE = click.Path(path_type=Path, dir_okay=False, readable=False)


@store_command(name="serve")
@click.argument("name", metavar="POINT")
@click.option("--socket", type=click.Path(path_type=Path), metavar="PATH", help="At a new unix socket, for this user.")
@click.option("--listen", metavar="HOST:PORT", help="At this address; port 0 takes a free one.")
@click.option("--export", default="", metavar="NAME", help="Under this name [default: the one without name].")
@click.option("--overlay", is_flag=True, help="Let clients write; what they write is dropped at the end.")
@click.option("--overlay-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where it is kept until then [default: TMPDIR].")  # fmt: skip
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="The server's certificate, and those above it.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its key.")
@click.option("--tls-client-ca", type=_FILE, metavar="FILE", help="Who signs the certificates of clients.")
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def serve(
    console: Console,
    opening: Opening,
    name: str,
    socket: Path | None,
    listen: str | None,
    export: str,
    overlay: bool,
    overlay_dir: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    item: str | None,
) -> int:
    """Serve the disk of POINT by the NBD protocol, read-only, until Ctrl-C; of a machine all disks, by their names.

    Any NBD client can read it: a QEMU machine boots from it, qemu-img converts it, nbdcopy copies it. An address that
    others reach needs all three TLS options; then nobody gets anything without a certificate that the given authority
    signed. With --overlay clients can write as well; all of them see the same changes, and the point stays as it is.
    """
    from keepstone.disks.nbd import NbdServer
    from keepstone.errors import UsageError
    from keepstone.workloads.images import PointDisk

    address = _address(socket, listen, export)
    tls = _tls(tls_cert, tls_key, tls_client_ca)
    if tls is None and not address.loopback:
        raise UsageError(
            f"others reach {address.host}: give --tls-cert, --tls-key and --tls-client-ca, or listen at 127.0.0.1"
        )
    if overlay_dir is not None and not overlay:
        raise UsageError("--overlay-dir says where --overlay keeps changes; give that too")
    folder = overlay_dir or Path(tempfile.gettempdir()) if overlay else None
    store = opening.store()
    env = store.context.env
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:  # an interrupt is how it ends
        reader = stack.enter_context(store.reader(point))
        exports: dict[str, BlockSource] = {}
        for disk, of_disk in _disks(reader, export):
            exports[disk] = stack.enter_context(PointDisk(env, of_disk))
        server = stack.enter_context(NbdServer(env, exports, address, overlay=folder, tls=tls))
        uris = [replace(server.address, export=disk).uri for disk in exports]
        console.event("serving", point=point.id, uris=uris)
        if socket is None and tls is None:
            console.say("every user of this machine can read it there; with --socket only you could")
        console.say(f"recovery point {point.short} is at {', '.join(map(safe, uris))}; end it with Ctrl-C")
        server.wait()
    console.result({"point": point.id, "item": point.record.item}, ["no longer served"])
    return console.ending()


def _disks(reader: LocalReader, export: str) -> list[tuple[str, Reader]]:
    """What to serve: under its name each disk of a machine, or the one disk that there is."""
    from keepstone.errors import UsageError
    from keepstone.workloads.machines import KIND, machine_of

    if reader.point.kind == IMAGES:
        return [(export, reader)]
    if reader.point.kind != KIND:
        raise UsageError("the point has no disk that could be served; choose one of an image, a device or a machine")
    if export:
        raise UsageError("the disks of a machine have their own names; leave out --export")
    return [(disk.name, one) for disk, one in machine_of(reader).disks]


def _address(socket: Path | None, listen: str | None, export: str) -> Address:
    from keepstone.disks.nbd import Address
    from keepstone.errors import UsageError

    if (socket is None) == (listen is None):
        raise UsageError("say where: --socket PATH or --listen HOST:PORT")
    return Address.of(socket.absolute() if socket is not None else _host_and_port(listen or ""), export)


def _host_and_port(listen: str) -> str:
    from keepstone.errors import UsageError

    if "/" in listen:
        raise UsageError(f"{listen!r} is no address; write --listen HOST:PORT, or --socket PATH")
    return listen


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    import ssl

    from keepstone.errors import SourceMissing, UsageError
    from keepstone.objects import failure

    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None or client_ca is None:
        raise UsageError("TLS needs all of --tls-cert, --tls-key and --tls-client-ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    what = cert
    try:
        for what in (cert, key, client_ca):
            what.read_bytes()
        what = cert
        context.load_cert_chain(cert, key, password=lambda: "")  # never ask at the terminal
        what = client_ca
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise UsageError(f"{what}: it has no certificate and key that fit together: {error.reason}") from error
    except OSError as error:
        raise failure(error, str(what), missing=SourceMissing) from error
    return context
