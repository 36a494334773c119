# SPDX-License-Identifier: Apache-2.0
"""From a point to a tree, or to a tar stream. `run` begins, `beneath` is the only way into the target."""

from __future__ import annotations

from keepstone.workloads.files.restore.options import Conflict, RestoreOptions
from keepstone.workloads.files.restore.report import RestoreReport
from keepstone.workloads.files.restore.run import folder_of, restore_files
from keepstone.workloads.files.restore.tar import write_tar

__all__ = ["Conflict", "RestoreOptions", "RestoreReport", "folder_of", "restore_files", "write_tar"]
