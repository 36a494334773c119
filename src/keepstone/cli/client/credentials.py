# SPDX-License-Identifier: Apache-2.0
"""Whom a command speaks for.

In this order: the service principal that the environment names (KEEPSTONE_CLIENT_ID and KEEPSTONE_CLIENT_SECRET);
whoever logged in with `keepstone login`; at a service of this machine, its administrator (`local.py`). A login that is
over is not followed by the administrator: whoever chose to be less than that stays it until `keepstone logout`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keepstone.cli.client.http import Wire
from keepstone.cli.client.place import Place
from keepstone.cli.client.tokens import Token, Tokens
from keepstone.errors import Unauthenticated, UsageError

__all__ = ["Credentials", "granted"]

_TOKENS = "/organizations/oauth2/v2.0/token"


def granted(wire: Wire, who: str, secret: str, *, user: bool) -> Token:
    """A token for who proves himself (RFC 6749, sections 4.3 and 4.4). `Unauthenticated`."""
    form = {"scope": f"{wire.url}//.default"}
    if user:
        form |= {"grant_type": "password", "username": who, "password": secret}
    else:
        form |= {"grant_type": "client_credentials", "client_id": who, "client_secret": secret}
    answer = wire.send("POST", _TOKENS, form=form)
    said: Mapping[str, object] = answer.body if isinstance(answer.body, dict) else {}
    value, seconds = said.get("access_token"), said.get("expires_in")
    if answer.status != 200 or not isinstance(value, str) or not isinstance(seconds, int):
        why = said.get("error_description") or f"the service answers {answer.status}"
        raise Unauthenticated(f"{who} cannot log in at {wire.url}: {why}")
    return Token(url=wire.url, who=who, value=value, end=int(time.time()) + seconds)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Gives the tokens for `place`; `wire` leads there."""

    place: Place
    wire: Wire
    tokens: Tokens

    @property
    def login(self) -> str:
        """What the login at this place is kept as."""
        return f"login {self.place.url}"

    def bearer(self, again: bool) -> str:
        """A token. `again`: the service did not take the last one. `Unauthenticated` where nobody has logged in."""
        client = os.environ.get("KEEPSTONE_CLIENT_ID")
        if client:
            return self._kept(f"client {client} {self.place.url}", lambda: self._client(client), again)
        there = self.tokens.get(self.login)
        if there is not None:
            if again or not there.is_good:
                instead = "" if self.place.root is None else "; `keepstone logout` makes you this machine's again"
                raise Unauthenticated(f"the login of {there.who} is over; log in with `keepstone login`{instead}")
            return there.value
        root = self.place.root
        if root is None:
            raise Unauthenticated(f"nobody has logged in at {self.place.url}; log in with `keepstone login`")

        def local() -> Token:
            from keepstone.cli.client.local import local_token

            return local_token(root, self.place.url)

        return self._kept(f"local {root} {self.place.url}", local, again)

    def _kept(self, purpose: str, made: Callable[[], Token], again: bool) -> str:
        """The token that is kept for this, or another one."""
        token = None if again else self.tokens.get(purpose)
        if token is None or not token.is_good:
            token = made()
            self.tokens.keep(purpose, token)
        return token.value

    def _client(self, client: str) -> Token:
        secret = os.environ.get("KEEPSTONE_CLIENT_SECRET")
        if not secret:
            raise UsageError(
                "KEEPSTONE_CLIENT_ID names a service principal; give its secret in KEEPSTONE_CLIENT_SECRET, or unset it"
            )
        return granted(self.wire, client, secret, user=False)
