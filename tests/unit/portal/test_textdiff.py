# SPDX-License-Identifier: Apache-2.0
"""What is different in two texts that are foreign."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from keepstone.errors import Unsupported
from keepstone.portal.textdiff import LARGEST, lines_between


def shown(before: str, after: str) -> list[str]:
    return [f"{line.sign}{line.text}" for line in lines_between(before.encode(), after.encode())]


def test_lines_are_as_diff_has_them(tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(30):
        before = [str(chance.randrange(40)) for _ in range(chance.randrange(60))]
        after = [line for line in before if chance.random() > 0.1]
        after.insert(chance.randrange(len(after) + 1), "new")
        files = tmp_path / f"{number}a", tmp_path / f"{number}b"
        for file, lines in zip(files, (before, after), strict=True):
            file.write_text("".join(f"{line}\n" for line in lines))

        found = lines_between(files[0].read_bytes(), files[1].read_bytes())

        patch = "".join(f"{'' if line.sign == '@' else line.sign}{line.text}\n" for line in found)
        header = f"--- {files[0].name}\n+++ {files[1].name}\n"
        ended = subprocess.run(
            ["patch", "-s", "--fuzz=0", files[0]], input=header + patch, text=True, capture_output=True, check=False
        )
        assert ended.returncode == 0, (patch, ended)
        assert "Hunk" not in ended.stdout, ended  # each is where its header says
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_end_of_a_line_counts() -> None:
    assert shown("a\nb\n", "a\nb\n") == []
    assert shown("a\nb", "a\nb\n") == ["@@@ -1,3 +1,2 @@", " a", " b", "-\\ no newline at the end"]
    assert shown("", "a\n") == ["@@@ -0,0 +1 @@", "+a"]


def test_what_is_no_text_is_said() -> None:
    for content in (b"\0", b"\xff\xfe"):
        with pytest.raises(Unsupported, match="no text"):
            lines_between(b"a\n", content)


def test_what_would_deceive_the_eye_is_escaped() -> None:
    assert shown("", "\u202eabc\x1b[0m\tx\r\n")[1:] == ["+\\u202eabc\\u001b[0m\tx"]
    (line,) = shown("", "x" * 5000 + "\n")[1:]
    assert (len(line), line[-1]) == (2002, "…")


def test_it_takes_no_longer_than_a_page_may() -> None:
    """Lines of one letter in another order: the worst that difflib meets within what is read."""
    chance = random.Random(3)
    with pytest.raises(Unsupported, match="2000 lines"):
        lines_between(b"a\n" * (LARGEST // 2), b"b\n" * (LARGEST // 2))
    sides = ["".join(f"{chance.randrange(120)}\n" for _ in range(2000)).encode() for _ in range(2)]
    began = time.process_time()
    assert len(lines_between(*sides)) > 2000
    assert time.process_time() - began < 5
