# SPDX-License-Identifier: Apache-2.0
"""Real NBD servers and clients, disks to serve, and a test's own certificates."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import itertools
import os
import random
import shutil
import socket as socketlib
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import BlockSource

__all__ = ["KIB", "MIB", "Certificates", "Disk", "certificates", "content", "nbdkit", "needs", "qemu_nbd", "read"]

KIB, MIB = 1 << 10, 1 << 20
_numbers = itertools.count()


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of these programs is not there."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed here: {', '.join(missing)} (scripts/tools.sh)")


class Disk:
    """A `BlockSource` in memory whose pages of zeros are known to be some."""

    block_size = 4096

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.closed = False

    def token(self) -> str | None:
        return None

    def extents(self, since: str | None = None) -> Iterator[Any]:
        from keepstone.disks import Extent

        start, kind = 0, None
        for offset in range(0, self.size, 4096):
            zero = not any(self.data[offset : offset + 4096])
            if kind is None or zero != kind:
                if kind is not None:
                    yield Extent(start, offset - start, kind)
                start, kind = offset, zero
        if kind is not None:
            yield Extent(start, self.size - start, kind)

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        piece = self.data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.closed = True


def content(size: int, *, seed: int = 1) -> bytes:
    """Data and holes in turns."""
    chance = random.Random(seed)
    parts = bytearray()
    while len(parts) < size:
        length = chance.randrange(1, 64) * 4096
        parts += chance.randbytes(length) if chance.random() < 0.5 else bytes(length)
    return bytes(parts[:size])


def read(source: BlockSource, offset: int = 0, length: int | None = None) -> bytes:
    """So many bytes of a disk; all of them by default."""
    data = bytearray(source.size - offset if length is None else length)
    count = source.pread_into(memoryview(data), offset)
    return bytes(data[:count])


def _listens(path: Path) -> bool:
    with socketlib.socket(socketlib.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def _running(command: Sequence[str], socket: Path) -> Iterator[Path]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not _listens(socket):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.01)
        yield socket
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def qemu_nbd(
    image: Path, *options: str, form: str = "raw", shared: int = 8, writable: bool = False, align: int = 0
) -> Iterator[Path]:
    """The image by qemu-nbd; the path of its socket. `align`: take only whole blocks of so many bytes."""
    socket = image.with_name(f"q{next(_numbers)}")  # short, as the paths of sockets have to be
    command = ["qemu-nbd", "-t", "-e", str(shared), "-k", str(socket), *options, *([] if writable else ["-r"])]
    if align:
        command += ["--image-opts", f"driver=blkdebug,align={align},image.driver=file,image.filename={image}"]
    else:
        command += ["-f", form, str(image)]
    with _running(command, socket):
        yield socket


@contextlib.contextmanager
def nbdkit(folder: Path, *options: str) -> Iterator[Path]:
    """By nbdkit, with these options; the path of its socket."""
    socket = folder / f"k{next(_numbers)}"
    with _running(["nbdkit", "-f", "-r", "-U", str(socket), *options], socket):
        yield socket


@dataclass(frozen=True)
class Certificates:
    """An authority, what it signed for a server named localhost and for a client; and a client of another one."""

    folder: Path

    def server(self) -> ssl.SSLContext:
        """That wants certificates of clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server-cert.pem", self.folder / "server-key.pem")
        context.load_verify_locations(self.folder / "ca-cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self, name: str | None = "client") -> ssl.SSLContext:
        """That knows the authority, and has a certificate or none."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca-cert.pem"))
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}-cert.pem", self.folder / f"{name}-key.pem")
        return context


def certificates(folder: Path) -> Certificates:
    """Made anew, in the files that qemu and libnbd look for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def signed(name: str, issuer: Any, issuer_key: Any, *, authority: bool = False) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer is not None else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, authority, authority, False, False), critical=True
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
        )
        return builder.sign(issuer_key or key, hashes.SHA256()), key

    def write(name: str, certificate: Any, key: Any) -> None:
        (folder / f"{name}-cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}-key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        os.chmod(folder / f"{name}-key.pem", 0o600)

    authority, authority_key = signed("authority", None, None, authority=True)
    other, other_key = signed("another", None, None, authority=True)
    write("ca", authority, authority_key)
    write("server", *signed("localhost", authority, authority_key))
    write("client", *signed("client", authority, authority_key))
    write("stranger", *signed("stranger", other, other_key))
    return Certificates(folder)
