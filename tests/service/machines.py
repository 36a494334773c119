# SPDX-License-Identifier: Apache-2.0
"""Machines with an agent, in the vault of a test: registered as agents do it, and what is asked of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keepstone.control import agents
from keepstone.control.agents import Facts
from keepstone.control.sources import item_name
from keepstone.env import Env
from keepstone.identity import Authority, Issued, new_credentials
from keepstone.jobs import Claim

from .client import Client
from .protecting import Vault

__all__ = ["ALL", "SYSTEM", "Machine", "Register", "new_body", "registering"]

SYSTEM = {"os": "Linux", "release": "6.1", "python": "3.11.9", "cpus": 4}
ALL = ("Backup", "Restore", "PurgeBackupData")


@dataclass
class Machine:
    """A machine with an agent, in the vault of a test."""

    vault: Vault
    name: str
    id: UUID

    @property
    def path(self) -> str:
        return f"{self.vault.path}/backupFabrics/Azure/protectionContainers/Windows;{self.name}"

    def item(self, source: str, **more: Any) -> tuple[str, dict[str, Any]]:
        """The path of an item, and what protects it."""
        properties = {
            "protectedItemType": "MabFileFolderProtectedItem",
            "policyId": self.vault.policy("FilesPolicy"),
            "sourcePath": source,
            **more,
        }
        return f"{self.path}/protectedItems/{item_name(source)}", {"properties": properties}

    def protect(self, source: str, **more: Any) -> str:
        path, body = self.item(source, **more)
        self.vault.client.arm("PUT", path, body, status=202)
        return path

    def claim(self) -> Claim | None:
        return self.vault.plane.queue.claim(self.name, ALL, self.id)

    def show(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.vault.client.arm("GET", self.path)["properties"]
        return shown


Register = Callable[..., Machine]
"""By name, and into another vault than the test's own with `into`."""


def registering(vault: Vault, authority: Authority) -> Register:
    """Registers machines, by credentials that were uploaded through the API."""

    def register(name: str = "web", into: Vault | None = None) -> Machine:
        home = into or vault
        mark, key = _upload(home.client, home.path, f"for-{name}")
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        der = csr.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
            serialization.Encoding.DER
        )
        signature = key.sign(der, ec.ECDSA(hashes.SHA256()))
        facts = Facts(name=name, version="0.2.0", system=SYSTEM)
        with vault.plane.change() as change:
            made = agents.register(change, authority, mark, der, signature, facts)
        return Machine(home, name, made.container.id)

    return register


def _upload(client: Client, vault: str, name: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Make vault credentials; what they are known by, and their key."""
    issued, body = new_body(client, name)
    answer = client.arm("PUT", f"{vault}/certificates/{name}", body)
    key = serialization.load_pem_private_key(issued.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return answer["properties"]["thumbprint"], key


def new_body(client: Client, name: str, **more: Any) -> tuple[Issued, dict[str, Any]]:
    """New credentials, and the request that uploads them."""
    issued = new_credentials(Env(), name, 2)
    der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(serialization.Encoding.DER)
    about = {"authType": "AAD", "certificate": base64.b64encode(der).decode()} | more
    return issued, {"properties": about}
