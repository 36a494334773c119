# SPDX-License-Identifier: Apache-2.0
"""The lists of modules in docs/ARCHITECTURE.md: of each the first sentence of its docstring.

python scripts/modules.py           write them
python scripts/modules.py --check   end with 1 where the page says something else
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from marked import ROOT, settle

__all__ = ["main", "modules"]

PAGE = ROOT / "docs" / "ARCHITECTURE.md"
PACKAGE = ROOT / "src" / "keepstone"
# from the top down; `.`: the ground
ROOMS = (
    "cli",
    "server",
    "agent",
    "arm",
    "agentapi",
    "portal",
    "control",
    "jobs",
    "catalogue",
    "identity",
    "vault",
    "mount",
    "workloads",
    "remote",
    "disks",
    "store",
    "objects",
    "crypto",
    ".",
)


def modules() -> str:
    """A table for each room; LookupError where a module stands in none of them."""
    strays = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} - set(ROOMS)
    if strays:
        raise LookupError(f"no room is known for {', '.join(sorted(strays))}; add it to scripts/modules.py")
    return "\n\n".join(_room(room) for room in ROOMS)


def _room(room: str) -> str:
    folder = PACKAGE / room
    paths = folder.glob("*.py") if room == "." else folder.rglob("*.py")
    about = "the ground" if room == "." else f"`{room}/`"
    lines = [f"### {about}", "", "| module | about |", "|---|---|"]
    for path in sorted(paths, key=lambda path: (path.parent, path.name != "__init__.py", path.name)):
        name = path.relative_to(folder).as_posix()
        lines.append(f"| `{name}` | {_sentence(path)} |")
    return "\n".join(lines)


def _sentence(path: Path) -> str:
    """What a module says of itself first."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    return first.partition(". ")[0].rstrip(".:").replace("|", "\\|")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="another page than docs/ARCHITECTURE.md")
    given = parser.parse_args()
    return settle(given.page, "modules", modules(), check=given.check, again="python scripts/modules.py")


if __name__ == "__main__":
    sys.exit(main())
