# SPDX-License-Identifier: Apache-2.0
"""Messages are decoded by many threads at once from the first moment on."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import keepstone

PROGRAM = """
import sys, threading
import msgspec
from keepstone.decoders import from_json, from_msgpack
from keepstone.remote.wire import Pulsed

sys.setswitchinterval(1e-6)
work = {"job": "a", "token": 1, "operation": "b", "attempt": 1, "item": "c", "name": "d", "source": {}, "workload": "e",
        "arguments": {}}
packed, text = msgspec.msgpack.encode({"work": [work]}), msgspec.json.encode({"work": [work]})
gate = threading.Barrier(64)

def decode():
    gate.wait()
    assert from_msgpack(Pulsed).decode(packed).work[0].job == from_json(Pulsed).decode(text).work[0].job == "a"

threads = [threading.Thread(target=decode) for _ in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("_", range(3))
def test_many_threads_decode_a_kind_that_none_has_decoded_before(_: int) -> None:
    """With `msgspec.msgpack.decode(packed, type=Pulsed)` two of three such processes died of a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_module_decodes_a_kind_by_the_way() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in Path(keepstone.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "decode"
        if any(keyword.arg == "type" for keyword in node.keywords)
    ]
    assert found == []
