# SPDX-License-Identifier: Apache-2.0
"""What Microsoft published about its API, and what of an answer or a request is not as published.

The documents (`Azure/azure-rest-api-specs`, folders kept) are no part of this project. They are read from
`../shared/specs` beside the repository, or from where `KEEPSTONE_SPECS` says; tests get them by the fixture `specs`,
which skips where they are absent.

    assert specs.check_response("GET", "/subscriptions/…/vaults/v", 200, body, headers) == []
    specs.check_response(…, allow=["unknown at $.properties.softDeleteRetentionPeriod", "enum"])
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from .schemas import Node, Problem, Schemas

__all__ = ["Operation", "Specs", "location"]

_VERBS = {"get", "put", "post", "patch", "delete", "head", "options"}


def location() -> Path:
    """Where the documents are to be."""
    beside = Path(__file__).parents[3].parent / "shared" / "specs"
    return Path(os.environ.get("KEEPSTONE_SPECS") or beside).resolve()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one document."""

    verb: str
    template: str
    operation_id: str
    file: str  # relative to the root of the documents
    api_version: str
    node: Node = field(repr=False)

    def __str__(self) -> str:
        return f"{self.verb} {self.template} ({self.operation_id}, {self.api_version})"


@dataclass(frozen=True, slots=True)
class _Route:
    path: re.Pattern[str]
    query: Mapping[str, str]  # of x-ms-paths, whose templates differ in the query alone
    operation: Operation


class Specs:
    """The operations of all documents beneath a folder, and the checks against them.

    `allow` of a check lists what is no problem to the caller: kinds, such as `unknown`, or places, such as
    `enum at $.value[*].properties.status`.
    """

    def __init__(self, root: Path) -> None:
        files = sorted(file for file in root.rglob("*.json") if "examples" not in file.relative_to(root).parts)
        self._root = root
        self._schemas = Schemas(files)
        self._operations = [operation for file in files for operation in self._read(file)]
        self._routes: dict[tuple[str, int], list[_Route]] = defaultdict(list)
        # fixed segments go before variables, and a newer version before an older one
        for operation in sorted(self._operations, key=lambda one: _age(one.api_version), reverse=True):
            template, _, query = operation.template.partition("?")
            route = _Route(_pattern(template), dict(parse_qsl(query)), operation)
            self._routes[operation.verb, template.count("/")].append(route)
        for routes in self._routes.values():
            routes.sort(key=lambda route: ("?" not in route.operation.template, _variables(route.operation.template)))

    @classmethod
    def load(cls, root: Path | None = None) -> Specs:
        """The documents beneath `root`, or where `location` says. `LookupError` where there is no operation."""
        root = (root or location()).resolve()
        specs = cls(root)
        if not specs.operations():
            raise LookupError(f"no operation is described beneath {root}")
        return specs

    def operations(self) -> list[Operation]:
        """All of them, file by file. Two documents may describe one operation."""
        return list(self._operations)

    def find(self, verb: str, path: str) -> Operation:
        """The operation that a path belongs to; `LookupError` where there is none.

        Fixed segments are told without regard to case, a variable is one segment, and a slash at the end counts. Of two
        versions it is the one that `?api-version=` names, else the newest; of two files, the first.
        """
        address, _, text = path.partition("?")
        query = dict(parse_qsl(text))
        found = [
            route.operation
            for route in self._routes.get((verb.upper(), address.count("/")), ())
            if route.path.fullmatch(address) and route.query.items() <= query.items()
        ]
        if not found:
            raise LookupError(f"no document describes {verb} {path}")
        return next((one for one in found if one.api_version == query.get("api-version")), found[0])

    def check_response(
        self,
        verb: str,
        path: str,
        status: int,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        allow: Collection[str] = (),
    ) -> list[Problem]:
        """What of an answer is not as published. `body` is decoded JSON, or None where there is none; without
        `headers` they are not looked at. `LookupError` as of `find`."""
        return _kept(self._check_response(self.find(verb, path), status, body, headers), allow)

    def check_request(self, verb: str, path: str, body: Any = None, *, allow: Collection[str] = ()) -> list[Problem]:
        """What of a request's body is not as published. `LookupError` as of `find`."""
        return _kept(self._check_request(self.find(verb, path), body), allow)

    def _read(self, file: Path) -> Iterator[Operation]:
        document = self._schemas.document(file)
        base = document.raw.get("basePath", "").rstrip("/")
        for group in ("paths", "x-ms-paths"):
            for template, item in document.raw.get(group, {}).items():
                for verb in (key for key in item if key in _VERBS):
                    yield Operation(
                        verb.upper(),
                        base + template,
                        item[verb].get("operationId", ""),
                        file.relative_to(self._root).as_posix(),
                        document.raw["info"]["version"],
                        document.at(group, template, verb),
                    )

    def _check_response(
        self, operation: Operation, status: int, body: Any, headers: Mapping[str, str] | None
    ) -> Iterator[Problem]:
        responses = operation.node.at("responses")
        declared = {code: self._schemas.resolve(responses.at(code)) for code in responses.raw}
        response = declared.get(str(status))
        # `default` answers failures, and tells the body of one that is declared without
        if status >= 400 and "default" in declared and (response is None or "schema" not in response.raw):
            response = declared["default"]
        if response is None:
            yield Problem("status", "$", f"{operation} answers {', '.join(declared)}, not {status}")
            return
        if "schema" not in response.raw:
            if body is not None:
                yield Problem("unknown", "$", f"{operation} answers {status} without a body")
        elif body is None:
            yield Problem("required", "$", f"{operation} answers {status} with a body")
        else:
            yield from self._schemas.check(response.at("schema"), body)
        if headers is not None:
            sent = {name.lower(): value for name, value in headers.items()}
            yield from _check_headers(response.raw.get("headers", ()), status, body is not None, sent)

    def _check_request(self, operation: Operation, body: Any) -> Iterator[Problem]:
        item = self._schemas.document(operation.node.file).at(*operation.node.keys[:-1])
        for node in (operation.node, item):
            for index in range(len(node.raw.get("parameters", ()))):
                parameter = self._schemas.resolve(node.at("parameters", index))
                if parameter.raw.get("in") == "body":
                    if body is not None:
                        yield from self._schemas.check(parameter.at("schema"), body, request=True)
                    elif parameter.raw.get("required"):
                        yield Problem("required", "$", f"{operation} takes a body")
                    return
        if body is not None:
            yield Problem("unknown", "$", f"{operation} takes no body")


def _check_headers(
    declared: Collection[str], status: int, has_body: bool, headers: Mapping[str, str]
) -> Iterator[Problem]:
    for name in declared:
        if name.lower() not in headers:
            yield Problem("header", "$", f"{name} is missing")
    # documents seldom say it, but no client could go on without (ARM's rules for asynchronous operations)
    if status == 202 and not headers.keys() & {"azure-asyncoperation", "location"}:
        yield Problem("header", "$", "a 202 says in Azure-AsyncOperation or Location where to ask on")
    if has_body and headers.get("content-type", "").partition(";")[0] != "application/json":
        yield Problem("header", "$", "Content-Type is not application/json")


def _kept(problems: Iterator[Problem], allow: Collection[str]) -> list[Problem]:
    return [problem for problem in problems if problem.kind not in allow and problem.place not in allow]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)), re.IGNORECASE)


def _variables(template: str) -> tuple[bool, ...]:
    return tuple("{" in segment for segment in template.split("/"))


def _age(api_version: str) -> tuple[str, bool]:
    """`2024-04-01` is newer than `2024-04-01-preview`."""
    return api_version[:10], not api_version[10:]
