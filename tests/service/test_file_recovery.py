# SPDX-License-Identifier: Apache-2.0
"""Sessions in which a point's disks are served: who may read, for how long, and what is refused. The script is run in
tests/az/test_virtual_machines.py."""

from __future__ import annotations

import base64
import re
import shlex
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization

from keepstone.catalogue import jobs
from keepstone.control.file_recovery import HOURS, SERVE
from keepstone.control.work import standing
from keepstone.disks.nbd import Address, NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.jobs import Worker
from tests.machines.guest import until
from tests.unit.nbd.serving import read

from .conftest import Clock
from .exercised import exercises
from .protecting import Vault
from .test_virtual_machines import MACHINES, protect

pytestmark = pytest.mark.service
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def point(vault: Vault, tmp_path: Path) -> dict[str, Any]:
    """A point of a machine that is a disk image."""
    (tmp_path / "disk.img").write_bytes(CONTENT)
    disk = {"osDisk": {"vhd": {"uri": (tmp_path / "disk.img").as_uri()}}}
    about = {"location": "onprem1", "properties": {"storageProfile": disk}}
    vault.client.arm("PUT", f"{vault.group}/providers/{MACHINES}/vm1", about, status=201)
    item = protect(vault, "vm1")
    assert vault.back_up(item)["status"] == "Completed"
    (made,) = vault.points(item)
    return made


@contextmanager
def served(vault: Vault, plane: Any) -> Iterator[None]:
    """A worker for one session, which has ended when the block has."""
    worker = Worker(plane.queue, standing(plane, "127.0.0.1"), plane.env, "standing")
    thread = threading.Thread(target=lambda: until(worker.run_one, "a session"))
    thread.start()
    try:
        yield
    except BaseException:
        with plane.change() as change:
            for job in change.connection.execute(sa.select(jobs.c.id).where(jobs.c.operation == SERVE)).scalars():
                plane.queue.cancel(change.connection, job)
        raise
    finally:
        thread.join()


def begin(vault: Vault, point: dict[str, Any]) -> Callable[[], str]:
    """Ask for a session; what tells the state of the operation."""
    about = {"properties": {"objectType": "IaasVMILRRegistrationRequest"}}
    answered = vault.client.ask("POST", f"{point['id']}/provisionInstantItemRecovery", about)
    assert answered.status == 202, answered
    operation = answered.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
    path = f"{vault.path}/backupOperations/{operation}"
    return lambda: str(vault.client.arm("GET", path)["status"])


def script(vault: Vault, point: dict[str, Any]) -> tuple[str, str]:
    """A new script and its password."""
    operation = vault.client.ask("POST", f"{vault.path}/backupFabrics/Azure/refreshContainers").headers
    name = operation["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
    body = {"provisionInstantItemRecoveryOperationId": name}
    path = f"{point['id']}/listInstantItemRecoveryOperationResult"
    (made,) = vault.client.arm("POST", path, body)["clientScripts"]
    assert (made["osType"], made["scriptExtension"]) == ("Linux", ".sh")
    suffix = made["scriptNameSuffix"]
    at = suffix.rfind("_") + 33  # as az does
    return base64.b64decode(made["scriptContent"]).decode(), suffix[at : at + 15]


def values(text: str) -> dict[str, str]:
    """What a script has of its own."""
    words = shlex.split(text.partition("\n\n#")[0].partition("\n")[2])
    return dict(word.split("=", 1) for word in words)


def client(text: str, password: str, folder: Path) -> tuple[Address, ssl.SSLContext]:
    """What a script connects to, and how."""
    told = values(text)
    key = serialization.load_pem_private_key(told["KEY"].encode(), password.encode())
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "client.pem").write_bytes(told["CERTIFICATE"].encode() + plain)
    context = ssl.create_default_context(cadata=told["AUTHORITY"])
    context.load_cert_chain(folder / "client.pem")
    assert (told["NAME"], told["DISKS"]) == ("vm1", "disk")
    return Address(host=told["HOST"], port=int(told["PORT"]), export="disk", tls=True), context


@pytest.fixture
def certificate(installation: Any) -> None:
    """What `keepstone up` makes before its workers run."""
    installation.certificate(["localhost", "127.0.0.1"])


@exercises(
    "item_level_recovery_connections.provision",
    "item_level_recovery_connections.list_instant_item_recovery_operation_result",
    "item_level_recovery_connections.revoke",
)
@pytest.mark.usefixtures("certificate")
def test_a_session(vault: Vault, point: dict[str, Any], plane: Any, tmp_path: Path) -> None:
    state = begin(vault, point)
    assert state() == "InProgress"
    with served(vault, plane):
        until(lambda: state() == "Succeeded", "the disks")
        assert vault.client.arm("GET", point["id"])["properties"]["isInstantIlrSessionActive"]
        text, password = script(vault, point)
        assert password not in text
        place, context = client(text, password, tmp_path)

        def contents() -> bytes | None:
            try:
                with NbdSource(Env(), place, tls=context) as source:
                    return read(source)
            except KeepstoneError:
                return None

        assert until(contents, "the content") == CONTENT
        other, second = script(vault, point)
        assert second != password
        assert until(contents, "the first one still") == CONTENT
        stranger = ssl.create_default_context(cadata=values(other)["AUTHORITY"])
        with pytest.raises(KeepstoneError), NbdSource(Env(), place, tls=stranger) as source:
            read(source)
        vault.client.arm("POST", f"{point['id']}/revokeInstantItemRecovery", status=202)
    assert contents() is None
    assert not vault.client.arm("GET", point["id"])["properties"]["isInstantIlrSessionActive"]
    vault.client.arm("POST", f"{point['id']}/revokeInstantItemRecovery", status=202)  # once more is no fault


@pytest.mark.usefixtures("certificate")
def test_a_session_ends_with_its_time(vault: Vault, point: dict[str, Any], plane: Any, clock: Clock) -> None:
    state = begin(vault, point)
    with served(vault, plane):
        until(lambda: state() == "Succeeded", "the disks")
        begin(vault, point)  # the same one, for longer
        clock.ahead += timedelta(hours=HOURS, seconds=1)
    clock.ahead = timedelta()  # the client's token is for less
    (job,) = vault.client.arm("GET", f"{vault.path}/backupJobs?$filter=operation eq 'RecoverFiles'")["value"]
    assert job["properties"]["status"] == "Completed"


def test_what_is_refused(vault: Vault, point: dict[str, Any], tmp_path: Path) -> None:
    refused = vault.client.refused
    path = f"{point['id']}/provisionInstantItemRecovery"
    assert refused("POST", path, {"properties": {"objectType": "Other"}}, status=400).message.endswith("Request")
    body = {"provisionInstantItemRecoveryOperationId": "x"}
    result = f"{point['id']}/listInstantItemRecoveryOperationResult"
    assert refused("POST", result, body, status=404).message.startswith("There is no operation")
    begin(vault, point)
    with pytest.raises(AssertionError, match="is not served yet"):
        script(vault, point)
    (tmp_path / "file").touch()
    files = vault.protect(tmp_path)
    vault.back_up(files)
    (other,) = vault.points(files)
    about = {"properties": {"objectType": "IaasVMILRRegistrationRequest"}}
    told = refused("POST", f"{other['id']}/provisionInstantItemRecovery", about, status=400)
    assert re.search("has no disks", told.message)
