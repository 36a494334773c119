# SPDX-License-Identifier: Apache-2.0
"""libvirt, by its program `virsh`: one process for one question.

Invariants
* No shell, no word of anybody else's that could be an option: domains go by their UUIDs, documents by files of ours.
* Nothing waits for ever. Who asks for a change, and gives up, does not know whether it comes yet.
* Only hypervisors of this machine: their disks are read here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator

from keepstone.errors import SourceFailed, SourceMissing, Unsupported
from keepstone.workloads.hypervisors.uri import SYSTEM, check_uri

__all__ = ["SYSTEM", "Gone", "Refused", "Unreachable", "Virsh", "command", "document", "path_of"]

_LONGEST = 16 << 20
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNREACHABLE = ("failed to connect to the hypervisor", "cannot recv data", "client socket is closed", "end of file")
_MISSING = ("failed to get domain", "domain not found")


class Refused(SourceFailed):
    """libvirt does not do what was asked of it; the message has its own words."""


class Gone(SourceFailed):
    """The daemon answers no more."""


class Unreachable(SourceMissing):
    """There is no daemon; its machines may run all the same."""


def command(uri: str, *arguments: str) -> list[str]:
    """What to run. `Unsupported` where there is no such program."""
    program = shutil.which("virsh")
    if program is None:
        raise Unsupported("machines of libvirt are reached by virsh, which is not here; install it (libvirt-clients)")
    return [program, "--quiet", "--connect", uri, *arguments]


class Virsh:
    """A hypervisor. `uri`: `qemu:///system` or `qemu:///session`, either with `?socket=PATH`; `UsageError` for others.

    `timeout`: seconds that it may take to answer.
    """

    def __init__(self, uri: str = SYSTEM, *, timeout: float = 60) -> None:
        check_uri(uri)
        self.uri = uri
        self._timeout = timeout

    def ask(self, verb: str, *arguments: str, holding: Collection[int] = (), timeout: float | None = None) -> str:
        """What it says. `holding`: descriptors that it has as well until it ends, for what changes something: that is
        waited for, also by who is interrupted meanwhile.

        `SourceMissing` where there is no daemon or no such domain, `Refused`, `Gone`.
        """
        seconds = self._timeout if timeout is None else timeout
        with subprocess.Popen(
            command(self.uri, verb, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=holding,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        ) as process:
            try:
                said, wrong = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise Gone(
                    f"libvirt at {self.uri} does not answer {verb} within {seconds:g} seconds; look at its log"
                ) from error
            except BaseException:
                if holding:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(seconds)
                raise
            finally:
                process.kill()
        if process.returncode:
            raise self._failure(verb, wrong[:8192].decode("utf-8", "replace"))
        if len(said) > _LONGEST:
            raise Refused(f"libvirt at {self.uri} answers {verb} by more than {_LONGEST >> 20} MiB")
        return said.decode("utf-8", "replace")

    def _failure(self, verb: str, said: str) -> SourceFailed | SourceMissing:
        reasons = [line.removeprefix("error:").strip() for line in said.splitlines() if line.strip()]
        reason = ": ".join(dict.fromkeys(reasons))[:500] or "it does not say why"
        if reason.lower().startswith(_UNREACHABLE[0]):
            return Unreachable(f"there is no libvirt at {self.uri} ({reason}); start it, or name another by --connect")
        if any(words in reason.lower() for words in _UNREACHABLE):
            return Gone(f"libvirt at {self.uri} is gone ({reason}); start it, then try again")
        if any(words in reason.lower() for words in _MISSING):
            return SourceMissing(f"libvirt at {self.uri} has no such machine any more ({reason})")
        return Refused(f"libvirt refuses {verb}: {reason}")

    def uuids(self) -> list[str]:
        """Of all its domains."""
        found = self.ask("list", "--all", "--uuid").split()
        return [uuid for uuid in found if _UUID.fullmatch(uuid)]

    def names(self, verb: str, *arguments: str) -> list[str]:
        """What is listed, one a line."""
        return [line for line in self.ask(verb, *arguments).splitlines() if line.strip()]


@contextlib.contextmanager
def document(text: str) -> Iterator[int]:
    """A descriptor that holds this, to be read again by whoever has it (`path_of`). It has no name, so it is gone with
    us."""
    fd = os.memfd_create("keepstone", os.MFD_CLOEXEC)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        yield fd


def path_of(fd: int) -> str:
    """How a process that inherits this descriptor opens it."""
    return f"/proc/self/fd/{fd}"
