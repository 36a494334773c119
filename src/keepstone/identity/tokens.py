# SPDX-License-Identifier: Apache-2.0
"""Access tokens as Microsoft Entra ID gives them: RS256 JSON Web Tokens, for one audience, for an hour.

Claims: Microsoft Learn, "Access token claims reference". A client asks for the scope `https://HOST//.default`, so the
audience ends with a slash or without one, and both are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from keepstone.env import Env
from keepstone.errors import Unauthenticated

__all__ = ["LIFETIME", "Issuer", "Principal"]

LIFETIME = 3600
"""Seconds."""
_LEEWAY = 60
_ALGORITHM = "RS256"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for. `id`: the object id that role assignments name; `client`: the application; `kind`: `app`
    or `user`."""

    id: str
    client: str
    kind: str = "app"
    name: str = ""


class Issuer:
    """Gives tokens and believes its own. `key`: an RSA private key, PEM. `tenant`: a GUID."""

    def __init__(self, env: Env, key: bytes, tenant: str) -> None:
        self._env = env
        self._key = RSAKey.import_key(key, {"use": "sig", "alg": _ALGORITHM})
        self._key.ensure_kid()
        self._keys = KeySet([self._key])
        self.tenant = tenant

    def public_keys(self) -> dict[str, Any]:
        """The JSON Web Key Set (RFC 7517) that anybody may check a token with."""
        return dict(self._keys.as_dict(private=False))

    def issue(self, principal: Principal, audience: str, issuer: str) -> str:
        """A token for this principal at this audience; `issuer` is the address that the client came to."""
        now = self._seconds()
        claims: dict[str, Any] = {
            "aud": audience,
            "iss": issuer,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "tid": self.tenant,
            "oid": principal.id,
            "sub": principal.id,
            "appid": principal.client,
            "idtyp": principal.kind,
            "ver": "1.0",
        }
        if principal.name:
            claims["name"] = claims["upn"] = principal.name
        return jwt.encode({"alg": _ALGORITHM, "kid": self._key.kid, "typ": "JWT"}, claims, self._key)

    def verify(self, token: str, audience: str) -> Principal:
        """Who this token speaks for. `Unauthenticated` for one that is forged, over, or for somebody else."""
        try:
            claims = jwt.decode(token, self._keys, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError, TypeError, KeyError, UnicodeError) as error:
            raise Unauthenticated("the access token is not one of this service; log in again") from error
        now = self._seconds()
        begin, end = claims.get("nbf"), claims.get("exp")
        if not isinstance(begin, int) or not isinstance(end, int):
            raise Unauthenticated("the access token says no times; log in again")
        if not begin - _LEEWAY <= now < end + _LEEWAY:
            raise Unauthenticated("the access token has expired; log in again")
        if str(claims.get("aud", "")).rstrip("/") != audience.rstrip("/"):
            raise Unauthenticated(
                f"the access token is for {claims.get('aud')!r} and not for {audience!r}; log in again"
            )
        if claims.get("tid") != self.tenant:
            raise Unauthenticated("the access token is of another tenant; log in again")
        return Principal(
            str(claims.get("oid", "")),
            str(claims.get("appid", "")),
            str(claims.get("idtyp", "")),
            str(claims.get("name", "")),
        )

    def _seconds(self) -> int:
        return self._env.wall_time() // 10**9
