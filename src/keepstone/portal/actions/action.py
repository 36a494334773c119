# SPDX-License-Identifier: Apache-2.0
"""An action: a form, and the request that what is given there comes to, with its equivalents.

Its page is `/do/NAME`. It is drawn anew when something in the form changes, so that the equivalents are those of what
is given; it works without a script too.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from keepstone.portal.api import VERSION, Document, Reply, Request, quoted
from keepstone.portal.visit import Visit

__all__ = ["Action", "Actions", "Choice", "Equivalent", "Field", "Plan", "equivalents"]

Command = Sequence[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """`value` is sent, `label` is shown."""

    value: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Something to give. `kind`: text, password, number, date, lines (one a line), check, choice, choices (several), or
    hidden. `default`: the value or values that it has at first."""

    name: str
    label: str
    kind: str = "text"
    choices: Sequence[Choice] = ()
    default: str | Sequence[str] = ""
    help: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be done. `az`, `keepstone`: commands that do the same, one after the other; none where there is no
    word for it. `radius`: what it would take with it, for people: label and value. `then`: the page that is shown
    after it where no job does it; `notice`: what is said there. `before`: what is asked for first. `file`: the name and
    the bytes of the file that the answer is for the browser; `once`: what it says that nobody is told again, label and
    value; `renews`: whether it ends the logins of who asks, and his browser gets another one. `unsure`: what somebody
    has to say yes to first; it is not done without. `shown`: what its page shows besides."""

    request: Request
    az: Sequence[Command] = ()
    keepstone: Sequence[Command] = ()
    radius: Sequence[tuple[str, object]] = ()
    refused: Sequence[str] = ()
    then: str = "/portal/"
    notice: str = ""
    before: Sequence[Request] = ()
    file: Callable[[Reply], tuple[str, bytes]] | None = None
    once: Callable[[Reply], Sequence[tuple[str, str]]] | None = None
    renews: bool = False
    unsure: str = ""
    shown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """`title`: what it does, also on its button. `says`: one sentence more. `destroys`: whether something may be lost
    by it. `fields`: what is to be given, besides `id`, the resource that it is about. `plan` raises what is wrong with
    what was given. `downloads`: whether its answer is a file, which may be taken again. `template`, `shows`: its own
    page, and what that shows whatever the plan is."""

    name: str
    title: str
    says: str
    plan: Callable[[Visit], Plan]
    fields: Callable[[Visit], Sequence[Field]] = field(default=lambda visit: ())
    destroys: bool = False
    downloads: bool = False
    template: str = "action.html"
    shows: Callable[[Visit], Mapping[str, Any]] = field(default=lambda visit: {})


class Actions:
    """The actions of a module."""

    def __init__(self) -> None:
        self._actions: dict[str, Action] = {}

    def __call__(
        self,
        name: str,
        title: str,
        says: str,
        *,
        fields: Callable[[Visit], Sequence[Field]] = lambda visit: (),
        destroys: bool = False,
        **page: Any,
    ) -> Callable[[Callable[[Visit], Plan]], Callable[[Visit], Plan]]:
        """Says that the function below plans this."""

        def register(plan: Callable[[Visit], Plan]) -> Callable[[Visit], Plan]:
            assert name not in self._actions
            self._actions[name] = Action(
                name=name, title=title, says=says, plan=plan, fields=fields, destroys=destroys, **page
            )
            return plan

        return register

    def __iter__(self) -> Iterator[Action]:
        return iter(self._actions.values())


@dataclass(frozen=True, slots=True)
class Equivalent:
    """The same as a program would do it. `label`: whose words these are."""

    label: str
    text: str


def equivalents(plan: Plan, base: str) -> list[Equivalent]:
    """Of an action, ready to copy. Its request is the one that is sent."""
    found = []
    if plan.az:
        found.append(Equivalent("az", _lines(("az", *command) for command in plan.az)))
    if plan.keepstone:
        found.append(Equivalent("keepstone", _lines(("keepstone", *command) for command in plan.keepstone)))
    found.append(Equivalent("REST", "\n\n".join(_rest(one, base) for one in (*plan.before, plan.request))))
    return found


def _lines(commands: Iterator[Command] | Sequence[Command]) -> str:
    return "\n".join(shlex.join(command) for command in commands)


def _rest(request: Request, base: str) -> str:
    query = urlencode({"api-version": VERSION, **request.query})
    first = f"{request.verb} {base}{quoted(request.path)}?{query}"
    first += "".join(f"\n{name}: {value}" for name, value in request.headers.items())
    return first if request.body is None else f"{first}\n\n{_body(request.body)}"


def _body(body: Document) -> str:
    return json.dumps(_shown(body), indent=2, ensure_ascii=False)


_SECRETS = ("password", "currentPassword")


def _shown(value: Any) -> Any:
    """As a page may show it: no secret is on one."""
    if isinstance(value, dict):
        return {key: "********" if key in _SECRETS else _shown(one) for key, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, list) else value
