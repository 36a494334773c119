# SPDX-License-Identifier: Apache-2.0
"""What the service knows of snapshots on the host of an agent, which may tell it anything. What the agent does is in
tests/agents/test_hypervisors.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import sqlalchemy as sa

from keepstone.arm.service import Service
from keepstone.catalogue import containers, every, items, jobs
from keepstone.control import looks, snapshots
from keepstone.control.items import purge_due
from keepstone.control.sessions import machine as sessions
from keepstone.identity import Principal
from keepstone.jobs import Claim, Status
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.api import Client
from keepstone.portal.views.item import item as shown
from keepstone.portal.visit import Page, Visit
from keepstone.remote.wire import End, Work
from keepstone.vault import Container, Item
from keepstone.workloads.machines import Level
from keepstone.workloads.machines.root import detail_of

from .client import ADDRESS
from .conftest import Clock
from .exercised import exercises
from .machines import Register
from .protecting import Vault
from .test_virtual_machines import ByHand, by_hand, tiers

__all__ = ["by_hand"]

pytestmark = pytest.mark.service
BOTH, ONE = ["InstantRP", "HardenedRP"], ["HardenedRP"]


def kept(by_hand: ByHand, *stamps: int) -> Work:
    """Make a point, and say that these are the snapshots that there are then."""
    work = by_hand.asked(f"{by_hand.item}/backup")
    assert work.arguments["snapshots"] == 2
    by_hand.commit(by_hand.begin(work), detail_of({}, Level.CRASH, stamps[-1]))
    tell(by_hand, work, *stamps)
    return work


def tell(by_hand: ByHand, work: Work, *stamps: int) -> None:
    said = End(job=work.job, token=work.token, status="Completed", kept=[*stamps])
    sessions.end(by_hand.vault.plane, by_hand.host.id, said)


def asked(by_hand: ByHand) -> list[dict[str, Any]]:
    """What the agent is asked about snapshots; it answers that the first of each are gone."""
    work = by_hand.claimed()
    assert work.operation == "LookAtSnapshots"
    told: list[dict[str, Any]] = work.arguments["items"]
    gone = [{"item": one["item"], "gone": one["stamps"][:1]} for one in told]
    plane = by_hand.vault.plane
    sessions.end(plane, by_hand.host.id, End(job=work.job, token=work.token, status="Completed", found=gone))
    with plane.look() as connection:
        query = sa.select(jobs.c.status).where(jobs.c.id == UUID(work.job))
        assert connection.execute(query).scalar() == Status.COMPLETED
    return told


def test_an_agent_tells_of_snapshots(by_hand: ByHand, clock: Clock) -> None:
    vault, item = by_hand.vault, by_hand.item
    first = kept(by_hand, 1000)
    kept(by_hand, 1000, 2000)
    assert tiers(vault, item) == [BOTH, BOTH, ONE]
    for number, near in enumerate((True, True, False)):
        by_hand.point = vault.points(item)[number]
        work = by_hand.restore(recoveryType="RestoreDisks", keepstone={"targetPath": "/srv/x"})
        assert work.arguments["near"] is near
        by_hand.end(work)
    with vault.plane.look() as connection:  # which is not the service's to read
        (one,) = every(connection, Item, items.c.vault == vault.uuid)
        (held,) = every(connection, Container, containers.c.id == one.container)
    assert not snapshots.has(vault.plane, held, one, vault.points(item)[0]["name"])
    snapshots.look_all(vault.plane)
    assert tiers(vault, item) == [BOTH, BOTH, ONE]

    clock.ahead += timedelta(days=3)
    try:
        with vault.plane.look() as connection:  # whether or not the agent is heard of
            assert not snapshots.there(connection, one, vault.plane.env.utc())
        looks.ask_all(vault.plane)
        looks.ask_all(vault.plane)
        (about,) = asked(by_hand)
        assert (about["source"], about["none"]) == (
            {"path": "/run/vms/db.qmp", "machine": "qemu:/run/vms/db.qmp"},
            False,
        )
        assert sorted(about["stamps"]) == [1000, 2000]
        assert sessions.claim(vault.plane, by_hand.host.id) is None
        looks.ask_all(vault.plane)
        assert len(asked(by_hand)[0]["stamps"]) == 1
        looks.ask_all(vault.plane)
        assert sessions.claim(vault.plane, by_hand.host.id) is None  # there are none any more
    finally:
        clock.ahead = timedelta()

    tell(by_hand, first, 1000)  # late
    assert tiers(vault, item) == [ONE, BOTH, ONE]
    assert by_hand.end(by_hand.restore(recoveryType="OriginalLocation"))["status"] == "Completed"
    assert tiers(vault, item) == [ONE, BOTH, ONE]
    back = by_hand.restore(recoveryType="OriginalLocation")
    tell(by_hand, back)  # they went first
    assert tiers(vault, item) == [ONE] * 3


@exercises("keepstone.release_snapshots")
def test_snapshots_that_an_agent_is_to_let_go(by_hand: ByHand, clock: Clock) -> None:
    vault, item = by_hand.vault, by_hand.item
    kept(by_hand, 1000)
    assert vault.client.ask("POST", f"{item}/releaseSnapshots").status == 202
    assert [one["none"] for one in asked(by_hand)] == [True]
    assert tiers(vault, item) == [ONE, ONE]

    kept(by_hand, 2000)
    vault.client.arm("DELETE", item, status=202)
    looks.ask_all(vault.plane)
    work = by_hand.claimed()
    assert [one["none"] for one in work.arguments["items"]] == [True]
    by_hand.end(work)  # and says nothing

    clock.ahead += timedelta(days=400)
    try:
        purge_due(vault.plane)
        vault.work()
        (about,) = asked(by_hand)
    finally:
        clock.ahead = timedelta()
    assert (about["none"], about["stamps"], about["source"]["machine"]) == (True, [2000], "qemu:/run/vms/db.qmp")


def test_the_portal_lets_them_go_where_there_are_some(
    by_hand: ByHand, service: Service, principal: Callable[..., Principal]
) -> None:
    client = Client(service, principal("Owner"), ADDRESS)
    given = {"id": [by_hand.item]}

    def offered() -> list[str]:
        page = shown(Visit(plane=by_hand.vault.plane, client=client, path="/item", query=given, form={}))
        assert isinstance(page, Page)
        return [one.address.partition("?")[0] for one in page.shown["actions"]]

    assert "/portal/do/release-snapshots" not in offered()
    kept(by_hand, 1000)
    assert "/portal/do/release-snapshots" in offered()
    visit = Visit(plane=by_hand.vault.plane, client=client, path="/do/release-snapshots", query={}, form=given)
    request = ACTIONS["release-snapshots"].plan(visit).request
    assert by_hand.vault.client.ask(request.verb, request.path).status == 202
    assert [one["none"] for one in asked(by_hand)] == [True]
    assert "/portal/do/release-snapshots" not in offered()


def test_who_has_none(vault: Vault, machine: Register) -> None:
    files = machine().protect("/srv")
    refused = vault.client.refused("POST", f"{files}/releaseSnapshots", status=400)
    assert "is no machine of a hypervisor" in refused.message


def test_an_agent_that_lies_about_snapshots(by_hand: ByHand, machine: Register) -> None:
    vault, item = by_hand.vault, by_hand.item
    work = kept(by_hand, 1000)
    other = machine("other")
    about = asked_for_others(by_hand)

    lie = End(job=work.job, token=work.token, status="Completed", kept=[])
    sessions.end(vault.plane, other.id, lie)  # of a job that was never its own
    sessions.end(vault.plane, by_hand.host.id, msgspec.structs.replace(lie, token=work.token + 1))
    assert tiers(vault, item) == [BOTH, ONE]
    with vault.plane.change() as change:
        looks.told(change, replace(about, machine=other.id), [{"item": work.item, "gone": [1000]}])
    nonsense: list[dict[str, Any]] = [
        {},
        {"item": 5, "gone": [1000]},
        {"item": "x" * 5000, "gone": [1000]},
        {"item": work.item, "gone": [True, -1, 1 << 70, "1000", None, {}]},
        {"item": work.item, "gone": [1000]},  # once
    ]
    with vault.plane.change() as change:
        looks.told(change, about, nonsense)
    assert tiers(vault, item) == [BOTH, ONE]
    tell(by_hand, work, *range(2_000_000), 1000)  # more than there can be
    assert tiers(vault, item) == [ONE, ONE]
    tell(by_hand, work, (1 << 63) - 1, 1000)
    assert tiers(vault, item) == [BOTH, ONE]


def asked_for_others(by_hand: ByHand) -> Claim:
    """A job that asks the agent of this host about snapshots."""
    looks.ask_all(by_hand.vault.plane)
    work = by_hand.claimed()
    return sessions.held(by_hand.vault.plane, by_hand.host.id, work.job, work.token)
