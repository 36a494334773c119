# SPDX-License-Identifier: Apache-2.0
"""Keepstone at work: a store, two backups of a real folder and of a real disk image, and restores that are compared.

    python scripts/quickstart.py [--folder MB] [--image MB]

Everything happens in one folder, `quickstart` in the checkout or `$KEEPSTONE_QUICKSTART`, which is made anew by each
run and left with the store, its key and its recovery kit, so that one can go on from there. Ends with 1 where a
restored byte, mode, time, owner, link or attribute is not what was backed up, or a command fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
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
    """One run in `place`, whose environment names keys and caches of its own."""

    def __init__(self, place: Path, console: Console) -> None:
        self.place = place
        self.store = place / "store"
        self.rows: list[Row] = []
        self._console = console
        beside = Path(sys.executable).with_name("keepstone")
        self._program = str(beside) if beside.exists() else shutil.which("keepstone") or "keepstone"
        self._environment = {**os.environ, "KEEPSTONE_HOME": str(place / "home")}

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is being done, and how long it took."""
        self._console.print(f"[bold]{what}[/bold]")
        begin = time.monotonic()
        yield
        self._console.print(f"  [dim]{time.monotonic() - begin:.1f} s[/dim]")

    def keepstone(self, *arguments: str | Path, **environment: str) -> dict[str, Any]:
        """Run `keepstone store …`; its result. Its progress and its errors go to the terminal. `Failed`."""
        command = [self._program, "store", *map(str, arguments), "--store", str(self.store), "--json"]
        self._console.print(f"  [dim]$ {shlex.join([Path(command[0]).name, *command[1:-1]])}[/dim]", soft_wrap=True)
        done = subprocess.run(
            command, env={**self._environment, **environment}, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"`keepstone store {arguments[0]}` ended with {done.returncode}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def back_up(self, job: str, source: Path) -> str:
        """Make a point; its id."""
        begin = time.monotonic()
        point = self.keepstone("backup", source)["points"][0]
        seconds = time.monotonic() - begin
        self.rows.append(Row(job, seconds, point["logical_bytes"], point["new_bytes"], point["stored_bytes"]))
        return str(point["id"])

    def restore(self, job: str, point: str, target: Path, logical: int) -> None:
        """Restore a point to a new place."""
        begin = time.monotonic()
        self.keepstone("restore", point, "--target", target)
        self.rows.append(Row(job, time.monotonic() - begin, logical))

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
    with quickstart.step("A store, its key and its recovery kit"):
        made = quickstart.keepstone("init")
    with quickstart.step("First backup"):
        first = quickstart.back_up("folder: first backup", folder)
        first_image = quickstart.back_up("disk image: first backup", image)
    with quickstart.step("A day goes by: about two per cent of both change"):
        change_folder(folder)
        change_image(image, stage)
        shutil.rmtree(stage)
    with quickstart.step("Second backup"):
        second = quickstart.back_up("folder: second backup", folder)
        second_image = quickstart.back_up("disk image: second backup", image)
    with quickstart.step("Restore all four recovery points"):
        logical = [row.logical for row in quickstart.rows]
        quickstart.restore("folder: second restored", second, restored / "folder", logical[2])
        quickstart.restore("disk image: second restored", second_image, restored / "disk.img", logical[3])
        quickstart.restore("folder: first restored", first, restored / "first", logical[0])
        quickstart.restore("disk image: first restored", first_image, restored / "first.img", logical[1])
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
    with quickstart.step("Verify every byte in the store"):
        begin = time.monotonic()
        verified = quickstart.keepstone("verify", "--deep")
        quickstart.rows.append(Row("verify every byte", time.monotonic() - begin, verified["bytes_read"]))
    with quickstart.step("Open the store with its recovery kit alone"):
        kit = made["kit"]
        listed = quickstart.keepstone("list", "--kit", kit["file"], KEEPSTONE_PASSPHRASE=kit["passphrase"])
        if len(listed["points"]) != 4:
            raise Failed(f"the store shows {len(listed['points'])} recovery points, not 4")
    console.print(quickstart.summary(quickstart.keepstone("stat")))
    shutil.rmtree(before)
    shutil.rmtree(restored)
    _tell(console, place, made)


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


def _tell(console: Console, place: Path, made: dict[str, Any]) -> None:
    console.print(f"store         {place / 'store'}", soft_wrap=True)
    console.print(f"key           {made['key_file']}", soft_wrap=True)
    console.print(f"recovery kit  {made['kit']['file']}", soft_wrap=True)
    if console.is_terminal:  # never into a log
        console.print(f"  its passphrase, shown only now:  {made['kit']['passphrase']}", soft_wrap=True)
    console.print("\nGo on from here:")
    home = shlex.quote(str(place / "home"))
    store = shlex.quote(str(place / "store"))
    programs = shlex.quote(str(Path(sys.executable).parent))
    console.print(f"  export PATH={programs}:$PATH KEEPSTONE_HOME={home} KEEPSTONE_STORE={store}", soft_wrap=True)
    for example in ("list", "find '*.py'", "restore latest --target FILE", "--help"):
        console.print(f"  keepstone store {example}")


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
    given = parser.parse_args(arguments)
    console = Console(highlight=False)
    place = Path(os.environ.get("KEEPSTONE_QUICKSTART") or ROOT / "quickstart").absolute()
    begin = time.monotonic()
    try:
        prepare(place)
        fits = min(1.0, shutil.disk_usage(place).free / (COPIES * (given.folder + given.image) * MB))
        run(Quickstart(place, console), console, int(given.folder * MB * fits), int(given.image * MB * fits))
    except (Failed, OSError, RuntimeError, subprocess.CalledProcessError) as reason:
        console.print(f"[bold red]quickstart failed:[/bold red] {reason}", soft_wrap=True)
        return 1
    console.print(f"\n[bold green]Everything came back as it was.[/bold green] {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
