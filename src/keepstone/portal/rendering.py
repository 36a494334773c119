# SPDX-License-Identifier: Apache-2.0
"""Pages out of templates. Everything that is shown is text: it is escaped, whatever it says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from keepstone.control import sizes
from keepstone.portal import assets, dates, states
from keepstone.portal.api import Document
from keepstone.portal.speech import _, counted, language

__all__ = ["ago", "at", "environment", "link", "moment_of", "octets", "render"]


def at(document: Any, path: str, default: Any = None) -> Any:
    """What is in a document at a path such as `properties.status`."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return default if document is None else document


def moment_of(value: str | datetime | None) -> datetime | None:
    """A moment as operations write it."""
    if value is None or isinstance(value, datetime):
        return value
    found = datetime.fromisoformat(value[:26].rstrip("Z"))
    return found.replace(tzinfo=UTC)


def octets(count: float | None) -> str:
    """Bytes, for people."""
    if count is None:
        return "–"
    if abs(count) < 1024:
        return counted("%(number)s byte", "%(number)s bytes", round(count))
    return sizes.octets(count)


def ago(then: str | datetime | None, now: datetime) -> str:
    """How long ago something was, for people."""
    moment = moment_of(then)
    if moment is None:
        return _("never")
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return _("in %(span)s", span=_span(-seconds))
    return _("just now") if seconds < 60 else _("%(span)s ago", span=_span(seconds))


def _span(seconds: float) -> str:
    if seconds >= 86_400:
        return counted("%(number)s day", "%(number)s days", int(seconds // 86_400))
    if seconds >= 3600:
        return counted("%(number)s hour", "%(number)s hours", int(seconds // 3600))
    if seconds >= 60:
        return counted("%(number)s minute", "%(number)s minutes", int(seconds // 60))
    return _("less than a minute")


def _when(value: str | datetime | None) -> Markup:
    moment = moment_of(value)
    if moment is None:
        return Markup("–")
    return Markup('<time datetime="{}">{}</time>').format(f"{moment:%Y-%m-%dT%H:%M:%SZ}", f"{moment:%Y-%m-%d %H:%M}")


def _to_the_second(value: str) -> Markup:
    moment = moment_of(value)
    assert moment is not None
    return Markup('<time datetime="{}">{}</time>').format(f"{moment:%Y-%m-%dT%H:%M:%SZ}", f"{moment:%Y-%m-%d %H:%M:%S}")


def _vault_choice(vault: Document) -> tuple[str, str]:
    return vault["id"], vault["name"]


def _spoken(choices: Mapping[str, str]) -> list[tuple[str, str]]:
    """Choices that a module has for later, as they are called now."""
    return [(key, _(title)) for key, title in choices.items()]


def link(path: str, /, **query: str | Iterable[str] | None) -> str:
    """An address of the portal."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    return f"/portal{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")


@cache
def environment() -> Environment:
    """Where templates are found, and what they may use."""
    made = Environment(
        loader=PackageLoader("keepstone.portal"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.filters |= {"octets": octets, "when": _when, "moment": _to_the_second, "ago": ago, "at": at}
    made.filters |= {"vault_choice": _vault_choice, "spoken": _spoken, "word": states.word, "month_of": dates.month_of}
    made.globals |= {"language": language, "link": link, "asset": lambda name: link(assets.address(name)), "at": at}
    made.globals |= {"_": _, "counted": counted, "tone_of": states.tone}
    made.globals |= {"short": dates.short, "shortest": dates.shortest}
    made.globals |= {"weekdays": dates.WEEKDAYS, "months": dates.MONTHS}
    macros = made.get_template("macros.html").module
    made.globals |= {name: macro for name, macro in vars(macros).items() if not name.startswith("_")}
    return made


def render(template: str, shown: Mapping[str, Any], part: str = "") -> str:
    """The text of a page, or of one block of it."""
    found = environment().get_template(template)
    if not part:
        return found.render(shown)
    context = found.new_context(dict(shown))
    return "".join(found.blocks[part](context))
