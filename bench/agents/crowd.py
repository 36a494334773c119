# SPDX-License-Identifier: Apache-2.0
"""Machines that are registered with a vault: keys, certificates, and rows, as `keepstone agent register` makes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keepstone import __version__
from keepstone.catalogue import insert
from keepstone.control import containers, groups, vaults
from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.vault import Agent, Container, Vault

__all__ = ["Machine", "crowd"]


@dataclass(frozen=True, slots=True)
class Machine:
    """`container`: its id; `pem`: a file with its key and certificate."""

    container: UUID
    name: str
    pem: Path


def crowd(root: Path, count: int) -> tuple[Vault, list[Machine]]:
    """An installation in `root` with so many machines; files are beside it."""
    env = Env()
    installation = Installation(env, root)
    installation.begin("onprem1")
    authority = installation.authority()
    plane = installation.plane()
    folder = root.parent / "machines"
    folder.mkdir(mode=0o700, exist_ok=True)
    with plane.change() as change:
        groups.put(change, plane.place.subscription, "g", "onprem1", {})
    vault = vaults.create(plane, plane.place.subscription, "g", "vault1", "onprem1", {}, sku={}, tags={})
    made = []
    now = env.utc()
    with plane.database.change() as connection:
        for number in range(count):
            name = f"machine{number}"
            key = ec.generate_private_key(ec.SECP256R1())
            request = (
                x509.CertificateSigningRequestBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .sign(key, hashes.SHA256())
            )
            certificate = authority.machine(request.public_bytes(serialization.Encoding.DER), name, 24)
            public = key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            pem = folder / f"{name}.pem"
            pem.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                + certificate.public_bytes(serialization.Encoding.PEM)
            )
            container = Container(
                id=plane.new_id(),
                vault=vault.id,
                name=f"{containers.MACHINE};{name}",
                friendly=name,
                management=containers.AGENT,
                kind=containers.MACHINE,
                registered=now,
                properties={"agent": True},
            )
            insert(connection, container)
            agent = Agent(
                container=container.id,
                vault=vault.id,
                key=hashlib.sha256(public).hexdigest(),
                until=now + timedelta(hours=24),
                version=__version__,
                system={},
            )
            insert(connection, agent)
            made.append(Machine(container.id, name, pem))
    plane.database.close()
    return vault, made
