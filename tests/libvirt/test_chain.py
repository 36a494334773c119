# SPDX-License-Identifier: Apache-2.0
"""Disks above backing files are what QEMU shows of them, and nothing is opened that nobody named, or may read."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import (
    Conflict,
    GuardRefused,
    KeepstoneError,
    SourceFailed,
    SourceMissing,
    Unsupported,
    UsageError,
)
from keepstone.workloads.libvirt.chain import Chain, unread
from keepstone.workloads.libvirt.domains import Backing, DomainDisk, lasting
from keepstone.workloads.libvirt.images import Image
from keepstone.workloads.libvirt.writable import Writable, check_image
from tests.libvirt.images import above, image, rebase, shown, states, write, writing
from tests.machines.guest import tools
from tests.tampered import Tampered

pytestmark = pytest.mark.vm

MIB = 1 << 20
Readable = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _qemu() -> None:
    tools()


def everything(path: Path) -> None:
    """All may be read."""


def disk(path: Path) -> DomainDisk:
    return DomainDisk("vda", str(path), "file", "qcow2", None, "virtio", read_only=False, discard=True)


@pytest.fixture
def three(tmp_path: Path) -> DomainDisk:
    """A raw base, an image above it by a relative name, and one above that, which is larger than both."""
    with (tmp_path / "base.img").open("wb") as base:
        base.write(b"\1" * MIB)
        base.truncate(4 * MIB)
    image(tmp_path / "middle.qcow2", "6M", *above(Path("base.img"), "raw"), writes=("write -P 2 512k 1M",))
    writes = ("write -P 3 1M 64k", "write -z 0 64k", "write -P 4 9M 64k")
    return disk(image(tmp_path / "top.qcow2", "10M", *above(tmp_path / "middle.qcow2"), writes=writes))


def read(disk: DomainDisk, readable: Readable = everything) -> tuple[bytes, int]:
    """All of it, and how much of that had to be read."""
    with contextlib.closing(Image(Env(threads=2), disk, None, readable)) as source:
        content, stored = bytearray(source.size), 0
        for extent in source.extents():
            if not extent.zero:
                stored += source.pread_into(memoryview(content)[extent.offset : extent.end], extent.offset)
        return bytes(content), stored


def refused(kind: type[KeepstoneError], disk: DomainDisk, readable: Readable = everything) -> str:
    """What is said, by whoever reads and by whoever writes."""
    with pytest.raises(kind) as reading:
        Image(Env(), disk, None, readable)
    with pytest.raises(kind) as writing:
        check_image(Env(), disk, everything, readable)
    assert type(reading.value) is type(writing.value) is kind
    said = str(reading.value).partition(". Otherwise, ")[0]
    assert said in str(writing.value)
    return said


def test_a_chain_of_three(three: DomainDisk, tmp_path: Path) -> None:
    asked: list[Path] = []
    content, stored = read(three, asked.append)
    assert content == shown(Path(three.source), tmp_path)
    assert stored == 3 * MIB // 2  # what the two beneath have, less the 64 KiB of zeros above, and 64 KiB at 9 MiB
    assert asked == [tmp_path / "middle.qcow2", tmp_path / "base.img"]
    small = disk(image(tmp_path / "small.qcow2", "1M", *above(tmp_path / "middle.qcow2")))
    assert read(small)[0] == b"\1" * (MIB // 2) + b"\2" * (MIB // 2)


def test_a_block_device_beneath(tmp_path: Path) -> None:
    (tmp_path / "backing").write_bytes(b"\6" * MIB)
    attach = ["losetup", "-r", "-f", "--show", str(tmp_path / "backing")]
    done = subprocess.run(attach, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"block devices need root and loop devices: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        content, stored = read(disk(image(tmp_path / "top.qcow2", "2M", *above(Path(device), "raw"))))
        assert (content, stored) == (b"\6" * MIB + bytes(MIB), MIB)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_raw_disk_that_looks_like_an_image(tmp_path: Path) -> None:
    """Its guest wrote that: the bytes are the disk, and what they name is not opened."""
    (tmp_path / "secret").write_bytes(b"\7" * MIB)
    base = image(tmp_path / "base.img", "1M", *above(tmp_path / "secret", "raw"))
    forged = base.read_bytes()
    top = disk(image(tmp_path / "top.qcow2", "1M", *above(base, "raw")))

    asked: list[Path] = []
    content, _ = read(top, asked.append)

    assert content == (forged + bytes(MIB))[:MIB]
    assert asked == [base]
    with Writable(Env(), top, everything) as writable:
        buffer = memoryview(bytearray(4096))
        writable.existing.pread_into(buffer, 0)
        assert bytes(buffer) == forged[:4096]


def test_what_the_description_says_counts(three: DomainDisk, tmp_path: Path) -> None:
    """As it does for libvirt, whatever the headers say; behind its end the header of the last one goes on."""
    middle = Backing(str(tmp_path / "middle.qcow2"), "file", "qcow2")
    base = Backing(str(tmp_path / "base.img"), "file", "raw")
    whole = shown(Path(three.source), tmp_path)
    for backing, is_whole in ((middle,), False), ((middle, base), True), ((middle, base), False):
        assert read(replace(three, backing=backing, whole=is_whole))[0] == whole
    alone, _ = read(replace(three, whole=True))
    assert alone == bytes(MIB) + b"\3" * 65536 + bytes(8 * MIB - 65536) + b"\4" * 65536 + bytes(MIB - 65536)
    other = Backing(str(image(tmp_path / "other.qcow2", "1M", writes=("write -P 5 0 1M",))), "file", "qcow2")
    assert read(replace(three, backing=(other,)))[0][65536:MIB] == b"\5" * (MIB - 65536)
    far = replace(three, backing=(replace(other, kind="network"),))
    assert "vda is above network storage" in refused(Unsupported, far)


def test_what_a_description_says() -> None:
    begin = "<domain><devices><disk type='file'><driver type='qcow2'/><source file='/t'/><target dev='vda'/>"
    end = "</disk></devices></domain>"

    def of(more: str) -> DomainDisk:
        return lasting(begin + more + end)["vda"]

    assert (of("").backing, of("").whole) == ((), False)
    assert (of("<backingStore/>").backing, of("<backingStore/>").whole) == ((), True)
    below = "<backingStore type='{}'><format type='{}'/><source {}='/{}'>{}</source>{}</backingStore>"
    last = below.format("block", "raw", "dev", "b", "", "<backingStore/>")
    found = of(below.format("file", "qcow2", "file", "a", "", last))
    assert (found.backing, found.whole) == ((Backing("/a", "file", "qcow2"), Backing("/b", "block", "raw")), True)
    part = of(
        below.format("file", "raw", "file", "a", "<slices><slice type='storage' offset='1' size='1'/></slices>", "")
    )
    assert (part.backing, part.whole) == ((Backing("/a", "sliced", "raw"),), False)
    secret = lasting(
        "<domain><devices><disk type='file'><source file='/t'><encryption format='luks'/></source>"
        "<target dev='vda'/></disk></devices></domain>"
    )["vda"]
    assert secret.kind == "encrypted"


def test_loops(tmp_path: Path) -> None:
    """Of one link and of two, by whatever name."""
    first = image(tmp_path / "first.qcow2", "1M")
    os.link(first, tmp_path / "again.qcow2")
    rebase(first, "again.qcow2", "qcow2")
    assert "is beneath itself, by way of" in refused(SourceFailed, disk(first))
    second = image(tmp_path / "second.qcow2", "1M")
    rebase(second, "first.qcow2", "qcow2")
    rebase(first, "second.qcow2", "qcow2")
    assert "first.qcow2 is beneath itself, by way of" in refused(SourceFailed, disk(first))


def test_the_longest(tmp_path: Path) -> None:
    path = image(tmp_path / "0.qcow2", "1M", writes=("write -P 9 0 64k",))
    plain = image(tmp_path / "plain.qcow2", "1M").read_bytes()
    for number in range(1, 66):
        path = tmp_path / f"{number}.qcow2"
        path.write_bytes(named(plain, f"{number - 1}.qcow2".encode(), b"qcow2"))
    content, _ = read(disk(tmp_path / "64.qcow2"))
    assert content == b"\x09" * 65536 + bytes(MIB - 65536)
    assert "is above more than 64 backing files" in refused(SourceFailed, disk(path))


def named(plain: bytes, name: bytes, format: bytes, *, length: int | None = None) -> bytes:
    """An image whose header says so (QEMU, docs/interop/qcow2.txt)."""
    made = bytearray(plain)
    start = struct.unpack_from(">I", made, 100)[0]
    extension = struct.pack(">II", 0xE2792ACA, len(format)) + format + bytes(-len(format) % 8) + bytes(8)
    at = start + len(extension)
    made[start : at + len(name)] = extension + name
    struct.pack_into(">QI", made, 8, at, len(name) if length is None else length)
    return bytes(made)


@pytest.mark.parametrize(
    ("name", "format", "kind", "said"),
    [
        ("gone.qcow2", "qcow2", SourceMissing, "gone.qcow2, beneath "),
        ('json:{"driver":"raw","file":{"driver":"file","filename":"base"}}', "raw", Unsupported, "which is an address"),
        ("nbd://127.0.0.1:1/x", "raw", Unsupported, "which is an address"),
        ("file:base", "raw", Unsupported, "where it is one, `qemu-img rebase -u -F FORMAT -b PATH"),
        ("base", "", Unsupported, "does not say of which format its backing file 'base' is"),
        ("base", "vmdk", Unsupported, "base, beneath "),
        ("base", "json:{}", Unsupported, "of backing files only raw and qcow2 are read"),
        ("base", "qcow2", SourceFailed, "base is no qcow2 image"),
        (".", "raw", UsageError, "is neither an image nor a block device"),
        ("pipe", "raw", UsageError, "is neither an image nor a block device"),
        ("/dev/zero", "raw", UsageError, "is neither an image nor a block device"),
        ("ba\0se", "raw", SourceFailed, "its header names a backing file, and the name is damaged"),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, name: str, format: str, kind: type[KeepstoneError], said: str) -> None:
    (tmp_path / "base").write_bytes(bytes(MIB))
    os.mkfifo(tmp_path / "pipe")
    top = tmp_path / "top.qcow2"
    top.write_bytes(named(image(top, "1M").read_bytes(), name.encode(), format.encode()))
    assert said in refused(kind, disk(top))
    if kind is UsageError:  # some devices do something when they are opened
        opened: list[Path] = []

        def watched(path: Path, flags: int) -> int:
            opened.append(path)
            return os.open(path, flags)

        with pytest.raises(UsageError):
            Chain(Env(fs=Tampered(open=watched)), disk(top), everything)
        assert opened == [top]


def test_names_that_are_too_long(tmp_path: Path) -> None:
    top = image(tmp_path / "top.qcow2", "1M")
    plain = top.read_bytes()
    for length in (1024, (1 << 32) - 1):
        top.write_bytes(named(plain, b"base", b"raw", length=length))
        assert "the name is damaged" in refused(SourceFailed, disk(top))
    for at in (1 << 63, len(plain) + MIB):
        forged = bytearray(named(plain, b"base", b"raw"))
        struct.pack_into(">Q", forged, 8, at)
        top.write_bytes(forged)
        assert "the name is damaged" in refused(SourceFailed, disk(top))


def test_what_may_not_be_read(three: DomainDisk, tmp_path: Path) -> None:
    """Is not opened, for reading or writing, and neither is what it names."""
    (tmp_path / "base.img").unlink()

    def readable(path: Path) -> None:
        raise GuardRefused(f"not {path.name}")

    assert refused(GuardRefused, three, readable) == "not middle.qcow2"
    assert "nobody said that it may be read here" in refused(Unsupported, three, unread)
    with pytest.raises(GuardRefused):
        Writable(Env(), three, readable)


def test_nobody_writes_to_what_is_beneath(three: DomainDisk, tmp_path: Path) -> None:
    """Others may read it, as another clone does."""
    base, middle = tmp_path / "base.img", tmp_path / "middle.qcow2"
    other = disk(image(tmp_path / "other.qcow2", "6M", *above(middle)))

    def tries(path: Path, format: str) -> str:
        command: list[str | Path] = ["qemu-io", "-f", format, "-c", "write 0 64k", path]
        return subprocess.run(command, check=False, capture_output=True, text=True).stderr

    for begin in being_read, being_written_to:
        with begin(three), being_written_to(other):
            assert '"write" lock' in tries(base, "raw")
            assert '"write" lock' in tries(middle, "qcow2")
    assert tries(base, "raw") == ""
    with writing(middle, "qcow2", tmp_path / "socket"):
        for begin in being_read, being_written_to:
            message = r"middle\.qcow2 is in use by somebody who writes to it"
            with pytest.raises(Conflict, match=message), begin(three):
                pytest.fail("it was opened")


def being_read(disk: DomainDisk) -> contextlib.closing[Image]:
    return contextlib.closing(Image(Env(), disk, None, everything))


def being_written_to(disk: DomainDisk) -> Writable:
    return Writable(Env(), disk, everything)


@pytest.mark.parametrize("compat", ["1.1", "0.10"])
@pytest.mark.parametrize("discard", [True, False])
def test_only_the_topmost_is_written_to(tmp_path: Path, compat: str, discard: bool) -> None:
    """Zeros hide what is beneath, be it in clusters that the image has or not, and in parts of clusters."""
    with (tmp_path / "base.img").open("wb") as file:
        file.write(b"\1" * (6 * MIB))
    version = ("-o", f"compat={compat}")
    writes = ("write -P 2 2M 2M",)
    middle = image(tmp_path / "middle.qcow2", "6M", *version, *above(tmp_path / "base.img", "raw"), writes=writes)
    top = replace(disk(image(tmp_path / "top.qcow2", "8M", *version, *above(middle))), discard=discard)
    write(Path(top.source), "write -P 3 0 2M")
    sibling = image(tmp_path / "sibling.qcow2", "6M", *above(middle), writes=("write -P 8 5M 64k",))
    beneath = (tmp_path / "base.img", middle, sibling)
    before, theirs = states(*beneath), shown(sibling, tmp_path)
    check_image(Env(), top, everything, everything)

    with Writable(Env(threads=2), top, everything) as writable:
        assert writable.existing.size == 8 * MIB
        content = bytearray(shown_while(writable))
        for begin, end in ((MIB, 3 * MIB), (4 * MIB + 4096, 4 * MIB + 8192), (5 * MIB, 7 * MIB)):
            writable.sink.zero(begin, end - begin)
            content[begin:end] = bytes(end - begin)
        writable.sink.write(4 * MIB - 4096, b"\5" * 4096)
        content[4 * MIB - 4096 : 4 * MIB] = b"\5" * 4096
        writable.sink.finish()

    assert shown(Path(top.source), tmp_path) == content == read(top)[0]
    assert states(*beneath) == before
    assert shown(sibling, tmp_path) == theirs
    told = subprocess.run(["qemu-img", "info", top.source], capture_output=True, text=True, check=True).stdout
    assert f"backing file: {middle}\n" in told
    assert "backing file format: qcow2" in told
    assert subprocess.run(["qemu-img", "check", "-q", top.source], check=False).returncode == 0


def shown_while(writable: Writable) -> bytes:
    content = bytearray(writable.existing.size)
    writable.existing.pread_into(memoryview(content), 0)
    return bytes(content)


def test_another_one_beneath_meanwhile(three: DomainDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the header and QEMU's lock: then what is there is not what was looked at."""
    other = image(tmp_path / "other.qcow2", "6M")
    plain = Chain.blockdev

    def late(self: Chain, **options: str) -> object:
        rebase(Path(three.source), str(other), "qcow2")
        return plain(self, **options)

    monkeypatch.setattr(Chain, "blockdev", late)
    with pytest.raises(Conflict, match="was given another backing file just now; try again"):
        Writable(Env(), three, everything)
