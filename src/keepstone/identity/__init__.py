# SPDX-License-Identifier: Apache-2.0
"""Who somebody is, and what he may do."""

from __future__ import annotations

from keepstone.identity.builtin import BUILT_IN
from keepstone.identity.certificates import Authority, Issued, locked_key, new_credentials
from keepstone.identity.passwords import hash_secret, is_secret, new_secret
from keepstone.identity.proofs import is_signed, key_id, read_certificate, read_key, read_request, thumbprint
from keepstone.identity.roles import Assignment, Role, is_allowed, is_beneath
from keepstone.identity.tokens import Issuer, Principal

__all__ = [
    "BUILT_IN",
    "Assignment",
    "Authority",
    "Issued",
    "Issuer",
    "Principal",
    "Role",
    "hash_secret",
    "is_allowed",
    "is_beneath",
    "is_secret",
    "is_signed",
    "key_id",
    "locked_key",
    "new_credentials",
    "new_secret",
    "read_certificate",
    "read_key",
    "read_request",
    "thumbprint",
]
