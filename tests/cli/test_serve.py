# SPDX-License-Identifier: Apache-2.0
"""`keepstone store serve`: the disk of a point by the NBD protocol."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.cli.opening import Opening
from keepstone.cli.secret import Secret
from keepstone.disks import RawSource
from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.workloads import Silent
from keepstone.workloads.machines import KIND, Consistency, Disk, Level, Machine, Part, backup_machine
from tests.cli.running import Cli
from tests.unit.nbd.serving import Certificates, certificates, needs, read

pytestmark = pytest.mark.vm


@contextlib.contextmanager
def serving(cli: Cli, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command in a process of its own, and where it serves the newest point."""
    code = "import sys; from keepstone.cli import main; sys.exit(main())"
    command = ["store", "serve", "--store", str(cli.store), "latest", "--json-progress", *map(str, arguments)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            event: dict[str, Any] = json.loads(line)
            assert event["event"] == "serving"
            yield process, event["uris"]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)


@needs("qemu-img")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_disk_is_served_until_it_is_ended(made: Cli, end: signal.Signals) -> None:
    disk = made.disk()
    point = made.backup("--image", disk)
    with serving(made, "--socket", "socket", "--export", "my disk") as (process, uris):
        assert uris == [f"nbd+unix:///my%20disk?socket={made.path / 'socket'}"]
        with NbdSource(Env(), uris[0]) as source:
            assert read(source) == disk.read_bytes()
        overlay = str(made.path / "overlay.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", uris[0], overlay], check=True)
        process.send_signal(end)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "end it with Ctrl-C" in err
    assert json.loads(out.splitlines()[-1]) == {"point": point["id"], "item": point["item"]}
    assert not (made.path / "socket").exists()


@needs("qemu-io")
def test_what_is_written_over_it_is_dropped(made: Cli) -> None:
    disk = made.disk()
    made.backup("--image", disk)
    with serving(made, "--listen", "127.0.0.1:0", "--overlay", "--overlay-dir", made.path) as (process, [uri]):
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write -P 7 4096 4096", uri], check=True, capture_output=True)
        with NbdSource(Env(), uri) as source:
            assert read(source, 4096, 4096) == b"\7" * 4096
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "every user of this machine" in err
    with serving(made, "--listen", "127.0.0.1:0") as (_, [uri]), NbdSource(Env(), uri) as source:
        assert read(source) == disk.read_bytes()


def test_the_disks_of_a_machine_by_their_names(made: Cli, tmp_path: Path) -> None:
    env = Env()
    paths = [tmp_path / "system", tmp_path / "data"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number + 1]) * 300_000)
    disks = [Disk(path.name, 300_000) for path in paths]
    parts = [Part(disk, RawSource(env, path)) for disk, path in zip(disks, paths, strict=True)]
    machine = Machine(name="m", moment=1, consistency=Consistency(Level.CRASH), disks=disks, definition={})
    opening = Opening(place=made.store, secret=Secret(), key_file=None, kit=None, identity=None)
    with opening.store().writer("m", KIND) as writer:
        backup_machine(writer, machine, parts, Silent(), name=b"m", held=lambda: None)
    for part in parts:
        part.source.close()
    with serving(made, "--socket", "socket") as (_, uris):
        assert [uri.partition("?")[0] for uri in uris] == ["nbd+unix:///system", "nbd+unix:///data"]
        for uri, path in zip(uris, paths, strict=True):
            with NbdSource(env, uri) as source:
                assert read(source) == path.read_bytes()
    assert "leave out --export" in made("serve", "latest", "--socket", "socket", "--export", "x", code=2).err


@pytest.fixture
def keys(tmp_path: Path) -> Certificates:
    (tmp_path / "keys").mkdir()
    return certificates(tmp_path / "keys")


def test_by_tls(made: Cli, keys: Certificates) -> None:
    disk = made.disk()
    made.backup("--image", disk)
    folder = keys.folder
    tls = ("--tls-cert", folder / "server-cert.pem", "--tls-key", folder / "server-key.pem",
           "--tls-client-ca", folder / "ca-cert.pem")  # fmt: skip
    with serving(made, "--listen", "0.0.0.0:0", *tls) as (_, [uri]):
        port = uri.rstrip("/").rpartition(":")[2]
        with NbdSource(Env(), f"nbds://127.0.0.1:{port}", tls=keys.client()) as source:
            assert read(source) == disk.read_bytes()
        for wrong in (None, "stranger"):
            with pytest.raises(KeepstoneError):
                NbdSource(Env(), f"nbds://127.0.0.1:{port}", tls=keys.client(wrong))
    for missing in (0, 2, 4):
        made("serve", "latest", "--listen", "127.0.0.1:0", *tls[:missing], *tls[missing + 2 :], code=2)
    broken = (*tls[:3], folder / "client-key.pem", *tls[4:])
    assert "fit together" in made("serve", "latest", "--listen", "127.0.0.1:0", *broken, code=2).err
    lost = (*tls[:5], folder / "none")
    made("serve", "latest", "--listen", "127.0.0.1:0", *lost, code=3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--socket PATH or --listen"),
        (("--socket", "s", "--listen", "127.0.0.1:0"), "--socket PATH or --listen"),
        (("--listen", "0.0.0.0:0"), "others reach 0.0.0.0"),
        (("--listen", "[::]:0"), "others reach ::"),
        (("--listen", "example.com:0"), "others reach example.com"),
        (("--listen", "nonsense"), "is no address"),
        (("--listen", "/run/socket"), "is no address"),
        (("--socket", "s", "--overlay-dir", "."), "give that too"),
        (("--socket", "s", "--export", "x" * 5000), "name of an NBD export"),
    ],
)
def test_where_it_is_not_served(made: Cli, arguments: tuple[str, ...], said: str) -> None:
    assert said in made("serve", "latest", *arguments, code=2).err


def test_a_tree_is_no_disk(made: Cli, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    made.backup(tmp_path / "tree")
    assert "has no disk" in made("serve", "latest", "--socket", "s", code=2).err
    assert not (tmp_path / "s").exists()
