# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault recovery-kit`: both files are taken, open what they should, and are confirmed by what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepstone.crypto import generate_identity, open_kit
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service


def test_a_kit_is_taken_and_confirmed(
    service: Answering, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    cli.run("group", "create", "-n", "kits")
    cli.run("vault", "create", "-g", "kits", "-n", "v1")
    kit, key = tmp_path / "kit.age", tmp_path / "key.txt"
    cli.run("vault", "recovery-kit", "download", "-g", "kits", "-f", kit)
    cli.run("vault", "recovery-kit", "download-key", "-f", key)
    assert [one.stat().st_mode & 0o777 for one in (kit, key)] == [0o600, 0o600]
    assert open_kit(kit.read_bytes(), identity=key.read_text()).description.endswith("/vaults/v1")
    assert "there already" in cli.run("vault", "recovery-kit", "download", "-g", "kits", "-f", kit, code=1).err

    other = tmp_path / "other.txt"
    other.write_text(generate_identity()[0])
    cli.run("vault", "recovery-kit", "confirm", "-g", "kits", "--kit", kit, "--key", other, code=12)
    assert _confirmed(cli) is False
    cli.run("vault", "recovery-kit", "confirm", "-g", "kits", "--kit", kit, "--key", key)
    assert _confirmed(cli) is True
    assert cli.run("vault", "recovery-kit", "confirm", "-g", "kits", "--kit", tmp_path / "no", "--key", key, code=3)


def _confirmed(cli: Cli) -> bool:
    (found,) = json.loads(cli.run("vault", "recovery-kit", "list", "-o", "json").out)
    return bool(found["properties"]["isConfirmed"])
