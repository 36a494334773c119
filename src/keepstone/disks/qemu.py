# SPDX-License-Identifier: Apache-2.0
"""Images that QEMU reads: `qemu-nbd` serves them read-only at a socket that only this user reaches, in a process of its
own without limits of ours."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed, Unsupported
from keepstone.files import exists

__all__ = ["QemuSource"]

_PATIENCE = 30  # seconds until the server answers
_STEP = 0.02


class QemuSource(NbdSource):
    """A `BlockSource` over a block device as QEMU's JSON has it (qapi/block-core.json, BlockdevOptions). Its files are
    named by their descriptors in `files`, which the caller closes; `path` is its name for people.

    `Unsupported` where QEMU is not here, `SourceFailed` where it does not take it.
    """

    def __init__(self, env: Env, path: Path, image: Mapping[str, Any], files: Collection[int]) -> None:
        program = shutil.which("qemu-nbd")
        if program is None:
            raise Unsupported(
                f"{path} is a qcow2 image, and is read by qemu-nbd, which is not here; install it (qemu-utils), "
                f"or back up what `qemu-img convert -O raw {path} DISK.raw` makes of it"
            )
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keepstone-")))
            socket = folder / "socket"
            said = stack.enter_context((folder / "said").open("w+b"))
            process = subprocess.Popen(
                [
                    program,
                    "--read-only",
                    "--shared=8",
                    f"--socket={socket}",
                    "json:" + json.dumps(image),
                ],
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            deadline = env.boot_time() + _PATIENCE * 10**9
            while True:
                if process.poll() is not None or env.boot_time() > deadline:
                    said.seek(0)
                    reason = (
                        said.read(2048).decode("utf-8", "replace").strip().rpartition(": ")[2] or "it does not answer"
                    )
                    raise SourceFailed(f"{path}: QEMU does not read it: {reason}")
                if exists(env.fs, socket):
                    with contextlib.suppress(KeepstoneError):
                        super().__init__(env, socket)
                        break
                env.sleep(_STEP)
            self._server = stack.pop_all()

    def close(self) -> None:
        super().close()
        self._server.close()
