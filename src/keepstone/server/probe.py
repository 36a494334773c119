# SPDX-License-Identifier: Apache-2.0
"""Asks a service whether it is well, as any client would: over TLS, trusting its own authority alone."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from keepstone.decoders import from_json

__all__ = ["Health", "health"]

_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Health:
    """`well`: all its parts work. `said`: what it says of them. `error`: why nothing can be known of it."""

    well: bool
    said: dict[str, Any]
    error: str = ""


def health(url: str, ca: Path) -> Health | None:
    """What the service at `url` says; None where nothing listens there."""
    place = urlsplit(url)
    assert place.hostname is not None
    try:
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(place.hostname, place.port, timeout=_TIMEOUT, context=context)
        try:
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            said = from_json(dict[str, Any]).decode(response.read())
        finally:
            connection.close()
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        return Health(False, {}, f"{type(error).__name__}: {error}")
    return Health(response.status == http.client.OK, said)
