# SPDX-License-Identifier: Apache-2.0
"""A client of the service without a socket: requests as somebody, and what is answered."""

from __future__ import annotations

import json
from typing import Any

from starlette.testclient import TestClient

from keepstone.arm.service import Service
from keepstone.control.plane import Plane
from keepstone.identity import Issuer, Principal

__all__ = ["ADDRESS", "VERSION", "Answered", "Client"]

ADDRESS = "https://localhost:8443"
VERSION = "2024-04-01"
_PROVIDER = "providers/Microsoft.RecoveryServices"


class Answered:
    """`status`, `headers` (whatever the case of their names) and `body`: the JSON of an answer, None where it has
    none."""

    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body: Any = json.loads(content) if content else None

    @property
    def code(self) -> str:
        """The code of the error."""
        return str(self.body["error"]["code"])

    @property
    def message(self) -> str:
        """What the error tells people."""
        return str(self.body["error"]["message"])

    def __repr__(self) -> str:
        return f"{self.status} {json.dumps(self.body)}"


class Client:
    """Asks `service` as `who`; as nobody where that is None."""

    def __init__(self, service: Service, plane: Plane, issuer: Issuer, who: Principal | None) -> None:
        self.who = who
        self.subscription = f"/subscriptions/{plane.place.subscription}"
        self._http = TestClient(service, base_url=ADDRESS)
        if who is not None:
            token = issuer.issue(who, f"{ADDRESS}/", f"{ADDRESS}/{plane.place.tenant}/v2.0")
            self._http.headers["Authorization"] = f"Bearer {token}"

    def path(self, *parts: str) -> str:
        """The id of a group (one part), of a vault (two), or of what is beneath one: the third part is the rest."""
        group, *rest = parts
        path = f"{self.subscription}/resourceGroups/{group}"
        if not rest:
            return path
        return "/".join([path, _PROVIDER, "vaults", *rest])

    def ask(self, verb: str, path: str, body: Any = None, *, version: str | None = VERSION, **more: Any) -> Answered:
        """Whatever is answered. `path` may have a query of its own; `more` is for httpx (`params`, `headers`, …)."""
        params = dict(more.pop("params", {}))
        if version is not None and "api-version=" not in path:
            params["api-version"] = version
        if "?" in path:
            path, _, query = path.partition("?")
            params = dict(pair.split("=", 1) for pair in query.split("&")) | params
        if body is not None:
            more["json"] = body
        response = self._http.request(verb, path, params=params, **more)
        return Answered(response.status_code, response.headers, response.content)

    def raw(self, verb: str, url: str, **more: Any) -> Any:
        """Whatever is answered to exactly this."""
        headers = dict(self._http.headers) | dict(more.pop("headers", None) or {})
        if isinstance(more.get("data"), (bytes, str)):
            more["content"] = more.pop("data")
        return self._http.request(verb, url, headers=headers, **more)

    def arm(self, verb: str, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        """The JSON of an answer that has to have this status."""
        answered = self.ask(verb, path, body, **more)
        assert answered.status == status, f"{verb} {path}: {answered}"
        return answered.body

    def refused(self, verb: str, path: str, body: Any = None, *, status: int, **more: Any) -> Answered:
        """An answer that has to be an error of this status."""
        answered = self.ask(verb, path, body, **more)
        assert answered.status == status, f"{verb} {path}: {answered}"
        assert answered.code, answered
        assert answered.message, answered
        return answered

    def group(self, name: str) -> str:
        """Make a resource group; its id."""
        self.ask("PUT", self.path(name), {"location": "onprem1"})
        return self.path(name)

    def vault(self, group: str, name: str, properties: Any = None) -> str:
        """Make a vault in a group that there is; its id."""
        path = self.path(group, name)
        self.arm("PUT", path, {"location": "onprem1", "properties": properties or {}}, status=201)
        return path
