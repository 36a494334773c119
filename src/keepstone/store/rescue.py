# SPDX-License-Identifier: Apache-2.0
"""Restore from a Keepstone store without Keepstone. Every store carries this file beside FORMAT.md, which it follows.

    python rescue.py STORE list                    KEY
    python rescue.py STORE restore POINT TARGET    KEY [--salvage]
    python rescue.py STORE verify                  KEY

KEY is `--key-file F`, `--passphrase-file F`, or `--kit-json F` with what `age --decrypt KIT` shows. F may be `-`, which
is standard input. A kit also opens a store whose `keys/` is lost. POINT is the beginning of an id that `list` shows, or
`latest`. TARGET must not exist: a folder for files or a machine, a file for an image. Exit code: 0 all is well,
1 nothing could be done, 2 wrong usage, 4 done, but something is damaged or left out.

It takes Python 3.11 or newer on Linux with `cryptography` 44 or newer, `zstandard`, and `blake3` unless the store uses
HMAC-SHA256; where `xxhash` is there too, `verify` compares the checksums of packs. The store is only read. What is
written lies beneath TARGET and is what was stored, by its chunk ids. Damaged files are named and left out, or kept with
`--salvage`, with zeros where bytes are lost.

This file imports nothing of Keepstone and shares none of its code, so that each of the two checks how the other reads
the format. Whoever can write to the storage can replace this file: where you do not trust it, run another copy.
"""

from __future__ import annotations

import argparse
import base64
import errno
import functools
import hashlib
import hmac
import json
import os
import re
import resource
import stat
import struct
import sys
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, islice, pairwise
from typing import Any, NamedTuple

import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["main"]

Place = tuple[bytes, int] | None
"""(pack id, position) of a chunk; None for a chunk of zeros, which is stored nowhere."""
Told = Callable[[str], None]

HEADER, TRAILER, MAX_FRAME, LEAF_SPAN = 64, 64, 16 << 20, 1 << 30
ABORTED = b"keepstone: aborted\n"
COMMIT = r"(?:[0-9a-f]{16}|moves)-[0-9a-f]{32}"
KINDS = ("files/page", "images/root", "images/leaf", "machine/root")
DISK = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class Failed(Exception):
    """It cannot be done, and the message says why."""


class Hostile(Failed):
    """A point that no honest writer made."""


class Newer(Failed):
    """The store is of a later format."""


class Damaged(Failed):
    """Stored bytes are not what the format says."""


# What forged bytes raise where they are read carelessly; all of it means damage.
DAMAGE: tuple[type[Exception], ...] = (Damaged, struct.error, ValueError, TypeError, LookupError)
DAMAGE += (AttributeError, ArithmeticError, RecursionError, zstandard.ZstdError)
UNUSABLE: tuple[type[Exception], ...] = (OSError, *DAMAGE)
FAILURE: tuple[type[Exception], ...] = (Failed, *UNUSABLE)

# msgpack: integers, text, bytes, lists and maps. A length is compared with what is left before anything is made of it.

_FIXED = {0xC0: None, 0xC2: False, 0xC3: True}
_INTEGERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_SIZED: dict[int, tuple[type, int]] = {0xC4: (bytes, 1), 0xC5: (bytes, 2), 0xC6: (bytes, 4), 0xD9: (str, 1)}
_SIZED |= {0xDA: (str, 2), 0xDB: (str, 4), 0xDC: (list, 2), 0xDD: (list, 4), 0xDE: (dict, 2), 0xDF: (dict, 4)}


def unpack(data: bytes, wanted: type) -> Any:
    """The one msgpack value that `data` is, which must be of this type."""
    value, end = _unpack(data, 0, 8)
    if end != len(data) or type(value) is not wanted:
        raise Damaged(f"a record is no {wanted.__name__}")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    first, at = data[at], at + 1
    if first < 0x80 or first >= 0xE0:
        return first - 256 * (first >= 0xE0), at
    if first in _FIXED:
        return _FIXED[first], at
    if first in _INTEGERS:
        return struct.unpack_from(_INTEGERS[first], data, at)[0], at + struct.calcsize(_INTEGERS[first])
    if first < 0xC0:
        kind: type = dict if first < 0x90 else list if first < 0xA0 else str
        count = first & (0x1F if kind is str else 0x0F)
    else:
        kind, size = _SIZED[first]
        count, at = int.from_bytes(data[at : at + size], "big"), at + size
    items = 2 * count if kind is dict else count
    if items > len(data) - at or not depth:
        raise Damaged("a record is longer than its data, or nested too deep")
    if kind is bytes or kind is str:
        raw = data[at : at + count]
        return (raw if kind is bytes else raw.decode()), at + count
    values = []
    for _ in range(items):
        value, at = _unpack(data, at, depth - 1)
        values.append(value)
    return (values if kind is list else dict(zip(values[::2], values[1::2], strict=True))), at


# Keys


class Keys(NamedTuple):
    """An opened keys object. `keyed` and `digest` are the hash functions of the store."""

    store: bytes
    epoch: bytes
    id: bytes
    encryption: bytes
    metadata: bytes
    public: bytes
    keyed: Callable[[bytes, bytes], bytes]
    digest: Callable[[bytes], bytes]


def bind(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def hmac256(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def unseal(key: bytes, sealed: bytes, associated: bytes, what: str) -> bytes:
    """Every key of a store seals one text only, so the nonce is always zero."""
    try:
        return AESGCM(key).decrypt(bytes(12), sealed, associated)
    except InvalidTag:
        raise Damaged(f"{what} fails its authentication: it is damaged, forged, or belongs elsewhere") from None


def open_keys(name: str, data: bytes, kind: str, secret: bytes) -> Keys:
    """Open a keys object by the secret for its slots of this kind, or by the text of a kit."""
    checked, _, checksum = data[: 64 << 10].rpartition(b'  "checksum": ')
    signed, _, mac = checked.rpartition(b'  "mac": ')
    if checksum != b'"%b"\n}\n' % hashlib.sha256(checked).hexdigest().encode():
        raise Damaged(f"{name} does not match its checksum")
    body = json.loads(signed.removesuffix(b",\n") + b"}")
    if body["format"] != "keepstone keys":
        raise Damaged(f"{name} is no keys object")
    if body["version"] != 1:
        raise Newer(f"{name} has version {body['version']!r}; take the rescue.py of a newer store")
    store = bytes.fromhex(body["store_id"])
    vault_key = kit_key(json.loads(secret)) if kind == "kit" else open_slots(name, body, store, kind, secret)
    mac_key = hmac256(vault_key, bind(b"keepstone/keys/mac/v1", store))
    if not hmac.compare_digest(mac, b'"%b",\n' % hmac256(mac_key, signed).hex().encode()):
        raise Damaged(f"{name} is forged, or of another store")
    if name != f"keys/{body['sequence']:08d}":
        raise Damaged(f"{name} is not what was stored under that name")
    return open_domain(name, body, vault_key)


def kit_key(kit: dict[str, Any]) -> bytes:
    """The vault key that a kit holds."""
    return base64.b64decode(kit["vault_key"])


def open_domain(name: str, body: dict[str, Any], vault_key: bytes) -> Keys:
    """The keys in a keys object or in the text of a kit, which have the same members."""
    store = bytes.fromhex(body["store_id"])
    domain, epoch = body["domain"], body["domain"]["epoch"].to_bytes(4, "little")
    salt, wrapped, public = (base64.b64decode(domain[part]) for part in ("salt", "wrapped", "public_key"))
    key = hmac256(vault_key, bind(b"keepstone/domain/wrap/v1", store, epoch, salt))
    secrets = unseal(key, wrapped, bind(b"keepstone/domain/v1", store, epoch), f"the domain of {name}")
    identity, encryption, metadata = secrets[:32], secrets[32:64], secrets[64:96]  # then audit and signing
    return Keys(store, epoch, identity, encryption, metadata, public, *hashing(body["hashing"]))


def open_slots(name: str, body: dict[str, Any], store: bytes, kind: str, secret: bytes) -> bytes:
    """The vault key out of the first slot that the secret fits."""
    context = bind(b"keepstone/keys/v1", store, body["sequence"].to_bytes(8, "little"))
    slots = [slot for slot in body["slots"][:16] if slot["kind"] == kind]
    vault_key = next(filter(None, (open_slot(slot, context, secret) for slot in slots)), None)
    if vault_key is None:
        raise Failed(f"{name} does not open by this {kind} key; it has {len(slots)} slots of that kind")
    return vault_key


def open_slot(slot: dict[str, Any], context: bytes, secret: bytes) -> bytes | None:
    """The vault key, if the secret is this slot's."""
    salt = base64.b64decode(slot["salt"])
    root = argon2(slot, salt, secret) if slot["kind"] == "passphrase" else secret
    check = hmac256(root, bind(b"keepstone/slot/check/v1", context, salt))
    if not hmac.compare_digest(check, base64.b64decode(slot["check"])):  # GCM does not commit to its key
        return None
    key = hmac256(root, bind(b"keepstone/slot/wrap/v1", context, salt))
    return unseal(key, base64.b64decode(slot["wrapped"]), context, "the wrapped vault key")


def argon2(slot: dict[str, Any], salt: bytes, passphrase: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    passes, memory, lanes = slot["iterations"], slot["memory_kib"], slot["lanes"]
    if not (1 <= passes <= 64 and 1 <= lanes <= 64 and 8 * lanes <= memory <= 4 << 20):
        raise Damaged("a passphrase slot asks for an unreasonable amount of work")
    return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(passphrase)


def hashing(name: str) -> tuple[Callable[[bytes, bytes], bytes], Callable[[bytes], bytes]]:
    """(keyed, digest) of a profile."""
    if name == "hmac-sha256":
        return hmac256, lambda data: hashlib.sha256(data).digest()
    if name == "blake3":
        from blake3 import blake3

        return lambda key, data: blake3(data, key=key).digest(), lambda data: blake3(data).digest()
    raise Failed(f"the hash function {name!r} is not of this format; take the rescue.py of a newer store")


def checksum(data: bytes) -> bytes | None:
    """XXH3-128; None without `xxhash`. It serves those who have no keys: here each part of a pack is authenticated."""
    try:
        from xxhash import xxh3_128_digest
    except ImportError:
        return None
    return xxh3_128_digest(data)


# The store


class Pack(NamedTuple):
    """A footer. Frame f lies from `offsets[f]` to `offsets[f + 1]`, its chunks are `first[f]` to `first[f + 1]`."""

    name: str
    header: bytes
    offsets: list[int]
    raw: list[int]
    first: list[int]
    codecs: bytes
    digests: bytes
    lengths: list[int]
    ids: bytes


class Node(NamedTuple):
    kind: str
    chunks: Iterator[Place]
    children: Iterator[Place]
    body: bytes


class Point(NamedTuple):
    id: str
    record: dict[str, Any]
    deleted: bool

    @property
    def root(self) -> Iterator[Place]:
        return places(self.record["packs"], self.record["root"])


class Store:
    """A store in a folder. What is damaged in it is told to `problem`; `Failed` where nothing can be read."""

    def __init__(self, root: str, kind: str, secret: bytes, problem: Told) -> None:
        self.folder, self.problem = root, problem
        self.pack = functools.lru_cache(64)(self._pack)
        self.frame = functools.lru_cache(32)(self._frame)
        descriptor = self._descriptor()
        self.keys = self._open(kind, secret, descriptor)
        plain = json.dumps({**descriptor, "mac": ""}, separators=(",", ":"), ensure_ascii=False).encode()
        mac = self.keys.keyed(self.keys.metadata, b"descriptor/v1" + plain).hex()
        if descriptor and descriptor.get("mac") != mac:
            problem("keepstone.json was changed after it was written")
        self.points: list[Point] = []
        self.moves: dict[bytes, list[list[Any]]] = {}
        for name in self.names("commits", COMMIT):
            try:
                self._record(name)
            except DAMAGE as error:
                problem(f"{name} is left out: {error}")
        self.points.sort(key=lambda point: (point.record["finished"], point.id))

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        """Bytes of an object; a negative offset counts from its end."""
        try:
            with open(f"{self.folder}/{name}", "rb") as file:
                file.seek(offset if offset >= 0 else max(0, os.fstat(file.fileno()).st_size + offset))
                return file.read(length)
        except OSError as error:
            raise Damaged(f"{name} cannot be read: {error.strerror}") from None

    def names(self, folder: str, pattern: str) -> list[str]:
        """The objects of a folder that are called so."""
        try:
            found = os.listdir(f"{self.folder}/{folder}")
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name}" for name in found if re.fullmatch(pattern, name))

    def _descriptor(self) -> dict[str, Any]:
        try:
            text = dict(json.loads(self.read("keepstone.json")))
            found = text["magic"], text["format"]
        except DAMAGE as error:
            self.problem(f"keepstone.json is lost, going on without it: {error}")
            return {}
        if found != ("keepstone store", 1):
            raise Failed(f"this is no Keepstone store of format 1, but {found[0]!r} {found[1]!r}")
        return text

    def _open(self, kind: str, secret: bytes, descriptor: dict[str, Any]) -> Keys:
        reasons = []
        for name in reversed(self.names("keys", "[0-9]{8}")):
            try:
                return open_keys(name, self.read(name), kind, secret)
            except Newer:
                raise
            except FAILURE as error:
                reasons.append(str(error))
        why = "; ".join(reasons) or f"there is no keys object in {self.folder}"
        if kind != "kit":
            raise Failed(f"{why}; a recovery kit opens the store without it")
        kit = json.loads(secret)
        if descriptor.get("store", kit["store_id"]) != kit["store_id"]:
            raise Failed(f"the kit is of store {kit['store_id']}, and this is store {descriptor['store']}")
        self.problem(f"{why}; going on with the keys in the kit")
        return open_domain("the kit", kit, kit_key(kit))

    def _record(self, name: str) -> None:
        data, keys = self.read(name), self.keys
        if data == ABORTED:
            return
        magic, epoch, salt = struct.unpack_from("<4s4s32s", data)
        if (magic, epoch) != (b"KSO1", keys.epoch):
            raise Damaged("it is no sealed object of this store")
        key = keys.keyed(keys.metadata, b"object/v1" + salt + b"commit")
        record = unpack(unseal(key, data[40:], bind(keys.store, b"commit", name.encode(), epoch), name), dict)
        if record["type"] == "point":
            deleted = os.path.lexists(f"{self.folder}/deleted/{name[8:]}")
            self.points.append(Point(name[8:], {**record, "finished": int(record["finished"])}, deleted))
        elif record["type"] == "moves":
            for pack, _, packs, runs, *_ in record["moves"]:
                quads = struct.iter_unpack("<IIII", runs)
                found = sorted([start, count, entry(packs, index), first] for start, count, index, first in quads)
                self.moves.setdefault(pack, []).append(found)
        else:
            raise Damaged(f"it is a {record['type']!r}; take the rescue.py of a newer store")

    def _pack(self, pack: bytes) -> Pack:
        name, keys = f"packs/{pack.hex()[:2]}/{pack.hex()}", self.keys
        header, trailer = self.read(name, 0, HEADER), self.read(name, -TRAILER)
        begin = struct.pack("<8s16s4s", b"KSPACK1\n", keys.store, keys.epoch)
        length, zero, digest, _, end = struct.unpack("<II32s16s8s", trailer)
        if header[:28] != begin or header[32:] != pack or (zero, end) != (0, b"KSPEND1\n"):
            raise Damaged(f"{name} is not that pack of this store")
        key = keys.keyed(keys.metadata, b"footer/v1" + pack + digest)
        data = unseal(key, self.read(name, -TRAILER - length, length), header, f"the footer of {name}")
        frames, chunks = struct.unpack_from("<II", data)
        form = f"<8x{frames}I{frames}I{frames}I{frames}s{32 * frames}s{chunks}I{32 * chunks}s"
        if struct.calcsize(form) != len(data):
            raise Damaged(f"the footer of {name} is inconsistent")
        row = iter(struct.unpack(form, data))
        sealed, raw, counts = ([*islice(row, frames)] for _ in range(3))
        codecs, digests, lengths, ids = next(row), next(row), [*islice(row, chunks)], next(row)
        offsets, first = [*accumulate(sealed, initial=HEADER)], [*accumulate(counts, initial=0)]
        whole = [sum(lengths[begin:end]) for begin, end in pairwise(first)]
        if first[-1] != chunks or whole != raw or max(raw, default=0) > MAX_FRAME:
            raise Damaged(f"the footer of {name} is inconsistent")
        return Pack(name, header, offsets, raw, first, codecs, digests, lengths, ids)

    def _frame(self, pack: bytes, frame: int) -> bytes:
        of, keys, position = self.pack(pack), self.keys, frame.to_bytes(4, "little")
        what, raw = f"frame {frame} of {of.name}", of.raw[frame]
        sealed = self.read(of.name, of.offsets[frame], of.offsets[frame + 1] - of.offsets[frame])
        digest = of.digests[32 * frame : 32 * frame + 32]
        key = keys.keyed(keys.encryption, b"frame/v1" + pack + position + digest)
        data = unseal(key, sealed, of.header + position, what)
        if of.codecs[frame] == 1:
            if zstandard.frame_content_size(data) not in (raw, -1):  # it would be believed, whatever its length
                raise Damaged(f"{what} says that it expands to another length")
            data = zstandard.ZstdDecompressor(max_window_size=MAX_FRAME).decompress(data, max_output_size=raw)
        elif of.codecs[frame] != 0:
            raise Damaged(f"{what} has an unknown codec")
        if len(data) != raw:
            raise Damaged(f"{what} expands to another length")
        return data

    def locate(self, place: Place) -> tuple[bytes, int]:
        """Where this chunk is now, after all compactions."""
        if place is None:
            raise Damaged("there are zeros where a stored chunk should be")
        pack, position = place
        for _ in range(len(self.moves) + 1):
            for runs in self.moves.get(pack, ()):
                start, count, target, first = runs[max(0, bisect_right(runs, [position, 1 << 32]) - 1)]
                if start <= position < start + count:
                    pack, position = target, position - start + first
                    break
            else:
                if position >= len(self.pack(pack).lengths):
                    raise Damaged(f"{self.pack(pack).name} has no chunk {position}")
                return pack, position
        raise Damaged("the move records lead in a circle")

    def chunk(self, pack: bytes, position: int) -> bytes:
        """A chunk where it is now, compared with its id."""
        of = self.pack(pack)
        frame = bisect_right(of.first, position) - 1
        at = sum(of.lengths[of.first[frame] : position])
        data = self.frame(pack, frame)[at : at + of.lengths[position]]
        if self.keys.keyed(self.keys.id, data) != of.ids[32 * position : 32 * position + 32]:
            raise Damaged(f"chunk {position} of {of.name} is not what was stored")
        return data

    def node(self, place: Place, *kinds: str) -> Node:
        """A node of a manifest, which must be of one of these kinds."""
        kind, packs, chunks, children, body, *_ = unpack(self.chunk(*self.locate(place)), list)
        if kind not in kinds:
            raise Damaged(f"there is a node of kind {kind!r} where {' or '.join(kinds)} should be")
        return Node(kind, places(packs, chunks), places(packs, children), body)


def entry(packs: bytes, index: int) -> bytes:
    """A pack id out of a table of them."""
    pack = packs[32 * index : 32 * index + 32]
    if len(pack) != 32:
        raise Damaged("a run names a pack that is not in its table")
    return pack


def places(packs: bytes, runs: bytes) -> Iterator[Place]:
    """The places that these runs name, in order, one by one: a forged run can be long."""
    for index, first, count in struct.iter_unpack("<III", runs):
        pack = None if index == 0xFFFFFFFF else entry(packs, index)
        for position in range(first, first + count):
            yield None if pack is None else (pack, position)


# Restore

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
NO_EXTRA: list[Any] = [b"", {}, 0, None, None, 0]


class Entry(NamedTuple):
    """An entry of a folder: the columns of a page, then what few entries have."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    inode: int
    chunks: int
    target: bytes
    xattrs: dict[bytes, bytes]
    rdev: int
    link: list[int] | None
    extents: list[list[int]] | None
    flags: int


def entries_of(body: bytes) -> list[Entry]:
    """The entries of a page."""
    names, *columns = unpack(body, list)
    split, extras = names.split(b"\0"), columns[8] if len(columns) > 8 else {}
    if split.pop():
        raise Damaged("the names of a page are cut off")
    values = [struct.unpack(f"<{len(split)}{code}", data) for code, data in zip("IIIqqqQI", columns, strict=False)]
    rare = [(extra := extras.get(at, [])[:6]) + NO_EXTRA[len(extra) :] for at in range(len(split))]
    return [Entry(*row, *extra) for *row, extra in zip(split, *values, rare, strict=True)]


class Restore:
    """Writes a point. What is left out is told to `problem`."""

    def __init__(self, store: Store, salvage: bool, problem: Told) -> None:
        self.store, self.salvage, self.problem = store, salvage, problem
        self.root = os.geteuid() == 0
        self.within: set[Place] = set()
        self.linked: dict[tuple[int, int], list[bytes]] = {}
        self.files = self.bytes = 0

    def tree(self, point: Point, target: str) -> None:
        """Restore files into the new folder `target`."""
        detail = unpack(point.record["detail"], dict)
        sys.setrecursionlimit(100_000)  # two frames and one descriptor for each folder on the way down
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        os.mkdir(target, 0o700)
        self.top = os.open(target, _FOLDER)
        self._folder(point.root, self.top, [])
        if detail["root"]:
            self._metadata(self.top, entries_of(detail["root"])[0], target)

    def _folder(self, pages: Iterable[Place], fd: int, path: list[bytes]) -> None:
        last = b""
        for page in pages:
            if page in self.within:
                raise Hostile(f"{shown(path)} is a folder within itself; the point is forged")
            try:
                node = self.store.node(page, "files/page")
                entries = entries_of(node.body)
            except DAMAGE as error:
                self.problem(f"entries of {shown(path)} are lost: {error}")
                continue
            self.within.add(page)
            for entry in entries:
                where = [*path, entry.name]
                if entry.name in (b".", b"..") or b"/" in entry.name or entry.name <= last:
                    raise Hostile(f"{shown(where)} is no name that a folder can hold; the point is forged")
                last = entry.name
                folder = stat.S_ISDIR(entry.mode)
                parts = islice(node.children if folder else node.chunks, entry.chunks)
                try:
                    (self._subfolder if folder else self._entry)(entry, parts, fd, where)
                except UNUSABLE as error:
                    if isinstance(error, OSError) and error.errno in HOPELESS:
                        raise
                    self.problem(f"{shown(where)} is left out: {error}")
                for _ in parts:
                    pass  # what a failure left of this entry's chunks
            self.within.discard(page)

    def _subfolder(self, entry: Entry, pages: Iterable[Place], fd: int, path: list[bytes]) -> None:
        os.mkdir(entry.name, 0o700, dir_fd=fd)
        child = os.open(entry.name, _FOLDER, dir_fd=fd)
        try:
            if entry.flags & 2:
                self.problem(f"{shown(path)} could not be read when it was backed up")
            self._folder(pages, child, path)
            self._metadata(child, entry, shown(path))
        finally:
            os.close(child)

    def _entry(self, entry: Entry, chunks: Iterable[Place], fd: int, path: list[bytes]) -> None:
        name, kind = entry.name, stat.S_IFMT(entry.mode)
        first = self.linked.get((entry.link[0], entry.inode)) if entry.link else None
        if first:
            self._link(first, name, fd)
            return
        if entry.flags & 2:
            raise Damaged("it could not be read when it was backed up")
        if kind == stat.S_IFREG:
            self._file(entry, chunks, fd, shown(path))
        elif kind == stat.S_IFLNK:
            os.symlink(entry.target, name, dir_fd=fd)
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK) or self.root:
            os.mknod(name, kind | 0o600, entry.rdev, dir_fd=fd)
        else:
            raise Damaged("it is a device, which only root can make")
        if kind != stat.S_IFREG:
            made = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
            self._metadata(made, entry, shown(path))
            os.close(made)
        self.files += 1
        if entry.link:
            self.linked[entry.link[0], entry.inode] = path

    def _link(self, first: list[bytes], name: bytes, fd: int) -> None:
        """One more name for what was restored as `first`; no symbolic link is followed on the way to it."""
        folder = os.dup(self.top)
        try:
            for part in first[:-1]:
                folder, before = os.open(part, _FOLDER, dir_fd=folder), folder
                os.close(before)
            os.link(first[-1], name, src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(folder)

    def _file(self, entry: Entry, chunks: Iterable[Place], fd: int, path: str) -> None:
        file = os.open(entry.name, _NEW, 0o600, dir_fd=fd)
        try:
            extents = [[0, entry.size]] if entry.size else []
            self._write(file, extents if entry.extents is None else entry.extents, entry.size, chunks, path)
            self._metadata(file, entry, path)
        except FAILURE:
            os.unlink(entry.name, dir_fd=fd)
            raise
        finally:
            os.close(file)

    def _write(self, file: int, extents: list[list[int]], size: int, chunks: Iterable[Place], path: str) -> None:
        """The chunks fill the extents one after the other; all else of the file is a hole."""
        spans, at, end = iter(extents), 0, 0
        for place in chunks:
            rest = memoryview(self._content(place, path))
            while rest:
                if at == end:
                    start, length = next(spans, (0, 0))
                    if start < end or length < 1 or start + length > size:
                        raise Damaged("its content does not fit its extents")
                    at, end = start, start + length
                written = os.pwrite(file, rest[: end - at], at)
                at, rest, self.bytes = at + written, rest[written:], self.bytes + written
        if at != end or next(spans, None):
            raise Damaged("its content is shorter than its extents")
        os.ftruncate(file, size)

    def _content(self, place: Place, path: str) -> bytes:
        where = self.store.locate(place)
        try:
            return self.store.chunk(*where)
        except DAMAGE as error:
            if not self.salvage:
                raise
            self.problem(f"{path} has zeros where bytes are lost: {error}")
            return bytes(self.store.pack(where[0]).lengths[where[1]])

    def _metadata(self, fd: int, entry: Entry, path: str) -> None:
        """Owner, then attributes, mode, and times last: each can undo what comes after it."""
        made = f"/proc/self/fd/{fd}"  # so that it works for links and devices, opened by O_PATH, as well
        steps: list[tuple[str, Callable[[], None]]] = []
        if self.root:
            steps.append(("owner", lambda: os.chown(made, entry.uid, entry.gid)))
        for name, value in entry.xattrs.items():
            steps.append((f"attribute {name!r}", functools.partial(os.setxattr, made, name, value)))
        if not stat.S_ISLNK(entry.mode):
            steps.append(("mode", lambda: os.chmod(made, entry.mode & special(os.stat(made), entry))))
        steps.append(("times", lambda: os.utime(made, ns=(entry.mtime, entry.mtime))))
        for what, step in steps:
            try:
                step()
            except FAILURE as error:
                self.problem(f"{path}: its {what} cannot be set: {error}")

    def machine(self, point: Point, target: str) -> None:
        """Restore the disks of a machine into the new folder `target`, with what is known of it in machine.json."""
        root = self.store.node(next(point.root), "machine/root")
        about = unpack(root.body, dict)
        places = [*islice(root.children, len(about["disks"]) + 1)]
        os.mkdir(target, 0o700)
        for disk, place in zip(about["disks"], places, strict=True):
            if not re.fullmatch(DISK, disk["name"]):
                raise Hostile(f"{disk['name']!a} is no name of a disk; the point is forged")
            disk["file"] = f"{disk['name']}.raw"
            try:
                self._disk(place, f"{target}/{disk['file']}")
            except UNUSABLE as error:
                if isinstance(error, OSError) and error.errno in HOPELESS:
                    raise
                self.problem(f"{disk['file']} is left out: {error}")
        about["definition"] = {name: readable(document) for name, document in about["definition"].items()}
        file = os.open(f"{target}/machine.json", _NEW, 0o600)
        with open(file, "w", encoding="utf-8") as stream:
            json.dump(about, stream, indent=2)

    def image(self, point: Point, target: str) -> None:
        """Restore an image into the new file `target`."""
        self._disk(next(point.root), target)

    def _disk(self, place: Place, target: str) -> None:
        root = self.store.node(place, "images/root")
        image = unpack(root.body, dict)
        size, step = image["size"], image["chunk"]
        if size < 0 or step < 1 or LEAF_SPAN % step:
            raise Damaged("the root of the image makes no sense")
        file = os.open(target, _NEW, 0o600)
        try:
            os.ftruncate(file, size)
            for start in range(0, size, LEAF_SPAN):
                offsets = range(start, min(size, start + LEAF_SPAN), step)
                self._leaf(file, next(root.children), offsets, size, target)
            self.files += 1
        except FAILURE:
            os.unlink(target)
            raise
        finally:
            os.close(file)

    def _leaf(self, file: int, leaf: Place, offsets: range, size: int, path: str) -> None:
        try:
            chunks = [*islice(self.store.node(leaf, "images/leaf").chunks, len(offsets) + 1)]
        except DAMAGE as error:
            if not self.salvage:
                raise
            self.problem(f"{path} has zeros from byte {offsets.start} to byte {offsets.stop}: {error}")
            return
        for place, offset in zip(chunks, offsets, strict=True):
            if place is not None:
                data = self._content(place, path)
                if len(data) != min(offsets.step, size - offset):
                    raise Damaged(f"the chunk for byte {offset} has another length")
                self.bytes += os.pwrite(file, data, offset)


def readable(document: bytes) -> Any:
    """A document of a machine as JSON has it, else as text."""
    try:
        return json.loads(document)
    except DAMAGE:
        return document.decode("utf-8", "backslashreplace")


def special(status: os.stat_result, entry: Entry) -> int:
    """Which bits of a mode may be set: setuid and setgid only if they lend the identity that they are meant to lend."""
    return 0o7777 if (status.st_uid, status.st_gid) == (entry.uid, entry.gid) else 0o1777


def shown(path: list[bytes]) -> str:
    """A path for people; no name can play with a terminal."""
    return ascii(b"/".join(path).decode("utf-8", "backslashreplace"))


# Verify


def verify(store: Store, problem: Told) -> str:
    """Read every byte: packs, manifests, the chain of heads. What was seen."""
    names = [name for folder in store.names("packs", "[0-9a-f]{2}") for name in store.names(folder, "[0-9a-f]{64}")]
    seen: set[Place] = set()
    checks: list[tuple[str, Callable[[], None]]] = [(name, functools.partial(_pack, store, name)) for name in names]
    checks += [(f"point {point.id}", functools.partial(_point, store, point, seen)) for point in store.points]
    checks.append(("heads", functools.partial(_heads, store, problem)))
    for name, check in checks:
        try:
            check()
        except DAMAGE as error:
            problem(f"{name}: {error}")
    return f"{len(names)} packs, {len(store.points)} points with {len(seen)} nodes"


def _pack(store: Store, name: str) -> None:
    data, pack = store.read(name), bytes.fromhex(name[-64:])
    if checksum(data[:-24]) not in (None, data[-24:-8]):
        raise Damaged("it does not match its checksum")
    of = store.pack(pack)
    length = struct.unpack_from("<I", data, len(data) - TRAILER)[0]
    if of.name != name or of.offsets[-1] + length + TRAILER != len(data):
        raise Damaged("it has bytes that belong to nothing")
    for position in range(len(of.lengths)):
        store.chunk(pack, position)


def _point(store: Store, point: Point, seen: set[Place]) -> None:
    pending = [point.root]
    while pending:
        for place in pending[-1]:
            if place not in seen:
                seen.add(place)
                node = store.node(place, *KINDS)
                for chunk in node.chunks:
                    if chunk is not None or node.kind != "images/leaf":
                        store.locate(chunk)
                pending.append(node.children)
                break
        else:
            pending.pop()


def _heads(store: Store, problem: Told) -> None:
    public, previous = Ed25519PublicKey.from_public_bytes(store.keys.public), ""
    there: dict[str, str] = {}
    for number, name in enumerate(store.names("heads", "[0-9]{12}"), 1):
        data = store.read(name)
        signed, _, signature = data.removeprefix(b'{"head":').rpartition(b',"signature":')
        try:
            public.verify(bytes.fromhex(json.loads(signature.removesuffix(b"}"))), b"keepstone-head/v1" + signed)
        except InvalidSignature:
            raise Damaged(f"{name} has a wrong signature") from None
        head = json.loads(signed)
        if (head["store"], head["sequence"], head["previous"]) != (store.keys.store.hex(), number, previous):
            raise Damaged(f"{name} does not continue the entry before it")
        previous = store.keys.digest(data).hex()
        if head["event"] in ("commit", "move"):
            there[head["object"]] = head["digest"]
        elif head["event"] in ("purge", "drop-move"):
            there.pop(head["object"], None)
    for name, digest in there.items():
        if store.keys.digest(store.read(name)).hex() != digest:
            problem(f"{name} is not what was committed")


# The command


def line(point: Point) -> str:
    """A line of `list`."""
    finished = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(point.record["finished"] // 10**9))
    words = f"{point.record.get('kind')!s:<7} {point.record.get('logical')!s:>15} bytes  {point.record.get('item')!a}"
    return f"{point.id}  {finished} UTC  {words}{'  (deleted)' if point.deleted else ''}"


def find(store: Store, name: str) -> Point:
    """The point with this beginning of an id, or the latest that is not deleted."""
    found = [point for point in store.points if name in (point.id[: len(name)], point.id[17 : 17 + len(name)])]
    if name == "latest":
        found = [point for point in store.points if not point.deleted][-1:]
    if len(found) != 1:
        raise Failed(f"{name!r} names {len(found)} points; `list` shows what there is")
    return found[0]


def secret_of(arguments: argparse.Namespace) -> tuple[str, bytes]:
    """(kind of slot, secret) out of the file that the command line names."""
    path = arguments.key_file or arguments.passphrase_file or arguments.kit_json
    with open(0 if path == "-" else path, "rb") as file:
        content = file.read(1 << 20)
    if arguments.key_file:
        if len(content) != 32:
            raise Failed(f"{path} is no key file of 32 bytes")
        return "platform", content
    if arguments.passphrase_file:
        return "passphrase", unicodedata.normalize("NFC", content.rstrip(b"\r\n").decode()).encode()
    try:
        kit = json.loads(content)
        found = kit["format"], kit["version"]
    except DAMAGE:
        found = "", 0
    if found != ("keepstone recovery kit", 1):
        raise Failed(f"{path} is not the text of a recovery kit of version 1, which `age --decrypt KIT` shows")
    return "kit", content


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description="Restore from a Keepstone store without Keepstone.")
    parser.add_argument("store", metavar="STORE", help="the folder of the store")
    parser.add_argument("command", choices=("list", "restore", "verify"))
    parser.add_argument("point", nargs="?", metavar="POINT", help="the beginning of an id, or `latest`")
    parser.add_argument("target", nargs="?", metavar="TARGET", help="a folder or file that does not exist yet")
    parser.add_argument("--salvage", action="store_true", help="keep damaged files, with zeros where bytes are lost")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key-file", metavar="F")
    keys.add_argument("--passphrase-file", metavar="F")
    keys.add_argument("--kit-json", metavar="F", help="what `age --decrypt KIT` shows; `-` is standard input")
    arguments = parser.parse_args()
    if (arguments.command == "restore") != bool(arguments.target) or (arguments.point and not arguments.target):
        parser.error("restore takes POINT and TARGET, the others take neither")
    problems: list[str] = []

    def problem(text: str) -> None:
        problems.append(text)
        print(f"rescue: {text}", file=sys.stderr)

    try:
        store = Store(arguments.store, *secret_of(arguments), problem)
        if arguments.command == "list":
            print(*map(line, store.points), sep="\n")
        elif arguments.command == "verify":
            print(f"{verify(store, problem)}; {len(problems)} problems")
        else:
            point, restore = find(store, arguments.point), Restore(store, arguments.salvage, problem)
            kinds: dict[str, Callable[[Point, str], None]] = {"files": restore.tree, "images": restore.image}
            kinds["machine"] = restore.machine
            kind = point.record["kind"]
            if kind not in kinds:
                raise Failed(f"a point of kind {kind!r}: where it is sealed, its machine's passphrase alone opens it")
            kinds[kind](point, arguments.target)
            print(f"{restore.files} files, {restore.bytes} bytes written; {len(problems)} problems")
    except FAILURE as error:
        print(f"rescue: {error}", file=sys.stderr)
        return 1
    return 4 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
