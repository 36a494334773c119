# SPDX-License-Identifier: Apache-2.0
"""The two parts of docs/FORMAT.md that the code can compute: the worked example and the test vectors.

`python -m tests.unit.store.format_page` writes them into the page, the tests compare. The example is computed by
`rescue.py`, the vectors by Keepstone.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from keepstone.crypto import DomainKeys, VaultKey, frame_key, hashing, public_key, seal_frame, seal_object, sign
from keepstone.crypto.binding import bind
from keepstone.crypto.slots import seal_slot, slot_check
from keepstone.env import Env
from keepstone.objects import MemoryStorage
from keepstone.store import rescue
from keepstone.store.context import Context
from keepstone.store.descriptor import Descriptor, encode_descriptor
from keepstone.store.footer import FooterBuilder, pack_header
from keepstone.store.pack import seal_footer
from keepstone.store.points import item_tag
from tests.data.golden import GOLDEN, KEY

__all__ = ["PAGE", "example", "section", "vectors"]

PAGE = Path(__file__).parents[3] / "docs" / "FORMAT.md"

_STORE = bytes(range(16))
_ROOT = bytes.fromhex("11" * 32)
_VAULT = VaultKey(bytes.fromhex("2a" * 32))
_SALT = bytes.fromhex("77" * 32)
_PACK = bytes.fromhex("50" * 32)


def section(name: str) -> str:
    """What stands between the two marks of this name."""
    return PAGE.read_text().partition(f"<!-- {name}:begin -->\n")[2].partition(f"<!-- {name}:end -->")[0]


def example() -> str:
    """How the image in the golden store is restored, with the values that occur."""
    problems: list[str] = []
    store = rescue.Store(str(GOLDEN / "blake3" / "store"), "platform", KEY, problems.append)
    assert not problems
    point = next(point for point in store.points if point.record["kind"] == "images")
    keys, cell = store.keys, store.read(f"commits/{point.id}")
    wrapped = json.loads(store.read("keys/00000002").partition(b',\n  "mac"')[0] + b"}")
    slot = next(slot for slot in wrapped["slots"] if slot["kind"] == "platform")
    context = rescue.bind(b"keepstone/keys/v1", keys.store, struct.pack("<Q", wrapped["sequence"]))
    vault_key = rescue.open_slot(slot, context, KEY) or b""
    root_place = next(point.root) or (b"", 0)
    leaf_place = next(store.node(root_place, "images/root").children) or (b"", 0)
    data_place = next(filter(None, store.node(leaf_place, "images/leaf").chunks))
    nodes, data = store.pack(root_place[0]), store.pack(data_place[0])
    trailer = store.read(nodes.name, -64)
    length, _, digest = struct.unpack_from("<II32s", trailer)
    footer_key = keys.keyed(keys.metadata, b"footer/v1" + root_place[0] + digest)
    frame_key_0 = keys.keyed(keys.encryption, b"frame/v1" + root_place[0] + bytes(4) + nodes.digests[:32])
    cell_key = keys.keyed(keys.metadata, b"object/v1" + cell[8:40] + b"commit")
    leaf_runs = rescue.unpack(store.chunk(*leaf_place), list)[2]
    root, first = store.chunk(*root_place), store.chunk(*data_place)
    return f"""
1. `keepstone.json` says `"keepstone store"`, format 1. In `keys/` there is only `keys/00000002`, because the keys were
   rotated once. Its checksum is right.
2. The context of the slots is
   `{context.hex()}`.
   The slot `platform` has the `check` `{slot["check"]}`, and that is what the key
   file gives, so it is the right one. `wrapped` opens to the vault key
   `{vault_key.hex()}`, with which the MAC of the object
   is right. The domain opens to K_id `{keys.id.hex()}`,
   K_encryption `{keys.encryption.hex()}`, K_metadata
   `{keys.metadata.hex()}`. With that the MAC of the
   descriptor is right.
3. `commits/{point.id}` has {len(cell)} bytes and begins with
   `{cell[:8].hex()}` (`KSO1`, epoch 1) and the salt
   `{cell[8:40].hex()}`. Under the key
   `{cell_key.hex()}` it opens to a record: `type` is
   `point`, `item` is `{point.record["item"]}`, `kind` is `{point.record["kind"]}`, `packs` is the one id
   `{point.record["packs"].hex()}`, `root` is
   `{point.record["root"].hex()}`: pack 0, position {root_place[1]}, one node. No move record has this pack.
4. The trailer of `{nodes.name}` begins with
   `{trailer[:8].hex()}`, so the footer has {length} bytes, and the footer digest
   `{digest.hex()}`. Under the key
   `{footer_key.hex()}` the footer opens: {len(nodes.raw)} frame,
   {len(nodes.lengths)} chunks. The frame lies at {nodes.offsets[0]}, has \
{nodes.offsets[1] - nodes.offsets[0]} bytes, \
raw {nodes.raw[0]}, codec {nodes.codecs[0]}, chunks of {nodes.lengths[0]} and {nodes.lengths[1]} bytes, and the digest
   of its payload is `{nodes.digests[:32].hex()}`.
5. The key of the frame is `{frame_key_0.hex()}`. It
   opens to a zstd frame, which expands to {nodes.raw[0]} bytes. Chunk {root_place[1]} is the \
{nodes.lengths[1]} bytes from {nodes.lengths[0]}:
   `{root[:44].hex()}`
   `{root[44:].hex()}`.
   Its id is `{nodes.ids[32:64].hex()}`, as in the footer.
6. That is a node of kind `images/root`. Its body says `size` = {point.record["logical"]}, `chunk` = 262144, and it \
has one child, position {leaf_place[1]} of the
   same pack, of kind `images/leaf` with the runs
   `{leaf_runs.hex()}`:
   a chunk of zeros, position 0 of pack `{data_place[0].hex()}`,
   a chunk of zeros, position 1 of that pack.
7. Chunk 0 of that pack is opened in the same way. Its id is
   `{data.ids[:32].hex()}`, it has {len(first)} bytes and
   begins with `{first[:15].decode()}`. It goes to byte 262144 of the image. Chunk 1 has \
{data.lengths[1]} bytes
   and goes to byte 786432. All else is zeros.

"""


def vectors() -> str:
    """Values that another implementation can check its parts by."""
    context = bind(b"keepstone/keys/v1", _STORE, (1).to_bytes(8, "little"))
    seed = DomainKeys.from_bytes(1, bytes(range(160))).signing_seed
    found = {
        'bind("ab", "", "c")': bind(b"ab", b"", b"c"),
        "context of the slots": context,
        "check of a slot": slot_check(_ROOT, context, _SALT),
        "wrapped of a slot": seal_slot(_ROOT, _VAULT, context, _SALT),
        "public key": public_key(seed),
        'signature, HEAD = "{}"': sign(seed, b"keepstone-head/v1{}"),
        "header of a pack": pack_header(_STORE, 1, 0, _PACK),
    }
    lines = [f"{what} = {value.hex()}" for what, value in found.items()]
    for name in ("blake3", "hmac-sha256"):
        lines += ["", name, *(f"{what} = {value.hex()}" for what, value in _of_profile(name).items())]
    return "\n```\n" + "\n".join(lines) + "\n```\n\n"


def _of_profile(name: str) -> dict[str, bytes]:
    profile, keys, header = hashing(name), DomainKeys.from_bytes(1, bytes(range(160))), pack_header(_STORE, 1, 0, _PACK)
    env = Env()
    storage = MemoryStorage(env)
    context = Context(env=env, storage=storage, store_id=_STORE, keys=keys, verify_key=b"", hashing=profile)
    key = frame_key(profile, keys, _PACK, 3, profile.digest(b"hello"))
    frame = bytearray(21)
    seal_frame(key, b"hello", context.frame_aad(header, 3), memoryview(frame))
    footer, footer_digest = seal_footer(context, _PACK, header, FooterBuilder.empty().encode())
    descriptor = Descriptor(
        store=_STORE.hex(),
        created=1,
        hashing=name,
        disk_chunk=262144,
        file_chunks=(262144, 1048576, 4194304),
        soft_delete_days=14,
        files={"FORMAT.md": "00"},
    )
    mac = encode_descriptor(descriptor, keys, profile).partition(b'"mac": "')[2][:64].decode()
    return {
        'digest("hello")': profile.digest(b"hello"),
        'id of the chunk "hello"': profile.keyed(keys.id, b"hello"),
        'tag of the item "home"': bytes.fromhex(item_tag(context, "home")),
        'key of frame 3, payload "hello"': key,
        'frame 3, payload "hello"': bytes(frame),
        "footer digest of an empty pack": footer_digest,
        "footer of an empty pack": footer,
        'object "text", kind "deleted", name "deleted/x", random bytes 32 × 00': seal_object(
            keys, profile, "deleted", "deleted/x", _STORE, b"text", bytes(32)
        ),
        'mac of a descriptor, created = 1, files = {"FORMAT.md": "00"}, else as init has it': bytes.fromhex(mac),
    }


if __name__ == "__main__":
    for part, text in (("example", example()), ("vectors", vectors())):
        PAGE.write_text(PAGE.read_text().replace(section(part), text))
