# SPDX-License-Identifier: Apache-2.0
"""What of its machine the service reads and writes for those who ask: what it was allowed, and never its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.reach import Reach
from keepstone.env import Env
from keepstone.errors import GuardRefused

from .protecting import Vault

pytestmark = pytest.mark.service

FILES = "FilesRestoreRequest"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One that has a folder around it which is nobody else's."""
    made = Installation(Env(), tmp_path_factory.mktemp("home") / "service")
    made.begin("onprem1")
    return made


@pytest.fixture
def bound(plane: Plane, tmp_path: Path) -> Iterator[Path]:
    """The service may read and write in this folder alone."""
    allowed = tmp_path / "allowed"
    (allowed / "data").mkdir(parents=True)
    (allowed / "data" / "file").write_text("content")
    before, plane.reach = plane.reach, Reach(plane.root, [allowed])
    yield allowed
    plane.reach = before


def refused_source(vault: Vault, path: Path) -> str:
    """What somebody is told who protects a path that is out of reach."""
    properties = {
        "protectedItemType": "MabFileFolderProtectedItem",
        "policyId": vault.policy("FilesPolicy"),
        "sourcePath": str(path),
    }
    refused = vault.client.refused("PUT", vault.item(path), {"properties": properties}, status=403)
    assert refused.code == "GuardRefused"
    return refused.message


# --- the rule


def test_everything_but_the_service_itself(tmp_path: Path) -> None:
    root = tmp_path / "service"
    (root / "keys").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    reach = Reach(root)
    reach.check("/")
    reach.check(tmp_path)
    reach.check(tmp_path / "service-2")
    for path in (
        root,
        root / "keys",
        root / "not-there",
        tmp_path / "link" / "keys",
        tmp_path / "x" / ".." / "service",
    ):
        with pytest.raises(GuardRefused, match="own folder"):
            reach.check(path)


def test_what_is_allowed_and_what_it_leads_to(tmp_path: Path) -> None:
    root, home, other = tmp_path / "service", tmp_path / "home", tmp_path / "other"
    for path in (root, home / "a", other):
        path.mkdir(parents=True)
    (home / "out").symlink_to(other)
    (other / "in").symlink_to(home)
    reach = Reach(root, [home, tmp_path / "later"])
    for path in (home, home / "a", home / "not-there", other / "in" / "a", tmp_path / "later" / "x"):
        reach.check(path)
    for path in (tmp_path, other, home / "out", home / "out" / "x", home / ".." / "other", tmp_path / "home-2"):
        with pytest.raises(GuardRefused, match="keepstone up --allow"):
            reach.check(path)
    with pytest.raises(GuardRefused, match="own folder"):
        Reach(root, ["/"]).check(root)
    Reach(root, ["/"]).check(other)
    (tmp_path / "place").symlink_to(home)
    Reach(root, [tmp_path / "place"]).check(home / "a")  # what is allowed may be a link as well


# --- what is asked for


def test_only_what_is_allowed_is_backed_up(vault: Vault, bound: Path, tmp_path: Path) -> None:
    item = vault.protect(bound / "data")
    assert vault.back_up(item)["status"] == "Completed"
    (tmp_path / "secret").mkdir()
    assert "--allow" in refused_source(vault, tmp_path / "secret")
    assert "--allow" in refused_source(vault, tmp_path)
    (bound / "link").symlink_to(tmp_path / "secret")
    refused_source(vault, bound / "link")
    found = vault.client.arm("GET", f"{vault.path}/backupProtectedItems")["value"]
    assert [one["id"].casefold() for one in found] == [item.casefold()]


def test_a_disk_image_is_bound_as_well(vault: Vault, bound: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    machine = f"{vault.group}/providers/Microsoft.Compute/virtualMachines/web"
    disk = {"storageProfile": {"osDisk": {"vhd": {"uri": image.as_uri()}}}}
    vault.client.arm("PUT", machine, {"location": "onprem1", "properties": disk}, status=201)
    group = vault.group.rpartition("/")[2].casefold()
    name = f"iaasvmcontainerv2;{group};web"
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/IaasVMContainer;{name}/protectedItems/VM;{name}"
    properties = {
        "protectedItemType": "Microsoft.Compute/virtualMachines",
        "policyId": vault.policy("DefaultPolicy"),
        "sourceResourceId": machine,
    }
    assert vault.client.refused("PUT", path, {"properties": properties}, status=403).code == "GuardRefused"


def test_the_worker_looks_again(vault: Vault, bound: Path, tmp_path: Path, plane: Plane) -> None:
    """What an item or a job says was allowed once, and what lies there may lead elsewhere by now."""
    (tmp_path / "secret").mkdir()
    item = vault.protect(bound / "data")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    (bound / "data").rename(bound / "before")
    (bound / "data").symlink_to(tmp_path / "secret")

    job = vault.back_up(item)
    assert job["status"] == "Failed"
    assert "--allow" in job["errorDetails"][0]["errorString"]
    job = vault.restore(point, objectType=FILES, recoveryType="OriginalLocation")
    assert job["status"] == "Failed"
    assert list((tmp_path / "secret").iterdir()) == []


def test_only_where_it_is_allowed_something_is_restored(vault: Vault, bound: Path, tmp_path: Path) -> None:
    item = vault.protect(bound / "data")
    vault.back_up(item)
    (point,) = vault.points(item)
    for target in (tmp_path / "elsewhere", vault.plane.root / "vaults", bound / ".." / "x"):
        body = {"properties": {"objectType": FILES, "recoveryType": "AlternateLocation", "targetPath": str(target)}}
        refused = vault.client.refused("POST", f"{point['id']}/restore", body, status=403)
        assert refused.code == "GuardRefused"
        assert not (tmp_path / "elsewhere").exists()
    job = vault.restore(point, objectType=FILES, recoveryType="AlternateLocation", targetPath=str(bound / "restored"))
    assert job["status"] == "Completed"
    assert (bound / "restored" / "file").read_text() == "content"


# --- the service's own folder in the middle of what is restored


def test_a_restore_around_the_service_spares_it(vault: Vault, plane: Plane) -> None:
    """As of a home folder, in which the service lies by default."""
    home = plane.root.parent
    (home / "letters").mkdir()
    (home / "letters" / "one").write_text("one")
    item = vault.protect(home)
    assert vault.back_up(item)["status"] in ("Completed", "CompletedWithWarnings")
    (point,) = vault.points(item)
    (home / "letters" / "one").write_text("changed")
    (home / "letters" / "two").write_text("two")
    keys = sorted(path.name for path in (plane.root / "keys").iterdir())

    job = vault.restore(point, objectType=FILES, recoveryType="OriginalLocation", delete=True)
    assert job["status"] == "Failed"
    assert "own folder" in job["errorDetails"][0]["errorString"]
    assert (home / "letters" / "one").read_text() == "changed"
    job = vault.restore(point, objectType=FILES, recoveryType="OriginalLocation", delete=True, paths=["letters"])
    assert job["status"] == "Completed"
    assert not (home / "letters" / "two").exists()
    (home / "letters" / "one").write_text("changed")
    job = vault.restore(point, objectType=FILES, recoveryType="OriginalLocation")
    assert job["status"] in ("Completed", "CompletedWithWarnings")
    assert (home / "letters" / "one").read_text() == "one"
    assert sorted(path.name for path in (plane.root / "keys").iterdir()) == keys


def test_nobody_writes_into_the_service_from_above(vault: Vault, plane: Plane, tmp_path: Path) -> None:
    """A tree that has something under the very name of the service's folder."""
    forged = tmp_path / "forged" / plane.root.name
    forged.mkdir(parents=True)
    (forged / "issuer.key").write_text("mine")
    item = vault.protect(tmp_path / "forged")
    vault.back_up(item)
    (point,) = vault.points(item)
    key = (plane.root / "issuer.key").read_bytes()
    wanted = {"recoveryType": "AlternateLocation", "targetPath": str(plane.root.parent), "conflict": "overwrite"}
    for paths in ([], [plane.root.name], [f"/{plane.root.name}/issuer.key"], [f"./{plane.root.name}"]):
        job = vault.restore(point, objectType=FILES, **wanted, paths=paths)
        assert job["status"] == "Failed"
        assert "own folder" in job["errorDetails"][0]["errorString"]
    assert (plane.root / "issuer.key").read_bytes() == key
