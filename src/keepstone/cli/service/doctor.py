# SPDX-License-Identifier: Apache-2.0
"""`keepstone doctor`: looks at a service from all sides."""

from __future__ import annotations

from pathlib import Path

from keepstone.cli.console import Console
from keepstone.cli.service.data import service_command

__all__ = ["doctor"]


@service_command(name="doctor")
def doctor(console: Console, root: Path) -> int:
    """Check the service of the data folder, and say what to do about what is wrong. Nothing is changed.

    Ends with 1 where something is wrong.
    """
    from keepstone.cli.render import safe
    from keepstone.env import Env
    from keepstone.server.checks import examine

    found = list(examine(Env(), root))
    well = all(finding.ok for finding in found)
    width = max(len(finding.check) for finding in found)
    lines = []
    for finding in found:
        lines.append(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.check:{width}}  {safe(finding.message)}")
        if finding.todo:
            lines.append(f"       {'':{width}}  → {safe(finding.todo)}")
    console.result({"ok": well, "checks": found}, lines)
    return 0 if well else 1
