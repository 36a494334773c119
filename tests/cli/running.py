# SPDX-License-Identifier: Apache-2.0
"""Running commands and looking at what they say and leave."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest

from keepstone.cli import main

__all__ = ["IDENTITY", "RECIPIENT", "Cli", "Ended", "noise"]

_KEY = pyrage.x25519.Identity.generate()
IDENTITY = str(_KEY)
RECIPIENT = str(_KEY.to_public())  # a kit for it costs nothing, one under a passphrase a second


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that are found nowhere else."""
    return random.Random(seed).randbytes(size)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The result: the last line, and with --json the only one."""
        result: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return result

    @property
    def error(self) -> str:
        """The code of the error."""
        code: str = self.json["error"]["code"]
        return code


class Cli:
    """Commands on the store `store` beneath `path`."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[bytes]) -> None:
        self.path = path
        self.store = path / "store"
        self.home = path / "home"
        self._capture = capture

    def __call__(self, verb: str, *arguments: object, code: int = 0) -> Ended:
        """Run `keepstone store <verb>`, which must end with this code."""
        return self.run("store", *verb.split(), "--store", self.store, *arguments, code=code)

    def run(self, *arguments: object, code: int = 0) -> Ended:
        self._capture.readouterr()
        ended_with = main([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        ended = Ended(ended_with, out.decode(), err.decode())
        assert ended.code == code, ended
        return ended

    def raw(self, verb: str, *arguments: object) -> bytes:
        """The standard output as it is."""
        self._capture.readouterr()
        assert main(["store", verb, "--store", str(self.store), *map(str, arguments)]) == 0
        return self._capture.readouterr().out

    def init(self, *arguments: object) -> dict[str, Any]:
        return self("init", "--kit-recipient", RECIPIENT, "--json", *arguments).json

    def backup(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """Make one point; what is known of it."""
        points = self("backup", "--json", *arguments, code=code).json["points"]
        assert len(points) == 1
        point: dict[str, Any] = points[0]
        return point

    def points(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self("list", "--json").json["points"]
        return found

    def disk(self, size: int = 700_001, seed: int = 0) -> Path:
        """A disk image."""
        path = self.path / "disk.img"
        path.write_bytes(noise(size, seed))
        return path

    def packs(self, kind: str = "") -> list[Path]:
        """The packs of the store, largest first."""
        files = [path for path in (self.store / "packs").rglob("*") if path.is_file()]
        return sorted(files, key=lambda path: -path.stat().st_size)
