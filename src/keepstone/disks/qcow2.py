# SPDX-License-Identifier: Apache-2.0
"""qcow2 images, read by QEMU: `qemu-nbd` serves the image read-only at a socket that only this user reaches.

QEMU reads the tables here, in a process of its own without limits of ours. What could lead it to another file is
refused before (QEMU, docs/interop/qcow2.txt): backing files and external data files. So are encrypted images, for which
it has no key.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed, Unsupported

__all__ = ["Qcow2Source", "check_header"]

_HEADER = struct.Struct(">4sIQIIQI")  # as far as the method of encryption
_INCOMPATIBLE = 72  # offset of the features without which nobody may read
_EXTERNAL_DATA = 1 << 2
_PATIENCE = 30  # seconds until the server answers
_STEP = 0.02


class Qcow2Source(NbdSource):
    """A `BlockSource` over a qcow2 image that is open as `fd`; the caller closes that.

    `Unsupported` where it depends on other files, or QEMU is not here; `SourceFailed` where QEMU does not take it.
    """

    def __init__(self, env: Env, path: Path, fd: int) -> None:
        check_header(path, env.fs.pread(fd, 512, 0))
        program = shutil.which("qemu-nbd")
        if program is None:
            raise Unsupported(
                f"{path} is a qcow2 image, and is read by qemu-nbd, which is not here; install it (qemu-utils), "
                f"or back up what `qemu-img convert -O raw {path} DISK.raw` makes of it"
            )
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keepstone-")))
            socket = folder / "socket"
            # Its own name may be given to another file by now; and whatever its header says, it has no backing file.
            image = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": f"/proc/self/fd/{fd}"}}
            said = stack.enter_context((folder / "said").open("w+b"))
            process = subprocess.Popen(
                [
                    program,
                    "--read-only",
                    "--shared=8",
                    f"--socket={socket}",
                    "json:" + json.dumps(image),
                ],
                pass_fds=[fd],
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
                if socket.exists():
                    with contextlib.suppress(KeepstoneError):
                        super().__init__(env, socket)
                        break
                env.sleep(_STEP)
            self._server = stack.pop_all()

    def __enter__(self) -> Qcow2Source:
        return self

    def close(self) -> None:
        super().close()
        self._server.close()


def check_header(path: Path, header: bytes) -> None:
    """`Unsupported` for an image that depends on other files, or is encrypted; `SourceFailed` where it is none."""
    if len(header) < 104:
        raise SourceFailed(f"{path}: its header was cut short; take another copy of it")
    _, version, backing, _, _, _, encryption = _HEADER.unpack_from(header)
    features = struct.unpack_from(">Q", header, _INCOMPATIBLE)[0] if version >= 3 else 0
    if version not in (2, 3):
        raise Unsupported(f"{path} is a qcow2 image of version {version}; 2 and 3 are known")
    if backing or features & _EXTERNAL_DATA:
        raise Unsupported(
            f"{path} has a part of its disk in another file; back up what `qemu-img convert -O raw {path} DISK.raw` "
            "makes of it"
        )
    if encryption:
        raise Unsupported(f"{path} is encrypted; back the disk up from within its machine, or decrypt it first")
