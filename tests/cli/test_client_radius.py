# SPDX-License-Identifier: Apache-2.0
"""Before somebody at a terminal answers, he is told what a deletion takes: in the words of `--dry-run`."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from keepstone.cli.console import Console
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service


def test_a_question_says_what_goes(
    service: Answering, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    monkeypatch.setenv("KEEPSTONE_GROUP", "radius")
    cli.run("group", "create", "-n", "radius")
    cli.run("vault", "create", "-n", "v1")
    folder = tmp_path / "data"
    folder.mkdir()
    cli.run("protection", "enable", "--path", folder)
    asked: list[str] = []

    def no(question: str, **_: object) -> None:
        asked.append(question)
        raise click.Abort

    monkeypatch.setattr(Console, "asks", property(lambda _: True))
    monkeypatch.setattr(click, "confirm", no)
    for command in (
        ("protection", "disable", "-i", folder, "--delete-backup-data"),
        ("vault", "delete", "-n", "v1"),
        ("group", "delete", "-n", "radius"),
        ("policy", "delete", "-n", "FilesPolicy"),
    ):
        dry = cli.run(*command, "--dry-run").out
        told = cli.run(*command, code=130).err
        lines = [line.partition(":") for line in dry.splitlines()]
        assert len(lines) > 2
        for label, _, text in lines:
            if label.strip() == "refused by":
                assert all(f"refused by: {one}" in told for one in text.strip().split(", ") if "which" not in one), told
            else:
                assert f"{label.strip()}: {text.strip()}" in told
    assert len(asked) == 4
    monkeypatch.setattr(click, "confirm", lambda *_, **__: None)
    assert "would" not in cli.run("protection", "disable", "-i", folder, "--delete-backup-data", "--yes").err
