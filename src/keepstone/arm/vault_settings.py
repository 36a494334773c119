# SPDX-License-Identifier: Apache-2.0
"""Settings of a vault that are resources of their own: soft delete, redundancy, encryption, extended information.

Source: Microsoft.RecoveryServices, backup API 2024-04-01, BackupResourceVaultConfigs,
BackupResourceStorageConfigsNonCRR and BackupResourceEncryptionConfigs; vaults 2024-04-01, VaultExtendedInfo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import settings
from keepstone.vault import Vault
from keepstone.vault.settings import shown_encryption, shown_security, shown_storage

__all__ = ["table"]

table = Table()
_ACTION = "Microsoft.RecoveryServices/Vaults"
_SECURITY = "backupconfig/vaultconfig"
_STORAGE = "backupstorageconfig/vaultstorageconfig"
_ENCRYPTION = "backupEncryptionConfigs/backupResourceEncryptionConfig"
_EXTENDED = "extendedInformation/vaultExtendedInfo"


@table("GET", f"{VAULT}/{_SECURITY}", "backup_resource_vault_configs.get", action=f"{_ACTION}/backupconfig/read",
       az=("backup vault backup-properties show", "backup vault backup-properties set"))  # fmt: skip
def security(call: Call) -> Answer:
    """Soft delete, as the vault's properties have it."""
    with call.plane.look() as connection:
        vault = find(call, connection)
    return Answer(body=_document(vault, _SECURITY, shown_security(vault.properties)))


@table("PUT", f"{VAULT}/{_SECURITY}", "backup_resource_vault_configs.put", action=f"{_ACTION}/backupconfig/write")
@table("PATCH", f"{VAULT}/{_SECURITY}", "backup_resource_vault_configs.update", action=f"{_ACTION}/backupconfig/write",
       az=("backup vault backup-properties set",))  # fmt: skip
def set_security(call: Call) -> Answer:
    """Both lay what is sent over what there is."""
    with call.plane.change() as change:
        vault = settings.set_security(change, find(call, change.connection), call.part("properties"))
    return Answer(body=_document(vault, _SECURITY, shown_security(vault.properties)))


@table("GET", f"{VAULT}/{_STORAGE}", "backup_resource_storage_configs_non_crr.get",
       action=f"{_ACTION}/backupstorageconfig/read",
       az=("backup vault backup-properties show", "backup restore restore-disks"))  # fmt: skip
def storage(call: Call) -> Answer:
    """Redundancy, as the vault's properties have it."""
    with call.plane.look() as connection:
        vault = find(call, connection)
    return Answer(body=_document(vault, _STORAGE, shown_storage(vault.properties)))


@table("PUT", f"{VAULT}/{_STORAGE}", "backup_resource_storage_configs_non_crr.update",
       action=f"{_ACTION}/backupstorageconfig/write")  # fmt: skip
def set_storage(call: Call) -> Answer:
    """`Unsupported` for more than one place."""
    with call.plane.change() as change:
        vault = settings.set_storage(change, find(call, change.connection), call.part("properties"))
    return Answer(body=_document(vault, _STORAGE, shown_storage(vault.properties)))


@table("PATCH", f"{VAULT}/{_STORAGE}", "backup_resource_storage_configs_non_crr.patch",
       action=f"{_ACTION}/backupstorageconfig/write")  # fmt: skip
def patch_storage(call: Call) -> Answer:
    """The same, and clients want no body."""
    set_storage(call)
    return Answer(status=204)


@table("GET", f"{VAULT}/{_ENCRYPTION}", "backup_resource_encryption_configs.get",
       action=f"{_ACTION}/backupEncryptionConfigs/read",
       az=("backup vault encryption show", "backup vault encryption update",
           "backup restore restore-disks"))  # fmt: skip
def encryption(call: Call) -> Answer:
    """The same for every vault."""
    with call.plane.look() as connection:
        vault = find(call, connection)
    return Answer(body=_document(vault, _ENCRYPTION, shown_encryption()))


@table("PUT", f"{VAULT}/{_ENCRYPTION}", "backup_resource_encryption_configs.update",
       action=f"{_ACTION}/backupEncryptionConfigs/write")  # fmt: skip
def set_encryption(call: Call) -> Answer:
    """`Unsupported` for a customer's key. No body, as published."""
    with call.plane.change() as change:
        settings.set_encryption(change, find(call, change.connection), call.part("properties"))
    return Answer()


@table("GET", f"{VAULT}/{_EXTENDED}", "vault_extended_info.get", action=f"{_ACTION}/extendedInformation/read")
def extended(call: Call) -> Answer:
    """`NotFound` until somebody has kept some."""
    with call.plane.look() as connection:
        vault = find(call, connection)
    return Answer(body=_document(vault, _EXTENDED, settings.extended_information(vault)))


@table("PUT", f"{VAULT}/{_EXTENDED}", "vault_extended_info.create_or_update",
       action=f"{_ACTION}/extendedInformation/write")  # fmt: skip
def put_extended(call: Call) -> Answer:
    """In place of what there is."""
    return _keep_extended(call, over=False)


@table("PATCH", f"{VAULT}/{_EXTENDED}", "vault_extended_info.update", action=f"{_ACTION}/extendedInformation/write")
def patch_extended(call: Call) -> Answer:
    """Laid over what there is."""
    return _keep_extended(call, over=True)


def _keep_extended(call: Call, *, over: bool) -> Answer:
    with call.plane.change() as change:
        vault = find(call, change.connection)
        kept = settings.keep_extended_information(change, vault, call.part("properties"), over=over)
    return Answer(body=_document(vault, _EXTENDED, kept))


def _document(vault: Vault, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    kind, _, last = name.partition("/")
    return {
        "id": f"{vault.path}/{name}",
        "name": last,
        "type": f"Microsoft.RecoveryServices/vaults/{kind}",
        "properties": properties,
    }
