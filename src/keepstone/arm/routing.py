# SPDX-License-Identifier: Apache-2.0
"""From the path of a request to the operation that answers it, as Azure Resource Manager reads paths.

Fixed segments are told without regard to case; names keep the case that they were asked with. Clients write double
slashes and mean one. A slash at the end tells two operations apart where there are two: in cross-region restore it is
all that tells a secondary read from a primary one. Elsewhere it means nothing: az looks up the policy of an item that
has none at `backupPolicies/`, and goes on with the list that it gets. A segment is decoded after the path was divided,
so a name may contain `%2F`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar
from urllib.parse import unquote

from keepstone.errors import NoOperation, UsageError

__all__ = ["Routes"]

T = TypeVar("T")
_MOST = 40  # segments; the longest operation of the backup API has 17


class _Node(Generic[T]):
    """A position in a path: what may follow, and what it is when nothing does."""

    __slots__ = ("fixed", "name", "targets", "variable")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node[T]] = {}
        self.variable: _Node[T] | None = None
        self.name = ""  # of the variable that led here
        self.targets: dict[str, T] = {}  # by verb


class Routes(Generic[T]):
    """Targets by verb and template, such as `GET /subscriptions/{subscription}/resourcegroups`."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, verb: str, template: str, target: T) -> None:
        """Every verb and template once: `UsageError` for a second one."""
        node = self._root
        for segment in template.split("/")[1:]:
            if segment.startswith("{"):
                if node.variable is None:
                    node.variable = _Node()
                    node.variable.name = segment[1:-1]
                elif node.variable.name != segment[1:-1]:
                    raise UsageError(f"{template} calls {{{node.variable.name}}} by another name than an earlier route")
                node = node.variable
            else:
                node = node.fixed.setdefault(segment.casefold(), _Node())
        if verb in node.targets:
            raise UsageError(f"there are two routes for {verb} {template}")
        node.targets[verb] = target

    def find(self, verb: str, raw_path: str) -> tuple[T, dict[str, str]]:
        """The target, and what stands in place of the variables. `raw_path` is not decoded. `NoOperation` where nothing
        answers this path, or not with this verb."""
        segments = _segments(raw_path)
        verbs: set[str] = set()
        for node, values in self._nodes(segments):
            if verb in node.targets:
                return node.targets[verb], values
            verbs.update(node.targets)
        if verbs:
            raise NoOperation(f"{raw_path} does not take {verb}, but {', '.join(sorted(verbs))}", verbs=sorted(verbs))
        raise NoOperation(f"nothing answers {raw_path}; see the table of operations for what does", verbs=[])

    def _nodes(self, segments: list[str]) -> Iterator[tuple[_Node[T], dict[str, str]]]:
        """Every node that these segments lead to; with the slash at the end before without it."""
        yield from _walk(self._root, segments, 0)
        if len(segments) > 1 and not segments[-1]:
            yield from _walk(self._root, segments[:-1], 0)

    def __iter__(self) -> Iterator[tuple[str, str, T]]:
        """(verb, template, target) of all routes."""
        yield from _all(self._root, "")


def _segments(raw_path: str) -> list[str]:
    parts = raw_path.split("/")[1:]
    last = parts[-1:]
    segments = [part for part in parts[:-1] if part] + last
    return [unquote(segment) for segment in segments] if len(segments) <= _MOST else []


def _walk(node: _Node[T], segments: list[str], at: int) -> Iterator[tuple[_Node[T], dict[str, str]]]:
    """Every node that these segments lead to; fixed ones go before variables."""
    if at == len(segments):
        if node.targets:
            yield node, {}
        return
    fixed = node.fixed.get(segments[at].casefold())
    if fixed is not None:
        yield from _walk(fixed, segments, at + 1)
    if node.variable is not None and segments[at]:
        for found, values in _walk(node.variable, segments, at + 1):
            yield found, {node.variable.name: segments[at], **values}


def _all(node: _Node[T], path: str) -> Iterator[tuple[str, str, T]]:
    for verb, target in node.targets.items():
        yield verb, path, target
    for segment, child in node.fixed.items():
        yield from _all(child, f"{path}/{segment}")
    if node.variable is not None:
        yield from _all(node.variable, f"{path}/{{{node.variable.name}}}")
