# SPDX-License-Identifier: Apache-2.0
"""Which service a command works with, and what its certificate has to come from.

What is given goes before what the environment says, and an address before a folder: `--endpoint` or `--data`, then
KEEPSTONE_ENDPOINT (with KEEPSTONE_CA), then the service of this machine whose folder is KEEPSTONE_DATA, or this user's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from keepstone.errors import AccessDenied, StoreMissing, UsageError

__all__ = ["Place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`url`: an https address without a slash at its end. `ca`: None for the system's authorities. `root`: the data
    folder of a service of this machine; None for one that is only known by its address."""

    url: str
    ca: Path | None
    root: Path | None = None

    @classmethod
    def find(cls, data: Path | None, endpoint: str | None, ca: Path | None) -> Place:
        """By what the command line and the environment say. `UsageError`; `StoreMissing` where no service is,
        `AccessDenied` where it is somebody else's, and `UNREACHABLE` where it does not run."""
        endpoint, root = cls._meant(data, endpoint)
        if root is not None:
            if ca is not None:
                raise UsageError("--ca goes with --endpoint; a service of this machine has its own in the data folder")
            return cls._here(root)
        given = os.environ.get("KEEPSTONE_CA")
        if ca is None and given:
            ca = Path(given)
        return cls(url=_address(endpoint), ca=ca)

    @classmethod
    def folder(cls, data: Path | None, endpoint: str | None) -> Path | None:
        """The data folder of the service that is meant, whether it runs or not; None for one that is only known by its
        address."""
        return cls._meant(data, endpoint)[1]

    @staticmethod
    def _meant(data: Path | None, endpoint: str | None) -> tuple[str, Path | None]:
        """An address, or a folder."""
        from keepstone.settings import Settings

        if data is not None and endpoint is not None:
            raise UsageError("--data and --endpoint both say which service; give one of them")
        if endpoint is None and data is None:
            endpoint = os.environ.get("KEEPSTONE_ENDPOINT") or None
        if endpoint is not None:
            return endpoint, None
        return "", Settings.load().service if data is None else data.absolute()

    @classmethod
    def _here(cls, root: Path) -> Place:
        from keepstone.cli.client.refusals import unreachable
        from keepstone.server import instance

        try:
            found = instance.running(root)
        except AccessDenied as error:
            raise AccessDenied(
                f"the service in {root} is another user's; run this as that user, or name its address by --endpoint "
                "and log in with `keepstone login`"
            ) from error
        if found is not None and found.probe:
            return cls(url=found.probe, ca=root / "tls" / "ca.pem", root=root)
        if found is not None:
            raise unreachable(f"the service in {root} is starting; try again in a moment")
        if not (root / "issuer.key").exists():
            raise StoreMissing(
                f"there is no Keepstone service in {root}; start one with `keepstone up`, check --data, or name one of "
                "another machine by --endpoint"
            )
        raise unreachable(f"the service in {root} does not run; start it with `keepstone up`")


def _address(given: str) -> str:
    address = given if "://" in given else f"https://{given}"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise UsageError(f"{given!r} is no address of a service; write https://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}" + (f":{port}" if port not in (None, 443) else "")
