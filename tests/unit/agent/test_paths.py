# SPDX-License-Identifier: Apache-2.0
"""What a service may have read and written: what this machine's file says, however the path is written."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.system import Folders
from keepstone.env import Env
from keepstone.errors import GuardRefused, UsageError
from keepstone.workloads.files import dry_run
from keepstone.workloads.progress import Silent

pytestmark = pytest.mark.agents


class Machine:
    """A tree with a secret in it, and an agent's own folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("data/secret/keys", "data/open", "agent/state", "agent/cache", "etc", "restored"):
            (root / name).mkdir(parents=True)
        (root / "way").symlink_to(root / "data" / "secret")
        self.file = root / "etc" / "agent.toml"
        self.folders = Folders(
            configuration=self.file, state=root / "agent/state", cache=root / "agent/cache", restored=root / "restored"
        )

    def paths(self, text: str = "", **lists: list[str]) -> Paths:
        for name, value in lists.items():
            part, _, key = name.partition("_")
            text += f"\n{part}.{key} = {json.dumps([str(self.root / one) if one else '/' for one in value])}"
        return Paths(Configuration.parse(text), self.file, self.folders)

    def __truediv__(self, name: str) -> str:
        return str(self.root / name)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path.resolve())


def test_everything_is_read_by_default_but_what_is_the_agents(machine: Machine) -> None:
    paths = machine.paths()

    assert paths.source(machine / "data").path == machine.root / "data"
    for own in ("agent/state", "agent/state/key.pem", "agent/cache"):
        with pytest.raises(GuardRefused, match="allows no backup"):
            paths.source(machine / own)


def test_the_passphrase_stays_here(machine: Machine) -> None:
    files = [machine / "data/secret/now", machine / "data/secret/before"]
    paths = machine.paths(
        f"sealed = {{passphrase_file = '{files[0]}', previous_file = '{files[1]}'}}", restore_allow=[""]
    )

    assert not any(paths.source("/").selection().compile(Env()).takes(file[1:], False) for file in files)
    for file in files:
        with pytest.raises(GuardRefused, match="allows no backup"):
            paths.source(file)
        with pytest.raises(GuardRefused, match="allows no restore"):
            paths.target(file)


@pytest.mark.parametrize("path", ["/proc", "/proc/kcore", "/sys/kernel", "/proc/self/root/proc"])
def test_memory_is_no_file(machine: Machine, path: str) -> None:
    with pytest.raises(GuardRefused, match="allows no backup"):
        machine.paths(backup_allow=[""]).source(path)


@pytest.mark.parametrize(
    "path", ["data/secret", "data/secret/keys", "way", "way/keys", "data/open/../secret", "data//secret"]
)
def test_what_is_denied_is_so_by_every_name(machine: Machine, path: str) -> None:
    with pytest.raises(GuardRefused, match="data/secret"):
        machine.paths(backup_deny=["data/secret"]).source(f"{machine.root}/{path}")


def test_a_denied_name_that_leads_elsewhere_denies_that(machine: Machine) -> None:
    with pytest.raises(GuardRefused):
        machine.paths(backup_deny=["way"]).source(machine / "data/secret")


def test_only_what_is_allowed(machine: Machine) -> None:
    paths = machine.paths(backup_allow=["data/open"])

    assert paths.source(machine / "data/open/x").path == machine.root / "data/open/x"
    for other in ("data", "data/openly", "way", "data/open/../secret"):
        with pytest.raises(GuardRefused, match=r"not in backup\.allow .*agent\.toml"):
            paths.source(f"{machine.root}/{other}")


def test_what_is_returned_does_not_lead_elsewhere_later(machine: Machine) -> None:
    found = machine.paths().source(machine / "way")

    assert found.path == machine.root / "data" / "secret"


@pytest.mark.parametrize(
    "hostile", [["!/secret", "!secret/", "!/secret/**", "!*.tmp"], ["!**"], ["!**/*"], ["!/secret/keys/key"], []]
)
def test_what_is_denied_within_a_source_is_left_out_whatever_the_item_says(
    machine: Machine, hostile: list[str]
) -> None:
    paths = machine.paths("backup.exclude = ['*.tmp', '/cache/']", backup_deny=["data/secret", "data/od[d] *"])
    source = paths.source(machine / "data")

    rules = source.selection(exclude=[*hostile, "/mine"], include=["**"] if hostile else []).compile(Env())

    for path in ("secret", "od[d] *"):
        assert not rules.takes(path, True)
        assert not rules.takes(path, False)
    assert not rules.takes("open/x.tmp", False)
    assert not rules.takes("cache", True)
    assert not rules.takes("mine", False)
    assert rules.takes("odd x", True)
    assert rules.takes("open/secret", True), "only that one path is denied"
    assert rules.selective
    assert {"always:*.tmp", "always:/cache/", "never:secret", "/mine", *hostile} <= set(rules.patterns)


def test_a_real_backup_has_nothing_of_what_is_denied(machine: Machine) -> None:
    for name in ("data/secret/keys/key", "data/open/file"):
        (machine.root / name).write_text("x")
    source = machine.paths(backup_deny=["data/secret"]).source(machine / "data")
    listed: list[bytes] = []

    selection = source.selection(exclude=["!**"])
    dry_run(Env(), os.fsencode(source.path), selection, Silent(), lambda path, size: listed.append(path))

    assert [path for path in listed if b"secret" in path] == []
    assert any(b"open" in path for path in listed)


def test_the_service_names_no_files_with_patterns(machine: Machine) -> None:
    with pytest.raises(UsageError):
        machine.paths().source(machine / "data").selection(exclude_from=["/etc/shadow"]).compile(Env())


def test_the_agents_own_are_left_out_of_the_whole_machine(machine: Machine) -> None:
    rules = machine.paths().source("/").selection(exclude=["!**"]).compile(Env())

    for own in (machine.folders.state, machine.folders.cache, Path("/proc"), Path("/sys")):
        assert not rules.takes(str(own)[1:], True)
    assert rules.takes("etc", True)


def test_a_device_is_for_who_is_named_for_it(machine: Machine, tmp_path: Path) -> None:
    device = "/dev/null"

    for paths in (machine.paths(), machine.paths(backup_allow=[""]), machine.paths(backup_allow=["data"])):
        with pytest.raises(GuardRefused, match="the device /dev/null is not in"):
            paths.source(device)
    for allow in ("['/dev/null']", "['/', '/dev']", "['/dev/stdin', '/dev/null']"):
        assert machine.paths(f"backup.allow = {allow}").source(device).path == Path(device)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_elsewhere_is_one_too(machine: Machine) -> None:
    node = machine.root / "data" / "disk"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(1, 0))

    with pytest.raises(GuardRefused, match="the device"):
        machine.paths(backup_allow=["data"]).source(str(node))
    assert machine.paths(backup_allow=["data/disk"]).source(str(node)).path == node


def test_restores_go_to_one_folder_by_default(machine: Machine) -> None:
    paths = machine.paths()

    assert paths.target(machine / "restored/a/b") == machine.root / "restored/a/b"
    for other in ("data", "etc", "", "restored/../data"):
        with pytest.raises(GuardRefused, match=r"restore\.allow|allows no restore"):
            paths.target(f"{machine.root}/{other}")


def test_a_link_in_the_open_folder_opens_nothing(machine: Machine) -> None:
    (machine.root / "restored" / "way").symlink_to(machine.root / "data")

    with pytest.raises(GuardRefused, match=r"restore\.allow"):
        machine.paths().target(machine / "restored/way/x")


@pytest.mark.parametrize("own", ["etc", "etc/agent.toml", "agent/state", "agent/state/x", "agent/cache"])
def test_no_restore_touches_the_agents_own(machine: Machine, own: str) -> None:
    with pytest.raises(GuardRefused, match="allows no restore"):
        machine.paths(restore_allow=[""]).target(machine / own)


def test_a_restore_over_what_is_denied_is_refused_and_chosen_paths_are_not(machine: Machine) -> None:
    paths = machine.paths(restore_allow=["data"], restore_deny=["data/secret"])

    with pytest.raises(GuardRefused, match="data/secret in it"):
        paths.target(machine / "data")
    assert paths.target(machine / "data/open") == machine.root / "data/open"
    with pytest.raises(GuardRefused):
        paths.target(machine / "way/x")


@pytest.mark.parametrize("path", ["", "data", "../x", "/x\0y"])
def test_paths_are_absolute(machine: Machine, path: str) -> None:
    with pytest.raises(UsageError, match="absolute"):
        machine.paths().source(path)
    with pytest.raises(UsageError, match="absolute"):
        machine.paths().target(path)
