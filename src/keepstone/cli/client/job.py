# SPDX-License-Identifier: Apache-2.0
"""`keepstone job …`."""

from __future__ import annotations

import click

from keepstone.cli.client.dates import day
from keepstone.cli.client.session import Session, vault_command

__all__ = ["job"]

_NAME = click.option("--name", "-n", required=True, metavar="ID", help="The job.")


@click.group()
def job() -> None:
    """Jobs of a vault: backups, restores, and whatever else was done."""


@vault_command(name="list")
@click.option("--status", metavar="STATUS", help="Only those that are InProgress, Completed, Failed …")
@click.option("--operation", metavar="NAME", help="Only these: Backup, Restore, ConfigureBackup, DisableBackup …")
@click.option("--start-date", metavar="DATE", help="Only those since then (UTC).")
@click.option("--end-date", metavar="DATE", help="Only those until then (UTC).")
@click.option("--backup-management-type", "management", metavar="TYPE", help="Only those of MAB, AzureIaasVM.")
@click.option("--top", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="The newest N.")
def list_jobs(
    session: Session,
    vault: str,
    status: str | None,
    operation: str | None,
    start_date: str | None,
    end_date: str | None,
    management: str | None,
    top: int,
) -> None:
    """List the jobs of a vault, newest first."""
    from itertools import islice

    from keepstone.cli.client.waiting import COLUMNS

    where = {
        "status": status,
        "operation": operation,
        "startTime": day("--start-date", start_date),
        "endTime": day("--end-date", end_date, end=True),
        "backupManagementType": management,
    }
    found = list(islice(session.arm.every(f"{vault}/backupJobs", where), top))
    session.show(found, COLUMNS[:6], "no jobs")


@vault_command(name="show")
@_NAME
def show(session: Session, vault: str, name: str) -> None:
    """Show what is known of a job."""
    from keepstone.cli.client.finding import named
    from keepstone.cli.client.waiting import COLUMNS

    session.show(session.arm.get(named(vault, "backupJobs", name)), COLUMNS)


@vault_command(name="stop")
@_NAME
def stop(session: Session, vault: str, name: str) -> None:
    """Ask for the end of a job; it comes between two of its steps."""
    from keepstone.cli.client.finding import named
    from keepstone.cli.client.waiting import COLUMNS

    address = named(vault, "backupJobs", name)
    session.arm.finish(session.arm.ask("POST", f"{address}/cancel"))
    session.show(session.arm.get(address), COLUMNS)


@vault_command(name="wait")
@_NAME
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait for no longer.")
def wait(session: Session, vault: str, name: str, timeout: float | None) -> int:
    """Wait for the end of a job, and show how far it is.

    The job goes on whatever becomes of this command. Exit code 1 where it failed, 4 where it has warnings.
    """
    from keepstone.cli.client.finding import named
    from keepstone.cli.client.waiting import conclude, follow

    return conclude(session, follow(session, session.arm.get(named(vault, "backupJobs", name)), timeout))


@vault_command(name="log")
@_NAME
def log(session: Session, vault: str, name: str) -> None:
    """Show what became of a job, step by step."""
    from keepstone.cli.client.finding import named
    from keepstone.cli.client.output import Column, at, moment

    found = session.arm.get(named(vault, "backupJobs", name))
    columns = [Column("time", "time", moment), Column("what", "text")]
    session.show(at(found, "properties.keepstone.log") or [], columns, "no lines")


@vault_command(name="retry")
@_NAME
@click.option("--no-wait", is_flag=True, help="Do not wait for the end of the new job.")
def retry(session: Session, vault: str, name: str, no_wait: bool) -> int:
    """Do once more what a job was asked for that failed, was cancelled or has warnings.

    It is a new job with the same arguments: a backup, a restore, a drill, a look for machines or a count of usage.
    """
    from keepstone.cli.client.finding import named
    from keepstone.cli.client.waiting import ended

    answer = session.arm.ask("POST", f"{named(vault, 'backupJobs', name)}/retry")
    return ended(session, vault, answer, wait=not no_wait)


for _command in (list_jobs, show, log, retry, stop, wait):
    job.add_command(_command)
