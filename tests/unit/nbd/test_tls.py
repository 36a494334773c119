# SPDX-License-Identifier: Apache-2.0
"""TLS on both sides: with our own, with qemu and libnbd, and for whoever has no certificate or the wrong one."""

from __future__ import annotations

import os
import ssl
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdServer, NbdSource
from keepstone.disks.nbd.protocol import OPTION, OPTION_MAGIC, Option, Reply, sized
from keepstone.env import Env
from keepstone.errors import AccessDenied, KeepstoneError
from tests.unit.nbd.raw import RawClient, select
from tests.unit.nbd.serving import MIB, Certificates, Disk, certificates, content, needs, qemu_nbd, read

pytestmark = pytest.mark.vm

DATA = content(3 * MIB + 777)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def server(keys: Certificates) -> Iterator[NbdServer]:
    with NbdServer(Env(threads=4), {"disk": Disk(DATA)}, "127.0.0.1:0", tls=keys.server()) as server:
        yield server


def test_whoever_has_a_certificate_reads(env: Env, server: NbdServer, keys: Certificates) -> None:
    with NbdSource(Env(threads=4), server.address, tls=keys.client()) as source, ThreadPoolExecutor(4) as pool:
        assert read(source) == DATA
        offsets = range(0, len(DATA), 99_999)
        for offset, got in zip(offsets, pool.map(lambda at: read(source, at, 300_000), offsets), strict=True):
            assert got == DATA[offset : offset + 300_000]
        assert sum(extent.length for extent in source.extents()) == len(DATA)


def test_by_a_uri_that_says_so(env: Env, server: NbdServer, keys: Certificates) -> None:
    uri = f"nbds://127.0.0.1:{server.address.port}/disk"
    with NbdSource(env, uri, tls=keys.client()) as source:
        assert read(source, 0, 512) == DATA[:512]
    with pytest.raises(AccessDenied, match="TLS failed"):  # by the authorities of this machine, without a certificate
        NbdSource(env, uri)
    with NbdSource(env, f"{uri}?tls-hostname=localhost", tls=keys.client()) as source:
        assert read(source, 0, 512) == DATA[:512]
    with pytest.raises(AccessDenied, match="TLS failed"):
        NbdSource(env, f"{uri}?tls-hostname=example.com", tls=keys.client())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", [None, "stranger"])
def test_whoever_has_none_or_the_wrong_one_gets_nothing(
    env: Env, server: NbdServer, keys: Certificates, name: str | None, version: ssl.TLSVersion
) -> None:
    tls = keys.client(name)
    tls.maximum_version = version
    with pytest.raises(KeepstoneError):
        NbdSource(env, server.address, tls=tls)
    with NbdSource(env, server.address, tls=keys.client()) as source:  # and nobody else is disturbed
        assert read(source, 0, 512) == DATA[:512]


def test_without_tls_nothing_is_told(env: Env, tmp_path: Path, keys: Certificates) -> None:
    with NbdServer(env, {"disk": Disk(DATA)}, tmp_path / "socket", tls=keys.server()):
        with pytest.raises(AccessDenied, match="wants TLS"):
            NbdSource(env, tmp_path / "socket")
        with RawClient(str(tmp_path / "socket")) as client:
            for option, data in (
                (Option.LIST, b""),
                (Option.INFO, select(b"disk")),
                (Option.GO, select(b"none")),
                (Option.STRUCTURED_REPLY, b""),
                (Option.SET_META_CONTEXT, sized(b"disk") + struct.pack(">I", 0)),
                (99, b""),
            ):
                assert client.option(option, data)[0][0] == Reply.ERR_TLS_REQD
            assert client.option(Option.STARTTLS, b"x")[0][0] == Reply.ERR_INVALID
            assert client.option(Option.STARTTLS) == [(Reply.ACK, b"")]
            client.send(b"this is no TLS, but as long as the record of one" * 10)
            client.sock.settimeout(20)
            while client.sock.recv(1000):  # an alert, then the end
                pass
        with RawClient(str(tmp_path / "socket")) as client:
            client.send(OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, 4) + b"disk")
            assert client.ended()


def test_what_is_sent_before_tls_is_not_taken_for_what_came_by_it(env: Env, tmp_path: Path, keys: Certificates) -> None:
    with (
        NbdServer(env, {"disk": Disk(DATA)}, tmp_path / "socket", tls=keys.server()),
        RawClient(str(tmp_path / "socket")) as client,
    ):
        client.send(OPTION.pack(OPTION_MAGIC, Option.STARTTLS, 0) + OPTION.pack(OPTION_MAGIC, Option.LIST, 0))
        client.receive(20)
        rest = b""
        while piece := client.sock.recv(1000):
            rest += piece
        assert b"disk" not in rest


def test_a_server_without_tls_is_not_read_where_it_was_wanted(env: Env, tmp_path: Path, keys: Certificates) -> None:
    with NbdServer(env, {"disk": Disk(DATA)}, tmp_path / "socket"):
        with pytest.raises(AccessDenied, match="no TLS"):
            NbdSource(env, tmp_path / "socket", tls=keys.client())
        with pytest.raises(AccessDenied, match="no TLS"):
            NbdSource(env, f"nbds+unix:///?socket={tmp_path / 'socket'}")


@needs("nbdcopy")
def test_libnbd_reads_by_tls(env: Env, server: NbdServer, keys: Certificates, tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    folder.mkdir()
    for name in ("ca-cert.pem", "client-cert.pem", "client-key.pem"):
        os.link(keys.folder / name, folder / name)
    uri = f"nbds://127.0.0.1:{server.address.port}/disk?tls-certificates={folder}"
    done = subprocess.run(["nbdcopy", uri, tmp_path / "copy"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy").read_bytes() == DATA


@needs("qemu-img")
def test_qemu_reads_by_tls(env: Env, server: NbdServer, keys: Certificates, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(DATA + bytes(-len(DATA) % 512))
    subprocess.run(
        ["qemu-img", "convert", "--object", f"tls-creds-x509,id=t,dir={keys.folder},endpoint=client", "--image-opts",
         f"driver=nbd,host=127.0.0.1,port={server.address.port},export=disk,tls-creds=t", "-O", "raw",
         str(tmp_path / "copy")],
        check=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "copy").read_bytes()[: len(DATA)] == DATA


@needs("qemu-nbd")
def test_we_read_from_qemu_by_tls(env: Env, keys: Certificates, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(DATA[: 3 * MIB])
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        (tmp_path / name).write_bytes((keys.folder / name).read_bytes())
    options = ["--object", f"tls-creds-x509,id=t,dir={tmp_path},endpoint=server,verify-peer=on", "--tls-creds", "t"]
    with qemu_nbd(image, *options) as socket:
        with NbdSource(env, f"nbds+unix:///?socket={socket}", tls=keys.client()) as source:
            assert read(source) == DATA[: 3 * MIB]
        with pytest.raises(AccessDenied, match="wants TLS"):
            NbdSource(env, socket)
