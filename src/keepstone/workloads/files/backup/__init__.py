# SPDX-License-Identifier: Apache-2.0
"""From a tree to a point. `run` begins, `traversal` goes through the tree beside the parent point, `feed` has files
read."""

from __future__ import annotations

from keepstone.workloads.files.backup.run import Report, backup_files, dry_run

__all__ = ["Report", "backup_files", "dry_run"]
