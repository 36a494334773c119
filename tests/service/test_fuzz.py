# SPDX-License-Identifier: Apache-2.0
"""Requests that nobody in his right mind sends, made by schemathesis out of the service's own description.

Whatever comes, the answer is one of the service's own: never a fault of its own (500), always ARM's error body with a
request id; and the vault that was there before is there after it, with what was in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from keepstone.arm.openapi import description
from keepstone.arm.operations import OPERATIONS
from keepstone.arm.table import Operation
from keepstone.control.plane import Plane
from keepstone.identity import Principal

from .client import Client
from .protecting import CONTAINER, Vault

pytestmark = pytest.mark.service

EXAMPLES = int(os.environ.get("KEEPSTONE_FUZZ", "4"))
"""Requests for each operation and kind of nonsense; `KEEPSTONE_FUZZ=200` looks longer."""
DOCUMENT = description(tuple(OPERATIONS))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CASES = [result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok)]


@pytest.fixture(scope="module")
def vault(client: Client, plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "file").write_bytes(os.urandom(1000))
    made = Vault(client, plane, "fuzzed")
    item = made.protect(Path(folder))
    made.back_up(item)
    before = len(made.points(item))
    yield made
    assert len(made.points(item)) == before == 1


@pytest.fixture(scope="module")
def stranger(
    client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal], vault: Vault
) -> Client:
    """May do everything, but in another group alone, which has a vault as well."""
    playground = Vault(vault.client, vault.plane, "playground")
    return client_of(principal("Owner", scope=playground.group))


def known(vault: Vault, name: str, group: str) -> str | None:
    """A value of the path that leads somewhere."""
    return {
        "subscription": vault.plane.place.subscription,
        "group": group,
        "vault": "vault1",
        "fabric": "Azure",
        "container": CONTAINER,
        "policy": "FilesPolicy",
        "location": "onprem1",
        "tenant": vault.plane.place.tenant,
    }.get(name)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_nonsense(vault: Vault, stranger: Client, case: Any, mode: GenerationMode) -> None:
    reading = case.method.upper() == "GET"
    asks = vault.client if reading else stranger

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(made=case.as_strategy(generation_mode=mode))
    def nonsense(made: Any) -> None:
        for name in made.path_parameters or {}:
            value = known(vault, name, "fuzzed" if reading else "playground")
            if value is not None:
                made.path_parameters[name] = value
        request = made.as_transport_kwargs(base_url="https://localhost:8443")
        answered = asks.raw(
            request["method"],
            request["url"],
            **{key: value for key, value in request.items() if key in ("params", "headers", "json", "data")},
        )
        assert answered.status_code != 500, (case.label, request, answered.text)
        assert answered.headers["x-ms-request-id"]
        if answered.status_code >= 400 and case.method.upper() != "HEAD":
            assert "error" in answered.json()

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with a request without parts
        nonsense()


def test_every_operation_is_described() -> None:
    described = {(verb.upper(), path) for path, verbs in DOCUMENT["paths"].items() for verb in verbs}
    assert described == {(operation.verb, operation.template) for operation in OPERATIONS}
    assert isinstance(OPERATIONS[0], Operation)
