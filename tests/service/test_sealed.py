# SPDX-License-Identifier: Apache-2.0
"""Sealed items at the service: whose keys it keeps, and what it refuses to do without the passphrase."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from uuid import UUID

import pytest

from keepstone.catalogue import items as rows
from keepstone.control import clientkeys, items
from keepstone.crypto import Argon2Cost, PassphraseProvider, create_keyring, hashing, rewrap
from keepstone.errors import Conflict, GuardRefused, InvalidRequest
from keepstone.remote.wire import Begin
from keepstone.vault import Item

from .protecting import Vault

pytestmark = pytest.mark.service

ONE, OTHER = (base64.b64encode(random.Random(seed).randbytes(1500)).decode() for seed in (1, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    (made / "a.txt").write_bytes(b"first\n" * 1000)
    return made


def of(vault: Vault) -> Item:
    """The only item of the vault."""
    with vault.plane.look() as connection:
        identity = connection.execute(rows.select().where(rows.c.vault == vault.uuid)).mappings().one()["id"]
        assert isinstance(identity, UUID)
        return items.get(connection, identity)


def begin(keys: str = "", *, sealed: bool = True) -> Begin:
    return Begin(job="", token=0, kind="files", sealed=sealed, keys=keys)


def test_the_first_keys_are_kept_and_no_others_take_their_place(vault: Vault, folder: Path) -> None:
    path = vault.protect(folder)
    vault.back_up(path)  # a point that is not sealed yet
    plane = vault.plane
    clientkeys.keep(plane, of(vault), begin(ONE))
    assert clientkeys.of(of(vault)) == ONE

    clientkeys.keep(plane, of(vault), begin(ONE))
    for wrong, error in (
        (begin(OTHER), Conflict),
        (begin(sealed=False), GuardRefused),
        (begin(), InvalidRequest),
        (begin("ä" * 100), InvalidRequest),
        (begin("x" * 100_000), InvalidRequest),
    ):
        with pytest.raises(error):
            clientkeys.keep(plane, of(vault), wrong)
    assert clientkeys.of(of(vault)) == ONE
    assert ONE[:40] not in str(vault.client.arm("GET", path))


def test_another_passphrase_for_the_same_keys(vault: Vault, folder: Path) -> None:
    path = vault.protect(folder)
    vault.back_up(path)
    env, profile = vault.plane.env, hashing("blake3")
    openers = [
        PassphraseProvider(f"passphrase {number}".encode(), cost=Argon2Cost(iterations=1, memory_kib=64), weak=True)
        for number in range(3)
    ]
    keyring, one = create_keyring(env, profile, b"item", openers[:1])
    following, two = rewrap(env, keyring, openers[1:2])
    _, three = rewrap(env, following, openers[2:])
    _, forged = create_keyring(env, profile, b"item", openers[:1])
    texts = [base64.b64encode(made).decode() for made in (one, two, three, forged)]
    clientkeys.keep(vault.plane, of(vault), begin(texts[0]))
    for wrong in (texts[2], texts[3], OTHER, texts[1][:-8], "?"):
        with pytest.raises(Conflict, match="other keys"):
            clientkeys.keep(vault.plane, of(vault), begin(wrong))
    for known, text in enumerate(texts[1:3], 2):
        clientkeys.keep(vault.plane, of(vault), begin(text))
        assert clientkeys.of(of(vault)).split() == texts[:known][::-1]
    with pytest.raises(Conflict, match="other keys"):
        clientkeys.keep(vault.plane, of(vault), begin(texts[0]))


def test_without_a_point_keys_may_be_made_anew(vault: Vault, folder: Path) -> None:
    vault.protect(folder)
    clientkeys.keep(vault.plane, of(vault), begin(ONE))
    clientkeys.keep(vault.plane, of(vault), begin(OTHER))
    assert clientkeys.of(of(vault)) == OTHER


def test_an_item_that_is_not_sealed_needs_no_keys(vault: Vault, folder: Path) -> None:
    vault.protect(folder)
    clientkeys.keep(vault.plane, of(vault), begin(sealed=False))
    assert clientkeys.of(of(vault)) == ""


def test_keys_outlive_a_change_of_the_item(vault: Vault, folder: Path) -> None:
    path = vault.protect(folder)
    clientkeys.keep(vault.plane, of(vault), begin(ONE))
    stale = of(vault)
    vault.protect(folder, excludeCaches=True)
    vault.client.arm("GET", path)
    assert clientkeys.of(of(vault)) == ONE
    clientkeys.keep(vault.plane, stale, begin(ONE))
    assert of(vault).source != stale.source


def test_the_services_own_workers_make_no_plain_point_of_it(vault: Vault, folder: Path) -> None:
    path = vault.protect(folder)
    clientkeys.keep(vault.plane, of(vault), begin(ONE))
    job = vault.back_up(path)
    assert job["status"] == "Failed"
    assert "by the agent there alone" in str(job["errorDetails"])
    assert vault.points(path) == []


def test_the_services_own_workers_say_why_they_cannot_restore_it(
    vault: Vault, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = vault.protect(folder)
    from keepstone.store import Store

    real = Store.writer
    monkeypatch.setattr(Store, "writer", lambda self, item, _, **more: real(self, item, "sealed-files", **more))
    vault.back_up(path)
    (point,) = vault.points(path)
    assert point["properties"]["recoveryPointType"] == "FileSystemConsistent"
    job = vault.restore(
        point, objectType="FilesRestoreRequest", recoveryType="AlternateLocation", targetPath=str(tmp_path / "to")
    )
    assert job["status"] == "Failed"
    assert "agent has that passphrase" in str(job["errorDetails"])
    assert not (tmp_path / "to").exists()


def test_keys_come_back_with_a_lost_catalogue(vault: Vault, folder: Path) -> None:
    """They are in the vault's journal, as the rest of the item is."""
    vault.protect(folder)
    clientkeys.keep(vault.plane, of(vault), begin(ONE))
    from keepstone.catalogue.replay import read_state

    state = read_state(vault.plane.stores.open(vault.uuid).journal)
    assert ONE in str(state)
