# SPDX-License-Identifier: Apache-2.0
"""In which language pages speak: texts are looked up in the catalogue of whoever asks, where there is one.

What the service's operations say of themselves (what a deletion takes, what they refuse and why) and the words of
Azure's API stay English, as they are for every other client.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from gettext import NullTranslations, translation
from importlib.resources import files

from markupsafe import Markup, escape

__all__ = ["ENGLISH", "_", "catalogue", "counted", "language", "language_of", "languages", "later", "speak"]

ENGLISH = "en"
"""What all texts are written in."""
_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)
FOLDER = files("keepstone.portal").joinpath("locale")


def speak(name: str) -> None:
    """From now on, in what this request still does."""
    _spoken.set(name)


def language() -> str:
    """What is spoken."""
    return _spoken.get()


def _(text: str, /, **values: object) -> str:
    """A text in that language, with these values in it; without values nothing in it is looked for. Where a value is
    markup it stays so, and the text and all other values are escaped."""
    if not text:  # in a catalogue this is its head
        return ""
    found = catalogue(_spoken.get()).gettext(text)
    return _filled(found, values) if values else found


def counted(one: str, many: str, number: int, /, **values: object) -> str:
    """A text about so many, which it names as `%(number)s`; it may name values besides, or write the number otherwise
    by one of that name."""
    found = catalogue(_spoken.get()).ngettext(one, many, number)
    return _filled(found, {"number": number, **values})


def _filled(found: str, values: Mapping[str, object]) -> str:
    if any(isinstance(one, Markup) for one in values.values()):
        return escape(found) % values
    return found % values


def later(text: str) -> str:
    """A text that is looked up where it is shown: what a module says of itself has no language yet."""
    return text


@cache
def catalogue(name: str) -> NullTranslations:
    """The texts in a language; those of English where there is no catalogue."""
    return translation("portal", str(FOLDER), [name], fallback=True)


@cache
def languages() -> frozenset[str]:
    """Those that there is a catalogue of, and English."""
    there = {entry.name for entry in FOLDER.iterdir() if entry.joinpath("LC_MESSAGES", "portal.mo").is_file()}
    return frozenset(there | {ENGLISH})


def language_of(header: str) -> str:
    """The first language of an Accept-Language (RFC 9110, section 12.5.4) that there is."""
    wanted = [part.partition(";")[0].strip() for part in header.split(",")]
    return next((one for tag in wanted for one in (tag.replace("-", "_"), tag[:2]) if one in languages()), ENGLISH)
