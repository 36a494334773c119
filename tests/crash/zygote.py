# SPDX-License-Identifier: Apache-2.0
"""Runs a workload script many times, importing once: loads it under the shim, then forks for each run.

Started by runner.py, never imported. Reads one JSON object a line: `argv`, `environment` (the shim's) and `output`, a
file for what the run prints. Answers with the run's `pid` at once and its `status` at its end. What the run leaves
running in its own session dies with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import signal
import sys
from typing import Any


def main() -> None:
    """Serve; in a forked child come back from it and be the workload."""
    script = sys.argv[1]
    reload = ctypes.CDLL(None).crash_shim_reload  # AttributeError: the shim is not loaded
    runpy.run_path(script, run_name="crash_zygote")
    request = _serve()
    if request is None:
        return
    os.setsid()
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for source, fd in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, fd)
    os.close(nothing)
    os.close(output)
    reload()
    sys.argv = [script, *request["argv"]]
    runpy.run_path(script, run_name="__main__")


def _serve() -> dict[str, Any] | None:
    """Return the request in the child that is to run it, None in the server at the end of its input."""
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items() if "." not in name}
    _answer(files)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if not pid:
            return request
        _answer({"pid": pid})
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # not yet reaped, so the group's number is still its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _answer({"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
    return None


def _answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
