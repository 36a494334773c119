# SPDX-License-Identifier: Apache-2.0
"""A vault of a test's own, and what people do with it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from uuid import UUID

from keepstone.control import vaults
from keepstone.control.plane import Plane
from keepstone.control.sources import item_name
from keepstone.control.work import handlers
from keepstone.jobs import Worker

from .client import Client

__all__ = ["CONTAINER", "Vault"]

CONTAINER = f"Windows;{socket.gethostname()}"


class Vault:
    """A vault of its own for a test, and what people do with it."""

    def __init__(self, client: Client, plane: Plane, group: str) -> None:
        self.client, self.plane = client, plane
        self.group = f"/subscriptions/{plane.place.subscription}/resourceGroups/{group}"
        self.path = f"{self.group}/providers/Microsoft.RecoveryServices/vaults/vault1"
        client.arm("PUT", self.group, {"location": "onprem1"}, status=201)
        client.arm("PUT", self.path, {"location": "onprem1"}, status=201)
        self.worker = Worker(plane.queue, handlers(plane), plane.env, "test")

    @property
    def id(self) -> str:
        """What names its store."""
        with self.plane.look() as connection:
            group = self.group.rpartition("/")[2]
            return str(vaults.find(connection, self.plane.place.subscription, group, "vault1").id)

    @property
    def uuid(self) -> UUID:
        """The same as a value."""
        return UUID(self.id)

    def policy(self, name: str) -> str:
        return f"{self.path}/backupPolicies/{name}"

    def item(self, folder: Path) -> str:
        return (
            f"{self.path}/backupFabrics/Azure/protectionContainers/{CONTAINER}/protectedItems/{item_name(str(folder))}"
        )

    def protect(self, folder: Path, **more: Any) -> str:
        path = self.item(folder)
        properties = {
            "protectedItemType": "MabFileFolderProtectedItem",
            "policyId": self.policy("FilesPolicy"),
            "sourcePath": str(folder),
            **more,
        }
        self.client.arm("PUT", path, {"properties": properties}, status=202)
        return path

    def back_up(self, item: str) -> dict[str, Any]:
        """Run a backup to its end; its job."""
        return self.job(f"{item}/backup", {})

    def restore(self, point: dict[str, Any], **wanted: Any) -> dict[str, Any]:
        """Run a restore to its end; its job."""
        return self.job(f"{point['id']}/restore", wanted)

    def job(self, path: str, properties: dict[str, Any]) -> dict[str, Any]:
        """Ask for something; what became of its job."""
        answered = self.client.ask("POST", path, {"properties": properties})
        assert answered.status == 202, answered
        self.work()
        operation = answered.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
        status = self.client.arm("GET", f"{self.path}/backupOperations/{operation}")
        assert status["status"] == "Succeeded"
        job: dict[str, Any] = self.client.arm("GET", f"{self.path}/backupJobs/{status['properties']['jobId']}")
        properties = job["properties"]
        return properties

    def work(self) -> None:
        while self.worker.run_one():
            pass

    def show(self, item: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.client.arm("GET", item)["properties"]
        return shown

    def points(self, item: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.arm("GET", f"{item}/recoveryPoints")["value"]
        return found
