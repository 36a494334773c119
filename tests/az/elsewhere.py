# SPDX-License-Identifier: Apache-2.0
"""Machines elsewhere: registered by a file of vault credentials, under names of their own, each with an agent that is a
process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keepstone.control.sources import item_name

from .serving import PROGRAM, Server

__all__ = ["Elsewhere", "elsewhere"]

_PATIENCE = 60.0


class Elsewhere:
    """A machine called `name` in the vault of this id. `restored`: where its agent may restore to."""

    def __init__(self, vault: str, name: str, home: Path) -> None:
        self.vault, self.name = vault, name
        self.container = f"Windows;{name}"
        self.path = f"{vault}/backupFabrics/Azure/protectionContainers/{self.container}"
        self.restored = home / "agent" / "restored"
        self._home = home
        self._environment = os.environ | {"KEEPSTONE_HOME": str(home)}
        self._process: subprocess.Popen[bytes] | None = None

    def item(self, folder: Path) -> str:
        """The id that an item of this folder has."""
        return f"{self.path}/protectedItems/{item_name(str(folder))}"

    def configure(self, text: str) -> None:
        """Its `agent.toml`; before it starts."""
        folder = self._home / "agent" / "etc"
        folder.mkdir(mode=0o700, parents=True)
        (folder / "agent.toml").write_text(text)

    def register(self, credentials: Path) -> None:
        """With the vault."""
        command = [*PROGRAM, "agent", "register", "--credentials", str(credentials), "--name", self.name]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Its agent."""
        with (self._home / "log").open("ab") as log:
            command = [*PROGRAM, "agent", "run"]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def stop(self) -> None:
        """It may be over already: the vault may have taken its identity away."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
            self._process = None


@contextmanager
def elsewhere(server: Server, group: str, vault: str, name: str, root: Path) -> Iterator[Elsewhere]:
    """One that is registered with a vault; its agent is stopped at the end, where it was started."""
    home, file = root / name, root / f"{name}.json"
    home.mkdir(mode=0o700)
    server.keepstone("vault credentials download", "-g", group, "-v", vault, "--file", str(file))
    machine = Elsewhere(server.vault(group, vault), name, home)
    machine.register(file)
    try:
        yield machine
    finally:
        machine.stop()
