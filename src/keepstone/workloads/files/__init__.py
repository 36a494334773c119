# SPDX-License-Identifier: Apache-2.0
"""Files and folders: complete Linux trees as recovery points, and back."""

from __future__ import annotations

from keepstone.workloads.files.backup import Report, backup_files, dry_run
from keepstone.workloads.files.browse import Tree
from keepstone.workloads.files.diff import Change, Difference, diff
from keepstone.workloads.files.find import find
from keepstone.workloads.files.page import CHANGED, UNREADABLE, Entry
from keepstone.workloads.files.restore import (
    Conflict,
    RestoreOptions,
    RestoreReport,
    folder_of,
    restore_files,
    write_tar,
)
from keepstone.workloads.files.selection import Selection
from keepstone.workloads.files.tree import doubtful, walk

__all__ = [
    "CHANGED",
    "UNREADABLE",
    "Change",
    "Conflict",
    "Difference",
    "Entry",
    "Report",
    "RestoreOptions",
    "RestoreReport",
    "Selection",
    "Tree",
    "backup_files",
    "diff",
    "doubtful",
    "dry_run",
    "find",
    "folder_of",
    "restore_files",
    "walk",
    "write_tar",
]
