# SPDX-License-Identifier: Apache-2.0
"""What a deletion would take with it, before anybody asks for it. The service counts it, and says it in the words that
the portal shows as well."""

from __future__ import annotations

from typing import Any

from keepstone.cli.client.output import Column
from keepstone.cli.client.session import Session

__all__ = ["confirm", "reach", "show"]

Document = dict[str, Any]


def reach(session: Session, path: str, retain: str = "") -> Document:
    """Of the deletion of what `path` names. `retain`: of stopping the protection of an item alone, where its points
    stay for `ever` or as long as the `policy` says."""
    asked = {"retain": retain} if retain else {}
    found = session.arm.get(f"{path}/blastRadius", asked)
    return dict(found["properties"])


def show(session: Session, found: Document) -> None:
    """As the command's result."""
    columns = [_column(str(one["label"])) for one in found["lines"]]
    session.show(found, [*columns, Column("refused by", "refused")])


def confirm(session: Session, question: str, path: str, yes: bool) -> None:
    """Ask whoever is at the terminal, when he has been told what goes. `click.Abort` where the answer is no."""
    if not yes and session.console.asks:
        found = reach(session, path)
        for line in found["lines"]:
            session.console.say(f"{line['label']}: {line['text']}")
        for one in found["refused"]:
            session.console.say(f"refused by: {one}")
    session.console.confirm(question, yes)


def _column(label: str) -> Column:
    return Column(label, lambda found: next(one["text"] for one in found["lines"] if one["label"] == label))
