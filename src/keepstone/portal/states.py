# SPDX-License-Identifier: Apache-2.0
"""Words of the API for how something is, as people read them. What is not known here is shown as it came."""

from __future__ import annotations

from keepstone.portal.speech import _, later

__all__ = ["tone", "word"]

_WORDS = {
    # items, machines, hypervisors
    "Healthy": later("Healthy"),
    "Unhealthy": later("Unhealthy"),
    "Passed": later("Passed"),
    "ActionRequired": later("Action required"),
    "IRPending": later("Waiting for a first point"),
    "Protected": later("Protected"),
    "NotProtected": later("Not protected"),
    "ProtectionStopped": later("Protection stopped"),
    "BackupsSuspended": later("Backups suspended"),
    "Deleted": later("Deleted"),
    # jobs
    "InProgress": later("In progress"),
    "Cancelling": later("Cancelling"),
    "Cancelled": later("Cancelled"),
    "Completed": later("Completed"),
    "CompletedWithWarnings": later("Completed with warnings"),
    "Failed": later("Failed"),
    # alerts
    "New": later("New"),
    "Acknowledged": later("Acknowledged"),
    "Closed": later("Closed"),
    # vaults
    "Enabled": later("Enabled"),
    "Disabled": later("Disabled"),
    "AlwaysON": later("AlwaysON"),
    "Unlocked": later("Unlocked"),
    "Locked": later("Locked"),
    "None": later("None"),
    "Minimum": later("Minimum"),
    "Adequate": later("Adequate"),
    "Maximum": later("Maximum"),
    # what is in a point
    "file": later("file"),
    "directory": later("directory"),
    "symlink": later("symlink"),
    "character device": later("character device"),
    "block device": later("block device"),
    "fifo": later("fifo"),
    "socket": later("socket"),
    "disk": later("disk"),
    # by which rule it is kept
    "daily": later("daily"),
    "weekly": later("weekly"),
    "monthly": later("monthly"),
    "yearly": later("yearly"),
    # how far a drill came
    "agent": later("agent"),
    "login": later("login"),
    "screen": later("screen"),
    "none": later("none"),
}
_TONES = {
    "Healthy": "good",
    "Completed": "good",
    "Passed": "good",
    "Unhealthy": "bad",
    "Failed": "bad",
    "IRPending": "waiting",
    "InProgress": "waiting",
    "Cancelling": "waiting",
    "CompletedWithWarnings": "warning",
    "Cancelled": "warning",
    "ProtectionStopped": "warning",
    "BackupsSuspended": "warning",
}


def word(state: str | None) -> str:
    """What it is called."""
    known = _WORDS.get(state or "")
    return state or "–" if known is None else _(known)


def tone(state: str | None) -> str:
    """Good, bad, warning or waiting: its colour, and its icon; empty for none."""
    return _TONES.get(state or "", "")
