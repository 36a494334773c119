# SPDX-License-Identifier: Apache-2.0
"""Recovery kits are given to Owners of everything alone, open what they should, and count as kept when somebody can
read them out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from keepstone.control.recovery_kits import ending
from keepstone.crypto import open_kit, recipient_of
from keepstone.identity import Principal

from .client import Client
from .exercised import exercises
from .protecting import Vault

pytestmark = pytest.mark.service

RECOVERY = "/providers/Keepstone.Recovery"
Clients = Callable[[Principal | None], Client]


def kit_of(vault: Vault) -> str:
    return f"{RECOVERY}/recoveryKits/{vault.id}"


def status(vault: Vault) -> dict[str, Any]:
    found = vault.client.arm("GET", f"{RECOVERY}/recoveryKits")["value"]
    (mine,) = [one["properties"] for one in found if one["name"] == vault.id]
    assert isinstance(mine, dict)
    return mine


@exercises("keepstone.recovery_kits_download", "keepstone.recovery_key_download")
def test_the_key_opens_the_kit_and_the_kit_the_store(vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        kit = vault.client.arm("POST", f"{kit_of(vault)}/download")["properties"]
        key = vault.client.arm("POST", f"{RECOVERY}/recoveryKey/download")["properties"]
    assert kit["fileName"].endswith("-vault1-recovery-kit.age")
    opened = open_kit(kit["content"].encode(), identity=key["content"])
    assert opened.keyring.store_id == vault.uuid.bytes
    assert [record.message for record in caplog.records if "took" in record.message] == [
        f"'{vault.client.who.client if vault.client.who else ''}' took the recovery kit of vault 'vault1'",
        f"'{vault.client.who.client if vault.client.who else ''}' took the recovery key, which opens the recovery kits "
        "of all vaults",
    ]
    assert "AGE-SECRET-KEY" not in caplog.text


@exercises("keepstone.recovery_kits_list", "keepstone.recovery_kits_confirm")
def test_it_counts_when_both_files_are_read_out(vault: Vault) -> None:
    assert status(vault)["isConfirmed"] is False
    kit = vault.client.arm("POST", f"{kit_of(vault)}/download")["properties"]["content"].encode()
    key = vault.client.arm("POST", f"{RECOVERY}/recoveryKey/download")["properties"]["content"]
    right = {"kitEnding": ending(kit)[-8:], "keyEnding": recipient_of(key)[-8:]}
    for wrong in ({}, {"kitEnding": "xxxxxxxx"}, {"keyEnding": "xxxxxxxx"}, {"keyEnding": right["keyEnding"][-3:]}):
        sent = {"properties": right | wrong if wrong else {}}
        assert vault.client.refused("POST", f"{kit_of(vault)}/confirm", sent, status=400)
        assert status(vault)["isConfirmed"] is False

    done = vault.client.arm("POST", f"{kit_of(vault)}/confirm", {"properties": right})["properties"]

    assert done == status(vault)
    assert done["isConfirmed"] is True
    assert vault.client.who is not None
    assert done["confirmedBy"] == vault.client.who.client
    assert all(text not in str(done) for text in right.values())  # nobody reads off what has to be typed


@pytest.mark.parametrize(
    ("text", "last"),
    [("a\nbcd=\n-----END AGE ENCRYPTED FILE-----\n", "bcd="), ("a\r\nb\r\n-----END-----\r\n\r\n", "b"), ("", "")],
)
def test_how_a_kit_ends(text: str, last: str) -> None:
    assert ending(text.encode()) == last


def test_a_kit_that_is_lost_is_made_anew(vault: Vault) -> None:
    path = vault.plane.root / "kits" / f"{vault.uuid.hex}.age"
    path.unlink()
    kit = vault.client.arm("POST", f"{kit_of(vault)}/download")["properties"]["content"]
    key = vault.client.arm("POST", f"{RECOVERY}/recoveryKey/download")["properties"]["content"]
    assert open_kit(kit.encode(), identity=key).keyring.store_id == vault.uuid.bytes
    assert path.read_text() == kit


@pytest.mark.parametrize(
    ("role", "scope"),
    [("Contributor", "/"), ("Reader", "/"), ("Backup Contributor", "/"), ("Owner", "vault")],
)  # fmt: skip
def test_nobody_else_gets_them(
    vault: Vault, client_of: Clients, principal: Callable[..., Principal], role: str, scope: str
) -> None:
    where = "/" if scope == "/" else vault.client.subscription
    other = client_of(principal(role, scope=where))
    for path in (f"{kit_of(vault)}/download", f"{RECOVERY}/recoveryKey/download", f"{kit_of(vault)}/confirm"):
        ends = {"properties": {"kitEnding": "a" * 8, "keyEnding": "b" * 8}}
        refused = other.refused("POST", path, ends, status=403)
        assert "AGE" not in str(refused.body)


@exercises("keepstone.recovery_kits_download")
def test_a_kit_that_is_none(vault: Vault) -> None:
    for name in ("some", "00000000-0000-0000-0000-000000000000"):
        vault.client.refused("POST", f"{RECOVERY}/recoveryKits/{name}/download", status=404)


@exercises("keepstone.installation_get")
def test_what_the_service_is(vault: Vault, client_of: Clients, principal: Callable[..., Principal]) -> None:
    path = "/providers/Keepstone.Service/installation"
    found = vault.client.arm("GET", path)["properties"]
    assert found["dataFolder"] == str(vault.plane.root)
    assert 0 < found["freeBytes"] <= found["sizeBytes"]
    assert found["demoFolder"].endswith("keepstone/store")
    assert "certificateEnds" not in found  # nothing listens here
    client_of(principal("Owner", scope=vault.client.subscription)).refused("GET", path, status=403)
