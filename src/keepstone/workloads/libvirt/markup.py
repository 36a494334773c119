# SPDX-License-Identifier: Apache-2.0
"""XML as libvirt writes it: read with care, and written again as it was, prefixes of namespaces and all.

It comes from a daemon, or out of a point, which somebody may have forged. So it is bounded in length and depth, and
has no document type: nothing in it is expanded, nothing else is read because of it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET  # the tree only; the parser is the one below
from xml.parsers import expat

from keepstone.errors import SourceFailed

__all__ = ["Element", "child", "made", "parsed", "text_of", "written"]

Element = ET.Element

_LONGEST = 4 << 20
_DEEPEST = 64


def parsed(text: bytes | str, what: str) -> Element:
    """The root of a document; `what` it is, for messages. `SourceFailed` where it is none, or is more than one should
    be asked to read."""
    if len(text) > _LONGEST:
        raise SourceFailed(f"{what} is longer than {_LONGEST >> 20} MiB; it is not read")
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise SourceFailed(f"{what} is nested more than {_DEEPEST} deep; it is not read")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refused(*_: object) -> None:
        raise SourceFailed(f"{what} has a document type, as no XML of libvirt has; it is not read")

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refused
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, ValueError) as error:
        raise SourceFailed(f"{what} is no XML: {error}") from error
    return builder.close()


def written(root: Element) -> str:
    """The text of a document."""
    return ET.tostring(root, encoding="unicode")


def made(tag: str, text: str | None = None, **attributes: str) -> Element:
    """A new element."""
    element = Element(tag, attributes)
    element.text = text
    return element


def child(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    """A new element in another one."""
    element = made(tag, text, **attributes)
    parent.append(element)
    return element


def text_of(root: Element, path: str) -> str:
    """The text at this path; empty where there is none."""
    return (root.findtext(path) or "").strip()
