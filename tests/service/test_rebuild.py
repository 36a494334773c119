# SPDX-License-Identifier: Apache-2.0
"""A lost database: the vault comes back out of its store and its recovery kit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from keepstone.arm.service import Service
from keepstone.catalogue import metadata
from keepstone.catalogue import vaults as vault_rows
from keepstone.catalogue.journal import Note
from keepstone.catalogue.replay import read_state
from keepstone.cli import main
from keepstone.control import groups, people, retention, vaults
from keepstone.control import rebuild as module
from keepstone.control.installation import ADMINISTRATOR, Installation
from keepstone.control.plane import Plane
from keepstone.control.rebuild import Rebuilt, rebuild
from keepstone.control.work import handlers
from keepstone.crypto import Kit, PlatformKeyProvider, open_kit
from keepstone.env import Env, FileSystem
from keepstone.errors import (
    Conflict,
    CorruptObject,
    KeepstoneError,
    ObjectMissing,
    StoreMissing,
    UnsupportedFormat,
    UsageError,
    WrongKey,
)
from keepstone.identity import Principal
from keepstone.jobs import Worker
from keepstone.objects import FolderStorage
from keepstone.server import instance
from keepstone.store import Store
from tests.tampered import Tampered, fails

from .client import Client
from .protecting import Vault

pytestmark = pytest.mark.service

SECRET = "the secret of a client"
# What a store does not have, and what is found anew.
GONE = ("alerts", "jobs", "judgements", "notices", "operations", "outbox", "schedules", "targets")
ANEW = (("points", "until"), ("points", "rule"), ("items", "backed_up"))
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Site:
    """Where a vault is lost and rebuilt. `item`: has two points; `late`: has one, and was protected by the last of all
    changes. `deleted`: another vault, which can be taken back."""

    root: Path
    owner: Principal
    vault: UUID
    deleted: UUID
    item: str
    late: str

    @property
    def path(self) -> str:
        """The id of the vault."""
        return self.item.partition("/backupFabrics/")[0]

    @property
    def installation(self) -> Installation:
        return Installation(Env(), self.root)

    @property
    def store(self) -> Path:
        return self.root / "vaults" / self.vault.hex

    @property
    def journal(self) -> list[Path]:
        """Its entries, oldest first."""
        return sorted(path for path in (self.store / "journal").rglob("*") if path.is_file())

    def kit(self, vault: UUID | None = None) -> Kit:
        """Of somebody who kept a copy of it, and of the recovery key."""
        sealed = (self.root / "kits" / f"{(vault or self.vault).hex}.age").read_bytes()
        return open_kit(sealed, identity=(self.root / "recovery-key.txt").read_text())

    def lose_database(self) -> None:
        for path in self.root.glob("keepstone.db*"):
            path.unlink()

    def rebuild(self, env: Env | None = None) -> Rebuilt:
        return rebuild(Installation(env or Env(), self.root), self.store, self.kit())

    @contextmanager
    def plane(self) -> Iterator[Plane]:
        plane = self.installation.plane()
        try:
            yield plane
        finally:
            plane.database.close()

    def client(self, plane: Plane) -> Client:
        issuer = self.installation.issuer(plane.place.tenant)
        return Client(Service(plane, issuer), plane, issuer, self.owner)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Made through the API, as anybody would, with the real jobs."""
    folder = tmp_path_factory.mktemp("template")
    for name in ("source", "other"):
        (folder / name).mkdir()
        (folder / name / "report.txt").write_text("first")
    installation = Installation(Env(), folder / "data")
    installation.begin("onprem1")
    plane = installation.plane()
    with plane.change() as change:
        who = people.add(change, "app", "client-1", "A client", SECRET)
        people.assign(change, "/", who.id, "Owner")
        anna = people.add(change, "user", "anna", "Anna")
    nobody = UUID(int=0)
    site = Site(plane.root, Principal(who.id, who.login), nobody, nobody, "", "")
    client = site.client(plane)
    vault = Vault(client, plane, "Group1")
    client.arm("PUT", f"{vault.group}/providers/Microsoft.Compute/virtualMachines/m1", {"tags": {"a": "b"}}, status=201)
    with plane.change() as change:
        people.assign(change, vault.path, anna.id, "Backup Reader")
    policy = client.arm("GET", vault.policy("FilesPolicy"))["properties"]
    policy["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = 7
    client.arm("PUT", vault.policy("SevenDays"), {"properties": policy})
    client.arm("DELETE", vault.policy("HourlyLogBackup"))
    client.arm("PATCH", vault.path, {"tags": {"kept": "yes"}})
    item = vault.protect(folder / "source", policyId=vault.policy("SevenDays"))
    vault.back_up(item)
    (folder / "source" / "report.txt").write_text("second")
    vault.back_up(item)
    other = client.vault("Group1", "vault2")
    with plane.look() as connection:
        deleted = vaults.find(connection, plane.place.subscription, "Group1", "vault2").id
    client.arm("DELETE", other, status=202)
    late = vault.protect(folder / "other")
    vault.back_up(late)
    site = Site(plane.root, site.owner, vault.uuid, deleted, item, late)
    plane.database.close()
    return site


@pytest.fixture
def site(template: Site, tmp_path: Path) -> Site:
    """A copy of the template."""
    shutil.copytree(template.root, tmp_path / "data")
    return replace(template, root=tmp_path / "data")


class Later(Env):
    """A month from now."""

    def wall_time(self) -> int:
        return super().wall_time() + 30 * 86_400 * 10**9


def rows(plane: Plane, left_out: tuple[tuple[str, str], ...] = ANEW) -> Rows:
    """All rows of the tables that are to come back."""
    found = {}
    with plane.look() as connection:
        for table in metadata.sorted_tables:
            if table.name not in GONE:
                columns = [column for column in table.columns if (table.name, column.name) not in left_out]
                query = sa.select(*columns).order_by(*table.primary_key)
                found[table.name] = [dict(row) for row in connection.execute(query).mappings()]
    return found


def of_vault(found: Rows, vault: UUID) -> Rows:
    """Those of this vault, and those of none."""
    key = {"vaults": "id"}
    return {
        name: [row for row in rows if row.get(key.get(name, "vault"), vault) == vault] for name, rows in found.items()
    }


def schedule(plane: Plane) -> dict[tuple[Any, ...], datetime]:
    """When each item is due."""
    table = metadata.tables["schedules"]
    with plane.look() as connection:
        rows = connection.execute(sa.select(table.c.item, table.c.part, table.c.vault, table.c.due))
        return {(item, part, vault): due for item, part, vault, due in rows}


def restored(plane: Plane, client: Client, point: str, target: Path) -> str:
    """What a restore of the point brings."""
    wanted = {"objectType": "FilesRestoreRequest", "recoveryType": "AlternateLocation", "targetPath": str(target)}
    client.arm("POST", f"{point}/restore", {"properties": wanted}, status=202)
    worker = Worker(plane.queue, handlers(plane), plane.env, "test")
    while worker.run_one():
        pass
    return (target / "report.txt").read_text()


# --- what comes back


def test_everything_is_as_it_was(site: Site, tmp_path: Path) -> None:
    with site.plane() as plane:
        before, exact, due = rows(plane), rows(plane, ()), schedule(plane)
    site.lose_database()

    done = site.rebuild()

    assert (done.vault.path, done.items, done.points, done.warnings) == (site.path, 2, 3, ())
    with site.plane() as plane:
        assert rows(plane) == of_vault(before, site.vault)
        planned = schedule(plane)
        assert set(planned) == set(due)
        assert len(planned) == 2
        assert all(timedelta() < one - plane.env.utc() <= timedelta(days=1) for one in planned.values())
        for now, then in zip(rows(plane, ())["items"], exact["items"], strict=True):
            assert timedelta() <= then["backed_up"] - now["backed_up"] < timedelta(minutes=1)
        for item in exact["items"]:
            retention.apply(plane, done.vault, item["id"])
        assert rows(plane, ())["points"] == exact["points"]

        client = site.client(plane)
        newest, oldest = client.arm("GET", f"{site.item}/recoveryPoints")["value"]
        assert restored(plane, client, newest["id"], tmp_path / "newest") == "second"
        assert restored(plane, client, oldest["id"], tmp_path / "oldest") == "first"


def test_it_goes_on(site: Site) -> None:
    site.lose_database()
    done = site.rebuild()

    with site.plane() as plane:
        client = site.client(plane)
        client.arm("PATCH", site.path, {"tags": {"new": "one"}})
        client.arm("POST", f"{site.item}/backup", {"properties": {}}, status=202)
        while Worker(plane.queue, handlers(plane), plane.env, "test").run_one():
            pass
        assert len(client.arm("GET", f"{site.item}/recoveryPoints")["value"]) == 3
        store = plane.stores.open(site.vault)
        assert store.journal.newest() > done.entry
        (vault,) = read_state(store.journal).records[type(done.vault)]
        assert vault.tags == {"new": "one"}

    site.lose_database()
    assert site.rebuild().points == 4


def test_a_new_machine(site: Site, tmp_path: Path) -> None:
    """Nothing is left but the store, the kit, and what opens the kit."""
    with site.plane() as plane:
        before, place = rows(plane), plane.place
    found, kit = tmp_path / "found", site.kit()
    shutil.move(site.store, found)
    old_key = (site.root / "keys" / f"{site.vault.hex}.key").rename(tmp_path / "old.key")
    shutil.rmtree(site.root)

    done = rebuild(site.installation, found, kit)

    assert done.place == place
    assert not found.exists()
    with site.plane() as plane:
        assert plane.place == place
        assert rows(plane) == of_vault(before, site.vault)
        assert people.log_in(plane, "client-1", SECRET).id == site.owner.id
        assert len(list(plane.stores.open(site.vault).points.list())) == 3
    assert site.kit().keyring.vault_key.secret == kit.keyring.vault_key.secret  # opens by the new recovery key
    with pytest.raises(WrongKey):
        Store.open(Env(), FolderStorage(Env(), site.store), [PlatformKeyProvider(old_key)])


def test_a_deleted_vault_is_not_destroyed_at_once(site: Site) -> None:
    site.lose_database()
    site.rebuild()
    later = Later()

    done = rebuild(Installation(later, site.root), site.root / "vaults" / site.deleted.hex, site.kit(site.deleted))

    assert done.vault.deleted is not None
    assert done.vault.purge is not None
    assert done.vault.purge >= later.utc() + timedelta(days=13)
    (warning,) = done.warnings
    assert "the vault was deleted; take it back until" in warning
    with site.plane() as plane:
        plane.env = later
        assert vaults.purge(plane) == 0
        assert {one["id"] for one in rows(plane)["vaults"]} == {site.vault, site.deleted}


# --- what is lost of the store


def test_a_journal_that_lost_its_end_gives_an_older_state(site: Site) -> None:
    with site.plane() as plane:
        before = rows(plane)
    site.journal[-1].unlink()
    site.lose_database()

    done = site.rebuild()

    (warning,) = done.warnings
    assert "1 recovery points are of items that the journal does not know" in warning
    assert "/other" in warning
    with site.plane() as plane:
        (item,) = rows(plane)["items"]
        assert item in before["items"]
        assert len(rows(plane)["points"]) == 2
        assert len(plane.stores.open(site.vault).points.list()) == 3  # it stays


def test_damage_is_told_before_anything_is_changed(site: Site) -> None:
    entry = site.journal[-2]
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.chmod(0o600)
    entry.write_bytes(data)
    site.lose_database()
    before = {path: path.read_bytes() for path in site.root.rglob("*") if path.is_file()}

    with pytest.raises(CorruptObject, match=f"{entry.name} is not what was stored"):
        site.rebuild()

    entry.unlink()
    del before[entry]
    with pytest.raises(ObjectMissing, match="keepstone store restore --kit"):
        site.rebuild()
    assert {path: path.read_bytes() for path in site.root.rglob("*") if path.is_file()} == before


def test_a_damaged_point_is_left_out(site: Site) -> None:
    commit = max(path for path in (site.store / "commits").rglob("*") if path.is_file())
    commit.chmod(0o600)
    commit.write_bytes(commit.read_bytes()[:-1] + b"?")
    site.lose_database()

    done = site.rebuild()

    assert done.points == 2
    (warning,) = done.warnings
    assert f"the recovery point {commit.name} is damaged, and left out" in warning


GROUP = {"subscription": "s", "key": "g", "name": "g", "location": "l", "tags": {}, "created": datetime.now(UTC)}


@pytest.mark.parametrize(
    "note",
    [
        Note("dreams", {"id": "1"}, True),
        Note("groups", {"subscription": "s", "key": "k"}, True),
        Note("groups", GROUP | {"colour": "red"}, True),
        Note("groups", {"name": "g"}, False),
    ],
)
def test_a_journal_of_another_version(site: Site, note: Note) -> None:
    import msgspec

    with site.plane() as plane:
        journal = plane.stores.open(site.vault).journal
        journal.append(journal.newest() + 1, msgspec.msgpack.encode([note]))
    site.lose_database()

    with pytest.raises(UnsupportedFormat, match="another version of Keepstone wrote it"):
        site.rebuild()


def test_a_store_without_a_journal(tmp_path: Path) -> None:
    env = Env()
    installation = Installation(env, tmp_path / "data")
    installation.begin("onprem1")
    stores = installation.stores
    stores.create(UUID(int=7), "nothing")
    sealed = (installation.root / "kits" / f"{UUID(int=7).hex}.age").read_bytes()
    kit = open_kit(sealed, identity=(installation.root / "recovery-key.txt").read_text())

    with pytest.raises(StoreMissing, match="no journal of a vault"):
        rebuild(installation, stores.place(UUID(int=7)), kit)
    with pytest.raises(StoreMissing):
        rebuild(installation, tmp_path / "nowhere", kit)


# --- what is there already


def test_a_vault_that_is_known(site: Site) -> None:
    with pytest.raises(Conflict, match="known here already"):
        site.rebuild()


def test_an_installation_that_was_begun_anew_takes_the_vault_s_names(site: Site) -> None:
    """As somebody leaves it who starts a service anew, with the stores out of its way."""
    with site.plane() as plane:
        place = plane.place
    site.lose_database()
    with pytest.raises(Conflict, match="has the stores of 2 vaults that nobody knows"):
        site.installation.begin("elsewhere")
    stores = site.installation.root / "vaults"
    stores.rename(stores.with_name("away"))
    site.installation.begin("elsewhere")
    stores.rmdir()
    stores.with_name("away").rename(stores)
    with site.plane() as plane:
        (new,) = rows(plane)["principals"]

    done = site.rebuild()

    assert done.place == place
    (warning,) = done.warnings
    assert f"somebody else logs in as '{ADMINISTRATOR}'" in warning
    with site.plane() as plane:
        found = rows(plane)
        assert new in found["principals"]
        assert {one["login"] for one in found["principals"]} == {ADMINISTRATOR, "client-1", "anna"}
        assert {one["principal"] for one in found["assignments"]} <= {one["id"] for one in found["principals"]}


def test_another_installation_keeps_its_own(site: Site, tmp_path: Path) -> None:
    other = Installation(Env(), tmp_path / "other")
    other.begin("onprem1")
    plane = other.plane()
    with plane.change() as change:
        groups.put(change, plane.place.subscription, "its-own", "onprem1", {})
    before = rows(plane)
    store, kit = tmp_path / "store", site.kit()

    with pytest.raises(UsageError, match=f"belongs to the service in {site.root}"):
        rebuild(other, site.store, kit)
    shutil.move(site.store, store)
    with pytest.raises(UsageError, match="rebuild it into another folder"):
        rebuild(other, store, kit)

    assert rows(plane) == before
    assert store.exists()
    plane.database.close()


def forget(connection: sa.Connection, vault: UUID) -> None:
    """As a database knows nothing of it that is older than the vault."""
    for name in ("points", "items", "containers", "policies", "schedules"):
        table = metadata.tables[name]
        connection.execute(table.delete().where(table.c.vault == vault))
    connection.execute(vault_rows.delete().where(vault_rows.c.id == vault))


def test_nobody_comes_back_by_an_old_store(site: Site) -> None:
    """The database knows the rest, but not this vault, and somebody was shut out since."""
    who, roles, homes = (metadata.tables[name] for name in ("principals", "assignments", "groups"))
    with site.plane() as plane:
        before = rows(plane)
        with plane.database.change() as connection:
            forget(connection, site.vault)
            connection.execute(roles.delete().where(roles.c.scope == site.path))
            connection.execute(who.delete().where(who.c.login == "anna"))
            connection.execute(homes.update().values(tags={"newer": "yes"}))
        known = rows(plane)

    done = site.rebuild()

    (warning,) = done.warnings
    assert "1 role assignments of the vault are not known" in warning
    with site.plane() as plane:
        after = rows(plane)
    for name in ("principals", "assignments", "groups", "facts", "resources"):
        assert after[name] == known[name]
    for name in ("vaults", "policies", "containers", "items", "points"):
        assert after[name] == before[name]


def test_a_name_that_is_taken(site: Site) -> None:
    with site.plane() as plane:
        with plane.database.change() as connection:
            forget(connection, site.vault)
        site.client(plane).vault("Group1", "vault1")

    with pytest.raises(Conflict, match="another vault 'vault1' in 'Group1'"):
        site.rebuild()


# --- what fails on the way


class Failing(FileSystem):
    """The file system says no at the call of this number that makes something durable or gives it its name."""

    def __init__(self, number: int) -> None:
        self.left = number

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def fsync(self, descriptor: int) -> None:  # type: ignore[override]
        self._count()
        os.fsync(descriptor)

    def rename(self, source: Any, target: Any) -> None:  # type: ignore[override]
        self._count()
        os.rename(source, target)


def test_what_was_interrupted_comes_to_its_end(template: Site, tmp_path: Path) -> None:
    with template.plane() as plane:
        expected = of_vault(rows(plane), template.vault)
    for number in range(1, 100):
        site = replace(template, root=tmp_path / str(number))
        shutil.copytree(template.root, site.root)
        site.lose_database()
        kit, found = site.kit(), tmp_path / f"found-{number}"
        shutil.move(site.store, found)
        fs = Failing(number)
        try:
            rebuild(Installation(Env(fs=fs), site.root), found, kit)
        except KeepstoneError:
            rebuild(site.installation, found if found.exists() else site.store, kit)
        with site.plane() as plane:
            assert rows(plane) == expected
            assert len(plane.stores.open(site.vault).points.list()) == 3
        if fs.left > 0:
            break
    assert 10 < number < 99  # it has come to the end, and there was something to fail


def test_the_last_step_is_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with site.plane() as plane:
        before = rows(plane)
    site.lose_database()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_people", fail)
        with pytest.raises(KeyboardInterrupt):
            site.rebuild()
    with site.plane() as plane:
        assert {name for name, found in rows(plane).items() if found} == {"facts"}
    site.rebuild()
    with site.plane() as plane:
        assert rows(plane) == of_vault(before, site.vault)


def test_a_store_is_not_copied_unasked(site: Site, tmp_path: Path) -> None:
    kit, found = site.kit(), tmp_path / "found"
    shutil.move(site.store, found)
    site.lose_database()

    with pytest.raises(UsageError, match=f"move it to {site.store} yourself"):
        rebuild(Installation(Env(fs=Tampered(rename=fails(errno.EXDEV))), site.root), found, kit)
    assert found.exists()
    assert not site.store.exists()

    shutil.copytree(found, site.store)
    with pytest.raises(Conflict, match="there is another store"):
        rebuild(site.installation, found, kit)
    assert site.rebuild().points == 3


# --- the command


@pytest.fixture
def keepstone(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*arguments: object, code: int = 0) -> dict[str, Any]:
        assert main([*(str(one) for one in arguments), "--json"]) == code
        said: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
        return said

    return run


def test_the_command(site: Site, tmp_path: Path, keepstone: Callable[..., dict[str, Any]]) -> None:
    kit = shutil.copy(site.root / "kits" / f"{site.vault.hex}.age", tmp_path / "kit.age")
    command = ("vault", "rebuild", "--from", site.store, "--kit", kit)
    site.lose_database()
    hold = instance.take(site.root)
    assert keepstone(*command, "--data", site.root, code=1)["error"]["code"] == "Conflict"
    hold.release()

    said = keepstone(*command, "--data", site.root)

    assert (said["vault"], said["items"], said["points"]) == (site.path, 2, 3)
    assert keepstone(*command, "--data", site.root, code=1)["error"]["code"] == "Conflict"


def test_the_command_on_a_new_machine(site: Site, tmp_path: Path, keepstone: Callable[..., dict[str, Any]]) -> None:
    site.journal[-1].unlink()
    kit = shutil.copy(site.root / "kits" / f"{site.vault.hex}.age", tmp_path / "kit.age")
    key = shutil.copy(site.root / "recovery-key.txt", tmp_path / "key.txt")
    found = shutil.move(site.store, tmp_path / "found")
    data = tmp_path / "new"
    data.mkdir()
    (data / "holiday.jpg").touch()
    command = ("vault", "rebuild", "--from", found, "--kit", kit, "--data", data)

    assert "other things" in keepstone(*command, "--kit-identity", key, code=2)["error"]["message"]
    (data / "holiday.jpg").unlink()
    assert keepstone(*command, code=12)["error"]["code"] == "WrongKey"
    said = keepstone(*command, "--kit-identity", key, code=4)

    assert said["points"] == 2
    assert said["warning_count"] == 1
    assert (data / "vaults" / site.vault.hex / "keepstone.json").exists()
