# SPDX-License-Identifier: Apache-2.0
"""`keepstone protection …`: what becomes of an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.machine import files_name, machine_name, source_path
from keepstone.cli.client.output import at
from keepstone.cli.client.session import container_option, item_command, vault_command, yes_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["protection"]

Document = dict[str, Any]
_FILES, _MACHINE = "MabFileFolderProtectedItem", "Microsoft.Compute/virtualMachines"
_NAMES = ("friendlyName", "virtualMachineId")
_NO_WAIT = click.option("--no-wait", is_flag=True, help="Do not wait for the end of the job.")


@click.group()
def protection() -> None:
    """Protect items, back them up, and stop it again."""


@vault_command(name="enable")
@click.option("--path", required=True, metavar="PATH", help="A folder or a file of the machine.")
@click.option("--disk", is_flag=True, help="PATH is a disk image or a block device, to be taken as a disk.")
@click.option("--policy-name", "-p", "policy", default="FilesPolicy", show_default=True, metavar="NAME",
              help="The policy.")  # fmt: skip
@container_option
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out what matches, as .gitignore would.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Take only what matches.")
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in folders marked by a CACHEDIR.TAG.")
@click.option("--one-file-system", "-x", is_flag=True, help="Leave out what is mounted beneath the source.")
def enable(
    session: Session,
    vault: str,
    path: str,
    disk: bool,
    policy: str,
    container: str | None,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    exclude_caches: bool,
    one_file_system: bool,
) -> int:
    """Protect a folder, a file or a disk; for one that is protected, change its policy and what is left out."""
    from keepstone.cli.client.finding import item_path, policy_id
    from keepstone.cli.client.waiting import ended

    path = source_path(session, container, path)
    held = machine_name(session, vault, container)
    address = item_path(vault, held, files_name(path))
    properties = {
        "protectedItemType": _FILES,
        "policyId": policy_id(vault, policy),
        "sourcePath": path,
        "exclude": list(exclude),
        "include": list(include),
        "excludeCaches": exclude_caches,
        "oneFileSystem": one_file_system,
    } | ({"sourceType": "DiskImage"} if disk else {})
    code = ended(session, vault, session.arm.ask("PUT", address, {"properties": properties}), wait=True)
    session.tell(f"`keepstone protection backup-now -i {path}` makes its first point; its policy makes the others")
    return code


@vault_command(name="enable-for-vm")
@click.option("--vm", required=True, metavar="NAME|ID", help="The virtual machine, by its name or its resource id.")
@click.option("--policy-name", "-p", "policy", default="DefaultPolicy", show_default=True, metavar="NAME",
              help="The policy.")  # fmt: skip
def enable_for_vm(session: Session, vault: str, vm: str, policy: str) -> int:
    """Protect a virtual machine that is known to the service, such as one that `az` made there."""
    from keepstone.cli.client.finding import item_path, policy_id
    from keepstone.cli.client.waiting import ended
    from keepstone.errors import NotFound, UsageError

    where = {"backupManagementType": "AzureIaasVM"}
    found = [
        one
        for one in session.arm.every(f"{vault}/backupProtectableItems", where)
        if vm.casefold() in [str(at(one, f"properties.{key}")).casefold() for key in _NAMES]
    ]
    if not found:
        raise NotFound(
            f"there is no virtual machine {vm!r} that could be protected in this vault; perhaps it is already "
            "(`keepstone item list`)"
        )
    if len(found) > 1:
        machines = ", ".join(str(at(one, "properties.virtualMachineId")) for one in found)
        raise UsageError(f"{len(found)} virtual machines are called {vm!r}; give the id of one: {machines}")
    machine, held = str(at(found[0], "properties.virtualMachineId")), found[0]["name"]
    name = f"VM;{held.partition(';')[2]}"
    address = item_path(vault, held, name)
    properties = {
        "protectedItemType": _MACHINE,
        "policyId": policy_id(vault, policy),
        "sourceResourceId": machine,
    }
    return ended(session, vault, session.arm.ask("PUT", address, {"properties": properties}), wait=True)


@item_command(name="backup-now")
@click.option("--retain-until", metavar="DATE", help="Keep the point until then, not as long as the policy says.")
@_NO_WAIT
def backup_now(session: Session, vault: str, item: Document, retain_until: str | None, no_wait: bool) -> int:
    """Back an item up, and show how far it is. Exit code 1 where it failed, 4 where it has warnings."""
    from keepstone.cli.client.dates import day
    from keepstone.cli.client.waiting import ended

    properties = {"objectType": "IaasVMBackupRequest" if _is_machine(item) else "AzureWorkloadBackupRequest"}
    until = day("--retain-until", retain_until, end=True)
    if until is not None:
        properties["recoveryPointExpiryTimeInUTC"] = until
    answer = session.arm.ask("POST", f"{item['id']}/backup", {"properties": properties})
    return ended(session, vault, answer, wait=not no_wait)


@item_command(name="disable")
@click.option(
    "--delete-backup-data", "deleting", type=click.BOOL, is_flag=False, flag_value="true", default="false",
    metavar="[true|false]", help="Also delete its points.",
)  # fmt: skip
@click.option(
    "--retain-recovery-points-as-per-policy", "--retain-as-per-policy", "suspending", is_flag=True,
    help="Let points go when the policy says so, not keep them for ever.",
)  # fmt: skip
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and which points would go.")
def disable(
    session: Session, vault: str, item: Document, deleting: bool, suspending: bool, yes: bool, dry_run: bool
) -> int | None:
    """Make no new points of an item, and keep those that there are, or delete them."""
    from keepstone.cli.client.radius import confirm, reach
    from keepstone.cli.client.radius import show as tell
    from keepstone.cli.client.waiting import ended
    from keepstone.errors import UsageError

    if deleting and suspending:
        raise UsageError("--delete-backup-data and --retain-recovery-points-as-per-policy exclude each other")
    name = at(item, "properties.friendlyName")
    if dry_run:
        retain = "" if deleting else "policy" if suspending else "ever"
        tell(session, reach(session, item["id"], retain))
        return None
    if deleting:
        confirm(session, f"Stop the protection of {name} and delete all of its points?", item["id"], yes)
        return ended(session, vault, session.arm.ask("DELETE", item["id"]), wait=True)
    session.console.confirm(f"Stop the protection of {name}?", yes)
    state = "BackupsSuspended" if suspending else "ProtectionStopped"
    return ended(session, vault, _put(session, item, protectionState=state, policyId=""), wait=True)


@item_command(name="resume")
@click.option("--policy-name", "-p", "policy", required=True, metavar="NAME", help="The policy.")
def resume(session: Session, vault: str, item: Document, policy: str) -> int:
    """Protect an item again that was stopped."""
    from keepstone.cli.client.finding import policy_id
    from keepstone.cli.client.waiting import ended

    return ended(session, vault, _put(session, item, policyId=policy_id(vault, policy)), wait=True)


@item_command(name="undelete")
def undelete(session: Session, vault: str, item: Document) -> int:
    """Take the deletion of an item and its points back. Its protection is stopped then: `protection resume`."""
    from keepstone.cli.client.waiting import ended

    answer = _put(session, item, protectionState="ProtectionStopped", policyId="", isRehydrate=True)
    return ended(session, vault, answer, wait=True)


def _put(session: Session, item: Document, **properties: Any) -> Any:
    """Ask for another state of an item."""
    known = {key: at(item, f"properties.{key}") for key in ("protectedItemType", "sourceResourceId")}
    return session.arm.ask("PUT", item["id"], {"properties": known | properties})


def _is_machine(item: Document) -> bool:
    return bool(at(item, "properties.protectedItemType") == _MACHINE)


for _command in (enable, enable_for_vm, backup_now, disable, resume, undelete):
    protection.add_command(_command)
