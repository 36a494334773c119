# SPDX-License-Identifier: Apache-2.0
"""The secrets of a store as values. Their `repr` shows none of them.

root key      outside the store: a platform key file, a passphrase (`providers`)
  wraps  vault key      one per store; a recovery kit holds it
    wraps  domain keys  what seals the data; one set per deduplication domain (`domain`). A kit holds them, wrapped
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["KEY_SIZE", "DomainKeys", "VaultKey"]

KEY_SIZE = 32
"""Every secret and every salt is this many bytes."""


@dataclass(frozen=True, slots=True)
class VaultKey:
    """The key that wraps the domain keys: 32 bytes. It stays the same when root keys are rotated."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_SIZE:
            raise ValueError(f"a vault key has {KEY_SIZE} bytes, not {len(self.secret)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainKeys:
    """The keys of one deduplication domain, 32 bytes each; `epoch` (u32, from 1) names this set of them.

    `id` makes chunk ids, `encryption` the keys of frames, `metadata` those of small objects and footers, `audit` those
    of the audit log; `signing_seed` is the Ed25519 private key that signs heads.
    """

    epoch: int
    id: bytes = field(repr=False)
    encryption: bytes = field(repr=False)
    metadata: bytes = field(repr=False)
    audit: bytes = field(repr=False)
    signing_seed: bytes = field(repr=False)

    SIZE = 5 * KEY_SIZE

    @classmethod
    def from_bytes(cls, epoch: int, secrets: bytes) -> DomainKeys:
        """The keys out of `SIZE` bytes, in the order of the fields."""
        if len(secrets) != cls.SIZE:
            raise ValueError(f"domain keys have {cls.SIZE} bytes, not {len(secrets)}")
        identity, encryption, metadata, audit, seed = (
            secrets[at : at + KEY_SIZE] for at in range(0, cls.SIZE, KEY_SIZE)
        )
        return cls(epoch=epoch, id=identity, encryption=encryption, metadata=metadata, audit=audit, signing_seed=seed)

    def to_bytes(self) -> bytes:
        """The inverse of `from_bytes`."""
        return self.id + self.encryption + self.metadata + self.audit + self.signing_seed
