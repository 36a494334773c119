# SPDX-License-Identifier: Apache-2.0
"""What a command found, as somebody wants to see it: `json` as the service answered, `table` the columns that people
want, `tsv` the same for shells, `none` nothing. `--query` chooses in JMESPath before that, as `az` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keepstone.cli.render import safe, size, table

__all__ = ["FORMS", "Column", "Output", "at", "count", "label", "moment", "octets"]

FORMS = ("table", "json", "tsv", "none")


def at(document: Any, path: str) -> Any:
    """What stands at a path of names joined by points; None where nothing does."""
    for name in path.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def label(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(label, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={label(one)}" for key, one in value.items())
    return str(value)


def moment(value: Any) -> str:
    """A time of the API to the second."""
    text = label(value)
    return text[:19] + "Z" if len(text) > 19 and text[10] == "T" else text


def count(value: Any) -> str:
    """A whole number, its thousands apart."""
    return f"{value:,}" if isinstance(value, int) else label(value)


def octets(value: Any) -> str:
    """Bytes with their unit."""
    return size(value) if isinstance(value, int) else label(value)


@dataclass(frozen=True, slots=True)
class Column:
    """`title` for people; `read`: a path in the document, or what makes the cell out of it; `shown`: see above."""

    title: str
    read: str | Callable[[Mapping[str, Any]], Any]
    shown: Callable[[Any], str] = label

    def cell(self, document: Mapping[str, Any]) -> str:
        """Of one document, in one printable line."""
        value = at(document, self.read) if isinstance(self.read, str) else self.read(document)
        return safe(self.shown(value))


@dataclass(frozen=True, slots=True)
class Output:
    """`form`: one of `FORMS`. `query`: JMESPath, None for everything."""

    form: str = "table"
    query: str | None = None

    def lines(self, value: Any, columns: Sequence[Column]) -> list[str]:
        """A document or a list of them. `UsageError` for a query that is none."""
        if self.query is not None:
            value = _found(self.query, value)
        if self.form == "none":
            return []
        if self.form == "json":
            return [_json(value)]
        if self.query is not None:
            heading, rows = _shape(value)
        elif isinstance(value, Mapping) and self.form == "table":
            facts = [(f"{column.title}:", column.cell(value)) for column in columns]
            heading, rows = (), [fact for fact in facts if fact[1]]
        else:
            documents = value if isinstance(value, list) else [value]
            heading = tuple(column.title for column in columns)
            rows = [tuple(column.cell(one) for column in columns) for one in documents]
        if self.form == "tsv":
            return ["\t".join(row) for row in rows]
        return table(rows, heading) if rows else []


def _found(query: str, value: Any) -> Any:
    import jmespath  # type: ignore[import-untyped] # it comes without types

    from keepstone.errors import UsageError

    try:
        return jmespath.search(query, value)
    except jmespath.exceptions.JMESPathError as error:
        raise UsageError(f"--query {query!r} is no JMESPath that fits ({error}); see jmespath.org") from error


def _shape(value: Any) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(heading, rows) of whatever a query gives."""
    if value is None:
        return (), []
    found = value if isinstance(value, list) else [value]
    if found and all(isinstance(one, Mapping) for one in found):
        names = list(dict.fromkeys(name for one in found for name in one))
        return tuple(names), [tuple(_plain(one.get(name)) for name in names) for one in found]
    if found and all(isinstance(one, list) for one in found):
        width = max(map(len, found))
        return (), [tuple(_plain(cell) for cell in [*one, *[None] * (width - len(one))]) for one in found]
    return (), [(_plain(one),) for one in found]


def _plain(value: Any) -> str:
    """A cell: what is no text or number is shown as JSON."""
    if isinstance(value, (Mapping, list)):
        import msgspec

        return safe(msgspec.json.encode(value).decode())
    if isinstance(value, bool):
        return "true" if value else "false"
    return safe(label(value))


def _json(value: Any) -> str:
    """One line for a program; on a terminal as people read it."""
    import msgspec

    data = msgspec.json.encode(value)
    return (msgspec.json.format(data) if sys.stdout is not None and sys.stdout.isatty() else data).decode()
