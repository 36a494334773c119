# SPDX-License-Identifier: Apache-2.0
"""Our client against the servers that there are: qemu-nbd, nbdkit, our own."""

from __future__ import annotations

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.disks import BlockSource, Extent
from keepstone.disks.nbd import NbdServer, NbdSource
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing, UsageError
from tests.unit.nbd.serving import KIB, MIB, Disk, content, nbdkit, needs, qemu_nbd, read

pytestmark = pytest.mark.vm

needs_qemu = needs("qemu-nbd", "qemu-img", "qemu-io")
needs_nbdkit = needs("nbdkit")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Sparse where its content is zeros; odd in nothing but that it ends within a megabyte."""
    data = content(5 * MIB + 36 * KIB)
    path = tmp_path / "image"
    with path.open("wb") as file:
        for offset in range(0, len(data), 4096):
            if any(data[offset : offset + 4096]):
                file.seek(offset)
                file.write(data[offset : offset + 4096])
        file.truncate(len(data))
    return path


def same(source: BlockSource, data: bytes) -> None:
    """Read whole, at odd places by several threads, and as far as its extents say that there is data."""

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            offset, length = chance.randrange(len(data)), chance.randrange(2 * MIB)
            assert read(source, offset, length) == data[offset : offset + length]

    assert source.size == len(data)
    assert read(source) == data
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    extents = list(source.extents())
    assert [extent.offset for extent in extents] == [0, *(extent.end for extent in extents[:-1])]
    assert extents[-1].end == len(data)
    assert all(extent.offset % source.block_size == 0 for extent in extents)
    for extent in extents:
        assert not extent.zero or not any(data[extent.offset : extent.end])


def holes(source: BlockSource) -> int:
    return sum(extent.length for extent in source.extents() if extent.zero)


@needs_qemu
@pytest.mark.parametrize("shared", [1, 8])
def test_qemu_nbd(env: Env, image: Path, shared: int) -> None:
    with qemu_nbd(image, shared=shared) as socket, NbdSource(env, socket) as source:
        same(source, image.read_bytes())
        assert holes(source) > MIB
        assert source.token() is None


@needs_qemu
def test_a_qcow2_by_qemu_nbd(env: Env, image: Path, tmp_path: Path) -> None:
    converted = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, converted], check=True)
    with qemu_nbd(converted, "-x", "a name", form="qcow2") as socket:
        with NbdSource(env, f"nbd+unix:///a%20name?socket={socket}") as source:
            same(source, image.read_bytes())
        with pytest.raises(SourceMissing, match="no export named 'other'"):
            NbdSource(env, socket, "other")


@needs_qemu
def test_only_what_changed_since_the_bitmap_began(env: Env, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    run("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 2M", str(disk))
    run("qemu-img", "bitmap", "--add", "-g", "65536", "-f", "qcow2", str(disk), "since")
    run(
        "qemu-io",
        "-f",
        "qcow2",
        "-c",
        "write -P 2 1M 64k",
        "-c",
        "write -P 3 5M 1k",
        "-c",
        "write -z 128k 64k",
        str(disk),
    )
    with qemu_nbd(disk, "-B", "since", form="qcow2") as socket:
        with NbdSource(env, socket, bitmap="since", state="now") as source:
            assert source.tracked
            assert source.token() == "now"
            assert list(source.extents("since")) == [
                Extent(128 * KIB, 64 * KIB, zero=True),
                Extent(1 * MIB, 64 * KIB, zero=False),
                Extent(5 * MIB, 64 * KIB, zero=False),
            ]
            whole = [
                Extent(0, 128 * KIB, zero=False),
                Extent(128 * KIB, 64 * KIB, zero=True),
                Extent(192 * KIB, 2 * MIB - 192 * KIB, zero=False),
                Extent(2 * MIB, 3 * MIB, zero=True),
                Extent(5 * MIB, 64 * KIB, zero=False),
                Extent(5 * MIB + 64 * KIB, 3 * MIB - 64 * KIB, zero=True),
            ]
            assert list(source.extents()) == list(source.extents("another")) == whole
        with NbdSource(env, socket, bitmap="since", since="monday") as source:
            assert len(list(source.extents("monday"))) == 3
            assert list(source.extents("since")) == whole
        with NbdSource(env, socket, bitmap="lost") as source:
            assert not source.tracked
            assert list(source.extents("lost")) == whole


@needs_nbdkit
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--no-sr"],
        ["--filter=multi-conn", "multi-conn-mode=disable"],
        [
            "--filter=blocksize-policy",
            "blocksize-minimum=4096",
            "blocksize-maximum=64K",
            "blocksize-error-policy=error",
        ],
        ["--filter=noextents"],
        ["--filter=nozero", "--filter=delay", "rdelay=1ms"],
    ],
    ids=["plain", "simple replies", "one connection", "blocks", "no extents", "late"],
)
def test_nbdkit(env: Env, image: Path, options: list[str]) -> None:
    before = [option for option in options if option.startswith("-")]
    behind = [option for option in options if not option.startswith("-")]
    with nbdkit(image.parent, *before, "file", str(image), *behind) as socket, NbdSource(env, socket) as source:
        same(source, image.read_bytes())
        assert (holes(source) > MIB) is not (bool({"--no-sr", "--filter=noextents"} & set(options)))


@needs_nbdkit
def test_extents_at_odd_places_come_in_whole_blocks(env: Env, tmp_path: Path) -> None:
    with nbdkit(tmp_path, "data", "@3 1 2 @5000 7 @12288 0 @32768 1") as socket, NbdSource(env, socket) as source:
        data = read(source)
        assert (data[3:5], data[5000], source.size) == (b"\1\2", 7, 32769)
        same(source, data)


@needs_nbdkit
def test_a_server_of_the_oldest_protocol_is_refused(env: Env, image: Path) -> None:
    with (
        nbdkit(image.parent, "--oldstyle", "file", str(image)) as socket,
        pytest.raises(SourceFailed, match="newstyle"),
    ):
        NbdSource(env, socket)


@needs_nbdkit
def test_what_the_server_cannot_read_is_an_error_and_the_rest_is_not(env: Env, image: Path) -> None:
    script = image.parent / "plugin.sh"
    script.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        "  get_size) echo 1M ;;\n"
        "  pread) if [ $4 -ge 524288 ]; then echo 'EIO bad sector' >&2; exit 1; fi\n"
        "         dd if=/dev/zero bs=$3 count=1 2>/dev/null ;;\n"
        "  *) exit 2 ;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    with nbdkit(image.parent, "sh", str(script)) as socket, NbdSource(env, socket) as source:
        for _ in range(3):
            with pytest.raises(SourceFailed, match="EIO"):
                read(source, 512 * KIB, 4096)
            assert read(source, 4096, 4096) == bytes(4096)


def test_our_own_server(env: Env, tmp_path: Path) -> None:
    data = content(5 * MIB + 777)
    with NbdServer(env, {"": Disk(data)}, tmp_path / "socket") as server, NbdSource(env, server.address) as source:
        same(source, data)
        assert holes(source) > MIB


def test_our_own_server_by_tcp(env: Env) -> None:
    data = content(MIB)
    with NbdServer(env, {"disk": Disk(data)}, "127.0.0.1:0") as server:
        assert server.address.port
        with NbdSource(env, f"127.0.0.1:{server.address.port}", "disk") as source:
            same(source, data)


def test_an_empty_disk(env: Env, tmp_path: Path) -> None:
    with NbdServer(env, {"": Disk(b"")}, tmp_path / "socket") as server, NbdSource(env, server.address) as source:
        assert (source.size, list(source.extents())) == (0, [])
        assert source.pread_into(memoryview(bytearray(5)), 0) == 0


def test_nothing_outside_of_the_disk(env: Env, tmp_path: Path) -> None:
    with (
        NbdServer(env, {"": Disk(bytes(100))}, tmp_path / "socket") as server,
        NbdSource(env, server.address) as source,
    ):
        assert read(source, 90, 20) == bytes(10)
        assert read(source, 100, 1) == b""
        for offset in (-1, 101):
            with pytest.raises(UsageError):
                read(source, offset, 1)


def test_where_nobody_answers(env: Env, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no NBD server answers"):
        NbdSource(env, tmp_path / "socket")
    with pytest.raises(SourceMissing, match="no NBD server answers"):
        NbdSource(env, tmp_path / ("long" * 100))
    closed = NbdServer(env, {"": Disk(bytes(100))}, "127.0.0.1:0")
    closed.close()
    with pytest.raises(SourceMissing, match="no NBD server answers"):
        NbdSource(env, closed.address)


def test_a_source_that_is_closed(env: Env, tmp_path: Path) -> None:
    with NbdServer(env, {"": Disk(bytes(100))}, tmp_path / "socket") as server:
        source = NbdSource(env, server.address)
        source.close()
        source.close()
        with pytest.raises(UsageError, match="closed"):
            read(source)


@needs_qemu
def test_a_server_that_dies_is_told_and_never_taken_up_again(env: Env, image: Path) -> None:
    with qemu_nbd(image) as socket:
        source = NbdSource(env, socket)
        assert read(source, 0, 4096) == image.read_bytes()[:4096]
    with pytest.raises(SourceFailed, match="went away"):
        read(source, 0, 4096)
    socket.unlink(missing_ok=True)
    with (
        NbdServer(env, {"": Disk(content(source.size, seed=2))}, socket),
        pytest.raises(SourceFailed, match="any more"),
    ):
        read(source, 0, 4096)
    source.close()
