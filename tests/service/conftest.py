# SPDX-License-Identifier: Apache-2.0
"""A service for each module of tests, in this process and without a socket.

What a test makes in it, the module's other tests find: each takes a group of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count

import pytest

from keepstone.arm.service import Service
from keepstone.control import people
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.identity import Authority, Issuer, Principal
from tests.contract.arm.conftest import specs

from .client import Client
from .machines import Register, registering
from .protecting import Vault

__all__ = ["Clock", "specs"]

_numbers = count(1)


class Clock(Env):
    """Goes as the real one, `ahead` of it; from where it `stands`, as `wall_time` has it, only where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = timedelta()
        self.stands: int | None = None

    def wall_time(self) -> int:
        now = super().wall_time() if self.stands is None else self.stands
        return now + self.ahead // timedelta(microseconds=1) * 1000


@pytest.fixture(scope="module")
def clock() -> Clock:
    """The clock of the installation."""
    return Clock()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Installation:
    """An installation that has begun, in the region `onprem1`."""
    made = Installation(clock, tmp_path_factory.mktemp("around") / "keepstone")
    made.begin("onprem1")
    return made


@pytest.fixture(scope="module")
def plane(installation: Installation) -> Iterator[Plane]:
    """Its control plane."""
    opened = installation.plane()
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def issuer(installation: Installation, plane: Plane) -> Issuer:
    """What gives its tokens."""
    return installation.issuer(plane.place.tenant)


@pytest.fixture(scope="module")
def service(plane: Plane, issuer: Issuer) -> Service:
    """The application."""
    return Service(plane, issuer)


@pytest.fixture(scope="module")
def principal(plane: Plane) -> Callable[..., Principal]:
    """Makes somebody with roles: `principal("Backup Reader", scope="/subscriptions/…")`. It has no secret: nobody waits
    for a slow hash."""
    numbers = count(1)

    def make(*roles: str, scope: str = "/") -> Principal:
        login = f"{'-'.join(roles) or 'nobody'}-{next(numbers)}".replace(" ", "-").casefold()
        with plane.change() as change:
            who = people.add(change, "app", login, login)
            for role in roles:
                people.assign(change, scope, who.id, role)
        return Principal(who.id, who.login, "app", who.name)

    return make


@pytest.fixture(scope="module")
def client_of(plane: Plane, issuer: Issuer, service: Service) -> Callable[[Principal | None], Client]:
    """Asks as somebody; as nobody for None."""
    return lambda who: Client(service, plane, issuer, who)


@pytest.fixture(scope="module")
def client(client_of: Callable[[Principal | None], Client], principal: Callable[..., Principal]) -> Client:
    """Asks as an Owner of everything."""
    return client_of(principal("Owner"))


@pytest.fixture
def vault(client: Client, plane: Plane, request: pytest.FixtureRequest) -> Vault:
    """A vault of the test's own, in a group that is called like the test."""
    return Vault(client, plane, f"{re.sub(r'[^a-z]+', '-', request.node.name)[:60]}-{next(_numbers)}")


@pytest.fixture(scope="module")
def authority(installation: Installation) -> Authority:
    """What gives its certificates."""
    return installation.authority()


@pytest.fixture
def machine(vault: Vault, authority: Authority) -> Register:
    """Registers machines with the vault."""
    return registering(vault, authority)
