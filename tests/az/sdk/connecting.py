# SPDX-License-Identifier: Apache-2.0
"""How a program over the Azure SDK for Python gets its clients. It runs in the Azure CLI's environment, which knows
nothing of Keepstone; what it is told comes as JSON on its standard input."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity import ClientSecretCredential
from azure.mgmt.recoveryservices import RecoveryServicesClient
from azure.mgmt.recoveryservicesbackup import RecoveryServicesBackupClient

__all__ = ["FABRIC", "Told", "Watch", "told"]

FABRIC = "Azure"
_OPERATION = re.compile(r"/(operations?|backupOperation)(Status|Results?|s)/", re.IGNORECASE)


class Watch(SansIOHTTPPolicy):
    """Counts how often a client asks for each operation."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def on_request(self, request: Any) -> None:
        path = urlsplit(request.http_request.url).path
        if _OPERATION.search(path):
            self.asked[path] += 1

    def check(self) -> None:
        """No operation was asked for twice: what is over at once need not be waited for."""
        assert all(count == 1 for count in self.asked.values()), self.asked


class _Static:
    """The smallest credential that there is: somebody else has got the token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str, **_more: Any) -> Any:
        return AccessToken(self._token, int(time.time()) + 3600)


@dataclass(frozen=True)
class Told:
    """What the test says of the server. `token`: of an Owner; `client` and `secret`: what the same one logs in with.
    `more`: what the program's own business is."""

    url: str
    tenant: str
    subscription: str
    location: str
    client: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    more: dict[str, Any]

    def clients(self, kind: str) -> tuple[Any, Any, Watch]:
        """(of vaults, of backups, what watches both), with a `static` token or a `secret`."""
        credential = (
            _Static(self.token)
            if kind == "static"
            else ClientSecretCredential(
                self.tenant, self.client, self.secret, authority=self.url, disable_instance_discovery=True
            )
        )
        watch = Watch()
        settings = {
            "base_url": self.url,
            "credential_scopes": [f"{self.url}/.default"],
            "per_call_policies": [watch],
        }
        return (
            RecoveryServicesClient(credential, self.subscription, **settings),
            RecoveryServicesBackupClient(credential, self.subscription, **settings),
            watch,
        )


def told() -> Told:
    """What stands on the standard input."""
    return Told(**json.load(sys.stdin))
