# SPDX-License-Identifier: Apache-2.0
"""HTTP to a service: one address, one authority that its certificate has to come from, one bearer token.

Invariants: nothing is sent before the certificate was checked; the token goes to the service's own address and nowhere
else, whatever addresses an answer names.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import msgspec

from keepstone import __version__
from keepstone.cli.client.refusals import refused, unreachable
from keepstone.errors import AccessDenied, KeepstoneError, NotFound, UsageError

__all__ = ["Answer", "Arm", "Wire"]

Document = dict[str, Any]

_VERSION = "2024-04-01"
_CONNECT, _ANSWER = 10.0, 120.0  # seconds
_LONGEST_PAUSE = 30.0  # seconds between two questions about an operation
_GOING = ("InProgress", "Accepted", "Running")


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by their names in small letters; `body`: None where there is none."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Wire:
    """Requests to `url`, an https address without a slash at its end. `ca`: what its certificate has to come from; the
    system's authorities where it is None. `near`: it is this machine, so no proxy stands between."""

    def __init__(self, url: str, ca: Path | None, *, near: bool = False) -> None:
        self.url = url
        self._ca = ca
        timeout = httpx2.Timeout(_ANSWER, connect=_CONNECT)
        headers = {"User-Agent": f"keepstone/{__version__}", "Accept": "application/json"}
        self._client = httpx2.Client(verify=_trust(ca), timeout=timeout, headers=headers, trust_env=not near)

    def send(
        self,
        verb: str,
        address: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        token: str = "",
    ) -> Answer:
        """Whatever is answered. `address`: a path, or an address that the service gave. An error that is `UNREACHABLE`
        where nothing answers."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None
        if body is not None:
            content, headers["Content-Type"] = _encoded(body), "application/json"
        try:
            response = self._client.request(
                verb, self._own(address), params=query, content=content, data=form, headers=headers
            )
        except httpx2.InvalidURL as error:
            raise UsageError(f"{address!r} is no address; check the names in it") from error
        except httpx2.HTTPError as error:
            raise self._failed(error) from error
        return Answer(response.status_code, response.headers, self._decoded(response))

    @contextmanager
    def stream(
        self, address: str, *, query: Mapping[str, str] | None = None, begin: int = 0, token: str = ""
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """An answer, and its bytes as they come, from the byte `begin` on; without them where it is an error. Raises as
        `send` does, also while the bytes come."""
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        try:
            with self._client.stream("GET", self._own(address), params=query, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    yield Answer(response.status_code, response.headers, self._decoded(response)), iter(())
                else:
                    yield Answer(response.status_code, response.headers, None), response.iter_raw()
        except httpx2.HTTPError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _own(self, address: str) -> str:
        if address.startswith("/"):
            return self.url + address
        if not address.startswith(f"{self.url}/"):
            raise KeepstoneError(f"the service at {self.url} sends its clients to {address}; nothing was sent there")
        return address

    def _decoded(self, response: httpx2.Response) -> Any:
        if not response.content:
            return None
        try:
            return msgspec.json.decode(response.content)
        except msgspec.DecodeError as error:
            raise unreachable(
                f"{self.url} answers {response.status_code} and no JSON; check that it is a Keepstone service"
            ) from error

    def _failed(self, error: httpx2.HTTPError) -> KeepstoneError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            trusted = f"by {self._ca}" if self._ca is not None else "by this system's authorities"
            return AccessDenied(
                f"the certificate of {self.url} is not vouched for {trusted} ({error}); name the file tls/ca.pem of "
                "the service's data folder by --ca, and the address by a name that `keepstone up` was given"
            )
        if isinstance(error, httpx2.TimeoutException):
            return unreachable(
                f"{self.url} does not answer in time ({type(error).__name__}); try again, or see its log"
            )
        return unreachable(f"{self.url} does not answer ({error}); check the address, and that the service runs")


class Arm:
    """The ARM API. `bearer` gives the token; it is asked for a new one where the service does not take that."""

    def __init__(self, wire: Wire, bearer: Callable[[bool], str]) -> None:
        self._wire = wire
        self._bearer = bearer

    def ask(self, verb: str, address: str, body: Any = None, query: Mapping[str, str] | None = None) -> Answer:
        """An answer that is no error; what the service refused is raised as the exception that it refused it by."""
        if "api-version=" not in address:
            query = {"api-version": _VERSION} | dict(query or {})
        answer = self._wire.send(verb, address, query=query, body=body, token=self._bearer(False))
        if answer.status == 401:
            answer = self._wire.send(verb, address, query=query, body=body, token=self._bearer(True))
        if answer.status >= 400:
            raise refused(answer.status, answer.body)
        return answer

    def get(self, address: str, query: Mapping[str, str] | None = None) -> Document:
        """A document. `NotFound` …"""
        body = self.ask("GET", address, query=query).body
        return body if isinstance(body, dict) else {}

    def rest(self, page: Document) -> Iterator[Document]:
        """The pages of a list behind this one."""
        while following := page.get("nextLink"):
            page = self.get(following)
            yield page

    def every(self, address: str, where: Mapping[str, str | None] | None = None) -> Iterator[Document]:
        """A list, page after page. `where`: what has to be equal to what, where a value is given."""
        terms = [f"{key} eq {_quoted(value)}" for key, value in (where or {}).items() if value is not None]
        first = self.get(address, {"$filter": " and ".join(terms)} if terms else None)
        for page in chain((first,), self.rest(first)):
            yield from page.get("value") or ()

    def content(self, address: str, query: Mapping[str, str], begin: int = 0) -> Iterator[bytes]:
        """The bytes of an answer from `begin` on, as they come. Raises as `ask` does, also while they come."""
        query = {"api-version": _VERSION} | dict(query)
        for again in (False, True):
            with self._wire.stream(address, query=query, begin=begin, token=self._bearer(again)) as (answer, pieces):
                if answer.status == 401 and not again:
                    continue
                if answer.status >= 400:
                    raise refused(answer.status, answer.body)
                if begin and answer.status != 206:
                    raise KeepstoneError(f"{self._wire.url} does not go on in the middle of {address}; begin anew")
                yield from pieces
                return

    def finish(self, answer: Answer) -> str | None:
        """Wait until what was asked for is taken on; the job that it began, None where it needs none."""
        status, location = answer.headers.get("azure-asyncoperation"), answer.headers.get("location")
        while status is not None:
            answer = self.ask("GET", status)
            document = answer.body or {}
            if document.get("status") in _GOING:
                _pause(answer)
            elif document.get("status") == "Succeeded":
                job = (document.get("properties") or {}).get("jobId")
                return None if job is None else str(job)
            else:
                raise refused(500, document)
        while location is not None and answer.status == 202:
            answer = self.ask("GET", location)
            if answer.status == 202:
                _pause(answer)
        return None


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {ca}; check --ca") from error
    except PermissionError as error:
        raise AccessDenied(f"{ca} is not for this user to read; ask for a copy, it holds no secret") from error
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"{ca} holds no certificate ({error}); name the file tls/ca.pem of the service") from error


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise UsageError(
            "a name that is not UTF-8 cannot be said in JSON; name the folder above it, or rename it"
        ) from error


def _quoted(value: str) -> str:
    """As `$filter` has texts."""
    return "'" + value.replace("'", "''") + "'"


def _pause(answer: Answer) -> None:
    """As long as the service asks for."""
    try:
        seconds = float(answer.headers.get("retry-after", "1"))
    except ValueError:
        seconds = 1.0
    time.sleep(min(max(seconds, 0.1), _LONGEST_PAUSE))
