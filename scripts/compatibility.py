# SPDX-License-Identifier: Apache-2.0
"""The tables of operations in docs/AZURE-COMPATIBILITY.md, out of the operations themselves.

python scripts/compatibility.py           write them
python scripts/compatibility.py --check   end with 1 where the page says something else

The tests of an operation are those that say so (`exercises` in tests/service/exercised.py), and fail where it is not
true; tests/service/test_table.py asks for every operation beneath a subscription.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from marked import ROOT, settle

from keepstone.arm.operations import OPERATIONS
from keepstone.arm.table import GROUP, PROVIDER, SUBSCRIPTION, VAULT, Operation

__all__ = ["main", "operations"]

PAGE = ROOT / "docs" / "AZURE-COMPATIBILITY.md"
EVERY = "tests/service/test_table.py"
SHORT = ((VAULT, "V"), (f"{GROUP}{PROVIDER}", "G~"), (f"{SUBSCRIPTION}{PROVIDER}", "S~"), (GROUP, "G"),
         (SUBSCRIPTION, "S"), (PROVIDER, "~"))  # fmt: skip
TABLES = (
    ("Recovery Services", lambda operation: PROVIDER in operation.template),
    ("Azure Resource Manager around it", lambda operation: operation.template.startswith(("/sub", "/prov", "/ten"))),
    ("Clouds and logging in", lambda _: True),
)


def operations() -> str:
    """A sum, and a table for each kind of operations."""
    exercised = _exercised()
    rest = list(OPERATIONS)
    later = sum(not operation.since for operation in OPERATIONS)
    parts = [f"{len(OPERATIONS)} operations, {len(OPERATIONS) - later} of which work; {later} say what is missing."]
    for title, belongs in TABLES:
        mine = [operation for operation in rest if belongs(operation)]
        rest = [operation for operation in rest if not belongs(operation)]
        lines = ["| operation | request | action | az | since | tests |", "|---|---|---|---|---|---|"]
        lines += [_row(operation, exercised) for operation in sorted(mine, key=_place)]
        parts.append("\n".join([f"### {title}", "", *lines]))
    return "\n\n".join(parts)


def _place(operation: Operation) -> tuple[str, str]:
    return operation.template.casefold(), operation.verb


def _row(operation: Operation, exercised: dict[str, set[str]]) -> str:
    tests = set(exercised[operation.name])
    if operation.action:
        tests.add(EVERY)
    cells = (
        f"`{operation.name}`",
        f"{operation.verb} `{_short(operation.template)}`",
        f"`{operation.action.removeprefix('Microsoft.RecoveryServices/')}`" if operation.action else "anybody",
        ", ".join(operation.az),
        operation.since or "later",
        ", ".join(f"[{Path(test).stem.removeprefix('test_')}](../{test})" for test in sorted(tests)),
    )
    return f"| {' | '.join(cells)} |"


def _short(template: str) -> str:
    for path, short in SHORT:
        if template == path or template.startswith(f"{path}/"):
            return short + template[len(path) :]
    return template


def _exercised() -> dict[str, set[str]]:
    """The files of the tests that exercise each operation."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in _names(ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
            found[name].add(path.relative_to(ROOT).as_posix())
    return found


def _names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """What stands in `exercises(…)`."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "exercises":
            for argument in node.args:
                yield ast.literal_eval(argument)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="another page than docs/AZURE-COMPATIBILITY.md")
    given = parser.parse_args()
    return settle(given.page, "operations", operations(), check=given.check, again="python scripts/compatibility.py")


if __name__ == "__main__":
    sys.exit(main())
