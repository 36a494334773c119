# SPDX-License-Identifier: Apache-2.0
"""Our server against the clients that there are: qemu-img, qemu-io, nbdcopy, nbdinfo, libnbd."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdServer, NbdSource
from keepstone.env import Env
from keepstone.errors import AccessDenied, SourceFailed, SourceMissing, TargetExists, UsageError
from keepstone.workloads.images import PointDisk
from tests.unit.images.disk import CHUNK, Shelf, noise, sparse
from tests.unit.nbd.serving import KIB, MIB, Disk, content, needs, read

pytestmark = pytest.mark.vm

needs_qemu = needs("qemu-img", "qemu-io")
needs_libnbd = needs("nbdcopy", "nbdinfo")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@needs_qemu
@pytest.mark.parametrize("size", [6 * MIB, 5 * MIB + 512])
def test_qemu_img(env: Env, tmp_path: Path, size: int) -> None:
    data = content(size)
    (tmp_path / "image").write_bytes(data)
    with NbdServer(env, {"disk": Disk(data)}, tmp_path / "socket") as server:
        uri = server.address.uri.replace("///", "///disk")
        assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, str(tmp_path / "image"))
        parts = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", uri))
    assert sum(part["length"] for part in parts) == size
    for part in parts:
        piece = data[part["start"] : part["start"] + part["length"]]
        assert part["zero"] == (not any(piece))


@needs_libnbd
def test_nbdcopy_and_nbdinfo(env: Env, tmp_path: Path) -> None:
    data = content(9 * MIB)
    with NbdServer(env, {"disk": Disk(data)}, tmp_path / "socket") as server:
        uri = server.address.uri
        for options in ([], ["--synchronous"], ["--request-size=8388608", "--connections=1", "--requests=4"]):
            run("nbdcopy", *options, uri, str(tmp_path / "copy"))
            assert (tmp_path / "copy").read_bytes() == data
        [export] = json.loads(run("nbdinfo", "--json", "--list", uri))["exports"]
        assert (export["export-name"], export["export-size"], export["is_read_only"]) == ("disk", len(data), True)
        assert (export["contexts"], export["can_multi_conn"], export["can_df"]) == (["base:allocation"], True, True)
        extents = json.loads(run("nbdinfo", "--json", "--map", uri))
        assert sum(extent["length"] for extent in extents) == len(data)
        assert {extent["type"] for extent in extents} == {0, 3}


LIBNBD = """
import nbd, sys
h = nbd.NBD()
h.set_request_structured_replies({structured})
h.add_meta_context("base:allocation")
h.set_strict_mode(0)
h.set_handshake_flags({handshake})
{options}
h.connect_uri(sys.argv[1])
data = open(sys.argv[2], "rb").read()
assert h.get_size() == len(data) and h.is_read_only()
assert h.get_structured_replies_negotiated() == {structured}
pending, buffers = [], []
for offset in range(0, len(data), 300001):
    buffer = nbd.Buffer(min(300001, len(data) - offset))
    buffers.append(buffer)
    pending.append((h.aio_pread(buffer, offset), offset, buffer))
while any(not h.aio_command_completed(cookie) for cookie, _, _ in [pending[0]]):
    h.poll(-1)
done = 1
for cookie, offset, buffer in pending[1:]:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
for _, offset, buffer in pending:
    assert bytes(buffer.to_bytearray()) == data[offset : offset + 300001], offset
assert bytes(h.pread(3 << 20, 5)) == data[5 : 5 + (3 << 20)]
for call in (lambda: h.pwrite(b"x" * 512, 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0),
             lambda: h.pread(512, len(data)), lambda: h.cache(512, 0)):
    try:
        call()
    except nbd.Error:
        pass
    else:
        raise SystemExit("went through")
h.flush()
h.shutdown()
print("sound")
"""


@needs_libnbd
@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_libnbd(env: Env, tmp_path: Path, structured: bool, old: bool) -> None:
    if subprocess.run(["/usr/bin/python3", "-c", "import nbd"], capture_output=True, check=False).returncode:
        pytest.skip("python3-libnbd is not installed here (scripts/tools.sh)")
    data = content(5 * MIB)
    (tmp_path / "image").write_bytes(data)
    handshake = 0 if old else 3  # neither fixed newstyle nor without zeros
    script = LIBNBD.format(structured=structured and not old, handshake=handshake, options="")
    with NbdServer(env, {"": Disk(data)}, tmp_path / "socket") as server:
        done = subprocess.run(
            ["/usr/bin/python3", "-c", script, server.address.uri, tmp_path / "image"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout == "sound\n", done.stderr


@needs_qemu
def test_a_point_under_an_overlay_of_qemu(env: Env, shelf: Shelf, tmp_path: Path) -> None:
    """What instant recovery rests on: a qcow2 whose backing file is the point."""
    file = sparse(tmp_path / "disk", 40 * CHUNK, {0: noise(3, 1), 30 * CHUNK: noise(5, 2)})
    with PointDisk(env, shelf.reader(shelf.backup(file))) as disk, NbdServer(env, {"": disk}, tmp_path / "s") as server:
        overlay = str(tmp_path / "overlay.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", server.address.uri, overlay)
        assert "identical" in run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", overlay, str(file))
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", overlay)
        with NbdSource(env, server.address) as source:
            assert read(source) == file.read_bytes()
            assert [(extent.offset, extent.length) for extent in source.extents() if not extent.zero] == [
                (0, 3 * CHUNK),
                (30 * CHUNK, 5 * CHUNK),
            ]


@needs_qemu
def test_clients_write_over_it_and_it_stays_as_it_is(env: Env, tmp_path: Path) -> None:
    data = content(4 * MIB)
    disk = Disk(data)
    uri = f"nbd+unix:///?socket={tmp_path / 'socket'}"
    with NbdServer(env, {"": disk}, tmp_path / "socket", overlay=tmp_path) as server:
        run("qemu-io", "-f", "raw", "-c", "write -P 5 1000448 3072", "-c", "write -z 2M 1M", "-c", "discard 0 64k",
            "-c", "flush", uri)  # fmt: skip
        expected = bytearray(data)
        expected[1000448 : 1000448 + 3072] = b"\5" * 3072
        expected[2 * MIB : 3 * MIB] = bytes(MIB)
        with NbdSource(env, server.address) as source:
            assert read(source) == expected
            assert sum(extent.length for extent in source.extents()) == len(data)
    assert disk.data == data
    with (
        NbdServer(env, {"": disk}, tmp_path / "socket", overlay=tmp_path) as server,
        NbdSource(env, server.address) as source,
    ):
        assert read(source) == data
    assert list(tmp_path.iterdir()) == []


def test_several_exports(env: Env, tmp_path: Path) -> None:
    with NbdServer(env, {"a": Disk(b"a" * 4096), "ä b": Disk(b"b" * 100)}, tmp_path / "socket") as server:
        for name, data in (("a", b"a" * 4096), ("ä b", b"b" * 100)):
            with NbdSource(env, tmp_path / "socket", name) as source:
                assert read(source) == data
        with pytest.raises(SourceMissing, match="no export named ''"):
            NbdSource(env, server.address)


def test_the_socket_is_its_owners_alone_and_gone_afterwards(env: Env, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with NbdServer(env, {"": Disk(bytes(512))}, socket) as server:
        assert socket.stat().st_mode & 0o777 == 0o600
        with pytest.raises(TargetExists, match="already"):
            NbdServer(env, {"": Disk(bytes(512))}, socket)
        server.close()
        server.close()
        server.wait()
    assert not socket.exists()


def test_addresses_that_cannot_be_had(env: Env, tmp_path: Path) -> None:
    with (
        NbdServer(env, {"": Disk(bytes(512))}, "127.0.0.1:0") as server,
        pytest.raises(UsageError, match="nobody can listen"),
    ):
        NbdServer(env, {"": Disk(bytes(512))}, server.address)
    with pytest.raises(UsageError, match="nobody can listen"):
        NbdServer(env, {"": Disk(bytes(512))}, tmp_path / "missing" / "socket")
    with pytest.raises((UsageError, AccessDenied)):
        NbdServer(env, {"": Disk(bytes(512))}, "192.0.2.1:0")


def test_no_more_clients_than_there_may_be(env: Env, tmp_path: Path) -> None:
    with NbdServer(env, {"": Disk(content(MIB))}, tmp_path / "socket", connections=2) as server:
        one, two = (NbdSource(Env(threads=1), server.address) for _ in range(2))
        assert server.clients == 2
        with pytest.raises(SourceFailed, match="went away"):
            NbdSource(env, server.address)
        assert read(one) == read(two) == content(MIB)
        one.close()
        two.close()


def test_a_disk_that_fails_is_an_error_of_its_reads(env: Env, tmp_path: Path) -> None:
    class Failing(Disk):
        def pread_into(self, buffer: memoryview, offset: int) -> int:
            if offset + len(buffer) > 2 * MIB:
                raise SourceFailed("the store is gone")
            return super().pread_into(buffer, offset)

    data = content(4 * MIB)
    with NbdServer(env, {"": Failing(data)}, tmp_path / "socket") as server, NbdSource(env, server.address) as source:
        for _ in range(3):
            with pytest.raises(SourceFailed, match=r"EIO \(the store is gone\)"):
                read(source)
            assert read(source, 0, 64 * KIB) == data[: 64 * KIB]
