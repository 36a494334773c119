# SPDX-License-Identifier: Apache-2.0
"""The token endpoints, as Microsoft Entra ID and as AD FS have them.

Everything is under one root, `/<tenant>` or `/adfs`. Clients find the rest in the OpenID document (OpenID Connect
Discovery 1.0, section 3; RFC 8414) and then ask for a token by their secret (RFC 6749, section 4.4), or by name and
password (section 4.3). Errors are those of RFC 6749, section 5.2, with Entra's numbers, which clients tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepstone.arm.table import Answer, Call, Table
from keepstone.control import people
from keepstone.errors import Unauthenticated
from keepstone.identity import Principal
from keepstone.identity.tokens import LIFETIME
from keepstone.vault import folded

__all__ = ["table"]

table = Table()
_COMMON = ("common", "organizations", "adfs")
_GRANTS = ("client_credentials", "password")


@table("GET", "/common/discovery/instance", "login.discovery", az=("login",))
def instances(call: Call) -> Answer:
    """MSAL asks whether an authority is one. This one is."""
    root = f"{call.base}/{call.plane.place.tenant}"
    host = call.base.partition("://")[2]
    return Answer(
        body={
            "tenant_discovery_endpoint": f"{root}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        }
    )


@table("GET", "/{tenant}/.well-known/openid-configuration", "login.configuration", az=("login",))
@table("GET", "/{tenant}/v2.0/.well-known/openid-configuration", "login.configuration_v2", az=("login",))
def configuration(call: Call) -> Answer:
    """The OpenID document of a root."""
    root = f"{call.base}/{_root(call)}"
    return Answer(
        body={
            "issuer": f"{root}/v2.0",
            "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
            "token_endpoint": f"{root}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{root}/discovery/v2.0/keys",
            "grant_types_supported": list(_GRANTS),
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "tenant_region_scope": None,
            "cloud_instance_name": call.base.partition("://")[2],
        }
    )


@table("GET", "/{tenant}/discovery/keys", "login.keys")
@table("GET", "/{tenant}/discovery/v2.0/keys", "login.keys_v2")
def keys(call: Call) -> Answer:
    """What tokens can be checked with."""
    _root(call)
    return Answer(body=call.issuer.public_keys())


@table("POST", "/{tenant}/oauth2/token", "login.token", az=("login",))
@table("POST", "/{tenant}/oauth2/v2.0/token", "login.token_v2", az=("login",))
def token(call: Call) -> Answer:
    """A token for who proves himself."""
    root = _root(call)
    form: Mapping[str, Any] = call.body if isinstance(call.body, dict) else {}

    def value(key: str) -> str:
        return str(form.get(key) or "")

    if value("grant_type") not in _GRANTS:
        return _refused(400, "unsupported_grant_type", f"AADSTS70003: this service takes {' and '.join(_GRANTS)}")
    if value("grant_type") == "password":
        login, secret = value("username"), value("password")
    else:
        login, secret = value("client_id"), value("client_secret")
    if not login or not secret:
        return _refused(401, "invalid_client", "AADSTS7000216: a client_secret is required")
    try:
        who = people.log_in(call.plane, login, secret)
    except Unauthenticated as error:
        code = "invalid_grant" if value("grant_type") == "password" else "invalid_client"
        return _refused(400 if code == "invalid_grant" else 401, code, str(error))
    return Answer(body=_granted(call, who, root, _audience(call, value("scope"), value("resource"))))


@table("GET", "/msi/token", "login.managed_identity", az=("login --identity",))
@table("GET", "/metadata/identity/oauth2/token", "login.instance_metadata")
def managed_identity(call: Call) -> Answer:
    """A token for the managed identity that the secret in the header belongs to.

    Azure App Service's protocol (2019-08-01): the machine's environment holds the header's value. The `Metadata` of the
    instance metadata service proves nothing by itself, so here it has to come with the same header.
    """
    given = call.headers.get("x-identity-header", "")
    login, _, secret = given.partition(":")
    if not secret:
        return _refused(401, "invalid_request", "IDENTITY_HEADER has to be <login>:<secret> of a managed identity")
    try:
        who = people.log_in(call.plane, login, secret)
    except Unauthenticated as error:
        return _refused(401, "invalid_client", str(error))
    audience = _audience(call, "", call.query.get("resource", ""))
    granted = _granted(call, who, call.plane.place.tenant, audience)
    now = call.plane.env.wall_time() // 10**9
    return Answer(
        body={
            "access_token": granted["access_token"],
            "expires_in": str(LIFETIME),
            "expires_on": str(now + LIFETIME),
            "not_before": str(now),
            "resource": audience,
            "token_type": "Bearer",
            "client_id": who.client,
        }
    )


def _root(call: Call) -> str:
    """The root that the path names, as tokens name it. `Unauthenticated` for another tenant's."""
    named, tenant = folded(call.names["tenant"]), call.plane.place.tenant
    if named in _COMMON:
        return "adfs" if named == "adfs" else tenant
    if named != folded(tenant):
        raise Unauthenticated(f"AADSTS90002: there is no tenant '{call.names['tenant']}' here; use '{tenant}'")
    return tenant


def _audience(call: Call, scope: str, resource: str) -> str:
    """Who the token is for: this service, whatever way it is written. Another one gets no token from here that this one
    would take for its own."""
    wanted = resource or scope.partition(" ")[0].removesuffix(".default")
    return f"{call.base}/" if not wanted or wanted.rstrip("/") == call.base else wanted


def _granted(call: Call, who: Principal, root: str, audience: str) -> dict[str, Any]:
    return {
        "token_type": "Bearer",
        "expires_in": LIFETIME,
        "ext_expires_in": LIFETIME,
        "access_token": call.issuer.issue(who, audience, f"{call.base}/{root}/v2.0"),
    }


def _refused(status: int, error: str, description: str) -> Answer:
    return Answer(status=status, body={"error": error, "error_description": description})
