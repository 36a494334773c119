# SPDX-License-Identifier: Apache-2.0
"""The Azure CLI that tests/az/ drives, in a virtual environment of its own: it has many dependencies, and none of ours.

    python scripts/azure_cli.py           install it where it is not, or is another version; quiet otherwise
    python scripts/azure_cli.py --where   print the environment's folder; end with 1 where it is not installed

It lies in `$XDG_CACHE_HOME/keepstone-az/venv` (`~/.cache` by default), so that `make clean` leaves it alone. Its stamp
has the requirements that were installed, and is written after pip's own check and a first run of az. Of two that
install at once, one waits for the other.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["REQUIREMENTS", "environment", "install", "is_installed", "main"]

# azure-identity: what programs over the Azure SDK log in with; the SDK itself comes with az.
REQUIREMENTS = ("azure-cli==2.91.0", "azure-identity==1.27.0")
_STAMP = ".installed"


def environment() -> Path:
    """The folder of the virtual environment."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keepstone-az" / "venv"


def is_installed(home: Path) -> bool:
    """Whether the environment has what is wanted, and an interpreter."""
    stamp = home / _STAMP
    return stamp.exists() and stamp.read_text() == _wanted() and os.access(home / "bin" / "python", os.X_OK)


def install(home: Path) -> None:
    """Install what is missing. `OSError` or `subprocess.CalledProcessError` where it cannot be had."""
    (home / _STAMP).unlink(missing_ok=True)
    there = (home / "bin" / "python").exists()
    try:
        _fill(home)
    except (OSError, subprocess.CalledProcessError):
        if not there:
            raise
        # What an interrupted run left may not be mended by another one.
        shutil.rmtree(home)
        _fill(home)
    (home / _STAMP).write_text(_wanted())


def main(arguments: list[str]) -> int:
    """See the module."""
    home = environment()
    if arguments == ["--where"]:
        print(home)
        return 0 if is_installed(home) else 1
    if is_installed(home):
        return 0
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _alone(home.with_name("lock")):
            if not is_installed(home):
                print(f"installing {' '.join(REQUIREMENTS)}")
                install(home)
        return 0
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"The Azure CLI could not be installed: {error}", file=sys.stderr)
        print("The tests in tests/az need it. Try again with:\n    make azure-cli", file=sys.stderr)
        # On a machine that checks changes a missing tool is a failure; elsewhere the tests that need it say so.
        return 1 if os.environ.get("CI") else 0


def _wanted() -> str:
    return "\n".join(REQUIREMENTS) + "\n"


def _fill(home: Path) -> None:
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    pip = [str(python), "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--prefer-binary", *REQUIREMENTS], check=True)
    subprocess.run([*pip, "check"], check=True)
    # A folder of settings that nobody has: what az would find in another one is no part of the trial.
    settings = {"AZURE_CONFIG_DIR": str(home / "trial"), "AZURE_CORE_COLLECT_TELEMETRY": "false"}
    trial = [str(home / "bin" / "az"), "version"]
    subprocess.run(trial, check=True, stdout=subprocess.DEVNULL, env=os.environ | settings)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of this file; another process that wants it waits."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
