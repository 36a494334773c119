# SPDX-License-Identifier: Apache-2.0
"""Translations: what there is to translate, and a catalogue that is made ready and spoken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.portal import dates, speech
from keepstone.portal.speech import _, counted, language_of

pytestmark = pytest.mark.portal
ROOT = Path(__file__).parents[3]
HEAD = """
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);\\n"
"""
POLISH = """
msgid "Alerts"
msgstr "Alerty"

msgid "May"
msgstr "Maj"

#, python-format
msgid "%(number)s day"
msgid_plural "%(number)s days"
msgstr[0] "%(number)s dzień"
msgstr[1] "%(number)s dni"
msgstr[2] "%(number)s dni (wiele)"
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "messages.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of languages, which the portal speaks."""
    monkeypatch.setattr(speech, "FOLDER", tmp_path)
    yield tmp_path
    speech.speak(speech.ENGLISH)
    speech.catalogue.cache_clear()
    speech.languages.cache_clear()


def translated(folder: Path, language: str, text: str) -> Path:
    path = folder / language / "LC_MESSAGES" / "portal.po"
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + text, encoding="utf-8")
    speech.catalogue.cache_clear()
    speech.languages.cache_clear()
    return path


def test_the_template_is_what_the_portal_says(tmp_path: Path) -> None:
    assert run("--check").returncode == 0, "run `python scripts/messages.py`"
    assert run("--check", "--locale", tmp_path).returncode == 1

    assert run("--locale", tmp_path).returncode == 0

    text = (tmp_path / "portal.pot").read_text()
    assert (
        '#, python-format\nmsgid "%(number)s day"\nmsgid_plural "%(number)s days"\nmsgstr[0] ""\nmsgstr[1] ""\n' in text
    )
    for said in ("Alerts", "any severity", "Monday", "Save the policy", "The backup begins.", "choose a policy"):
        assert f'msgid "{said}"\n' in text, said
    assert len(set(text.split("\nmsgid "))) == text.count("\nmsgid ") + 1  # each once


def test_a_translation_is_made_ready_and_spoken(folder: Path) -> None:
    translated(folder, "pl", POLISH)
    assert language_of("pl-PL,pl;q=0.9") == "en"  # nothing is ready yet

    made = run("--compile", "--locale", folder)

    assert made.returncode == 0, made.stdout + made.stderr
    assert "pl: lacks 'Jobs'\n" in made.stdout
    assert "'Alerts'" not in made.stdout
    assert "'%(number)s day'" not in made.stdout
    speech.languages.cache_clear()
    speech.catalogue.cache_clear()
    speech.speak(language_of("pl-PL,en;q=0.9"))
    assert (speech.language(), _("Alerts"), _("Jobs"), _("")) == ("pl", "Alerty", "Jobs", "")
    said = [counted("%(number)s day", "%(number)s days", number) for number in (1, 3, 5)]
    assert said == ["1 dzień", "3 dni", "5 dni (wiele)"]
    assert (dates.named("may"), dates.named("Prime day")) == ("Maj", "Prime day")


def test_a_translation_without_a_value_is_not_made_ready(folder: Path) -> None:
    """It would be a fault on each page that says it."""
    wrong = '\n#, python-format\nmsgid "Jobs of %(vault)s"\nmsgstr "Zadania %(skarbiec)s"\n'
    path = translated(folder, "pl", POLISH + wrong)

    made = run("--compile", "--locale", folder)

    assert made.returncode == 1
    assert "pl: 'Jobs of %(vault)s': " in made.stdout
    assert not path.with_suffix(".mo").exists()


def test_who_serves_needs_nothing_to_translate_with() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert "babel" not in path.read_text(encoding="utf-8").casefold(), path
