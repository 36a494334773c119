# SPDX-License-Identifier: Apache-2.0
"""What a server remembers in its database. For recovery points it is a cache of their stores."""

from __future__ import annotations

from keepstone.catalogue.database import Database
from keepstone.catalogue.tables import jobs, metadata, schedules

__all__ = ["Database", "jobs", "metadata", "schedules"]
