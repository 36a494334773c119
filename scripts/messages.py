# SPDX-License-Identifier: Apache-2.0
"""The texts of the portal that can be translated, as a gettext template: out of its templates, and of what its Python
says by the names below.

python scripts/messages.py           write it
python scripts/messages.py --check   end with 1 where it is another one
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from keepstone.portal.rendering import environment

__all__ = ["main", "texts"]

PORTAL = Path(__file__).parents[1] / "src" / "keepstone" / "portal"
CATALOGUE = PORTAL / "locale" / "portal.pot"
# What is called, and which of its arguments are for people: by their places, and by their names.
SAID: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "_": ((0,), ()),
    "Choice": ((1,), ("label",)),
    "Entry": ((1,), ("title",)),
    "Field": ((), ("label", "help")),
    "Plan": ((), ("notice",)),
    "replace": ((), ("notice",)),
    "Tile": ((0,), ("title",)),
    "actions": ((1, 2), ("title", "says")),
}
HEAD = (
    'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n'
    '"Language-Team: Keepstone\\n"\n'
)


def texts() -> dict[str, list[str]]:
    """Each with the files that say it."""
    found: dict[str, list[str]] = {}
    for path in sorted(PORTAL.rglob("*")):
        spoken = (
            _of_template(path) if path.suffix == ".html" else _of_python(path) if path.suffix == ".py" else iter(())
        )
        for text in spoken:
            places = found.setdefault(text, [])
            name = path.relative_to(PORTAL).as_posix()
            if text.strip() and name not in places:
                places.append(name)
    return {text: places for text, places in sorted(found.items()) if places}


def _of_template(path: Path) -> Iterator[str]:
    # The extension i18n puts this method onto the environment, so its type does not know of it.
    for _, _, message in environment().extract_translations(path.read_text()):  # type: ignore[attr-defined]
        yield from [message] if isinstance(message, str) else [one for one in message or () if one]


def _of_python(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAID):
            continue
        places, names = SAID[node.func.id]
        given = [node.args[place] for place in places if place < len(node.args)]
        given += [word.value for word in node.keywords if word.arg in names]
        yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))


def catalogue() -> str:
    """The file."""
    parts = [HEAD]
    for text, places in texts().items():
        parts.append(f'#: {" ".join(places)}\nmsgid {json.dumps(text, ensure_ascii=False)}\nmsgstr ""\n')
    return "\n".join(parts)


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    made = catalogue()
    if given.check:
        if CATALOGUE.exists() and CATALOGUE.read_text() == made:
            return 0
        print(f"{CATALOGUE} is not what the portal says; run `python scripts/messages.py`", file=sys.stderr)
        return 1
    CATALOGUE.parent.mkdir(exist_ok=True)
    CATALOGUE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
