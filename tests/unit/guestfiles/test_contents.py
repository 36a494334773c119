# SPDX-License-Identifier: Apache-2.0
"""Every name, size and byte of real file systems comes out as it went in."""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keepstone.disks import RawSource
from keepstone.env import Env
from keepstone.errors import CorruptObject, NotFound, UsageError
from keepstone.workloads.guestfiles import worker
from keepstone.workloads.guestfiles.tree import GuestTree, looking_into
from tests.unit.guestfiles.filesystems import (
    MIB,
    POINT,
    UNICODE,
    ext,
    fat,
    looked_into,
    mounted_ntfs,
    need,
    noise,
    ntfs,
    partitioned,
    plain_tree,
    run,
    sparse,
    xfs,
)

pytestmark = pytest.mark.vm


def content(tree: GuestTree, path: str) -> bytes:
    found = tree.find(path.encode())
    assert found is not None
    return b"".join(tree.content(found).read(0, found.entry.size))


def shown(tree: GuestTree, root: str = "0") -> dict[str, bytes | None]:
    """Paths beneath a volume, with the content of files."""
    found: dict[str, bytes | None] = {}
    for one in tree.walk(root.encode()):
        path = one.path.decode().removeprefix(f"{root}/")
        found[path] = content(tree, one.path.decode()) if stat.S_ISREG(one.entry.mode) else None
    return found


def expected(root: Path) -> dict[str, bytes | None]:
    paths = [path for path in root.rglob("*") if not path.is_symlink()]
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}


def made_ntfs(image: Path, tree: Path) -> Path:
    with mounted_ntfs(ntfs(image), image.with_suffix(".mnt")) as folder:
        run("cp", "-r", f"{tree}/.", folder)
    return image


@pytest.mark.parametrize(
    ("make", "kind", "label"),
    [
        (ext, "ext4", "linux"),
        (lambda image, tree: ext(image, tree, 32 * MIB, "-t", "ext2", "-b", 1024), "ext2", "linux"),
        (lambda image, tree: ext(image, tree, 32 * MIB, "-O", "inline_data", "-I", 512), "ext4", "linux"),
        (made_ntfs, "ntfs", "Windows"),
        (fat, "fat32", "STICK"),
        (xfs, "xfs", "data"),
    ],
    ids=["ext4", "ext2", "ext4-inline", "ntfs", "fat32", "xfs"],
)
def test_all_of_it(tmp_path: Path, make: Callable[[Path, Path], Path], kind: str, label: str) -> None:
    tree = plain_tree(tmp_path / "tree")
    (tree / "inline").write_bytes(b"i" * 150)
    if kind == "fat32":  # mtools write no characters beyond the first 65,536
        (tree / "folder" / UNICODE).rename(tree / "folder" / "größe-日本.txt")
    image = make(tmp_path / "image", tree)
    wanted = expected(tree)
    if kind.startswith("ext"):
        wanted["lost+found"] = None
    if kind == "xfs":
        del wanted["folder/with spaces and a long name, longer than any short one.text"]

    with looked_into(image) as found:
        (volume,) = found.reader.volumes()
        assert (volume.name, volume.filesystem, volume.label, volume.size) == ("0", kind, label, image.stat().st_size)
        assert shown(found) == wanted
        large = found.find(b"0/large.bin")
        assert large is not None
        data = (tree / "large.bin").read_bytes()
        for offset, length in ((0, 1), (MIB - 1, 2), (2_500_000, 1_300_000), (5_000_000, 100), (5_000_001, 1)):
            assert b"".join(found.content(large).read(offset, length)) == data[offset : offset + length]
        assert found.look(b"0/large.bin").mtime // 10**9 == pytest.approx((tree / "large.bin").stat().st_mtime, abs=4)
        assert content(found, "disk.img") == image.read_bytes()
        with pytest.raises(NotFound):
            found.find(b"0/nothing")
        with pytest.raises(UsageError):
            found.listing(b"0/small.txt")


def test_listing_page_by_page(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(5000):
        (tree / f"{number:04}").write_bytes(b"")
    with looked_into(ext(tmp_path / "image", tree, 32 * MIB, "-N", 8000)) as found:
        names, after = [], b""
        while page := found.listing(b"0", after=after, limit=700):
            names += [entry.name for entry in page]
            after = names[-1]
        assert names == [b"%04d" % number for number in range(5000)] + [b"lost+found"]
        walked = [one.path for one in found.walk(b"0", after=b"0/4997")]
        assert walked == [b"0/4998", b"0/4999", b"0/lost+found"]


def test_links_holes_and_what_is_deleted_in_ext4(tmp_path: Path) -> None:
    need("debugfs")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").write_bytes(b"linked")
    os.link(tree / "one", tree / "two")
    os.symlink("one", tree / "short")
    os.symlink("x" * 200, tree / "long")
    with sparse(tree / "holes", 20 * MIB).open("r+b") as file:
        for at in (0, 5 * MIB + 5, 19 * MIB):
            file.seek(at)
            file.write(noise(5000, at))
    (tree / "gone").write_bytes(b"gone")
    image = ext(tmp_path / "image", tree)
    run("debugfs", "-w", "-R", "rm /gone", image)
    run("debugfs", "-w", "-R", "write /dev/null unwritten", image)
    run("debugfs", "-w", "-R", "fallocate /unwritten 0 999", image)
    run("debugfs", "-w", "-R", f"set_inode_field /unwritten size {3 * MIB}", image)

    with looked_into(image) as found:
        assert content(found, "0/holes") == (tree / "holes").read_bytes()
        extents = found.look(b"0/holes").extra.extents
        assert extents is not None
        assert sum(length for _, length in extents) < 100_000
        one, two = found.find(b"0/one"), found.find(b"0/two")
        assert one is not None
        assert two is not None
        assert found.inode(one) == found.inode(two)
        assert found.look(b"0/short").extra.target == b"one"
        assert found.look(b"0/long").extra.target == b"x" * 200
        assert content(found, "0/unwritten") == bytes(3 * MIB)
        with pytest.raises(NotFound):
            found.look(b"0/gone")


def test_what_only_ntfs_has(tmp_path: Path) -> None:
    image = ntfs(tmp_path / "image")
    text = b"compress me, please. " * 100_000
    with mounted_ntfs(image, tmp_path / "mnt") as folder:
        (folder / "file").write_bytes(b"main")
        (folder / "file:Zone.Identifier").write_bytes(b"[ZoneTransfer]")
        (folder / "file:large").write_bytes(noise(2 * MIB))
        os.link(folder / "file", folder / "other")
        (folder / "packed").mkdir()
        run("setfattr", "-h", "-v", "0x00080000", "-n", "system.ntfs_attrib", folder / "packed")
        (folder / "packed" / "text").write_bytes(text)
        assert os.getxattr(folder / "packed" / "text", "system.ntfs_attrib")[1] & 8
        with sparse(folder / "holes", 9 * MIB).open("r+b") as file:
            file.seek(5 * MIB)
            file.write(noise(100_000))
        (folder / "gone").write_bytes(b"gone")
        (folder / "gone").unlink()
        target = "C:\\Users".encode("utf-16-le")
        name = len(target).to_bytes(2, "little")
        link = b"\0\0" + name + name + name + (1).to_bytes(4, "little") + target + target
        (folder / "shortcut").write_bytes(b"")
        tag = (0xA000000C).to_bytes(4, "little") + len(link).to_bytes(2, "little") + b"\0\0" + link
        os.setxattr(folder / "shortcut", "system.ntfs_reparse_data", tag)
        (folder / "elsewhere").write_bytes(b"")
        os.truncate(folder / "elsewhere", 100_000)
        compact = (
            (0x80000017).to_bytes(4, "little") + b"\x10\0\0\0" + bytes([1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]) + bytes(4)
        )
        os.setxattr(folder / "elsewhere", "system.ntfs_reparse_data", compact)

    with looked_into(image) as found:
        names = [entry.name.decode() for entry in found.listing(b"0")]
        assert names == [
            "elsewhere", "file", "file:Zone.Identifier", "file:large", "holes", "other", "other:Zone.Identifier",
            "other:large", "packed", "shortcut",
        ]  # fmt: skip
        assert content(found, "0/file") == content(found, "0/other") == b"main"
        assert content(found, "0/file:Zone.Identifier") == b"[ZoneTransfer]"
        assert content(found, "0/other:large") == noise(2 * MIB)
        assert content(found, "0/packed/text") == text
        assert content(found, "0/holes")[5 * MIB : 5 * MIB + 100_000] == noise(100_000)
        assert found.look(b"0/holes").extra.extents is not None
        assert found.look(b"0/file").extra.link is not None
        assert found.look(b"0/shortcut").extra.target == b"C:\\Users"
        assert found.look(b"0/shortcut").kind == "symlink"
        with pytest.raises(CorruptObject, match="compacted"):
            content(found, "0/elsewhere")


def test_partitions(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "name").write_bytes(b"in ext4")
    linux, dos = ext(tmp_path / "ext", tree, 8 * MIB), fat(tmp_path / "fat", tree, 40 * MIB)
    mbr = partitioned(
        tmp_path / "mbr", "dos",
        "start=2048,size=16384,type=83\nstart=18432,size=204800,type=5\nstart=20480,size=81920,type=c\n"
        "start=104448,size=16384,type=83\nstart=223232,size=2048,type=83",
        {2048: linux, 20480: dos, 104448: linux}, 128 * MIB,
    )  # fmt: skip
    gpt = partitioned(
        tmp_path / "gpt", "gpt", '3: start=2048,size=16384,name="root"\n7: start=20480,size=81920',
        {2048: linux, 20480: dos}, 64 * MIB,
    )  # fmt: skip
    with looked_into(mbr) as found:
        assert [(one.name, one.offset, one.filesystem) for one in found.reader.volumes()] == [
            ("1", MIB, "ext4"), ("5", 10 * MIB, "fat32"), ("6", 51 * MIB, "ext4"), ("3", 109 * MIB, ""),
        ]  # fmt: skip
        assert [entry.name for entry in found.listing(b"")] == [b"1", b"5", b"6", b"disk.img"]
        assert content(found, "1/name") == content(found, "5/name") == content(found, "6/name") == b"in ext4"
    with looked_into(gpt) as found:
        volumes = found.reader.volumes()
        assert [(one.name, one.number, one.label) for one in volumes] == [("3", 3, "linux"), ("7", 7, "STICK")]
        assert content(found, "3/name") == content(found, "7/name") == b"in ext4"


def test_nothing_that_is_known(tmp_path: Path) -> None:
    with looked_into(sparse(tmp_path / "empty", 3 * MIB)) as found:
        assert [entry.name for entry in found.listing(b"")] == [b"disk.img"]
    secret = sparse(tmp_path / "secret", 3 * MIB)
    with secret.open("r+b") as file:
        file.write(b"LUKS\xba\xbe\0\2")
    with looked_into(secret) as found:
        assert [entry.name for entry in found.listing(b"")] == [b"disk.img"]
        (volume,) = found.reader.volumes()
        assert (volume.filesystem, volume.is_readable) == ("luks", False)
        assert "encrypted" in volume.note


def test_unicode_in_bytes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / UNICODE).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tree) + b"/no-utf8-\xff")).write_bytes(b"")
    with looked_into(ext(tmp_path / "image", tree)) as found:
        assert [entry.name for entry in found.listing(b"0")] == [UNICODE.encode(), b"lost+found", b"no-utf8-\xff"]


def test_exfat(tmp_path: Path) -> None:
    """No program here puts files into an exFAT: the entries are written by its specification, 7.4, 7.6 and 7.7."""
    need("mkfs.exfat")
    image = sparse(tmp_path / "image", 16 * MIB)
    run("mkfs.exfat", "-L", "CARD", image)
    data, wanted = bytearray(image.read_bytes()), noise(70_000)
    heap, _, root = struct.unpack_from("<III", data, 88)
    sector, cluster = 1 << data[108], 1 << data[108] + data[109]
    first = 100  # of clusters that nobody uses, one after the other

    def place(number: int) -> int:
        return int(heap * sector + (number - 2) * cluster)

    data[place(first) : place(first) + len(wanted)] = wanted
    name = UNICODE.encode("utf-16-le")
    parts = [name[at : at + 30] for at in range(0, len(name), 30)]
    entries = (
        struct.pack("<BBHHH", 0x85, 1 + len(parts), 0, 0x20, 0) + struct.pack("<III", *[0x5C8A6000] * 3) + bytes(12)
    )
    entries += struct.pack("<BBBBHHQIIQ", 0xC0, 3, 0, len(name) // 2, 0, 0, len(wanted), 0, first, len(wanted))
    entries += b"".join(b"\xc1\0" + part.ljust(30, b"\0") for part in parts)
    checksum = 0
    for at, byte in enumerate(entries[: 32 * (2 + len(parts))]):
        if at not in (2, 3):
            checksum = ((checksum << 15 | checksum >> 1) + byte) & 0xFFFF
    entries = entries[:2] + checksum.to_bytes(2, "little") + entries[4:]
    free = next(at for at in range(place(root), place(root) + cluster, 32) if data[at] == 0)
    data[free : free + len(entries)] = entries
    image.write_bytes(data)
    with looked_into(image) as found:
        assert [volume.filesystem for volume in found.reader.volumes()] == ["exfat"]
        assert shown(found) == {UNICODE: wanted}


def test_several_disks(tmp_path: Path) -> None:
    tree = plain_tree(tmp_path / "tree")
    system, data = ext(tmp_path / "vda", tree), fat(tmp_path / "vdb", tmp_path / "tree" / "folder" / "deep")
    with (
        RawSource(Env(), system) as one,
        RawSource(Env(), data) as two,
        looking_into(Env(), {b"vda": one, b"vdb": two}, POINT) as found,
    ):
        assert [entry.name for entry in found.listing(b"")] == [b"vda", b"vdb"]
        assert [entry.name for entry in found.listing(b"vda")] == [b"0", b"disk.img"]
        assert shown(found, "vda/0") == expected(tree) | {"lost+found": None}
        assert shown(found, "vdb/0") == expected(tree / "folder" / "deep")
        assert content(found, "vdb/disk.img") == data.read_bytes()
        pieces = [found.find(path) for path in (b"vda/0/large.bin", b"vdb/0/deeper/x", b"vda/disk.img")]
        refs = [ref for piece in pieces if piece is not None for ref in piece.refs]
        got = dict[int, int]()
        found.reader.fetch(enumerated(refs), lambda at, chunk: got.update({at: len(chunk)}))
        assert [got[at] for at in range(len(refs))] == [found.reader.chunk_length(ref) for ref in refs]


def enumerated(refs: list[int]) -> list[tuple[int, int]]:
    return [(ref, at) for at, ref in enumerate(refs)]


def test_a_disk_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk itself can be had although nobody can look into it."""
    monkeypatch.setattr(worker, "PROGRAM", (sys.executable, "-c", "raise SystemExit"))
    image = ext(tmp_path / "image", plain_tree(tmp_path / "tree"))
    with looked_into(image) as found:
        assert [entry.name for entry in found.listing(b"")] == [b"disk.img"]
        assert "failed" in str(found.reader.damage[b""])
        assert content(found, "disk.img") == image.read_bytes()
