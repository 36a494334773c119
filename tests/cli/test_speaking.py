# SPDX-License-Identifier: Apache-2.0
"""How commands speak and end: exit codes, JSON, progress, interruptions, pipes."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keepstone.cli import main
from keepstone.cli import progress as progress_module
from keepstone.env import Env
from keepstone.store import LocalWriter, Outcome, Store
from tests.cli.running import RECIPIENT, Cli, noise

pytestmark = pytest.mark.store

PROGRAM = [sys.executable, "-c", "import sys; from keepstone.cli import main; sys.exit(main())"]
VERBS = (
    "init", "backup", "list", "show", "restore", "find", "diff", "verify", "forget", "undelete", "reclaim", "stat",
    "rebuild-index", "key rotate", "key kit",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_command_names_its_options(cli: Cli, verb: str) -> None:
    out = cli.run("store", *verb.split(), "--help").out

    for option in ("--store DIR", "--json", "--passphrase-file", "--passphrase-command"):
        assert option in out


def test_help_lists_every_command(cli: Cli) -> None:
    out = cli.run("store", "-h").out

    assert all(f"\n  {verb.split()[0]} " in out for verb in VERBS)
    assert cli.run("--version").out.startswith("keepstone ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "backup", "--store", "x"),
        ("store", "list"),
        ("store", "list", "--store", "x", "--wrong"),
        ("store", "nothing"),
        ("nothing",),
        ("store", "backup", "--store", "x", "--level", "20", "y"),
        ("store", "backup", "--store", "x", "--level", "slow", "y"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_sentence(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli.run(*arguments, code=2)

    assert ended.err.startswith("keepstone: ")
    assert len(ended.err.splitlines()) == 1
    assert "--help" in ended.err
    assert cli.run(*arguments, "--json", code=2).error == "BadRequest"


@pytest.mark.parametrize("arguments", [(), ("store",), ("store", "key")])
def test_group_without_a_command_shows_its_help(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli.run(*arguments, code=2)

    first, *help = ended.err.splitlines()
    assert first == "keepstone: no command is given"
    assert help == cli.run(*arguments, "--help").out.splitlines()
    assert ended.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("list", "--store", "missing"), 10, "StoreMissing"),
        (("list", "--store", "empty"), 10, "StoreMissing"),
        (("backup", "--store", "missing", "."), 10, "StoreMissing"),
        (("backup", "--store", "store", "missing"), 3, "SourceMissing"),
        (("backup", "--store", "store", "disk.img", "missing"), 3, "SourceMissing"),
        (("backup", "--store", "store", "/dev/null"), 2, "BadRequest"),
        (("backup", "--store", "store", ".", "--image"), 2, "BadRequest"),
        (("show", "--store", "store", "latest"), 3, "RecoveryPointNotFound"),
        (("restore", "--store", "store", "abc", "--target", "new"), 3, "RecoveryPointNotFound"),
        (("forget", "--store", "store", "abc"), 3, "RecoveryPointNotFound"),
        (("undelete", "--store", "store", "abc"), 3, "RecoveryPointNotFound"),
    ],
)
def test_failures_have_their_codes(made: Cli, arguments: tuple[str, ...], code: int, error: str) -> None:
    made.disk()
    Path("empty").mkdir()

    ended = made.run("store", *arguments, "--json", code=code)

    assert ended.error == error
    assert ended.err.strip() == f"keepstone: {ended.json['error']['message']}"
    assert made.run("store", *arguments, code=code).out == ""
    assert made.points() == []


def test_unexpected_error_says_how_to_report_it(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Store) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Store, "stat", broken)

    ended = made("stat", "--json", code=1)
    traced = made("stat", "--debug", code=1)

    assert ended.error == "InternalError"
    assert "--debug" in ended.err
    assert "Traceback" not in ended.err
    assert "ZeroDivisionError: oops" in traced.err
    assert "Traceback" in traced.err


def test_error_of_the_operating_system_is_translated(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, code, error in ((28, 1, "StorageFull"), (13, 5, "AccessDenied"), (5, 1, "StorageError")):

        def failing(_: Store, number: int = number) -> None:
            raise OSError(number, os.strerror(number), "/some/file")

        monkeypatch.setattr(Store, "stat", failing)
        ended = made("stat", "--json", code=code)
        assert ended.error == error
        assert "/some/file" in ended.err


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [(errno.EACCES, "file", "check its owner and permissions"), (errno.EROFS, "file", "it is mounted read-only")],
)
def test_what_was_not_allowed_is_told_apart(
    made: Cli, monkeypatch: pytest.MonkeyPatch, number: int, what: str, said: str
) -> None:
    def failing(_: Store) -> None:
        raise OSError(number, os.strerror(number), what)

    monkeypatch.setattr(Store, "stat", failing)

    message = made("stat", "--json", code=5).json["error"]["message"]
    assert message.startswith(what)
    assert said in message
    assert ("read-only" in message) is (number == errno.EROFS)


def test_what_was_done_before_a_failure_is_told(made: Cli) -> None:
    disk = made.disk()
    other = made.path / "vanishing.img"
    other.write_bytes(noise(100))
    before = LocalWriter.commit

    def commit(self: LocalWriter, outcome: Outcome) -> str:
        other.unlink()
        return before(self, outcome)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWriter, "commit", commit)
        ended = made("backup", disk, other, "--json", code=3)

    assert ended.error == "SourceMissing"
    assert [point["item"] for point in ended.json["points"]] == [str(disk)]
    assert [point["id"] for point in made.points()] == [ended.json["points"][0]["id"]]


def test_events_come_before_the_result(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_EVENT_EVERY", 0.001)

    lines = [json.loads(line) for line in made("backup", made.disk(5 << 20), "--json-progress").out.splitlines()]

    events, result = lines[:-1], lines[-1]
    assert {event["event"] for event in events} == {"progress", "point"}
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["expected_bytes"] == last["done_bytes"] == 5 << 20
    assert "points" in result
    assert "event" not in result


def test_lines_are_written_where_nobody_watches(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_LINE_EVERY", 0.001)
    disk = made.disk(5 << 20)

    spoken = made("backup", disk)
    silent = made("backup", disk, "--quiet")

    assert "backup: " in spoken.err
    assert "MiB/s" in spoken.err
    assert silent.err == ""


def run(cli: Cli, *arguments: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, check=False, cwd=cli.path, **more)  # type: ignore[call-overload,no-any-return]


def test_as_a_program_of_its_own(cli: Cli) -> None:
    disk = cli.disk()

    made = run(cli, "store", "init", "--store", "s", "--kit-recipient", RECIPIENT)
    backed_up = run(cli, "store", "backup", "--store", "s", disk, "--json")
    restored = run(cli, "store", "restore", "--store", "s", "latest", "--target", "new")
    missing = run(cli, "store", "list", "--store", "t")

    assert [made.returncode, backed_up.returncode, restored.returncode] == [0, 0, 0]
    assert json.loads(backed_up.stdout)["points"][0]["kind"] == "images"
    assert (cli.path / "new").read_bytes() == disk.read_bytes()
    assert (missing.returncode, missing.stdout) == (10, b"")


def test_store_can_be_named_by_the_environment(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_STORE", str(made.store))

    assert made.run("store", "list", "--json").json == {"points": []}


def test_reader_that_goes_away_is_no_error(made: Cli) -> None:
    disk = made.disk(1000)
    for _ in range(3):
        made.backup(disk)
    command = f"{' '.join(map(_quoted, PROGRAM))} store list --store store | true; echo ${{PIPESTATUS[0]}}"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=made.path)

    assert ended.stderr == ""
    assert ended.stdout.strip() in ("0", "1")  # 0 where the reader was slow to go


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_backup_leaves_no_point_and_no_lease(made: Cli, number: signal.Signals) -> None:
    """While it writes its first pack; test_interrupted.py has every other moment."""
    disk = made.path / "large.img"
    with disk.open("wb") as file:
        for seed in range(8):
            file.write(noise(8 << 20, seed))
    process = subprocess.Popen(
        [*PROGRAM, "store", "backup", "--store", "store", disk, "--json", "--level", "19"],
        cwd=made.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (any((made.store / "leases").glob("*")) and any((made.store / "tmp").glob("*,*"))):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "Interrupted"
    assert "Traceback" not in err
    assert made.points() == []
    assert list((made.store / "leases").glob("*")) == []
    assert {path.name for path in (made.store / "tmp").iterdir()} <= {"reserve"}
    assert made("verify", "--json").json["ok"] is True


def test_terminal_gets_a_bar_and_no_secret(cli: Cli) -> None:
    cli.init()
    disk = cli.disk(30 << 20)
    main_end, its_end = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "store", "backup", "--store", "store", disk],
        cwd=cli.path, stdin=its_end, stdout=subprocess.PIPE, stderr=its_end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(its_end)
    shown = b""
    while True:
        try:
            piece = os.read(main_end, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    out, _ = process.communicate(timeout=60)
    os.close(main_end)

    assert process.returncode == 0
    assert b"backup" in shown
    assert "━".encode() in shown
    assert b"MiB/s" in shown
    assert str(disk).encode() in out
    assert b"\x1b" not in out


def test_rich_and_numpy_are_not_loaded_without_need(made: Cli) -> None:
    disk = made.disk()
    made.backup(disk)
    code = (
        "import sys; from keepstone.cli import main; "
        "code = main(sys.argv[1:]); print({'rich', 'numpy', 'platformdirs'} & set(sys.modules)); sys.exit(code)"
    )
    for verb in (["backup", str(disk)], ["list"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, "store", *verb, "--store", "store"],
            cwd=made.path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ended.stdout.splitlines()[-1] == "set()"


def test_main_can_be_called_from_another_thread(made: Cli) -> None:
    with Env(threads=1).pool() as pool:  # type: ignore[attr-defined]
        assert pool.submit(main, ["store", "list", "--store", str(made.store), "--quiet"]).result() == 0
