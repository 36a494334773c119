# SPDX-License-Identifier: Apache-2.0
"""Looking at what the hypervisors of a vault have."""

from __future__ import annotations

from keepstone.catalogue import first, vaults
from keepstone.control import hypervisors, virtual_machines
from keepstone.control.plane import Plane
from keepstone.control.work.loading import ending
from keepstone.control.work.reporter import Reporter
from keepstone.errors import KeepstoneError, NotFound
from keepstone.jobs import Context, Status
from keepstone.vault import Container, Resource, Vault
from keepstone.workloads.hypervisors.discovery import Found, inspect

__all__ = ["look"]


def look(plane: Plane, context: Context) -> None:
    """The handler. A hypervisor that cannot be looked at is a warning, and so is a machine that does not answer."""
    reporter = Reporter(context)
    with plane.look() as connection:
        vault = first(connection, Vault, vaults.c.id == context.claim.vault)
        if vault is None or vault.deleted is not None:
            raise NotFound("the vault was removed meanwhile")
        known = [one for one in hypervisors.of_vault(connection, vault) if hypervisors.is_here(one)]
        strays = hypervisors.strays(connection, vault)
    places: list[Container | Resource] = [*known, *strays]
    seen = [(one, _found(plane, one, reporter)) for one in places]
    with plane.change() as change:
        for one, found in seen:
            if isinstance(one, Resource):
                for machine in found:
                    virtual_machines.noted(change, one, machine)
            else:
                for why in hypervisors.note(change, vault, one, found):
                    reporter.warn(b"", why)
    count = sum(len(found) for _, found in seen)
    context.note(f"{count} machines were found at {len(places)} places")
    context.result({"files": count, "warnings": reporter.warnings})
    with ending(plane, context, Status.WARNED if reporter.count else Status.COMPLETED):
        pass


def _found(plane: Plane, one: Container | Resource, reporter: Reporter) -> list[Found]:
    def warn(message: str) -> None:
        reporter.warn(b"", message)

    try:
        if isinstance(one, Container):
            return list(hypervisors.machines(plane, one, warn))
        address = virtual_machines.behind(one)
        if address is None:
            return []
        for path in address.paths:
            plane.reach.check(path)
        return [inspect(plane.env, address, warn)]
    except KeepstoneError as error:
        name = one.friendly if isinstance(one, Container) else one.name
        warn(f"'{name}' was not looked at: {error}")
        return []
