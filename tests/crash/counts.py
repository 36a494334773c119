# SPDX-License-Identifier: Apache-2.0
"""The counts of sweeps and faults as JSON, one file each, for tables that are made from them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.crash.mutants import Trial
from tests.crash.share import Tally
from tests.crash.sweep import Result

__all__ = ["publish"]


def publish(directory: Path, name: str, counted: Result | Tally | Trial) -> Path:
    """Write what was `counted` to `directory`/`name`.json: figures only, nothing of this machine; return the path.

    One file for each name, because tests run side by side.
    """
    if isinstance(counted, Trial):
        mutant = counted.mutant
        content: dict[str, object] = {"name": mutant.name, "verdict": counted.verdict, "expected": mutant.verdict}
        content |= {"reason": mutant.reason, "sweeps": [_result(result) for result in counted.results]}
    else:
        content = _result(counted) if isinstance(counted, Result) else _tally(counted)
    path = directory / f"{name}.json"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _result(result: Result) -> dict[str, object]:
    return asdict(result) | {"tally": _tally(result.tally)}


def _tally(tally: Tally) -> dict[str, object]:
    return {key: value for key, value in asdict(tally).items() if key != "first"}
