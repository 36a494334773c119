# SPDX-License-Identifier: Apache-2.0
"""Where a service listens, and by which names clients find it."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import Any

from keepstone.errors import AccessDenied, Conflict, UsageError
from keepstone.objects import failure

__all__ = ["Address", "listen"]

_BACKLOG = 2048
_TRIES, _PAUSE = 10, 0.1  # seconds
_ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """`host`: the address that is listened at, or all of them (`0.0.0.0`, `::`). `others`: names that clients use."""

    host: str
    port: int
    others: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What the certificate is for."""
        own = [] if self._is("is_unspecified") else [self.host]
        return list(dict.fromkeys([*_ALWAYS, socket.getfqdn(), *own, *self.others]))

    @property
    def url(self) -> str:
        """The address for clients, without a slash at its end."""
        if self._is("is_loopback"):
            host = "localhost"
        elif self.others:
            host = self.others[0]
        else:
            host = socket.getfqdn() if self._is("is_unspecified") else self.host
        return f"https://{_bracketed(host)}:{self.port}"

    @property
    def probe(self) -> str:
        """The address for this machine."""
        every = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return f"https://{_bracketed(every.get(self.host, self.host))}:{self.port}"

    def _is(self, what: str) -> bool:
        try:
            return bool(getattr(ipaddress.ip_address(self.host), what))
        except ValueError:  # a name
            return self.host == "localhost" and what == "is_loopback"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. `Conflict` where somebody else does, `AccessDenied`,
    `UsageError` where this machine has no such address."""
    where = f"{_bracketed(host)}:{port}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (socket.gaierror, OverflowError) as error:
        raise UsageError(f"nothing can listen at {where} ({error}); choose an address of this machine") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `::` is every address of either kind
        _bind(listener, place)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"something else listens at {where} already; choose another --port, or stop it") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"this machine has no address {host}; choose one of its own as --host") from error
        if error.errno == errno.EACCES:
            raise AccessDenied(f"{where} is not for this user to listen at; choose a --port above 1023") from error
        raise failure(error, where) from error
    return listener


def _bind(listener: socket.socket, place: Any) -> None:
    """Those that answered for a server that was killed have the port for a moment longer."""
    for _ in range(_TRIES):
        try:
            listener.bind(place)
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(_PAUSE)
    listener.bind(place)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
