# SPDX-License-Identifier: Apache-2.0
"""Keepstone at work: a service with a vault, and this machine registered with it as any other would be. A real folder
goes through its agent, a real disk image is backed up as a virtual machine; both by policies, twice, and what is
restored is compared.

    python scripts/quickstart.py [--folder MB] [--image MB] [--port PORT]

Everything happens in one folder, `quickstart` in the checkout or `$KEEPSTONE_QUICKSTART`, which is made anew by each
run. The service and the agent go on when it ends, with the vault and its policies, so that one can go on from there;
`keepstone down` stops the service, and the next run both. Ends with 1 where a restored byte, mode, time, owner, link or
attribute is not what was backed up, or a command fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from difference import differences, same_bytes
from material import change_folder, change_image, has_ext4, make_folder, make_image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
MARK = "made by make quickstart.txt"
MARK_TEXT = "`make quickstart` made this folder. The next run removes it and makes it anew; nothing else needs it.\n"
MB = 1_000_000
GROUP, VAULT, MACHINE = "quickstart", "vault1", "quickstart-machine"
_PID = "agent.pid"
COPIES = 5  # of the material that are on the disk at the end: before, after, two restores, and the store


class Failed(Exception):
    """Something is not as it should be; the message is for people."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary; bytes, None where a figure makes no sense."""

    job: str
    seconds: float
    logical: int
    new: int | None = None
    stored: int | None = None


class Quickstart:
    """One run in `place`, whose environment names a service of its own."""

    def __init__(self, place: Path, console: Console, port: int) -> None:
        self.place = place
        self.service = place / "service"
        self.rows: list[Row] = []
        self._console = console
        self._port = port
        beside = Path(sys.executable).with_name("keepstone")
        self._program = str(beside) if beside.exists() else shutil.which("keepstone") or "keepstone"
        self._environment = {
            **os.environ,
            "KEEPSTONE_HOME": str(place / "home"),
            "KEEPSTONE_DATA": str(self.service),
            "KEEPSTONE_GROUP": GROUP,
            "KEEPSTONE_VAULT": VAULT,
        }

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is being done, and how long it took."""
        self._console.print(f"[bold]{what}[/bold]")
        begin = time.monotonic()
        yield
        self._console.print(f"  [dim]{time.monotonic() - begin:.1f} s[/dim]")

    def keepstone(self, *arguments: str | Path) -> Any:
        """Run a command; its result. Its progress and its errors go to the terminal. `Failed`."""
        command = [self._program, *map(str, arguments), "--json"]
        self._console.print(f"  [dim]$ {shlex.join([Path(command[0]).name, *command[1:-1]])}[/dim]", soft_wrap=True)
        done = subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Failed(f"`keepstone {' '.join(map(str, arguments[:2]))}` ended with {done.returncode}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def up(self) -> dict[str, Any]:
        """Start the service; what it says of itself."""
        told: dict[str, Any] = self.keepstone("up", "--port", str(self._port), "--detach")
        return told

    def down(self) -> None:
        """Stop the service of an earlier run, if there is one."""
        self.dismiss()
        if self.service.is_dir() and (self.place / MARK).exists():
            command = [self._program, "down", "--data", str(self.service)]
            subprocess.run(command, env=self._environment, capture_output=True, check=False)

    def agent(self) -> None:
        """Register this machine, and start its agent, which may restore into this folder."""
        credentials = self.place / "vault.credentials.json"
        self.keepstone("vault", "credentials", "download", "--file", credentials)
        self.keepstone("agent", "register", "--credentials", credentials)
        credentials.unlink()
        settings = self.place / "home" / "agent" / "etc" / "agent.toml"
        settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.write_text(f"[restore]\nallow = [{json.dumps(str(self.place))}]\n")
        settings.chmod(0o600)
        self._console.print("  [dim]$ keepstone agent run &[/dim]")
        with (self.place / "agent.log").open("wb") as log:
            process = subprocess.Popen(
                [self._program, "agent", "run"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.place / _PID).write_text(f"{process.pid}\n")

    def dismiss(self) -> None:
        """Stop the agent of an earlier run, if it still goes on."""
        try:
            pid = int((self.place / _PID).read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if b"agent" in command and b"run" in command:
            os.kill(pid, signal.SIGTERM)

    def back_up(self, job: str, item: str) -> str:
        """Make a point; its name."""
        begin = time.monotonic()
        self.keepstone("protection", "backup-now", "-i", item)
        seconds = time.monotonic() - begin
        point = self.keepstone("recoverypoint", "list", "-i", item)[0]
        sizes = point["properties"]["keepstone"]
        self.rows.append(Row(job, seconds, sizes["logicalBytes"], sizes["newBytes"], sizes["storedBytes"]))
        return str(point["name"])

    def restore(self, job: str, kind: str, item: str, point: str, target: Path, logical: int) -> None:
        """Restore a point to a new place."""
        begin = time.monotonic()
        self.keepstone("restore", kind, point, "-i", item, "--target", target)
        self.rows.append(Row(job, time.monotonic() - begin, logical))

    def store(self) -> list[str]:
        """The options that open the vault's store itself."""
        (store,) = (self.service / "vaults").iterdir()
        return ["--store", str(store), "--key-file", str(self.service / "keys" / f"{store.name}.key")]

    def summary(self, total: dict[str, Any]) -> Table:
        """What every job did and what it cost."""
        table = Table(
            caption="sizes in MB = 10⁶ bytes, seconds of the whole command",
            box=SIMPLE,
            padding=(0, 1, 0, 0),
        )
        for head in ("job", "seconds", "MB/s", "logical", "new", "stored", "dedup"):
            table.add_column(head, justify="left" if head == "job" else "right", no_wrap=True)
        for row in self.rows:
            ratio = "–" if row.new is None else _ratio(row.logical, row.new)
            rate = _megabytes(row.logical / row.seconds)
            cells = (_megabytes(row.logical), _megabytes(row.new), _megabytes(row.stored))
            table.add_row(row.job, f"{row.seconds:.1f}", rate, *cells, ratio)
        table.add_section()
        logical, unique = total["logical_bytes"], total["unique_bytes"]
        cells = (_megabytes(logical), _megabytes(unique), _megabytes(total["stored_bytes"]))
        table.add_row(f"the store: {total['points']} points", "", "", *cells, _ratio(logical, unique))
        return table


def _megabytes(count: float | None) -> str:
    if count is None:
        return "–"
    return f"{count / MB:,.0f}" if count >= 10 * MB else f"{count / MB:.1f}"


def _ratio(logical: int, new: int) -> str:
    return f"{logical / new:.1f} ×" if new else "all"


def run(quickstart: Quickstart, console: Console, folder_size: int, image_size: int) -> None:
    """The whole story. `Failed` where it does not end well."""
    place = quickstart.place
    folder, image = place / "folder", place / "disk.img"
    before, restored = place / "before", place / "restored"
    before.mkdir()
    restored.mkdir()
    stage = place / "stage"
    kind = "an ext4 file system" if has_ext4() else "a raw image without a file system"
    if not has_ext4():
        console.print("[yellow]mkfs.ext4 is not here, so the disk image has no file system. For a real one:[/yellow]")
        console.print("  sudo apt-get install e2fsprogs")
    with quickstart.step(f"A folder and a disk image ({kind}) out of this machine's own files"):
        make_folder(folder, folder_size)
        make_image(image, stage, image_size)
        subprocess.run(["cp", "-a", str(folder), str(image), str(before)], check=True)
    with quickstart.step("The service, and a vault in it"):
        service = quickstart.up()
        quickstart.keepstone("group", "create", "-n", GROUP)
        quickstart.keepstone("vault", "create", "-g", GROUP, "-n", VAULT)
    with quickstart.step(
        "This machine's agent, as on any other machine: registered by vault credentials, let in by TLS"
    ):
        quickstart.agent()
    with quickstart.step("Policies: both every hour, kept for 30 days"):
        for name, management in (("HourlyFiles", "MAB"), ("HourlyMachines", "AzureIaasVM")):
            document = place / f"{name}.json"
            document.write_text(json.dumps(_policy(management), indent=2) + "\n")
            quickstart.keepstone("policy", "create", "-n", name, "--policy", f"@{document}")
    with quickstart.step("Protect the folder, and the disk image as a virtual machine"):
        quickstart.keepstone("protection", "enable", "--path", folder, "-p", "HourlyFiles")
        quickstart.keepstone("vm", "create", "-g", GROUP, "-n", MACHINE, "--disk", image)
        quickstart.keepstone("protection", "enable-for-vm", "--vm", MACHINE, "-p", "HourlyMachines")
    with quickstart.step("First backup"):
        first = quickstart.back_up("folder: first backup", str(folder))
        first_image = quickstart.back_up("disk image: first backup", MACHINE)
    with quickstart.step("A day goes by: about two per cent of both change"):
        change_folder(folder)
        change_image(image, stage)
        shutil.rmtree(stage)
    with quickstart.step("Second backup"):
        second = quickstart.back_up("folder: second backup", str(folder))
        second_image = quickstart.back_up("disk image: second backup", MACHINE)
    with quickstart.step("Restore all four recovery points"):
        logical = [row.logical for row in quickstart.rows]
        for row, kind, item, point, name in (
            (2, "files", str(folder), second, "folder"),
            (3, "disk", MACHINE, second_image, "disk.img"),
            (0, "files", str(folder), first, "first"),
            (1, "disk", MACHINE, first_image, "first.img"),
        ):
            job = quickstart.rows[row].job.replace("backup", "restored")
            quickstart.restore(job, kind, item, point, restored / name, logical[row])
    with quickstart.step("Compare them byte by byte, and modes, owners, times, links, attributes"):
        pairs = (
            (folder, "folder"),
            (image, "disk.img"),
            (before / "folder", "first"),
            (before / "disk.img", "first.img"),
        )
        for source, name in pairs:
            compare(source, restored / name)
        console.print("  all four are what was backed up")
    with quickstart.step("Verify every byte in the vault's store"):
        begin = time.monotonic()
        verified = quickstart.keepstone("store", "verify", "--deep", *quickstart.store())
        quickstart.rows.append(Row("verify every byte", time.monotonic() - begin, verified["bytes_read"]))
    with quickstart.step("Open the store with its recovery kit alone"):
        (kit,) = (quickstart.service / "kits").iterdir()
        opening = ["--kit", str(kit), "--kit-identity", str(quickstart.service / "recovery-key.txt")]
        listed = quickstart.keepstone("store", "list", *quickstart.store()[:2], *opening)
        if len(listed["points"]) != 4:
            raise Failed(f"the store shows {len(listed['points'])} recovery points, not 4")
    console.print(quickstart.summary(quickstart.keepstone("store", "stat", *quickstart.store())))
    shutil.rmtree(before)
    shutil.rmtree(restored)
    _tell(console, quickstart, service)


def _policy(management: str) -> dict[str, Any]:
    """Every hour, each point for 30 days."""
    return {
        "properties": {
            "backupManagementType": management,
            "timeZone": "UTC",
            "schedulePolicy": {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": 60},
            "retentionPolicy": {
                "retentionPolicyType": "SimpleRetentionPolicy",
                "retentionDuration": {"count": 30, "durationType": "Days"},
            },
        }
    }


def compare(source: Path, restored: Path) -> None:
    """`Failed` where the two differ."""
    if source.is_dir():
        found = list(islice(differences(str(source), str(restored)), 11))
    else:
        found = [] if same_bytes(str(source), str(restored)) else ["it has other content"]
    if found:
        shown = "\n".join(f"  {difference}" for difference in found[:10])
        more = "\n  and more" if len(found) > 10 else ""
        raise Failed(f"{restored} is not what was backed up from {source}:\n{shown}{more}")


def _tell(console: Console, quickstart: Quickstart, service: dict[str, Any]) -> None:
    data = shlex.quote(str(quickstart.service))
    for what, where in (
        ("portal", service["portal"]),
        ("service", service["endpoint"]),
        ("data", data),
        ("authority", service["ca"]),
    ):
        console.print(f"{what:<13} {where}", soft_wrap=True)
    pid = (quickstart.place / _PID).read_text().strip()
    console.print(f"{'agent':<13} process {pid}; `kill {pid}` stops it", soft_wrap=True)
    console.print("They go on, and back both up every hour. Go on from here:")
    programs = shlex.quote(str(Path(sys.executable).parent))
    console.print(f"  export PATH={programs}:$PATH KEEPSTONE_DATA={data}", soft_wrap=True)
    for example in (
        "item list",
        "recoverypoint list -i quickstart-machine",
        "az-setup      # how az logs in here",
        "doctor",
        "down          # stop the service",
    ):
        console.print(f"  keepstone {example}")


def free_port() -> int:
    """8443, or another one where somebody has that."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8443))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare(place: Path) -> None:
    """An empty folder, made anew; `Failed` where it holds something that no quickstart made."""
    if place.is_dir() and any(place.iterdir()):
        if not (place / MARK).exists():
            raise Failed(f"{place} holds something that no quickstart made; choose another by KEEPSTONE_QUICKSTART")
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / MARK).write_text(MARK_TEXT)
    (place / ".gitignore").write_text("*\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=int, default=300, metavar="MB", help="size of the folder (300)")
    parser.add_argument("--image", type=int, default=330, metavar="MB", help="what is in the disk image (330)")
    parser.add_argument("--port", type=int, default=0, metavar="PORT", help="of the service (8443, if it is free)")
    given = parser.parse_args(arguments)
    console = Console(highlight=False)
    place = Path(os.environ.get("KEEPSTONE_QUICKSTART") or ROOT / "quickstart").absolute()
    begin = time.monotonic()
    try:
        Quickstart(place, console, 0).down()
        prepare(place)
        fits = min(1.0, shutil.disk_usage(place).free / (COPIES * (given.folder + given.image) * MB))
        run(
            Quickstart(place, console, given.port or free_port()),
            console,
            int(given.folder * MB * fits),
            int(given.image * MB * fits),
        )
    except (Failed, OSError, RuntimeError, subprocess.CalledProcessError) as reason:
        console.print(f"[bold red]quickstart failed:[/bold red] {reason}", soft_wrap=True)
        return 1
    console.print(f"\n[bold green]Everything came back as it was.[/bold green] {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
