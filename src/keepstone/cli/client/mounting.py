# SPDX-License-Identifier: Apache-2.0
"""`keepstone recoverypoint mount` and `unmount`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import at
from keepstone.cli.client.session import item_command

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["mount", "unmount"]

Document = dict[str, Any]
_PAUSE = 0.3  # seconds between two looks
_POINT = click.argument("point")
_NO_WAIT = click.option("--no-wait", is_flag=True, help="Do not wait until it is done.")


@item_command(name="mount")
@_POINT
@click.option("--target", required=True, metavar="DIR", help="An empty directory of the machine, or a new one.")
@click.option("--target-container", "machine", metavar="NAME", help="Another machine to mount it on.")
@click.option("--allow-other", is_flag=True,
              help="For all users there, with the permissions of the entries [default: for root].")  # fmt: skip
@_NO_WAIT
def mount(
    session: Session,
    vault: str,
    item: Document,
    point: str,
    target: str,
    machine: str | None,
    allow_other: bool,
    no_wait: bool,
) -> int:
    """Show POINT in the tree of a machine with an agent, read-only, until it is unmounted.

    Of files the whole tree, of a disk its image as the one file disk.img. What is looked at is read from the service
    then. `restore.allow` of the machine's agent.toml says where. The mount is a job: `unmount`, `keepstone job stop`,
    `umount DIR` there and the end of the agent end it.
    """
    from keepstone.cli.client.finding import find_point
    from keepstone.cli.client.machine import destination
    from keepstone.cli.client.waiting import COLUMNS, conclude, fact, is_open, job_of

    wanted = {"allowOther": allow_other} | destination(session, vault, item, machine, target)
    found = find_point(session, item, point)
    job = job_of(session, vault, session.arm.ask("POST", f"{found['id']}/mount", {"properties": wanted}))
    while not no_wait and is_open(job) and fact(job, "Target") is None:  # which it has once it is mounted
        time.sleep(_PAUSE)
        job = session.arm.get(job["id"])
    if not is_open(job):
        return conclude(session, job)
    session.show(job, COLUMNS)
    if not no_wait:
        session.tell(
            f"mounted; `keepstone recoverypoint unmount -i {at(item, 'properties.friendlyName')} {point}` ends it"
        )
    return session.console.ending()


@item_command(name="unmount")
@_POINT
@click.option("--target-container", "machine", metavar="NAME", help="Only on this machine [default: on all].")
@_NO_WAIT
def unmount(session: Session, vault: str, item: Document, point: str, machine: str | None, no_wait: bool) -> int:
    """End the mounts of POINT. Whoever has a file of it open gets an error from then on."""
    from keepstone.cli.client.finding import find_container, find_point, named
    from keepstone.cli.client.waiting import COLUMNS, is_open

    wanted: Document = {}
    if machine is not None:
        wanted["targetInfo"] = {"containerId": find_container(session, vault, machine)["id"]}
    found = find_point(session, item, point)
    answer = session.arm.ask("POST", f"{found['id']}/unmount", {"properties": wanted})
    addresses = [named(vault, "backupJobs", job) for job in at(answer.body, "properties.jobIds") or ()]
    jobs = [session.arm.get(address) for address in addresses]
    while not no_wait and any(map(is_open, jobs)):
        time.sleep(_PAUSE)
        jobs = [session.arm.get(address) for address in addresses]
    session.show(jobs, COLUMNS)
    return session.console.ending()
