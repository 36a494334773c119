# SPDX-License-Identifier: Apache-2.0
"""Vault credentials: a certificate that whoever has its key may register a machine with. Source:
Microsoft.RecoveryServices, VaultCertificates 2024-04-01.

The answer has Azure's fields. What stands there for a service principal names the credentials and logs in nowhere:
machines prove themselves by their keys.
"""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

from cryptography import x509

from keepstone.arm.answers import moment
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import agents
from keepstone.errors import InvalidRequest
from keepstone.vault import Credential, Vault, folded

__all__ = ["table"]

table = Table()
_TYPES = ("aad", "azureactivedirectory")


@table("PUT", f"{VAULT}/certificates/{{certificate}}", "vault_certificates.create",
       action="Microsoft.RecoveryServices/Vaults/certificates/write")  # fmt: skip
def create(call: Call) -> Answer:
    """200 with what a machine needs to know beside the key. The same certificate again is answered alike."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        made = agents.enroll(change, vault, call.names["certificate"], _certificate(call.part("properties")))
    return Answer(body=_document(call, vault, made))


def _certificate(properties: dict[str, Any]) -> bytes:
    kind = properties.get("authType") or "AAD"
    if folded(str(kind)) not in _TYPES:
        raise InvalidRequest(f"properties.authType is {kind!r}; write AAD", target="properties.authType")
    given = properties.get("certificate")
    try:
        data = base64.b64decode(given, validate=True) if isinstance(given, str) else b""
    except ValueError:
        data = b""
    if not data:
        raise InvalidRequest(
            "properties.certificate has to be a certificate in DER, in base64", target="properties.certificate"
        )
    return data


def _document(call: Call, vault: Vault, made: Credential) -> dict[str, Any]:
    certificate = x509.load_der_x509_certificate(made.certificate)
    name = str(UUID(hex=made.thumbprint[:32]))
    return {
        "id": f"{vault.path}/certificates/{made.name}",
        "name": made.name,
        "type": "Microsoft.RecoveryServices/vaults/certificates",
        "properties": {
            "authType": "AzureActiveDirectory",
            "certificate": base64.b64encode(made.certificate).decode(),
            "friendlyName": made.name,
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "thumbprint": made.thumbprint,
            "validFrom": moment(certificate.not_valid_before_utc),
            "validTo": moment(made.until),
            "resourceId": vault.id.int & 0x7FFFFFFFFFFFFFFF,
            "serviceResourceId": vault.path,
            "aadAuthority": call.base,
            "aadTenantId": call.plane.place.tenant,
            "aadAudience": f"{call.base}/",
            "azureManagementEndpointAudience": f"{call.base}/",
            "servicePrincipalClientId": name,
            "servicePrincipalObjectId": name,
        },
    }
