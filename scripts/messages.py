# SPDX-License-Identifier: Apache-2.0
"""The texts of the portal that can be translated, as a gettext template: out of its templates, and of what its Python
says by the names below; and the translations of them, made ready to be spoken.

python scripts/messages.py             write the template
python scripts/messages.py --check     end with 1 where it is another one
python scripts/messages.py --compile   make a portal.mo of each portal.po, and say which texts one lacks
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from keepstone.portal.rendering import environment

__all__ = ["catalogue", "compiled", "main", "texts"]

PORTAL = Path(__file__).parents[1] / "src" / "keepstone" / "portal"
LOCALE = PORTAL / "locale"
TEMPLATE = "portal.pot"
Text = tuple[str, str]
"""A text, and the same of many; empty where it counts nothing."""
# What is called with texts, and where they stand: what is looked up at once or later, and titles that are looked up
# where they are shown.
SAID: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "_": ((0,), ()),
    "later": ((0,), ()),
    "Entry": ((1,), ("title",)),
    "actions": ((1, 2), ("title", "says")),
}
COUNTED = "counted"
HEAD = (
    'msgid ""\n'
    'msgstr ""\n'
    '"Project-Id-Version: Keepstone\\n"\n'
    '"Language-Team: Keepstone\\n"\n'
    '"MIME-Version: 1.0\\n"\n'
    '"Content-Type: text/plain; charset=UTF-8\\n"\n'
    '"Content-Transfer-Encoding: 8bit\\n"\n'
    '"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n'
)


def texts() -> dict[Text, list[str]]:
    """Each with the files that say it."""
    found: dict[Text, list[str]] = {}
    for path in sorted(PORTAL.rglob("*")):
        spoken: Iterator[Text] = iter(())
        if path.suffix == ".html":
            spoken = _of_template(path)
        elif path.suffix == ".py":
            spoken = _of_python(path)
        for text in spoken:
            places = found.setdefault(text, [])
            name = path.relative_to(PORTAL).as_posix()
            if name not in places:
                places.append(name)
    # gettext knows a text once: the plural that it has anywhere is its plural everywhere.
    plurals = {one: many for one, many in found if many}
    merged: dict[Text, list[str]] = {}
    for (one, _), places in sorted(found.items()):
        merged.setdefault((one, plurals.get(one, "")), []).extend(places)
    return {text: sorted(set(places)) for text, places in merged.items() if text[0].strip()}


def _of_template(path: Path) -> Iterator[Text]:
    # The extension i18n puts this method onto the environment, so its type does not know of it.
    extract = environment().extract_translations  # type: ignore[attr-defined]
    for _, function, message in extract(path.read_text(), ("_", COUNTED)):
        given = message if isinstance(message, tuple) else (message,)
        if given[0]:  # else it is in a variable, and somebody says it elsewhere
            yield given[0], given[1] if function == COUNTED else ""


def _of_python(path: Path) -> Iterator[Text]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id == COUNTED and all(map(_text, node.args[:2])):
            one, many = map(_text, node.args[:2])
            yield one, many
        elif node.func.id in SAID:
            places, names = SAID[node.func.id]
            given = [node.args[place] for place in places if place < len(node.args)]
            given += [word.value for word in node.keywords if word.arg in names]
            yield from ((text, "") for text in map(_text, given) if text)


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def catalogue() -> str:
    """The template."""
    parts = [HEAD]
    for (one, many), places in texts().items():
        lines = [f"#: {' '.join(places)}"]
        if "%(" in one + many:
            lines.append("#, python-format")
        lines.append(f"msgid {_quoted(one)}")
        lines += [f"msgid_plural {_quoted(many)}", 'msgstr[0] ""', 'msgstr[1] ""'] if many else ['msgstr ""']
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").replace("\n", "\\n")
    return f'"{escaped}"'


def compiled(folder: Path) -> Iterator[str]:
    """Makes what is spoken of all translations in a folder of languages; tells of what is wrong with them. A text that
    lacks stays English; a language with a text whose values are not those of the original is left as it was."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    wanted = texts()
    for path in sorted(folder.glob("*/LC_MESSAGES/portal.po")):
        language = path.parents[1].name
        with path.open("rb") as file:
            found = read_po(file, locale=language)
        wrong = [(message, error) for message, errors in found.check() for error in errors]
        yield from (f"{language}: {_one(message.id)!r}: {error}" for message, error in wrong)
        for one, many in wanted:
            message = found.get(one)
            said = () if message is None or message.fuzzy else message.string
            if not said or not all((said,) if isinstance(said, str) else said) or isinstance(said, str) == bool(many):
                yield f"{language}: lacks {one!r}"
        if not wrong:
            with path.with_suffix(".mo").open("wb") as file:
                write_mo(file, found)


def _one(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else text[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, check or compile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--compile", action="store_true")
    parser.add_argument("--locale", type=Path, default=LOCALE, help="the folder of languages")
    given = parser.parse_args(arguments)
    path = given.locale / TEMPLATE
    if given.compile:
        said = list(compiled(given.locale))
        print("\n".join(said) or "no text lacks")
        return 1 if any(": lacks " not in line for line in said) else 0
    made = catalogue()
    if given.check:
        if path.exists() and path.read_text() == made:
            return 0
        print(f"{path} is not what the portal says; run `python scripts/messages.py`", file=sys.stderr)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
