# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault credentials …`: what a machine registers with.

The key is made here and is in the file alone: the service gets the certificate. Whoever has the file may register a
machine, once, until the certificate ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.client.output import Column, moment
from keepstone.cli.client.session import vault_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["credentials"]

_LOCAL = ("localhost", "127.0.0.1", "::1")
_COLUMNS = (
    Column("file", "file"),
    Column("name", "name"),
    Column("service", "url"),
    Column("good until", "until", moment),
)


@click.group()
def credentials() -> None:
    """Vault credentials: a file that a machine registers with, once."""


@vault_command(name="download")
@click.option(
    "--file", "-f", "file", required=True, type=click.Path(path_type=Path), metavar="FILE",
    help="The file to make, for its owner alone; carry it to the machine, and remove it there.",
)  # fmt: skip
@click.option("--days", type=click.IntRange(1, 10), default=2, show_default=True, help="How long it is good for.")
@click.option("--name", "-n", metavar="NAME", help="What the service calls it; takes the place of an unused one.")
@click.option("--url", metavar="URL", help="The service's address as that machine finds it [default: the service's].")
def download(session: Session, vault: str, file: Path, days: int, name: str | None, url: str | None) -> None:
    """Make a file by which one machine may register with a vault."""
    import base64

    import msgspec
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    from keepstone.cli.client.finding import named
    from keepstone.cli.client.place import Place
    from keepstone.env import Env
    from keepstone.errors import AlreadyExists
    from keepstone.identity import new_credentials
    from keepstone.objects import write_private

    if file.exists():
        raise AlreadyExists(f"{file} is there already; choose another file")
    env = Env()
    name = name or f"keepstone-{env.random(6).hex()}"
    address = Place.find(None, url, session.place.ca).url if url is not None else _address(session)
    issued = new_credentials(env, name, days)
    der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(serialization.Encoding.DER)
    body = {"properties": {"authType": "AAD", "certificate": base64.b64encode(der).decode()}}
    answer = session.arm.ask("PUT", named(vault, "certificates", name), body).body
    about = {
        "url": address,
        "ca": session.place.ca.read_text() if session.place.ca is not None else None,
        "vault": vault,
        "name": name,
        "thumbprint": answer["properties"]["thumbprint"],
        "certificate": issued.certificate.decode(),
        "key": issued.key.decode(),
        "until": answer["properties"]["validTo"],
    }
    write_private(env, file, msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")
    session.show({"file": str(file)} | {key: about[key] for key in ("name", "url", "until", "thumbprint")}, _COLUMNS)
    if _is_local(address):
        session.tell(
            f"{address} is the service for its own machine; let it listen for others (`keepstone up --host`), or give "
            "--url"
        )
    session.tell(f"`keepstone agent register --credentials {file.name}` on the machine registers it")


def _address(session: Session) -> str:
    """Where other machines find the service."""
    from keepstone.server import instance

    place = session.place
    found = instance.last(place.root) if place.root is not None else None
    return found.url if found is not None and found.url else place.url


def _is_local(address: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(address).hostname in _LOCAL


credentials.add_command(download)
