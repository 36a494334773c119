# SPDX-License-Identifier: Apache-2.0
"""Where an NBD server is: a unix socket, or a host and a port.

As a URI by doc/uri.md of https://github.com/NetworkBlockDevice/nbd: `nbd://host:port/export`,
`nbd+unix:///export?socket=path`, and the same with `nbds`, which wants TLS.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from keepstone.disks.nbd.protocol import LONGEST_TEXT, PORT
from keepstone.errors import UsageError

__all__ = ["Address"]

_SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix")
_KNOWN = {"socket", "tls-type", "tls-hostname", "tls-verify-peer"}


@dataclass(frozen=True, slots=True)
class Address:
    """`socket` or else `host` and `port`; `tls`: it must not be reached without; `hostname`: whose certificate."""

    socket: str | None = None
    host: str = ""
    port: int = PORT
    export: str = ""
    tls: bool = False
    hostname: str = ""

    def __post_init__(self) -> None:
        """`UsageError` where the export's name is none."""
        if len(self.export.encode()) > LONGEST_TEXT or "\0" in self.export:
            raise UsageError(f"the name of an NBD export has no NUL and at most {LONGEST_TEXT} bytes; choose another")

    @classmethod
    def of(cls, text: str | Path, export: str = "") -> Address:
        """Out of a URI, the path of a socket, or `host:port`. `UsageError` where it is none of them.

        `export` counts where the URI names none.
        """
        if isinstance(text, Path):
            return cls(socket=os.fspath(text), export=export)
        if text.partition(":")[0] in _SCHEMES:
            return _from_uri(text, export)
        if "/" in text:
            return cls(socket=text, export=export)
        host, port = _split(text)
        return cls(host=host, port=port, export=export)

    @property
    def loopback(self) -> bool:
        """Whether nobody reaches it from another machine."""
        if self.socket is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def uri(self) -> str:
        """The same as a URI."""
        scheme = "nbds" if self.tls else "nbd"
        if self.socket is not None:
            return f"{scheme}+unix:///{quote(self.export, safe='')}?socket={quote(self.socket)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{quote(self.export, safe='')}"

    def __str__(self) -> str:
        return self.uri


def _from_uri(text: str, export: str) -> Address:
    try:
        parts = urlsplit(text)
        values = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict"))
        host, port = parts.hostname or "", parts.port or PORT
        named = unquote(parts.path[1:], errors="strict") or export
    except ValueError as error:
        raise UsageError(f"{text!r} is no NBD URI: {error}") from error
    unknown = sorted(set(values) - _KNOWN)
    if unknown:
        raise UsageError(f"{text!r} says {unknown[0]!r}, which is not understood; leave it out")
    if values.get("tls-type", "x509") != "x509" or values.get("tls-verify-peer", "1") != "1":
        raise UsageError(f"{text!r}: a server is known by its certificate only; leave out tls-type and tls-verify-peer")
    tls, hostname = parts.scheme.startswith("nbds"), values.get("tls-hostname", "")
    if parts.scheme.endswith("+unix"):
        if not values.get("socket"):
            raise UsageError(f"{text!r} names no socket; add ?socket=PATH")
        return Address(socket=values["socket"], export=named, tls=tls, hostname=hostname or host or "localhost")
    if not host:
        raise UsageError(f"{text!r} names no host; write nbd://HOST:PORT/EXPORT")
    if "socket" in values:
        raise UsageError(f"{text!r} names a host and a socket; write nbd+unix:///EXPORT?socket=PATH")
    return Address(host=host, port=port, export=named, tls=tls, hostname=hostname or host)


def _split(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port is not None and parts.netloc == text and "@" not in text:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise UsageError(f"{text!r} is no address; write HOST:PORT, the path of a socket, or an NBD URI")
