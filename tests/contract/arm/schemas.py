# SPDX-License-Identifier: Apache-2.0
"""Bodies against the schemas of OpenAPI 2.0 documents, as the generators of Azure's clients read them.

They read more than JSON Schema says, and that is what the clients then rely on: `discriminator` with
`x-ms-discriminator-value` names the subtype that a body has, over any number of levels; a property that nobody
requires may be null; what is `readOnly` is not sent. A property that a schema does not name is a problem of its own
kind, because JSON Schema would let every misspelt name pass.

A document is read once. A reference is followed, also into another file, when a body first needs it; nothing else is,
so references to examples may lead nowhere.
"""

from __future__ import annotations

import base64
import json
import os
import re
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["FORMATS", "Node", "Problem", "Schemas"]

_VALUE = "x-ms-discriminator-value"
_OBJECT = {"properties", "allOf", "additionalProperties"}  # what says how an object looks


class Problem(str):
    """What is wrong, as a sentence, where, as a JSON path, and its kind.

    | kind | |
    |---|---|
    | `status` | the operation does not declare this status |
    | `header` | a header is missing |
    | `type` | another JSON type, or null where it may not be |
    | `format` | not a date-time, a duration, an int32 … |
    | `limit` | too long, too short, too large, too small, or not of the pattern |
    | `enum` | a value that an open enum does not list (`modelAsString`): clients read it as a string |
    | `value` | a value that a closed enum does not list: clients fail |
    | `required` | a property or a body is missing |
    | `discriminator` | missing, or the name of no type that may stand here |
    | `unknown` | a property or a body that nothing declares |
    | `readonly` | a request sets what only the service sets |
    """

    __slots__ = ("kind", "path")

    kind: str
    path: str

    def __new__(cls, kind: str, path: str, what: str) -> Problem:
        made = super().__new__(cls, f"{kind} at {path}: {what}")
        made.kind, made.path = kind, path
        return made

    @property
    def place(self) -> str:
        """`kind at path`, where `[*]` stands for every index."""
        return f"{self.kind} at {_INDEX.sub('[*]', self.path)}"


_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Node:
    """A place in a document, and what is there."""

    file: Path
    keys: tuple[str | int, ...]
    raw: Any = field(compare=False, repr=False)

    def at(self, *keys: str | int) -> Node:
        """A place beneath. `LookupError` where there is none."""
        raw = self.raw
        for key in keys:
            raw = raw[int(key) if isinstance(raw, list) else key]
        return Node(self.file, self.keys + keys, raw)

    @property
    def is_definition(self) -> bool:
        """Whether it has a name that others may refer to."""
        return len(self.keys) == 2 and self.keys[0] == "definitions"


@dataclass(frozen=True, slots=True)
class _Shape:
    """An object with all that it inherits."""

    properties: Mapping[str, Node]
    required: frozenset[str]
    others: Node | bool  # what further properties are; False: there are none


class Schemas:
    """The schemas of some files and of those that they refer to."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = tuple(files)
        self.document = cache(self._document)
        self.resolve = cache(self._resolve)
        self._shape = cache(self._new_shape)
        self._kinds = cache(self._new_kinds)
        self._discriminator = cache(self._find_discriminator)

    def check(self, node: Node, value: Any, at: str = "$", *, request: bool = False) -> Iterator[Problem]:
        """What is wrong with a value (decoded JSON) that is to have the schema at `node`."""
        if value is None and self._says(node, "x-nullable"):
            return
        node = self.resolve(node)
        raw = node.raw
        kind = _type(raw)
        if kind is None:
            return
        if not _TYPES[kind](value):
            yield Problem("type", at, f"{kind} is wanted, {_shown(value)} was found")
        elif kind == "object":
            if _OBJECT & raw.keys():  # else any object
                yield from self._check_object(node, value, at, request)
        else:
            yield from _check_value(kind, raw, value, at)
            if kind == "array" and "items" in raw:
                items = node.at("items")
                for index, item in enumerate(value):
                    yield from self.check(items, item, f"{at}[{index}]", request=request)

    def _check_object(self, node: Node, body: dict[str, Any], at: str, request: bool) -> Iterator[Problem]:
        told: set[str] = set()  # discriminators: checked by what they choose
        while (name := self._discriminator(node)) is not None and name not in told:
            kinds, value = self._kinds(node, name), body.get(name)
            if not kinds:
                break
            if not isinstance(value, str) or value not in kinds:
                said = f"{_shown(value)} is no {node.keys[-1]}" if name in body else "is missing"
                yield Problem("discriminator", _beneath(at, name), f"{said}; there are {', '.join(sorted(kinds))}")
                return
            node = kinds[value]
            told.add(name)

        shape = self._shape(node)
        for name in sorted(shape.required - body.keys()):
            if not (request and name in shape.properties and self._says(shape.properties[name], "readOnly")):
                yield Problem("required", _beneath(at, name), "is missing")
        for name, value in body.items():
            here = _beneath(at, name)
            schema = shape.properties.get(name, shape.others)
            if isinstance(schema, bool):
                if not schema:
                    yield Problem("unknown", here, _nothing_of(name, shape))
            elif name in told or (value is None and name not in shape.required):
                continue
            elif request and self._says(schema, "readOnly"):
                yield Problem("readonly", here, "only the service sets it")
            else:
                yield from self.check(schema, value, here, request=request)

    # --- documents and references

    def _document(self, file: Path) -> Node:
        """The whole of a file."""
        return Node(file, (), json.loads(file.read_bytes()))

    def _resolve(self, node: Node) -> Node:
        """What a node means: the end of its references. Clients take a nameless schema that does nothing but extend one
        other for that other; so do we."""
        raw = node.raw
        if "$ref" in raw:
            address, _, pointer = raw["$ref"].partition("#")
            file = Path(os.path.normpath(node.file.parent / unquote(address))) if address else node.file
            keys = [unquote(key).replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]
            try:
                target = self.document(file).at(*keys)
            except (LookupError, OSError) as error:
                raise LookupError(f"{node.file}: the reference {raw['$ref']} leads nowhere") from error
            return self.resolve(target)
        if len(raw.get("allOf", ())) == 1 and "properties" not in raw and not node.is_definition:
            return self.resolve(node.at("allOf", 0))
        return node

    def _says(self, node: Node, word: str) -> bool:
        """Whether a node or what it refers to has this flag."""
        return bool(node.raw.get(word) or self.resolve(node).raw.get(word))

    # --- inheritance

    def _bases(self, node: Node) -> list[Node]:
        return [self.resolve(node.at("allOf", index)) for index in range(len(node.raw.get("allOf", ())))]

    def _new_shape(self, node: Node) -> _Shape:
        raw = node.raw
        properties: dict[str, Node] = {}
        required: set[str] = set()
        others: Node | bool = False
        for base in map(self._shape, self._bases(node)):
            properties |= base.properties
            required |= base.required
            others = others or base.others
        properties |= {name: node.at("properties", name) for name in raw.get("properties", ())}
        required.update(raw.get("required", ()))
        if "additionalProperties" in raw:
            own = raw["additionalProperties"]
            others = own if isinstance(own, bool) else node.at("additionalProperties")
        return _Shape(properties, frozenset(required), others)

    @cached_property
    def _derived(self) -> Mapping[Node, list[Node]]:
        """The definitions that extend one."""
        found = defaultdict(list)
        for file in self._files:
            document = self.document(file)
            for name in document.raw.get("definitions", ()):
                node = document.at("definitions", name)
                for base in self._bases(node):
                    found[base].append(node)
        return found

    def _descendants(self, node: Node) -> Iterator[Node]:
        for child in self._derived.get(node, ()):
            yield child
            yield from self._descendants(child)

    def _find_discriminator(self, node: Node) -> str | None:
        """The property that names the type of such an object: its own or the nearest inherited one."""
        own: str | None = node.raw.get("discriminator")
        return own or self._inherited(node)

    def _inherited(self, node: Node) -> str | None:
        return next(filter(None, map(self._discriminator, self._bases(node))), None)

    def _new_kinds(self, node: Node, name: str) -> Mapping[str, Node]:
        """The types that may stand where `node` is wanted, by what their property `name` says.

        A type that only declares the discriminator has no value of its own, and so is never sent.
        """
        kinds = {}
        for kind in (node, *self._descendants(node)):
            sent = _VALUE in kind.raw or "discriminator" not in kind.raw
            if sent and name == (self._inherited(kind) or kind.raw.get("discriminator")):
                kinds[str(kind.raw.get(_VALUE, kind.keys[-1]))] = kind
        return kinds


# --- values


def _type(raw: Mapping[str, Any]) -> str | None:
    """The JSON type that a schema asks for, said or meant; None for any value."""
    meant = "object" if _OBJECT & raw.keys() else "string" if "enum" in raw else None
    said: str | None = raw.get("type", meant)
    return said


def _check_value(kind: str, raw: Mapping[str, Any], value: Any, at: str) -> Iterator[Problem]:
    if "enum" in raw and value not in raw["enum"]:
        is_open = raw.get("x-ms-enum", {}).get("modelAsString", False)
        yield Problem(
            "enum" if is_open else "value", at, f"{_shown(value)} is none of {', '.join(map(str, raw['enum']))}"
        )
    if not FORMATS.get((kind, raw.get("format", "")), _anything)(value):
        yield Problem("format", at, f"{_shown(value)} is no {raw['format']}")
    size = len(value) if isinstance(value, str | list) else value
    for most in raw.keys() & {"maxLength", "maxItems", "maximum"}:
        if size > raw[most]:
            yield Problem("limit", at, f"{_shown(value)}: {most} is {raw[most]}")
    for least in raw.keys() & {"minLength", "minItems", "minimum"}:
        if size < raw[least]:
            yield Problem("limit", at, f"{_shown(value)}: {least} is {raw[least]}")
    if "pattern" in raw and not re.search(raw["pattern"], value):
        yield Problem("limit", at, f"{_shown(value)} is not of the pattern {raw['pattern']}")


def _nothing_of(name: str, shape: _Shape) -> str:
    """The commonest mistake is another case: `workloadType` of a policy is `workLoadType` on the wire."""
    alike = [known for known in shape.properties if known.casefold() == name.casefold()]
    return f"the schema has {alike[0]}" if alike else "the schema has no such property"


def _beneath(at: str, name: str) -> str:
    return f"{at}.{name}" if re.fullmatch(r"[\w-]+", name) else f"{at}[{name!r}]"


def _shown(value: Any) -> str:
    return "null" if value is None else _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = 80

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _anything(value: Any) -> bool:
    return True


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII)
_DURATION = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

# What the service says for the end of what has not ended: .NET's smallest time, which has no zone.
_NEVER = "0001-01-01T00:00:00"


def _is_instant(text: str) -> bool:
    """RFC 3339, with capital letters: Go reads no others."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        return text == _NEVER
    try:
        datetime.fromisoformat(found[1])
    except ValueError:
        return False
    return True


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


FORMATS: Mapping[tuple[str, str], Callable[[Any], bool]] = {
    ("integer", "int32"): lambda value: -(2**31) <= value < 2**31,
    ("integer", "int64"): lambda value: -(2**63) <= value < 2**63,
    ("number", "double"): _anything,
    ("string", "byte"): _is_base64,
    ("string", "date-time"): _is_instant,
    ("string", "duration"): lambda value: _DURATION.fullmatch(value) is not None,
    ("string", "uuid"): lambda value: _UUID.fullmatch(value) is not None,
}
