# SPDX-License-Identifier: Apache-2.0
"""A workload of two processes with three threads each; all append lines to one file and then acknowledge them."""

from __future__ import annotations

import json
import os
import sys
import threading
import time

_LINES = 200


def _append(path: str, who: str) -> None:
    data = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    acks = os.open(os.environ["FS_ACK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for n in range(_LINES):
        os.write(data, f"{who} {n}\n".encode())
        os.write(acks, json.dumps(f"{who} {n}").encode() + b"\n")
        if n % 20 == 0:
            time.sleep(0.001)  # lets the others in, however busy the machine is
    os.close(acks)
    os.close(data)


def _threads(path: str, process: str) -> None:
    threads = [threading.Thread(target=_append, args=(path, f"{process}{n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    shared = os.path.join(sys.argv[1], "shared")
    child = os.fork()
    _threads(shared, "parent" if child else "child")
    if child:
        os.waitpid(child, 0)
