# SPDX-License-Identifier: Apache-2.0
"""Run the jobs with every tool, interleaved, and write what they cost to `bench/results.json`.

A scene is one data set and the jobs on it, in order. In round r the tools of a job run one after another, the order
turned by one from job to job and from round to round, so that no tool always finds the quieter machine. Before a scene
its sources are read once, so they are in the page cache for all; before a job all that was written goes to the disk.
Each tool's first restore is compared with its source, outside of the measured time.

A full run writes the file anew. With chosen jobs, only these are replaced in it. `--quick` takes one round of the
small data and leaves the file alone.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keepstone
from bench.data import FULL, SMALL, Scale, ensure
from bench.figures import OURS, Spread, compared, spread, verdicts
from bench.measure import Failed, allocated, floor, measure
from bench.peers import Command, Room, Tool, tools
from bench.setup import bench_dir
from bench.table import RESULTS

__all__ = ["SCENES", "Job", "main"]

SETTLED = 365.0  # seconds


@dataclass(frozen=True, slots=True)
class Job:
    """One measured command: a backup of a data set, or a restore or check of what was backed up before. `number`: of
    the backup. `times`: how often in a round, for what depends on where in its turn a tool comes."""

    name: str
    verb: Literal["backup", "restore", "verify"]
    data: str
    number: int = 1
    times: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """Jobs on one store in order. The first makes what the others need. `image` says that the data is a disk image."""

    name: str
    jobs: tuple[Job, ...]
    image: bool = False
    only: tuple[str, ...] = ()

    def asked(self, names: Sequence[str]) -> tuple[Job, ...]:
        """The jobs of these names, by their own or the scene's."""
        return tuple(job for job in self.jobs if not names or job.name in names or self.name in names)

    def chosen(self, names: Sequence[str]) -> tuple[Job, ...]:
        """The same, and the first one that they need, of which nothing is noted then."""
        asked = self.asked(names)
        return tuple(job for job in self.jobs if asked and (job in asked or job is self.jobs[0]))


SCENES = (
    Scene("image", (
        Job("image-first", "backup", "image"),
        Job("image-restore", "restore", "image"),
        Job("verify-image", "verify", "image"),
        Job("image-second", "backup", "image2", 2),
    ), image=True),
    Scene("tree", (
        Job("tree-first", "backup", "tree"),
        Job("tree-unchanged", "backup", "tree", 2),
        Job("tree-restore", "restore", "tree", times=3),
        Job("verify-tree", "verify", "tree"),
    )),
    Scene("incompressible", (Job("incompressible-first", "backup", "incompressible"),)),
    Scene("source", (Job("source-first", "backup", "source"),)),
    Scene("memory-million", (
        Job("million-first", "backup", "million"),
        Job("million-unchanged", "backup", "million", 2),
    ), only=(OURS,)),
)  # fmt: skip
PROGRAMS = ("index", "mark", "service", "agents", "machines")  # benchmarks of one part, in modules of their own

Values = dict[str, dict[str, dict[str, list[float]]]]  # job, tool, figure


class Bench:
    """One run: where it works, with what, and what was measured so far."""

    def __init__(self, scale: Scale, team: Sequence[Tool], names: Sequence[str]) -> None:
        self.scale, self.team, self.names = scale, team, names
        self.work = bench_dir() / scale.name / "run"
        self.cleared = time.monotonic() - SETTLED
        self.values: Values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))

    def round(self, turn: int) -> None:
        """Run every chosen job once with every tool."""
        for scene in SCENES:
            jobs = scene.chosen(self.names)
            if jobs and (scene.only == () or any(tool.name in scene.only for tool in self.team)):
                self._scene(scene, jobs, turn)
        for program in PROGRAMS:
            if OURS in [tool.name for tool in self.team] and (not self.names or program in self.names):
                self._program(program)

    def jobs(self) -> dict[str, dict[str, dict[str, Spread]]]:
        """What was measured, as spreads."""
        return {
            job: {tool: {figure: spread(v) for figure, v in figures.items()} for tool, figures in tools_.items()}
            for job, tools_ in self.values.items()
        }

    def _scene(self, scene: Scene, jobs: Sequence[Job], turn: int) -> None:
        team = [tool for tool in self.team if not scene.only or tool.name in scene.only]
        self._clear()
        self._warm(jobs)
        for tool in team:
            room = self._room(tool)
            room.home.mkdir(parents=True)
            measure(tool.init(room))
        for place, job in enumerate(jobs):
            for repeat in range(job.times):
                shift = (turn + place + repeat) % len(team)
                for tool in [*team[shift:], *team[:shift]]:
                    self._job(scene, job, tool, turn, repeat)
        self._clear()

    def _clear(self) -> None:
        """Remove what a scene left, restored files too: they stay until then, see `_settle`."""
        if self.work.exists():
            shutil.rmtree(self.work)
            self.cleared = time.monotonic()
        os.sync()

    def _settle(self) -> None:
        """Wait out ext4's memory of deleted inodes.

        For a minute, or for six while their block is not written out, ext4 does not give them out again and looks at
        every one of them for each new file (recently_deleted() in fs/ext4/ialloc.c): creating 157,000 files after the
        deletion of as many cost ten times the system time. To drop the kernel's caches does not help: blocks of
        inodes are read again, each with its neighbours; a minute after such a drop this was still a fifth of a restore.
        """
        if self.scale is FULL:
            time.sleep(max(0.0, self.cleared + SETTLED - time.monotonic()))

    def _warm(self, jobs: Sequence[Job]) -> None:
        """Read the sources once, so that nobody is the first to. In a process of its own: see `bench.measure` on what
        this program's memory does."""
        places = dict.fromkeys(str(ensure(job.data, self.scale)[0]) for job in jobs)
        subprocess.run([sys.executable, "-m", "bench.warm", *places], check=True)

    def _job(self, scene: Scene, job: Job, tool: Tool, turn: int, repeat: int) -> None:
        room, source = replace(self._room(tool), repeat=repeat), self._source(scene, job)
        if job.verb == "restore":
            room.target.mkdir()
            if not scene.image:
                self._settle()
        before = allocated(room.store)
        os.sync()  # or who comes next pays for what this one wrote
        cost = measure(_command(tool, room, source, scene, job))
        figures = cost.figures()
        if job.verb == "backup":
            figures["stored_bytes"] = allocated(room.store)
            figures["added_bytes"] = figures["stored_bytes"] - before
        if job.verb == "restore" and turn == repeat == 0:
            self._compare(ensure(job.data, self.scale)[0], tool.restored(room, source), tool, job)
        if job in scene.asked(self.names):
            self._note(job.name, tool.name, figures)

    def _program(self, program: str) -> None:
        """A module that measures one part of Keepstone prints its own figures as a JSON object in its last line."""
        if importlib.util.find_spec(f"bench.{program}"):
            small = ["--small"] if self.scale is SMALL else []
            cost = measure(Command((sys.executable, "-m", f"bench.{program}", *small)))
            self._note(program, OURS, cost.figures() | json.loads(cost.output.strip().splitlines()[-1]))

    def _note(self, job: str, tool: str, figures: dict[str, float]) -> None:
        for figure, value in figures.items():
            self.values[job][tool][figure].append(value)
        stored = f"  stored {figures['stored_bytes'] / 1e6:7.0f} MB" if "stored_bytes" in figures else ""
        print(
            f"{job:22}{tool:10} cpu {figures['cpu_s']:7.2f} s  wall {figures['wall_s']:7.2f} s  "
            f"peak {figures['rss_bytes'] / 1e6:5.0f} MB{stored}",
            flush=True,
        )

    def _room(self, tool: Tool) -> Room:
        return Room(self.work / tool.name)

    def _source(self, scene: Scene, job: Job) -> Path:
        """A set's own place; a disk image always goes under one name, whichever generation it is."""
        place, _ = ensure(job.data, self.scale)
        if not scene.image:
            return place
        disk, fresh = self.work / "disk.img", self.work / "disk.next"
        os.link(place, fresh)
        fresh.replace(disk)
        fresh.unlink(missing_ok=True)  # rename leaves both names where they are one file
        return disk

    def _compare(self, source: Path, restored: Path, tool: Tool, job: Job) -> None:
        command = [sys.executable, "-m", "bench.same", str(source), str(restored)]
        same = subprocess.run(command, capture_output=True, text=True, check=False)
        if same.returncode:
            raise Failed(f"{job.name}: what {tool.name} restored differs from its source: {same.stdout or same.stderr}")


def _command(tool: Tool, room: Room, source: Path, scene: Scene, job: Job) -> Command:
    if job.verb == "backup":
        return tool.backup(room, source, scene.image, job.number)
    if job.verb == "restore":
        return tool.restore(room, source, scene.image, job.number)
    return tool.verify(room)


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names the machine."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    mounts = [line.split() for line in _lines("/proc/mounts")]
    place = str(bench_dir())
    mount = max((m for m in mounts if (place + "/").startswith(m[1].rstrip("/") + "/")), key=lambda m: len(m[1]))
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": int(memory) * 1024,
        "kernel": platform.release(),
        "file_system": mount[2],
        "python": platform.python_version(),
    }


def code() -> str:
    """The commit that is measured, with a + where files of the product are not as it has them; else the version."""
    try:
        commit = _git("rev-parse", "--short=7", "HEAD").strip()
        return commit + ("+" if _git("status", "--porcelain", "--", "src").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return keepstone.__version__


def _git(*arguments: str) -> str:
    root = Path(__file__).parent.parent
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def _lines(path: str) -> Iterator[str]:
    yield from Path(path).read_text().splitlines()


def _document(bench: Bench, earlier: dict[str, Any]) -> dict[str, Any]:
    """The results of this run, and of earlier ones for jobs that this one did not run."""
    folder = bench_dir() / bench.scale.name / "data"
    made = {facts.stem: json.loads(facts.read_text()) for facts in sorted(folder.glob("*.json"))}
    used = {job.data for scene in SCENES for job in scene.chosen(bench.names)}  # another machine's are others
    here = {"machine": machine(), "code": code()}
    jobs = earlier.get("jobs", {}) | bench.jobs()
    return {
        "measured": earlier.get("measured", {}) | dict.fromkeys(bench.jobs(), here),
        "scale": bench.scale.name,
        "versions": earlier.get("versions", {}) | {tool.name: tool.version() for tool in bench.team},
        "load": [round(load, 2) for load in os.getloadavg()],
        "runner_bytes": floor(),
        "data": made | earlier.get("data", {}) | {name: made[name] for name in used & made.keys()},
        "jobs": jobs,
        "ratios": compared(jobs),
        "bars": verdicts(jobs),
    }


def main() -> int:
    """Measure and write; 1 where a bar is not held at full scale, 2 where the measuring itself failed."""
    names = [name for scene in SCENES for name in (scene.name, *(job.name for job in scene.jobs))] + list(PROGRAMS)
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Keepstone and its peers.")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"only these, of: {', '.join(dict.fromkeys(names))}")
    parser.add_argument("--rounds", type=int, default=3, help="how often each job runs (3)")
    parser.add_argument("--tools", default="keepstone,restic,borg", help="with which tools, by comma")
    parser.add_argument("--small", action="store_true", help="the small data")
    parser.add_argument("--quick", action="store_true", help="one round of the small data")
    parser.add_argument("--out", type=Path, help="where the results go (bench/results.json; of small data elsewhere)")
    given = parser.parse_args()
    if unknown := [name for name in given.jobs if name not in names]:
        parser.error(f"no such job: {', '.join(unknown)}")
    try:
        return _run(given)
    except (Failed, LookupError) as reason:
        print(f"bench: {reason}", file=sys.stderr)
        return 2


def _run(given: argparse.Namespace) -> int:
    scale = SMALL if given.quick or given.small else FULL
    out = given.out or (RESULTS if scale is FULL else bench_dir() / scale.name / "results.json")
    bench = Bench(scale, tools(tuple(given.tools.split(","))), given.jobs)
    compileall.compile_dir(Path(keepstone.__file__).parent, quiet=2)  # as pip leaves what it installs
    _make_data(bench)
    earlier: dict[str, Any] = json.loads(out.read_text()) if given.jobs and out.exists() else {}
    if earlier and earlier["scale"] != scale.name:
        raise LookupError(f"{out.name} is of another scale; run all jobs, or choose another --out")
    for turn in range(1 if given.quick else given.rounds):
        print(f"round {turn + 1}", flush=True)
        bench.round(turn)
        document = _document(bench, earlier)
        out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    missed = [verdict for verdict in document["bars"] if not verdict["held"]]
    for bar in missed:
        what = f"{bar['job']} {bar['figure']} {bar['against']}"
        print(f"NOT HELD {what}: {bar['value']:.3g}, {bar['sense']} {bar['limit']:g}")
    print(f"{len(document['bars']) - len(missed)} bars held, {len(missed)} not held")
    return 1 if missed and scale is FULL else 0


def _make_data(bench: Bench) -> None:
    """Make the missing sets, in a process of its own: see `bench.measure` on what this program's memory does."""
    sets = {job.data for scene in SCENES for job in scene.chosen(bench.names) if not scene.only or bench.names or any(
        tool.name in scene.only for tool in bench.team)}  # fmt: skip
    small = ["--small"] if bench.scale is SMALL else []
    if sets:
        command = [sys.executable, "-m", "bench.data", *small, *sorted(sets)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
