# SPDX-License-Identifier: Apache-2.0
"""docs/FORMAT.md as the tests read it that hold the code to it, and its test vectors as the code computes them."""

from __future__ import annotations

from pathlib import Path

from keepstone.crypto import DomainKeys, VaultKey, frame_key, hashing, public_key, seal_frame, seal_object, sign
from keepstone.crypto.binding import bind
from keepstone.crypto.slots import seal_slot, slot_check
from keepstone.env import Env
from keepstone.objects import MemoryStorage
from keepstone.store.context import Context
from keepstone.store.descriptor import Descriptor, encode_descriptor
from keepstone.store.footer import FooterBuilder, pack_header
from keepstone.store.pack import seal_footer
from keepstone.store.points import item_tag

__all__ = ["PAGE", "computed_vectors", "section", "written_vectors"]

PAGE = Path(__file__).parents[3] / "docs" / "FORMAT.md"

_STORE = bytes(range(16))
_ROOT = bytes.fromhex("11" * 32)
_VAULT = VaultKey(bytes.fromhex("2a" * 32))
_SALT = bytes.fromhex("77" * 32)
_PACK = bytes.fromhex("50" * 32)


def section(name: str) -> str:
    """What stands between the two marks of this name."""
    return PAGE.read_text().partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]


def written_vectors() -> dict[str, str]:
    """The test vectors of the page: name -> hex."""
    rows = [line.strip().rpartition(" = ") for line in section("vectors").splitlines() if " = " in line]
    return {name: value for name, _, value in rows}


def computed_vectors() -> dict[str, str]:
    """The same by the code."""
    context = bind(b"keepstone/keys/v1", _STORE, (1).to_bytes(8, "little"))
    signing_seed = DomainKeys.from_bytes(1, bytes(range(160))).signing_seed
    found = {
        'bind("ab", "", "c")': bind(b"ab", b"", b"c"),
        "slot context": context,
        "slot check": slot_check(_ROOT, context, _SALT),
        "slot wrapped": seal_slot(_ROOT, _VAULT, context, _SALT),
        "public key": public_key(signing_seed),
        'signature of HEAD = "{}"': sign(signing_seed, b"keepstone-head/v1{}"),
        "pack header": pack_header(_STORE, 1, 0, _PACK),
    }
    for name in ("blake3", "hmac-sha256"):
        found |= {f"{name}: {what}": value for what, value in _of_profile(name).items()}
    return {what: value.hex() for what, value in found.items()}


def _of_profile(name: str) -> dict[str, bytes]:
    profile, keys, header = hashing(name), DomainKeys.from_bytes(1, bytes(range(160))), pack_header(_STORE, 1, 0, _PACK)
    env = Env()
    context = Context(env=env, storage=MemoryStorage(env), store_id=_STORE, keys=keys, verify_key=b"", hashing=profile)
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
        'chunk id of "hello"': profile.keyed(keys.id, b"hello"),
        'tag of the item "home"': bytes.fromhex(item_tag(context, "home")),
        'key of frame 3, payload "hello"': key,
        'frame 3, payload "hello"': bytes(frame),
        "footer digest of an empty pack": footer_digest,
        "footer of an empty pack": footer,
        'object "text", kind "deleted", name "deleted/x", random 32 × 00': seal_object(
            keys, profile, "deleted", "deleted/x", _STORE, b"text", bytes(32)
        ),
        "mac of the descriptor": bytes.fromhex(mac),
    }
