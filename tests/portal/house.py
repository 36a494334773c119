# SPDX-License-Identifier: Apache-2.0
"""A real service for the tests of the portal: a vault, a protected folder with a point, and people with roles."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keepstone.cli import main
from tests.cli.services import Service

__all__ = ["HOSTILE", "House", "furnished", "opened"]

HOSTILE = '<img src=x onerror="alert(1)">{{7*7}}&amp;'
"""A name that a page must show as it is."""


class House:
    """The service, and what is in it."""

    def __init__(self, root: Path) -> None:
        self.service = Service(root / "service")
        self.data = root / "data"
        self.url = ""
        self.passwords: dict[str, str] = {}
        self.vault = ""

    def run(self, *arguments: object) -> Any:
        """A command on its own machine; its result."""
        out, err = io.StringIO(), io.StringIO()
        given = [*map(str, arguments), "--data", str(self.service.root), "-o", "json"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = main(given)
        assert ended == 0, (given, out.getvalue(), err.getvalue())
        return json.loads(out.getvalue() or "null")

    def user(self, name: str, role: str, scope: str | None = None) -> str:
        """Somebody new; his password."""
        where = ("--scope", scope) if scope else ()
        made = self.run("user", "create", "-n", name, "--role", role, *where)
        self.passwords[name] = made["properties"]["password"]
        return self.passwords[name]

    @property
    def item(self) -> str:
        """The id of the protected folder."""
        found = self.run("item", "list")
        return str(next(one["id"] for one in found if one["properties"]["friendlyName"] == str(self.data)))


@contextmanager
def opened(root: Path) -> Iterator[House]:
    """One that nobody has set up, until the end of the block."""
    house = House(root)
    with house.service.running("--workers", "1", "--answerers", "1") as up:
        house.url = up["endpoint"]
        house.passwords["admin"] = up["first_start"]["password"]
        yield house


@contextmanager
def furnished(root: Path) -> Iterator[House]:
    """With a vault, a folder in it that has a point, and people."""
    with opened(root) as house:
        (house.data / "deep" / "er").mkdir(parents=True)
        (house.data / "hello.txt").write_text("hello\n")
        (house.data / "deep" / "er" / "noise.bin").write_bytes(os.urandom(300_000))
        (house.data / HOSTILE.replace("/", "")).write_text("harmless\n")
        house.run("group", "create", "-n", "g1")
        house.vault = house.run("vault", "create", "-g", "g1", "-n", "v1")["id"]
        house.run("protection", "enable", "--path", house.data)
        house.run("protection", "backup-now", "-i", house.data)
        house.user("reader", "Backup Reader")
        house.user("operator", "Backup Operator")
        house.user("nobody", "Reader", f"{house.vault}/nothing")
        yield house
