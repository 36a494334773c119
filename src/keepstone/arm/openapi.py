# SPDX-License-Identifier: Apache-2.0
"""The service's own description, made out of the table of operations: OpenAPI 3.1."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any

from keepstone import __version__
from keepstone.arm.bodies import schema
from keepstone.arm.table import Answer, Call, Operation, Table

__all__ = ["description", "table"]

table = Table()
_VERSION = {
    "name": "api-version",
    "in": "query",
    "required": True,
    "schema": {"type": "string"},
    "example": "2024-04-01",
}
_FILTER = {"name": "$filter", "in": "query", "schema": {"type": "string", "maxLength": 4096}}
_MORE: dict[str, list[dict[str, Any]]] = {
    "protection_policies.create_or_update": [
        {"name": name, "in": "header", "schema": {"type": "string"}} for name in ("If-Match", "If-None-Match")
    ],
    "protection_policies.what_if": [
        {"name": "$top", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 10_000}}
    ],
}
"""What single operations take besides."""
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "target": {"type": "string"}},
        }
    },
}


@table("GET", "/openapi.json", "keepstone.openapi")
def get(call: Call) -> Answer:
    """The same for everybody."""
    from keepstone.arm.operations import OPERATIONS

    return Answer(body=description(tuple(OPERATIONS)))


@lru_cache(maxsize=1)
def description(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    used: dict[str, int] = {}
    for operation in operations:
        number = used[operation.name] = used.get(operation.name, 0) + 1
        identity = operation.name if number == 1 else f"{operation.name}_{number}"
        paths.setdefault(operation.template, {})[operation.verb.lower()] = _operation(operation, identity)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Keepstone", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _summary(operation: Operation) -> str:
    """What it says of itself, on one line."""
    function = operation.run
    if isinstance(function, partial):  # one function answers for several types; a partial one says nothing of its own
        function = function.func
    return " ".join((function.__doc__ or "").partition("\n\n")[0].split())


def _operation(operation: Operation, identity: str) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", operation.template)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    if operation.action:
        parameters += [_VERSION, _FILTER] if operation.verb == "GET" else [_VERSION]
    parameters += _MORE.get(operation.name, [])
    described: dict[str, Any] = {
        "operationId": identity,
        "summary": _summary(operation),
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "it is done, or taken on"},
            "default": {
                "description": "it is refused, and nothing has changed",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if operation.action:
        described["security"] = [{"bearer": []}]
        described["x-keepstone-action"] = operation.action
    if operation.az:
        described["x-keepstone-az"] = list(operation.az)
    body = schema(operation.name, operation.verb)
    if body is not None:
        described["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return described
