# SPDX-License-Identifier: Apache-2.0
"""What an operation is: what asks for it, who may, what answers; and the request and the answer themselves.

The table of operations in docs/AZURE-COMPATIBILITY.md is made out of these, and every test that goes through all
operations, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keepstone.errors import InvalidRequest
from keepstone.identity import Assignment, Issuer, Principal

if TYPE_CHECKING:
    from keepstone.control.plane import Plane

__all__ = ["GROUP", "PROVIDER", "SUBSCRIPTION", "VAULT", "Answer", "Call", "Operation", "Table"]

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = f"{SUBSCRIPTION}/resourceGroups/{{group}}"
PROVIDER = "/providers/Microsoft.RecoveryServices"
VAULT = f"{GROUP}{PROVIDER}/vaults/{{vault}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request. `names`: what stands in place of the variables of the path. `base`: the address that the client came
    to, without a slash at its end. `who`: None for an operation that anybody may ask for."""

    plane: Plane
    issuer: Issuer
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    base: str
    path: str
    who: Principal | None
    held: list[Assignment]
    correlation: str

    def document(self) -> dict[str, Any]:
        """The body, which has to be an object."""
        if not isinstance(self.body, dict):
            raise InvalidRequest("the request needs a JSON object as its body", target="")
        return self.body

    def part(self, key: str) -> dict[str, Any]:
        """An object in the body; empty where there is none."""
        value = self.document().get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidRequest(f"{key} has to be an object", target=key)
        return value

    def text(self, key: str) -> str:
        """A text in the body. `InvalidRequest` where it is missing."""
        value = self.document().get(key)
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"{key} is missing", target=key)
        return value

    def tags(self) -> dict[str, Any]:
        """The tags in the body: texts by texts."""
        tags = self.part("tags")
        for key, value in tags.items():
            if not isinstance(value, str):
                raise InvalidRequest(f"tags.{key} has to be a text", target=f"tags.{key}")
        return tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`body`: None for none; bytes go out as they are, with the content type among the headers, and so do those of a
    generator, piece by piece: where it raises, the answer breaks off."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`name`: what Azure's Python SDK calls it, `group.method`. `action`: what somebody needs to be allowed; empty
    where anybody may ask. `az`: the commands that ask for it. `since`: the version that answers it; empty where a later
    one will. `filtered`: who may not see all gets what he may see, instead of a refusal."""

    verb: str
    template: str
    name: str
    run: Callable[[Call], Answer]
    action: str = ""
    az: tuple[str, ...] = ()
    since: str = "0.2"
    filtered: bool = False


class Table:
    """The operations of one module, in order."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def __call__(
        self, verb: str, template: str, name: str, **about: Any
    ) -> Callable[[Callable[[Call], Answer]], Callable[[Call], Answer]]:
        """Says that the function below answers this."""

        def register(run: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
            self.operations.append(Operation(verb=verb, template=template, name=name, run=run, **about))
            return run

        return register
