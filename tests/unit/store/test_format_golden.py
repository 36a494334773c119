# SPDX-License-Identifier: Apache-2.0
"""The format stays what it is: golden stores open, verify, restore and grow, and docs/FORMAT.md says what is in one."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyrage  # type: ignore[import-untyped]
import pytest

from keepstone.crypto import PassphraseProvider, PlatformKeyProvider, domain, keyring, kit, open_kit
from keepstone.disks import RawSink
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.objects import FolderStorage
from keepstone.store import Store, chain, commits, descriptor, layout, leases, node, points, rescue
from keepstone.store.commits import ABORTED, MoveRecord, PointRecord
from keepstone.workloads import Silent
from keepstone.workloads.files import page
from keepstone.workloads.files.restore.options import RestoreOptions
from keepstone.workloads.files.restore.run import restore_files
from keepstone.workloads.images import image_size, leaf, restore_image
from tests.data.golden import GOLDEN, PASSPHRASE, PROFILES, restored
from tests.unit.store.format_page import PAGE, example, section, vectors
from tests.unit.store.known import items, load, save

pytestmark = pytest.mark.store

SOURCES = PAGE.parents[1] / "src" / "keepstone"


class Golden:
    """A copy of a golden store."""

    def __init__(self, profile: str, folder: Path) -> None:
        self.folder = folder / profile
        shutil.copytree(GOLDEN / profile, self.folder)
        (self.folder / "key").chmod(0o600)
        self.expected: dict[str, Any] = json.loads((self.folder / "expected.json").read_text())

    @property
    def place(self) -> Path:
        return self.folder / "store"

    def open(self, key: str = "key file") -> Store:
        env = Env()
        storage = FolderStorage(env, self.place)
        if key == "kit":
            identity = pyrage.x25519.Identity.generate()
            sealed = pyrage.encrypt((self.folder / "kit.json").read_bytes(), [identity.to_public()])
            return Store.open_by_kit(env, storage, open_kit(sealed, identity=str(identity)))
        by_passphrase = key == "passphrase"
        return Store.open(
            env,
            storage,
            [PassphraseProvider(PASSPHRASE.encode()) if by_passphrase else PlatformKeyProvider(self.folder / "key")],
        )


@pytest.fixture(params=PROFILES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    return Golden(request.param, tmp_path)


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_kind_of_object_is_in_it(golden: Golden) -> None:
    cells = [path.read_bytes() for path in (golden.place / "commits").iterdir()]
    records = [record for _, record in golden.open().commits.records()]

    for folder in (
        layout.KEYS,
        layout.LEASES,
        layout.PACKS,
        layout.COMMITS,
        layout.DELETED,
        layout.HEADS,
        layout.TOMBS,
    ):
        assert any((golden.place / folder).iterdir()), folder
    assert {path.suffix for path in (golden.place / "tombs").iterdir()} == {"", ".waits", ".verdict"}
    assert cells.count(ABORTED) == 1
    assert {type(record) for record in records} == {PointRecord, MoveRecord}
    assert {record.kind for record in records if isinstance(record, PointRecord)} == {"files", "images"}
    found: list[tuple[str, KeepstoneError]] = []
    heads, _, _ = chain.Chain(golden.open().context).entries(lambda name, error: found.append((name, error)))
    assert {head.event for head in heads} == set(chain.EVENTS) - {"undelete", "undeleted", "drop-move"}
    assert found == []


@pytest.mark.parametrize("key", ["key file", "passphrase", "kit", "kit without keys"])
def test_its_points_are_known_by_each_key(golden: Golden, key: str) -> None:
    if key == "kit without keys":
        shutil.rmtree(golden.place / "keys")

    store = golden.open(key.partition(" without")[0])

    assert {point.id for point in store.points.list(deleted=True)} == set(golden.expected)
    assert {point.record.item for point in store.points.list()} == {"disk", "home"}


def test_verify_reads_every_byte_of_it_and_finds_nothing(golden: Golden) -> None:
    before = kept(golden.place)

    verified = golden.open().verify(deep=True)

    assert verified.findings == []
    assert verified.points == len(golden.expected)
    assert kept(golden.place) == before


def test_its_points_restore_to_what_they_were(golden: Golden, tmp_path: Path) -> None:
    store = golden.open()
    env = store.context.env
    for point in store.points.list(deleted=True):
        target = tmp_path / point.id
        with store.reader(point) as reader:
            if point.record.kind == "images":
                restore_image(env, reader, RawSink(env, target, image_size(reader)), Silent())
            else:
                report = restore_files(env, reader, target, RestoreOptions(), Silent())
                assert report.failed == []

        assert restored(target) == golden.expected[point.id]


def run(golden: Golden, script: str | Path, *arguments: str | Path) -> str:
    """What a `rescue.py` says, which must be content."""
    command = [sys.executable, script, golden.place, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("keys", ["there", "lost"])
def test_its_kit_restores_it_by_rescue(golden: Golden, tmp_path: Path, keys: str) -> None:
    if keys == "lost":
        shutil.rmtree(golden.place / "keys")
    for identity, expected in golden.expected.items():
        command = [sys.executable, rescue.__file__, str(golden.place), "restore", identity, str(tmp_path / identity)]
        command += ["--kit-json", str(golden.folder / "kit.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

        assert done.returncode == (4 if keys == "lost" else 0)
        assert restored(tmp_path / identity) == expected


def test_todays_rescue_restores_it(golden: Golden, tmp_path: Path) -> None:
    for identity, expected in golden.expected.items():
        run(golden, rescue.__file__, "restore", identity, tmp_path / identity, "--key-file", golden.folder / "key")

        assert restored(tmp_path / identity) == expected


def test_the_rescue_that_it_carries_still_runs(golden: Golden) -> None:
    said = run(golden, golden.place / "rescue.py", "verify", "--passphrase-file", golden.folder / "passphrase")

    assert "0 problems" in said


def test_it_can_be_written_to_and_reclaimed(golden: Golden, tmp_path: Path) -> None:
    store = golden.open()
    chunks = items("abcabc")
    added = save(store, chunks, "new")
    for point in store.points.list(deleted=True):
        if point.id != added:
            store.points.purge(point, now=True)

    reclaimed = [store.reclaim() for _ in range(3)]

    assert sum(one.packs_deleted for one in reclaimed)
    assert load(store, added) == chunks
    assert store.verify(deep=True).findings == []


# The page


def test_the_worked_example_is_what_happens() -> None:
    assert section("example") == example()


def test_the_vectors_hold() -> None:
    assert section("vectors") == vectors()


def test_the_page_names_every_object() -> None:
    names = [value for name, value in vars(layout).items() if name.isupper() and name in layout.__all__]

    assert len(names) >= 9
    assert [name for name in names if f"`{name}" not in PAGE.read_text()] == []


def literals(folder: Path) -> set[str]:
    """The magics and labels in the code: byte strings that begin or end like one."""
    found = set()
    for path in folder.rglob("*.py"):
        if path.name in ("segment.py", "rescue.py"):  # a cache outside of the store; the page's other reader
            continue
        for part in ast.walk(ast.parse(path.read_text())):
            if isinstance(part, ast.Constant) and isinstance(part.value, bytes):
                text = part.value.decode("latin-1")
                if re.match(r"KS[A-Z]|keepstone|.*/v\d$", text):
                    found.add(text.replace("\n", "\\n"))
    return found


def test_the_page_names_every_magic_and_label() -> None:
    found = literals(SOURCES / "store") | literals(SOURCES / "crypto")
    text = PAGE.read_text()

    assert {"KSO1", "KSPACK1\\n", "KSPEND1\\n", "frame/v1", "keepstone: aborted\\n", "descriptor/v1"} <= found
    assert sorted(literal for literal in found if literal not in text) == []


STRUCTS: list[type[msgspec.Struct]] = [
    PointRecord,
    MoveRecord,
    leases.Tomb,
    leases._Lease,
    points._Marker,
    descriptor.Descriptor,
    page.Page,
    page.Extra,
    page.Detail,
    leaf.Image,
    keyring._Body,
    domain.Domain,
    kit._Text,
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__qualname__)
def test_the_page_names_every_field(struct: type[msgspec.Struct]) -> None:
    text = PAGE.read_text()

    assert [field for field in struct.__struct_fields__ if f"`{field}`" not in text] == []


def test_the_page_names_every_kind_and_event() -> None:
    text = PAGE.read_text()
    kinds = [
        page.NODE_KIND,
        leaf.ROOT_KIND,
        leaf.LEAF_KIND,
        *chain.EVENTS,
        "commit",
        "deleted",
        "lease",
        "tomb",
        "waits",
        "verdict",
    ]

    assert [kind for kind in kinds if f"`{kind}`" not in text] == []
    assert [field for field in chain.Head.__struct_fields__ if f'"{field}":' not in text] == []
    assert len(node.Node.__struct_fields__) == 5
    assert len(commits.Move.__struct_fields__) == 4
