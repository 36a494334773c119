# SPDX-License-Identifier: Apache-2.0
"""What stands in a tar before the content of a member: POSIX pax (pax(1)), with the extensions that GNU tar, bsdtar and
star share.

Times to the nanosecond, names and targets of links of any length and bytes, extended attributes as `SCHILY.xattr.*`,
POSIX ACLs besides as text in `SCHILY.acl.*`, because a tar that is asked for ACLs takes them from nowhere else; sparse
files in the format 1.0 of GNU tar (`GNU.sparse.*`): a map of the data stands before it. The records of pax are
UTF-8 by the standard; a name that is not is written as its bytes, as GNU tar does.
"""

from __future__ import annotations

import os
import stat
import struct

from keepstone.workloads.files.page import Detail, Entry
from keepstone.workloads.files.restore.layout import Layout

__all__ = ["BLOCK", "KINDS", "header"]

BLOCK = 512
KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
"""Kinds of files that a tar can hold, and their type there."""

_ACLS = {
    b"system.posix_acl_access": b"SCHILY.acl.access",
    b"system.posix_acl_default": b"SCHILY.acl.default",
}
_ACL_VERSION = (2).to_bytes(4, "little")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_TAGS = {1: "user:", 2: "user:%d", 4: "group:", 8: "group:%d", 16: "mask:", 32: "other:"}

_LINK, _PAX = b"1", b"x"
_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_NAME, _OWNER = 100, 32
_SECOND = 10**9
_LATEST = 8**11 - 1  # seconds that the field has room for: to the year 2242


def header(
    path: bytes, entry: Entry, described: Detail, *, link: bytes | None = None, layout: Layout | None = None
) -> bytes:
    """The blocks before the content of a member.

    `link`: the path of the member that it is another name of; `layout`: of a regular file.
    """
    records: dict[bytes, bytes] = {}
    name = path + b"/" if stat.S_ISDIR(entry.mode) else path
    target = entry.extra.target if link is None else link
    size = layout.length if layout is not None else 0
    before = b""
    if layout is not None and entry.extra.extents is not None:
        before = _sparse_map(layout)
        size += len(before)
        records[b"GNU.sparse.major"] = b"1"
        records[b"GNU.sparse.minor"] = b"0"
        records[b"GNU.sparse.name"] = name
        records[b"GNU.sparse.realsize"] = b"%d" % entry.size
        folder, _, base = path.rpartition(b"/")
        name = b"/".join(part for part in (folder, b"GNUSparseFile.0", base) if part)
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND <= _LATEST:
        records[b"mtime"] = _seconds(entry.mtime)
    for attribute, value in entry.extra.xattrs.items():
        escaped = attribute.replace(b"%", b"%25").replace(b"=", b"%3D")
        records[b"SCHILY.xattr." + escaped] = value
        if attribute in _ACLS and (text := _acl_text(value)):
            records[_ACLS[attribute]] = text
    fields = _Fields(records)
    rdev = entry.extra.rdev if stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode) else 0
    kind = KINDS[stat.S_IFMT(entry.mode)] if link is None else _LINK
    own = _block(
        fields.text(b"path", name, _NAME),
        stat.S_IMODE(entry.mode),
        fields.number(b"uid", entry.uid, 8),
        fields.number(b"gid", entry.gid, 8),
        fields.number(b"size", size, 12),
        max(0, entry.mtime // _SECOND),
        kind,
        fields.text(b"linkpath", target, _NAME),
        fields.text(b"uname", os.fsencode(described.users.get(entry.uid, "")), _OWNER),
        fields.text(b"gname", os.fsencode(described.groups.get(entry.gid, "")), _OWNER),
        rdev,
    )
    if not records:
        return own + before
    extended = b"".join(_record(keyword, value) for keyword, value in records.items())
    shortened = b"PaxHeaders/" + path.rpartition(b"/")[2][:80]
    pax = _block(shortened, 0o644, 0, 0, len(extended), max(0, entry.mtime // _SECOND), _PAX)
    return pax + extended + bytes(-len(extended) % BLOCK) + own + before


class _Fields:
    """Puts into `records` what does not fit into its field."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self._records = records

    def text(self, keyword: bytes, value: bytes, width: int) -> bytes:
        if len(value) > width or not value.isascii():
            self._records[keyword] = value
        return value[:width]

    def number(self, keyword: bytes, value: int, width: int) -> int:
        if value >= 8 ** (width - 1):
            self._records[keyword] = b"%d" % value
            return 0
        return value


def _block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    target: bytes = b"",
    uname: bytes = b"",
    gname: bytes = b"",
    rdev: int = 0,
) -> bytes:
    """One header of ustar; the sum of its bytes stands in itself, counted as blanks."""
    values = [
        name,
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % min(mtime, _LATEST),
        b" " * 8,
        kind,
        target,
        b"ustar\0",
        b"00",
        uname,
        gname,
        b"%07o" % os.major(rdev),
        b"%07o" % os.minor(rdev),
        b"",
    ]
    values[6] = b"%06o\0 " % sum(_USTAR.pack(*values))
    return _USTAR.pack(*values)


def _record(keyword: bytes, value: bytes) -> bytes:
    """A record begins with its own length in decimal digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, keyword, value)


def _seconds(time: int) -> bytes:
    """A time in ns as decimal seconds."""
    sign, time = (b"-", -time) if time < 0 else (b"", time)
    return b"%s%d.%09d" % (sign, *divmod(time, _SECOND))


def _acl_text(value: bytes) -> bytes:
    """An ACL of the kernel's (linux/posix_acl_xattr.h) in the form of acl(5), with ids as numbers; empty where it is
    none."""
    entries = value.removeprefix(_ACL_VERSION)
    if len(entries) == len(value) or len(entries) % _ACL_ENTRY.size:
        return b""
    lines = []
    for tag, permissions, number in _ACL_ENTRY.iter_unpack(entries):
        who = _ACL_TAGS.get(tag)
        if who is None or permissions > 7:
            return b""
        allowed = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        lines.append(f"{who % number if '%' in who else who}:{allowed}\n")
    return "".join(lines).encode()


def _sparse_map(layout: Layout) -> bytes:
    """Ranges of data; one without length at the end says how long the file is."""
    ranges = layout.extents
    if not ranges or sum(ranges[-1]) < layout.size:
        ranges = [*ranges, (layout.size, 0)]
    lines = [len(ranges), *(number for extent in ranges for number in extent)]
    text = b"".join(b"%d\n" % line for line in lines)
    return text + bytes(-len(text) % BLOCK)
