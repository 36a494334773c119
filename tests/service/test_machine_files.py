# SPDX-License-Identifier: Apache-2.0
"""Files out of the disks of a machine that runs: into a folder, and back into its guest, through the API."""

from __future__ import annotations

import base64
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepstone.control.work import handlers
from keepstone.env import Env
from keepstone.identity import Principal
from keepstone.jobs import JobQueue, Worker
from keepstone.workloads.inside.restore import FOLDER
from tests.machines.guest import Guest, make_disk, until
from tests.unit.disks_writing.images import qemu

from .client import Client
from .machines import Register
from .protecting import Vault
from .test_job_retries import log, newest, retried
from .test_virtual_machines import ByHand, protect, register
from .worker_process import LEASE

pytestmark = [pytest.mark.service, pytest.mark.vm]
FILES = {"objectType": "FilesRestoreRequest"}
ELSEWHERE = FILES | {"recoveryType": "AlternateLocation"}
BACK = FILES | {"recoveryType": "OriginalLocation"}
SEEN = "find {} -exec stat -c '%n %f %u:%g %Y' {{}} + | sort; find {} -type f -exec md5sum {{}} + | sort"


@dataclass
class Protected:
    """A machine or a disk with a point."""

    vault: Vault
    item: str
    point: dict[str, Any]

    def restored(self, **wanted: Any) -> dict[str, Any]:
        """The job, as its page shows it."""
        self.vault.restore(self.point, **wanted)
        return newest(self.vault, "Restore")

    def refused(self, **wanted: Any) -> Any:
        answered = self.vault.client.ask("POST", f"{self.point['id']}/restore", {"properties": wanted})
        assert answered.status in (400, 403, 404), answered
        return answered


@dataclass
class Little(Protected):
    """A machine that runs. `point`: of what `/a/www` has."""

    guest: Guest

    def seen(self, folder: str) -> str:
        """All that is there, with modes, owners, times and content."""
        return self.guest.sh(SEEN.format(folder, folder))


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    folder = tmp_path_factory.mktemp("guest")
    disks = [(f"d{number}", make_disk(folder / f"d{number}.qcow2", 48)) for number in range(2)]
    with Guest(folder, disks) as guest:
        guest.sh(
            "cd /a; mkdir -p www/deep; dd if=/dev/urandom of=www/big bs=1k count=700 2>/dev/null; : > www/nothing;"
            "echo hello > www/deep/small; echo x > www/tool; chown 7:8 www/tool; chmod 4751 www/tool; mkfifo www/pipe;"
            "ln -s ../../etc/passwd www/link; echo odd > 'www/back\\slash'; touch -d @1000000000 www/* www/deep/small;"
            "touch -h -d @1000000000 www/link; chmod 1750 www/deep; touch -d @1000000001 www/deep www; sync"
        )
        yield guest


@pytest.fixture
def little(vault: Vault, guest: Guest, tmp_path: Path) -> Little:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "vm1.qmp").symlink_to(guest.qmp)
    (tmp_path / "host" / "vm1.qga").symlink_to(guest.qga)
    register(vault, str(tmp_path / "host"))
    vault.work()
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    return Little(vault, item, point, guest)


def read(guest: Guest, path: str) -> bytes:
    """The bytes of a file of the guest."""
    return base64.b64decode(guest.sh(f"base64 {path}"))


def test_into_a_folder(little: Little, tmp_path: Path) -> None:
    """As a restore of files: nothing that would lend a guest's identity to somebody here."""
    target = tmp_path / "out"
    assert little.point["properties"]["keepstone"]["filesIntoGuest"] is True
    paths = ["disk0/0/www", "/disk0/0/www/deep/small", "disk0/0/www"]

    job = little.restored(**ELSEWHERE, paths=paths, targetPath=str(target))

    bag, about = job["properties"]["extendedInfo"]["propertyBag"], job["properties"]["keepstone"]
    assert job["properties"]["status"] == "Completed", job
    assert int(bag["Files"]) >= 5
    assert about["asked"] == {"Recovery Point": little.point["name"], "To": str(target), "Paths": "1"}
    assert "of the files in its disks: disk0/0/www" in log(job)
    www = target / "disk0" / "0" / "www"
    assert (www / "big").read_bytes() == read(little.guest, "/a/www/big")
    assert (www / "back\\slash").read_text() == "odd\n"
    assert (www / "deep" / "small").read_text() == "hello\n"
    assert os.readlink(www / "link") == "../../etc/passwd"
    tool = (www / "tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_mtime) == (0o751, 1_000_000_000)
    if os.geteuid() == 0:
        assert (tool.st_uid, tool.st_gid) == (7, 8)

    one = {"paths": ["disk0/0/www/back\\\\slash", "disk0/0/www/deep"], "targetPath": str(target)}
    again = little.restored(**ELSEWHERE, **one)
    assert "is there and not empty" in again["properties"]["errorDetails"][0]["errorString"]
    (www / "deep" / "small").write_text("mine")
    (www / "deep" / "new").write_text("new")
    assert little.restored(**ELSEWHERE, **one, conflict="skip")["properties"]["status"] == "Completed"
    assert (www / "deep" / "small").read_text() == "mine"
    assert little.restored(**ELSEWHERE, **one, conflict="overwrite", delete=True)["properties"]["status"] == "Completed"
    assert [(path.name, path.read_text()) for path in (www / "deep").iterdir()] == [("small", "hello\n")]
    assert (www / "tool").exists()


def test_back_into_the_guest(little: Little) -> None:
    """Bytes, modes, owners and times, to where they were."""
    guest, before = little.guest, little.seen("/a/www")
    guest.sh("cd /a/www; rm -r deep big tool nothing 'back\\slash' link")

    job = little.restored(**BACK, paths=["disk0/0/www"])

    about, bag = job["properties"]["keepstone"], job["properties"]["extendedInfo"]["propertyBag"]
    assert job["properties"]["status"] == "CompletedWithWarnings", job
    assert (bag["Files"], bag["Target"]) == ("5", "the guest of little, to where they came from")
    assert "it is a fifo" in bag["Warning 1"]
    assert about["asked"]["To"] == "the guest that runs, where it came from"
    assert any(line.startswith("5 files, 1 links and 1 folders are in the guest") for line in log(job))
    mine = "/a/www "  # which was there, and stays as it is
    after = little.seen("/a/www")
    assert [line for line in before.splitlines() if not line.startswith(mine)] == [
        line for line in after.splitlines() if not line.startswith(mine)
    ]


def test_what_is_there(little: Little) -> None:
    """Found before anything is written; a job that failed of it can be had again with another word."""
    guest, path = little.guest, "disk0/0/www/deep"
    guest.sh("echo mine > /a/www/deep/small")

    job = little.restored(**BACK, paths=[path, "disk0/0/www/tool"])

    (error,) = job["properties"]["errorDetails"]
    assert "/a/www/deep/small is there in the guest; nothing was written" in error["errorString"]
    assert job["properties"]["keepstone"]["retriable"] is True
    guest.sh("mv /a/www/deep/small /a/www/deep/mine; rm /a/www/tool")
    again = retried(little.vault, job)
    assert again["properties"]["status"] == "Completed", again
    assert again["properties"]["keepstone"]["asked"] == job["properties"]["keepstone"]["asked"]
    assert guest.sh("stat -c '%a %u:%g' /a/www/tool; cat /a/www/deep/small") == "4751 7:8\nhello\n"

    guest.sh("mv /a/www/deep/mine /a/www/deep/small")
    assert little.restored(**BACK, paths=[path], conflict="skip")["properties"]["status"] == "Completed"
    kept = little.restored(**BACK, paths=[path], conflict="keep-both")
    assert "/a/www/deep/small.restored lies beside what was there" in log(kept)
    assert guest.sh("cd /a/www/deep; cat small small.restored; rm small.restored") == "mine\nhello\n"
    assert little.restored(**BACK, paths=[path], conflict="overwrite")["properties"]["status"] == "Completed"
    assert guest.sh(f"cat /a/www/deep/small; ls -A /a/www/deep; find /a -name {FOLDER}") == "hello\nsmall\n"


def test_beneath_a_folder_of_the_guest(little: Little) -> None:
    """With the folders on its way, and without setuid bits; not through a link that is in the way."""
    little.guest.sh("mkdir -p /b/old /b/trap /b/aim; ln -s /b/aim /b/trap/www")

    job = little.restored(**BACK, paths=["disk0/0/www/tool"], guestPath="/b/old/")

    assert job["properties"]["status"] == "Completed", job
    assert job["properties"]["keepstone"]["asked"]["To"] == "the guest that runs, /b/old"
    assert little.guest.sh("stat -c '%a %u:%g' /b/old/www/tool") == "751 7:8\n"
    job = little.restored(**BACK, paths=["disk0/0/www/tool"], guestPath="/b/trap", conflict="overwrite")
    (error,) = job["properties"]["errorDetails"]
    assert "/b/trap/www is a symbolic link in the guest and a folder in the point" in error["errorString"]
    assert little.guest.sh("ls -A /b/aim") == ""
    job = little.restored(**BACK, paths=["disk0/0/www/tool"], guestPath="/b/none")
    assert "the guest has no folder /b/none" in job["properties"]["errorDetails"][0]["errorString"]


def test_paths_that_name_nothing(little: Little, tmp_path: Path) -> None:
    """The job finds that, and says it."""
    for wanted in (BACK, ELSEWHERE | {"targetPath": str(tmp_path / "out")}):
        job = little.restored(**wanted, paths=["disk0/0/www/none"])
        assert job["properties"]["status"] == "Failed"
        assert "disk0/0/www/none" in job["properties"]["errorDetails"][0]["errorString"]
    job = little.restored(**BACK, paths=["disk0/7/www"])
    assert "volume 7 of disk0 is mounted nowhere" in job["properties"]["errorDetails"][0]["errorString"]
    assert not (tmp_path / "out").exists()


def test_what_is_refused(little: Little, tmp_path: Path) -> None:
    def wrong(target: str, **wanted: Any) -> str:
        answered = little.refused(**wanted)
        assert answered.body["error"]["target"] == target, answered
        return str(answered.message)

    paths, out = ["disk0/0/www"], str(tmp_path / "out")
    there = ELSEWHERE | {"targetPath": out}
    for wanted in (BACK, there):
        assert "has to name the files" in wrong("properties.paths", **wanted)
        for path in ("disk0/0/../../etc", "..", "disk0/0/./www", "disk0/0/a\0b", "disk0/0/\\x00"):
            assert "is no path of a point" in wrong("properties.paths", **wanted, paths=["disk0/0/www", path])
        for path in ("/", "disk0", "//disk0/"):
            assert "names no file or folder in a volume" in wrong("properties.paths", **wanted, paths=[path])
        assert "no path that any point has" in wrong("properties.paths", **wanted, paths=["\\Uffffffff"])
        assert "is for images" in wrong("properties.format", **wanted, paths=paths, format="raw")
        assert "choose one of overwrite" in wrong("properties.conflict", **wanted, paths=paths, conflict="x")
    assert "is a disk" in wrong("properties.paths", **BACK, paths=["disk0/disk.img"])
    assert "nothing is deleted in a guest" in wrong("properties.delete", **BACK, paths=paths, delete=True)
    assert "what becomes of the rest" in wrong("properties.delete", **there, paths=paths, delete=True)
    assert "properties.guestPath, or" in wrong("properties.targetPath", **BACK, paths=paths, targetPath=out)
    assert "with OriginalLocation" in wrong("properties.guestPath", **there, paths=paths, guestPath="/b")
    for folder in ("b", "/b/../a", "/b\n", "", 5):
        assert "absolute folder of the guest" in wrong("properties.guestPath", **BACK, paths=paths, guestPath=folder)
    assert "absolute path" in wrong("properties.targetPath", **ELSEWHERE, paths=paths, targetPath="out")
    own = str(little.vault.plane.root / "x")
    assert "own folder" in little.refused(**ELSEWHERE, paths=paths, targetPath=own).message
    assert "FilesRestoreRequest" in little.refused(objectType="ImageRestoreRequest", recoveryType="x").message
    assert not (tmp_path / "out").exists()
    assert (
        little.vault.client.arm("GET", f"{little.vault.path}/backupJobs?$filter=operation eq 'Restore'")["value"] == []
    )


def test_who_may(
    little: Little, client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal]
) -> None:
    path, about = f"{little.point['id']}/restore", {"properties": BACK | {"paths": ["disk0/0/www"]}}
    reader = client_of(principal("Backup Reader", scope=little.vault.path))
    assert reader.ask("POST", path, about).status == 403
    operator = client_of(principal("Backup Operator", scope=little.vault.path))
    assert operator.ask("POST", path, about).status == 202


def test_a_machine_without_an_agent(vault: Vault, guest: Guest, tmp_path: Path) -> None:
    """What to do is said, and true: an agent that comes later is found."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "vm1.qmp").symlink_to(guest.qmp)
    register(vault, str(host))
    vault.work()
    item = protect(vault, "little")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    little = Little(vault, item, point, guest)
    assert point["properties"]["keepstone"]["filesIntoGuest"] is False
    told = little.refused(**BACK, paths=["disk0/0/www"]).message
    assert "no guest agent of 'little' is known" in told
    assert "as vm1.qga" in told
    (host / "vm1.qga").symlink_to(guest.qga)
    vault.client.arm("POST", f"{vault.path}/backupFabrics/Azure/refreshContainers", status=202)
    vault.work()
    assert vault.points(item)[0]["properties"]["keepstone"]["filesIntoGuest"] is True
    guest.sh("rm /a/www/nothing")
    assert little.restored(**BACK, paths=["disk0/0/www/nothing"])["properties"]["status"] == "Completed"
    assert guest.sh("stat -c %s /a/www/nothing") == "0\n"


def test_a_disk_image(vault: Vault, tmp_path: Path) -> None:
    """Its files go into folders; it has no guest."""
    disk = make_disk(tmp_path / "disk.img", 8, form="raw")
    item = vault.protect(disk, sourceType="DiskImage")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    little = Protected(vault, item, point)
    assert "filesIntoGuest" not in point["properties"]["keepstone"]
    told = little.refused(**BACK, paths=["0/lost+found"])
    assert (told.code, "AlternateLocation" in told.message) == ("UserErrorNotSupported", True)
    assert "ImageRestoreRequest" in little.refused(**ELSEWHERE, targetPath=str(tmp_path / "x")).message
    there = ELSEWHERE | {"targetPath": str(tmp_path / "out"), "paths": ["0/lost+found", "disk.img"]}
    assert little.restored(**there)["properties"]["status"] == "Completed"
    assert [path.name for path in (tmp_path / "out" / "0").iterdir()] == ["lost+found"]
    assert (tmp_path / "out" / "disk.img").read_bytes() == disk.read_bytes()


def test_folders_have_no_guest(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    item = vault.protect(tmp_path / "data")
    vault.back_up(item)
    (point,) = vault.points(item)
    about = {"properties": BACK | {"guestPath": "/x"}}
    assert "no machine whose guest" in vault.client.refused("POST", f"{point['id']}/restore", about, status=400).message


def test_other_hosts(vault: Vault, machine: Register) -> None:
    """A machine there needs a guest agent as well; files of an agent's machine go where that restores."""
    by_hand = ByHand(vault, machine())
    try:
        little = Protected(vault, by_hand.item, by_hand.point)
        told = little.refused(**BACK, paths=["vda/1/etc"])
        assert (told.code, "no guest agent of" in told.message) == ("InvalidRequestContent", True)
        wanted: dict[str, Any] = ELSEWHERE | {"targetPath": "/srv/out", "paths": ["vda/1/etc/fstab"]}
        work = by_hand.asked(f"{by_hand.point['id']}/restore", **wanted, conflict="skip")
        told = {key: work.arguments[key] for key in ("mode", "target", "paths", "conflict", "delete")}
        assert told == {"mode": "Files", "target": "/srv/out", "paths": ["vda/1/etc/fstab"], "conflict": "skip",
                        "delete": False}  # fmt: skip
    finally:
        by_hand.registry.close()


def killed(vault: Vault, step: str) -> None:
    """A worker of its own process, at this step of the job that waits."""
    command = [sys.executable, str(Path(__file__).with_name("worker_process.py")), str(vault.plane.root), step]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.wait(60) == -signal.SIGKILL


def inherited(vault: Vault) -> dict[str, Any]:
    """The job, when the next worker has ended it."""
    heir = Worker(JobQueue(vault.plane.database, vault.plane.env, lease=LEASE), handlers(vault.plane), Env(), "heir")
    until(heir.run_one, "the job")
    job = newest(vault, "Restore")
    assert "goes on where the worker before it ended" in log(job)
    return job


def test_a_worker_that_dies_over_a_folder(vault: Vault, tmp_path: Path) -> None:
    """Nothing may be there, but for what the first one has left."""
    disk = make_disk(tmp_path / "disk.img", 8, form="raw")
    item = vault.protect(disk, sourceType="DiskImage")
    vault.back_up(item)
    (point,) = vault.points(item)
    about = ELSEWHERE | {"paths": ["0/lost+found"], "targetPath": str(tmp_path / "out")}
    vault.client.arm("POST", f"{point['id']}/restore", {"properties": about}, status=202)

    killed(vault, "restored")

    assert (tmp_path / "out" / "0" / "lost+found").is_dir()
    assert inherited(vault)["properties"]["status"] == "Completed"


def test_a_worker_that_dies_over_images(little: Little, tmp_path: Path) -> None:
    """Of what is in the folder, the images that it left there are its, and nothing else."""
    vault, target = little.vault, tmp_path / "out"
    target.mkdir()
    (target / "notes").write_bytes(b"mine")
    about = {
        "objectType": "IaasVMRestoreRequest",
        "recoveryType": "RestoreDisks",
        "keepstone": {"targetPath": str(target)},
    }
    vault.client.arm("POST", f"{little.point['id']}/restore", {"properties": about}, status=202)

    killed(vault, "restored")

    whole = {path.name: path.read_bytes() for path in target.iterdir()}
    assert set(whole) == {"notes", "disk0.raw", "disk1.raw", "machine.json"}
    (target / "disk0.raw").write_bytes(b"half of it")
    (target / "machine.json").unlink()
    assert inherited(vault)["properties"]["status"] == "Completed"
    assert {path.name: path.read_bytes() for path in target.iterdir()} == whole


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_worker_that_dies_over_an_image(vault: Vault, tmp_path: Path, form: str) -> None:
    disk, target = make_disk(tmp_path / "disk.img", 8, form="raw"), tmp_path / f"out.{form}"
    item = vault.protect(disk, sourceType="DiskImage")
    vault.back_up(item)
    (point,) = vault.points(item)
    about = {
        "objectType": "ImageRestoreRequest",
        "recoveryType": "AlternateLocation",
        "targetPath": str(target),
        "format": form,
    }
    vault.client.arm("POST", f"{point['id']}/restore", {"properties": about}, status=202)

    killed(vault, "restored")

    target.write_bytes(b"half of it")
    assert inherited(vault)["properties"]["status"] == "Completed"
    qemu("compare", "-f", "raw", "-F", form, disk, target)


@pytest.mark.parametrize("conflict", [None, "keep-both"])
def test_a_worker_that_dies(little: Little, conflict: str | None) -> None:
    """The next one goes on: what is there once is there once, and folders get what they had."""
    guest, vault = little.guest, little.vault
    guest.sh("mkdir -p /b/dying")
    before = little.seen("/a/www").replace("/a/www", "/b/dying/www")
    about = BACK | {"paths": ["disk0/0/www"], "guestPath": "/b/dying", "conflict": conflict}
    vault.client.arm("POST", f"{little.point['id']}/restore", {"properties": about}, status=202)

    killed(vault, "published")

    assert "/b/dying/www" in guest.sh("find /b/dying -type d -perm 1700")
    assert int(guest.sh("find /b/dying/www -maxdepth 1 -type f | wc -l")) == 2

    job = inherited(vault)

    assert job["properties"]["status"] == "CompletedWithWarnings", job
    after = little.seen("/b/dying/www")
    special = (" 89e9 ", " 81e9 "), (" 43e8 ", " 41e8 ")  # setuid and sticky bits, which only their own place gets
    for one, other in special:
        before = before.replace(one, other)
    assert sorted(line for line in before.splitlines() if "pipe" not in line) == sorted(after.splitlines())
    guest.sh("rm -r /b/dying")
