# SPDX-License-Identifier: Apache-2.0
"""Fetch the peers: restic 0.18 or newer and the newest borg 1.4, each into a folder of the benchmark's own.

Nothing of the machine is replaced. restic comes from a newer suite of the mirror that this machine's apt already uses,
through an apt configuration of our own; borg from PyPI into a virtual environment of its own. What cannot be had falls
back to the distribution's package, and the benchmark says which version ran.

Run it as `python -m bench.setup` or `python bench/setup.py`; it is idempotent.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["bench_dir", "find_borg", "find_restic", "main", "version_of"]

RESTIC_WANTED = (0, 18)
RESTIC_SUITE = "trixie"
BORG_WANTED = (1, 4)
BORG_REQUIREMENT = "borgbackup>=1.4,<1.5"
BORG_BUILD_PACKAGES = (
    "build-essential", "libacl1-dev", "liblz4-dev", "libssl-dev", "libxxhash-dev", "libzstd-dev", "pkg-config",
    "python3-dev",
)  # fmt: skip
DATA_PACKAGES = ("e2fsprogs",)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def bench_dir() -> Path:
    """The folder of everything that the benchmark makes: `$BENCH_DIR`, or one in the user's cache."""
    chosen = os.environ.get("BENCH_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(chosen).absolute() if chosen else cache / "keepstone-bench"


def find_restic() -> str | None:
    """The restic to measure: the fetched one, else the machine's; None where there is neither."""
    return _first(bench_dir() / "peers/restic/usr/bin/restic", "restic")


def find_borg() -> str | None:
    """The borg to measure: the fetched one, else the machine's; None where there is neither."""
    return _first(bench_dir() / "peers/borg/bin/borg", "borg")


def version_of(program: str) -> tuple[int, ...]:
    """The numbers of the version that a peer reports of itself, e.g. (0, 18, 0)."""
    flag = "version" if Path(program).name == "restic" else "--version"
    said = subprocess.run([program, flag], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(?:\.\d+)+", said)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def main() -> int:
    """Fetch what is missing; 0 when both peers run afterwards, in whatever version."""
    peers = bench_dir() / "peers"
    peers.mkdir(parents=True, exist_ok=True)
    _apt_install(DATA_PACKAGES, needed=("mkfs.ext4", "debugfs"))
    _attempt("restic", find_restic, RESTIC_WANTED, lambda: _fetch_restic(peers))
    _attempt("borg", find_borg, BORG_WANTED, lambda: _build_borg(peers))
    return 0 if find_restic() and find_borg() else 1


def _first(fetched: Path, name: str) -> str | None:
    return str(fetched) if os.access(fetched, os.X_OK) else shutil.which(name)


def _attempt(name: str, find: Callable[[], str | None], wanted: tuple[int, ...], fetch: Callable[[], None]) -> None:
    present = find()
    if not present or version_of(present) < wanted:
        try:
            fetch()
        except (OSError, subprocess.CalledProcessError, LookupError) as refused:
            print(f"{name}: the newer version could not be had ({refused}); falling back to the distribution's")
            if not find():
                _apt_install(("borgbackup" if name == "borg" else name,), needed=(name,))
    found = find()
    print(f"{name}: {'.'.join(map(str, version_of(found)))}" if found else f"{name}: not to be had")


def _fetch_restic(peers: Path) -> None:
    """apt's own download out of a newer suite, without touching the machine's package lists."""
    own = peers / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "parts"):
        (own / folder).mkdir(parents=True, exist_ok=True)
    (own / "status").touch()
    signed = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
    (own / "peers.list").write_text(f"deb{signed} {_mirror()} {RESTIC_SUITE} main\n")
    settings = {
        "Dir::State::lists": own / "lists",
        "Dir::State::status": own / "status",
        "Dir::Cache": own / "cache",
        "Dir::Etc::sourcelist": own / "peers.list",
        "Dir::Etc::sourceparts": own / "parts",
        "Dir::Etc::preferencesparts": own / "parts",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
    }
    apt = ["apt-get", "-qq"] + [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", "restic"], check=True, cwd=own)
    package = max(own.glob("restic_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(peers / "restic")], check=True)
    shutil.rmtree(own)


def _mirror() -> str:
    """The address of Debian's main archive as this machine's apt knows it."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        raise LookupError(f"apt here serves {release.get('ID')}, not Debian")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for line in listed.splitlines():
        address, suite, component = line.split()
        if suite == release.get("VERSION_CODENAME") and component == "main":
            return address
    raise LookupError("apt lists no Debian main archive")


def _build_borg(peers: Path) -> None:
    """borg from PyPI; it has no wheels, so its libraries' headers come from apt first."""
    _apt_install(BORG_BUILD_PACKAGES, needed=("cc", "pkg-config"), always=True)
    home = peers / "borg"
    venv.create(home, with_pip=True, clear=True)
    try:
        subprocess.run([str(home / "bin/pip"), "install", "-q", BORG_REQUIREMENT], check=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(home)
        raise


def _apt_install(packages: Sequence[str], needed: Sequence[str], always: bool = False) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if not always and all(shutil.which(program, path=path) for program in needed):
        return
    become_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run([*become_root, "apt-get", "-qq", *arguments], env=environment, check=False)
        if done.returncode:
            print(f"apt-get {arguments[0]} failed; going on with what is installed")


if __name__ == "__main__":
    sys.exit(main())
