# SPDX-License-Identifier: Apache-2.0
"""People who log in with a name and a password; and what becomes of those who guess."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from keepstone.catalogue import RECORDS, attempts, every, first, principals
from keepstone.control import attempts as control
from keepstone.control import people, users
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.errors import GuardRefused, Unauthenticated
from keepstone.identity import BUILT_IN, Principal
from keepstone.vault import Identity, RoleAssignment

from .client import Client
from .conftest import Clock
from .exercised import exercises

pytestmark = pytest.mark.service

USERS = "/providers/Keepstone.Identity/users"
PASSWORD = "correct horse battery"
People = Callable[..., Principal]
Clients = Callable[[Principal | None], Client]


@pytest.fixture(autouse=True)
def today(clock: Clock, plane: Plane) -> Iterator[None]:
    yield
    clock.ahead, clock.stands = timedelta(), None
    with plane.database.change() as connection:
        connection.execute(attempts.delete())


def make(client: Client, name: str, **properties: Any) -> dict[str, Any]:
    made: dict[str, Any] = client.arm("PUT", f"{USERS}/{name}", {"properties": properties}, status=201)["properties"]
    return made


def token(client: Client, name: str, password: str) -> Any:
    """What somebody is answered who logs in as a user."""
    form = {"grant_type": "password", "username": name, "password": password}
    return client.raw("POST", "/organizations/oauth2/v2.0/token", data=form)


# --- users


@exercises("keepstone.users_put", "keepstone.users_get", "keepstone.users_list", "keepstone.users_delete")
def test_a_user_from_the_beginning_to_the_end(client: Client, plane: Plane) -> None:
    made = client.arm("PUT", f"{USERS}/Anna", {"properties": {"displayName": "Anna A."}}, status=201)

    assert made["id"] == f"{USERS}/anna"
    password = made["properties"].pop("password")
    assert len(password) == 32
    assert made["properties"]["roles"] == []
    assert client.arm("GET", f"{USERS}/ANNA") == made
    assert made in client.arm("GET", USERS)["value"]
    assert token(client, "anna", password).status_code == 200
    with plane.look() as connection:
        who = first(connection, Identity, principals.c.login == "anna")
    assert who is not None
    assert who.secret is not None
    assert who.secret.startswith("$argon2id$")

    renamed = client.arm("PUT", f"{USERS}/anna", {"properties": {"displayName": "Anna B."}})
    assert renamed["properties"] == made["properties"] | {"displayName": "Anna B."}

    client.arm("DELETE", f"{USERS}/anna")
    assert client.ask("DELETE", f"{USERS}/anna").status == 204
    assert client.refused("GET", f"{USERS}/anna", status=404).code == "ResourceNotFound"
    assert token(client, "anna", password).status_code == 400


def test_a_second_person_can_administer(client: Client, client_of: Clients, plane: Plane) -> None:
    made = make(client, "second", password=PASSWORD, roleName="Owner")

    assert "password" not in made
    assert made["roles"] == [{"roleName": "Owner", "scope": "/"}]
    second = client_of(people.log_in(plane, "second", PASSWORD))
    make(second, "third", roleName="Reader", roleScope=client.group("for-the-third"))
    second.arm("DELETE", f"{USERS}/third")
    second.arm("DELETE", f"{USERS}/second")
    second.refused("GET", USERS, status=403)  # the token is still good, and there are no roles any more
    with plane.look() as connection:
        left = every(connection, RoleAssignment, RECORDS[RoleAssignment].c.principal == made["principalId"])
    assert left == []


@pytest.mark.parametrize(
    ("name", "properties", "target"),
    [
        ("local", {}, "name"),
        ("-", {}, "name"),
        ("a b", {}, "name"),
        ("a" * 65, {}, "name"),
        ("somebody", {"password": "short"}, "properties.password"),
        ("somebody", {"password": "p" * 257}, "properties.password"),
        ("somebody", {"password": "two lines\nof password"}, "properties.password"),
        ("somebody", {"password": 123456789012}, "properties.password"),
        ("somebody", {"displayName": "x" * 256}, "properties.displayName"),
        ("somebody", {"roleName": "Owner", "roleScope": "/subscriptions/other"}, "properties.roleScope"),
        ("admin", {"password": PASSWORD}, "properties.password"),
        ("admin", {"roleName": "Reader"}, "properties.roleName"),
    ],
)
def test_what_does_not_do(name: str, properties: dict[str, Any], target: str, client: Client) -> None:
    refused = client.refused("PUT", f"{USERS}/{name}", {"properties": properties}, status=400)
    assert refused.body["error"]["target"] == target
    if name != "admin":
        client.refused("GET", f"{USERS}/{name}", status=404)


def test_a_role_that_is_none_makes_no_user(client: Client) -> None:
    client.refused("PUT", f"{USERS}/nearly", {"properties": {"roleName": "Baker"}}, status=404)
    client.refused("GET", f"{USERS}/nearly", status=404)


def test_a_program_is_no_user(client: Client, principal: People) -> None:
    program = principal("Reader")
    client.refused("GET", f"{USERS}/{program.client}", status=404)
    assert client.ask("DELETE", f"{USERS}/{program.client}").status == 204
    assert client.refused("PUT", f"{USERS}/{program.client}", {"properties": {}}, status=409).code == "AlreadyExists"


@pytest.mark.parametrize("role", BUILT_IN.values(), ids=lambda role: role.name)
def test_who_may_change_users(role: Any, client_of: Clients, principal: People) -> None:
    """Who may is who may give roles at will: everybody else would become more than they are."""
    asker = client_of(principal(role.name))
    at_will = role.allows("Microsoft.Authorization/roleAssignments/write") and role.allows(
        "Microsoft.Authorization/elevateAccess/Action"
    )
    assert at_will == (role.name in ("Owner", "User Access Administrator"))
    for verb, path in (("PUT", "admin"), ("POST", "admin/password"), ("DELETE", "nobody-there")):
        if at_will and path == "admin/password":
            continue
        answered = asker.ask(verb, f"{USERS}/{path}", {"properties": {}} if verb == "PUT" else None)
        assert (answered.status == 403) is not at_will


def test_a_role_at_the_subscription_is_not_enough(client: Client, client_of: Clients, principal: People) -> None:
    """Users may have roles on everything, which the subscription is a part of."""
    below = client_of(principal("Owner", scope=client.subscription))
    below.refused("GET", USERS, status=403)
    below.refused("PUT", f"{USERS}/mine", {"properties": {}}, status=403)
    below.refused("POST", f"{USERS}/admin/password", status=403)


# --- passwords


@exercises("keepstone.users_set_password")
def test_a_password_is_set_and_reset(client: Client) -> None:
    make(client, "berta", password=PASSWORD)
    shown = client.arm("POST", f"{USERS}/berta/password", {"password": "another good password"})
    assert "password" not in shown["properties"]
    assert token(client, "berta", PASSWORD).status_code == 400
    assert token(client, "berta", "another good password").status_code == 200

    made = client.arm("POST", f"{USERS}/berta/password")["properties"]["password"]
    assert token(client, "berta", "another good password").status_code == 400
    assert token(client, "berta", made).status_code == 200
    client.refused("POST", f"{USERS}/berta/password", {"password": "short"}, status=400)
    assert token(client, "berta", made).status_code == 200
    client.refused("POST", f"{USERS}/nobody-there/password", status=404)


@exercises("keepstone.users_set_own_password")
def test_users_may_change_their_own_password(client: Client, client_of: Clients, plane: Plane) -> None:
    for name in ("carla", "doris"):
        make(client, name, password=PASSWORD)
    carla = client_of(people.log_in(plane, "carla", PASSWORD))
    asked = {"password": "another good password", "currentPassword": PASSWORD}

    own = "/providers/Keepstone.Identity/ownPassword"
    for name in ("carla", "doris"):
        carla.refused("POST", f"{USERS}/{name}/password", asked, status=403)
    for wrong in ({"currentPassword": "wrong"}, {"currentPassword": None}):
        refused = carla.refused("POST", own, asked | wrong, status=400)
        assert refused.body["error"]["target"] == "currentPassword"
    carla.refused("POST", own, asked | {"password": "short"}, status=400)
    carla.arm("POST", own, asked)

    assert token(client, "carla", PASSWORD).status_code == 400
    assert token(client, "carla", "another good password").status_code == 200
    assert token(client, "doris", PASSWORD).status_code == 200


def test_the_last_owner_stays(tmp_path: Any) -> None:
    installation = Installation(Env(), tmp_path / "alone")
    installation.begin("onprem1")
    plane = installation.plane()
    try:
        with pytest.raises(GuardRefused, match="last Owner"), plane.change() as change:
            users.delete(change, users.find(change.connection, "admin"))
        users.create(plane, "second", None, PASSWORD, role="Owner")
        with plane.change() as change:
            users.delete(change, users.find(change.connection, "admin"))
        with pytest.raises(GuardRefused, match="last Owner"), plane.change() as change:
            users.delete(change, users.find(change.connection, "second"))
    finally:
        plane.database.close()


# --- guessing


def guess(plane: Plane, name: str, count: int = 1) -> list[str]:
    """What whoever guesses is told."""
    told = []
    for _ in range(count):
        with pytest.raises(Unauthenticated) as error:
            people.log_in(plane, name, "wrong")
        told.append(str(error.value))
    return told


@pytest.mark.parametrize("name", ["emma", "nobody-there"])
def test_whoever_guesses_has_to_wait(name: str, client: Client, plane: Plane, clock: Clock) -> None:
    """Ever longer, and whether there is such a user or not."""
    if name == "emma" and client.ask("GET", f"{USERS}/emma").status == 404:
        make(client, "emma", password=PASSWORD)
    clock.stands = clock.wall_time()
    for _ in range(10):
        control.begin(plane, name)
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        (told,) = guess(plane, name.upper())
        assert "AADSTS50053" in told
        assert f"in {seconds} seconds" in told
        clock.ahead += timedelta(seconds=seconds)
        control.begin(plane, name)
    clock.ahead += timedelta(minutes=59)
    assert "7000215" in guess(plane, name)[0]
    clock.ahead += timedelta(hours=1)
    for _ in range(10):
        control.begin(plane, name)


def test_the_right_password_has_to_wait_as_well_and_ends_it(client: Client, plane: Plane, clock: Clock) -> None:
    make(client, "fiona", password=PASSWORD)
    guess(plane, "fiona")
    for _ in range(9):
        control.begin(plane, "fiona")
    answered = token(client, "fiona", PASSWORD)
    assert answered.status_code == 400
    assert answered.json()["error"] == "invalid_grant"
    assert "AADSTS50053" in answered.json()["error_description"]
    assert token(client, "admin", "wrong").json()["error_description"].startswith("AADSTS7000215")  # each for itself

    clock.ahead += timedelta(seconds=2)
    assert token(client, "fiona", PASSWORD).status_code == 200
    assert "7000215" in guess(plane, "fiona")[0]


def test_a_new_password_counts_at_once(client: Client, plane: Plane) -> None:
    make(client, "greta", password=PASSWORD)
    for _ in range(10):
        control.begin(plane, "greta")
    made = client.arm("POST", f"{USERS}/greta/password")["properties"]["password"]
    assert token(client, "greta", made).status_code == 200


def test_a_program_is_kept_out_by_nobody(plane: Plane) -> None:
    with plane.change() as change:
        people.add(change, "app", "program", "program", PASSWORD)
    assert all("7000215" in told for told in guess(plane, "program", 11))
    assert people.log_in(plane, "program", PASSWORD).client == "program"


def test_a_clock_that_was_set_back_keeps_nobody_out(plane: Plane, clock: Clock) -> None:
    clock.ahead = timedelta(days=30)
    for _ in range(10):
        control.begin(plane, "ida")
    clock.ahead = timedelta()
    assert "7000215" in guess(plane, "ida")[0]


def test_old_attempts_are_forgotten(plane: Plane, clock: Clock) -> None:
    guess(plane, "jana")
    with plane.database.change() as connection:
        control.forget(connection, clock.utc())
        assert len(connection.execute(attempts.select()).all()) == 1
        control.forget(connection, clock.utc() + timedelta(hours=1))
        assert connection.execute(attempts.select()).all() == []
