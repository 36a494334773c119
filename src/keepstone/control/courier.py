# SPDX-License-Identifier: Apache-2.0
"""Takes a message to an address: mail, chat, webhooks and many more, whatever apprise can reach
(https://github.com/caronc/apprise/wiki). The network is reached here past the `Env`.

What apprise says of its doings names addresses with their secrets where it is asked for details. It is heard from
warnings on, by this module alone, and what it says is shown without any part of the address that could be a secret.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from keepstone.errors import InvalidRequest

__all__ = ["Message", "deliver", "shown"]

_log = logging.getLogger(__name__)
_LONGEST = 4096  # characters of an address
_SHORTEST = 3  # characters of what could be a secret
_SAID = 400  # characters of an error that are kept


@dataclass(frozen=True, slots=True)
class Message:
    """`level`: info, success, warning or failure, as apprise has them."""

    title: str
    body: str
    level: str


def shown(address: str) -> str:
    """What everybody may see of an address: the service, and the host where it names one. `InvalidRequest` for what is
    no address."""
    plugin = _plugin(address)
    if plugin is None:
        raise InvalidRequest(
            "properties.url is no address that a message can be sent to; write one such as "
            "mailto://user:password@example.com, jsons://example.com/hook or ntfys://example.com/topic "
            "(https://github.com/caronc/apprise/wiki lists them all)",
            target="properties.url",
        )
    scheme = address.strip().partition("://")[0].lower()
    # Elsewhere than in services that have nothing but hosts, what stands in the host's place may be a token.
    if not plugin.host or not all("{host}" in template for template in plugin.templates):
        return f"{scheme}://…"
    port = f":{plugin.port}" if isinstance(plugin.port, int) else ""
    return f"{scheme}://{plugin.host}{port}/…"[:255]


def deliver(address: str, message: Message) -> str | None:
    """Why the message did not arrive; None where it did. It may take as long as the other side lets it."""
    plugin = _plugin(address)
    if plugin is None:
        return "this version knows no such address; give it again with `keepstone alert target add`"
    library = _library()
    _heard.lines = []
    try:  # by the service itself: all that apprise sends else shares a few threads, which some that hang would fill
        arrived = plugin.notify(
            body=message.body,
            title=message.title,
            notify_type=library.NotifyType(message.level),
            body_format=library.NotifyFormat.TEXT,
        )
    except Exception as error:  # of one of two hundred plugins
        _log.warning("the notification service '%s' failed by a fault: %s", plugin.service_name, type(error).__name__)
        _heard.lines.append(f"{type(error).__name__}: {error}")
        arrived = False
    lines, _heard.lines = _heard.lines, []
    if arrived:
        return None
    return _without_secrets("; ".join(lines) or f"{plugin.service_name} did not take it", address)[:_SAID]


class _Heard(threading.local):
    """What apprise said on this thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []


class _Ear(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _heard.lines.append(record.getMessage().strip())


_heard = _Heard()


@cache
def _library() -> ModuleType:
    """apprise, with all of its services; loading them takes about a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules of others that old services use
        import apprise

        log = logging.getLogger(apprise.LOGGER_NAME)
        log.setLevel(logging.WARNING)
        log.propagate = False
        log.addHandler(_Ear())
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        apprise.Apprise.instantiate("json://localhost")
    return apprise


def _plugin(address: str) -> Any:
    """The service that takes messages for this address; None where none does."""
    text = address.strip()
    if len(text) > _LONGEST or not re.fullmatch(r"[A-Za-z][\w+.-]*://\S*", text):
        return None
    library = _library()
    asset = library.AppriseAsset(app_id="Keepstone", app_desc="Keepstone", app_url="", async_mode=False)
    try:
        return library.Apprise.instantiate(text, asset=asset)
    except Exception:  # of a plugin that this text is too much for
        return None
    finally:
        _heard.lines = []


def _without_secrets(text: str, address: str) -> str:
    """Without any part of the address but what everybody may see of it."""
    parts = urlsplit(address.strip())
    user, _, host = parts.netloc.rpartition("@")
    hidden = [user, parts.path, parts.query, parts.fragment] + ([host] if shown(address).endswith("://…") else [])
    pieces = {piece for part in hidden for piece in re.split(r"[/?&=:@#,;]", part)}
    pieces |= {unquote(piece) for piece in pieces}
    for piece in sorted(pieces, key=len, reverse=True):
        if len(piece) >= _SHORTEST:
            text = text.replace(piece, "…")
    return text
