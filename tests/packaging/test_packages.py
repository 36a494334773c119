# SPDX-License-Identifier: Apache-2.0
"""The packages themselves: built, looked into, installed on a copy of this system, used there and removed."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from keepstone import __version__

from . import rpm

pytestmark = [pytest.mark.agents, pytest.mark.slow]
CONFIGURATION = {"/etc/keepstone/agent.toml", "/etc/keepstone/server.env"}
PLACES = {
    *CONFIGURATION,
    "/usr/bin/keepstone",
    "/usr/lib/systemd/system/keepstone.service",
    "/usr/lib/systemd/system/keepstone-agent.service",
    "/usr/lib/sysusers.d/keepstone.conf",
    "/opt/keepstone/bin/keepstone",
    "/opt/keepstone/pyvenv.cfg",
}
# In a mount namespace of its own: this system below, and what is written above it in a folder that goes afterwards.
COPY = """
set -e
cd "$1"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root
mount --rbind /proc root/proc
mount --rbind /dev root/dev
mount --bind "$2" root/mnt
exec chroot root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -e /mnt/trial.sh
"""
TRIAL = """
DATA=/var/lib/keepstone
say() { echo "== $*"; }
cd /
say install; dpkg --force-depends -i /mnt/keepstone.deb
say version; keepstone --version
say where; /opt/keepstone/bin/python -I -c 'import keepstone; print(keepstone.__file__)'
say agent; keepstone agent --help | head -1
say units; systemd-analyze verify --man=no keepstone.service keepstone-agent.service 2>&1 || true
say first; runuser -u keepstone -- keepstone up --data $DATA --port 0 --detach --json | tr , '\\n' | grep endpoint
say stop; runuser -u keepstone -- keepstone down --data $DATA | cut -c 1-40
say unchanged; dpkg --verify keepstone; find /opt/keepstone -newer /mnt/trial.sh -type f
say again; dpkg --force-depends -i /mnt/keepstone.deb >/dev/null; keepstone --version
say gone; dpkg -r keepstone >/dev/null; ls -d /opt/keepstone /usr/bin/keepstone 2>/dev/null || true; ls /etc/keepstone
say purged; dpkg -P keepstone >/dev/null 2>&1; ls -d /etc/keepstone 2>/dev/null || true; ls $DATA | grep service.json
"""


def deb_files(path: Path, tool: str) -> dict[str, str]:
    """Mode by path."""
    listed = subprocess.run([tool, "-c", path], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=5) for line in listed.splitlines()]
    return {row[5].partition(" -> ")[0].removeprefix(".").rstrip("/"): row[0] for row in rows}


def test_what_is_in_the_deb(packages: dict[str, Path], tool: Callable[[str], str]) -> None:
    dpkg = tool("dpkg-deb")
    found = deb_files(packages["deb"], dpkg)
    control = subprocess.run([dpkg, "-f", packages["deb"]], capture_output=True, text=True, check=True).stdout
    told = subprocess.run([dpkg, "-I", packages["deb"], "conffiles"], capture_output=True, text=True, check=True).stdout

    assert set(found) >= PLACES
    assert found["/etc/keepstone/agent.toml"] == "-rw-------"
    assert found["/opt/keepstone/bin/keepstone"] == "-rwxr-xr-x"
    assert not [path for path, mode in found.items() if mode[0] in "-d" and mode[8] == "w"], "others may write to it"
    assert set(told.split()) == CONFIGURATION
    assert f"Version: {__version__}-1" in control
    assert "Depends: python3." in control


def test_what_is_in_the_rpm(packages: dict[str, Path]) -> None:
    found = rpm.header(packages["rpm"])
    modes = dict(rpm.files(found))

    assert (found["name"], found["version"]) == ("keepstone", __version__)
    assert set(modes) >= PLACES
    assert stat.S_IMODE(modes["/etc/keepstone/agent.toml"]) == 0o600
    assert any(name.startswith("/usr/bin/python3.") for name in found["requires"])
    kept = {
        path for (path, _), flags in zip(rpm.files(found), found["flags"], strict=True) if flags & 0b10001 == 0b10001
    }
    assert kept == CONFIGURATION, "configuration that an upgrade leaves alone"


def test_both_have_the_same_program(packages: dict[str, Path], tool: Callable[[str], str]) -> None:
    in_deb = {path for path in deb_files(packages["deb"], tool("dpkg-deb")) if path.startswith("/opt/keepstone/")}
    in_rpm = {path for path, _ in rpm.files(rpm.header(packages["rpm"])) if path.startswith("/opt/keepstone/")}

    assert in_deb == in_rpm


def test_nothing_in_it_knows_where_it_was_built(
    packages: dict[str, Path], tool: Callable[[str], str], tmp_path: Path, builder: ModuleType
) -> None:
    subprocess.run([tool("dpkg-deb"), "-x", packages["deb"], tmp_path], check=True)
    places = (str(builder.ROOT), "keepstone-packages-")
    wrong = []
    for path in (tmp_path / "opt" / "keepstone").rglob("*"):
        if (
            path.is_file()
            and not path.is_symlink()
            and (path.suffix in (".pyc", ".cfg", ".json") or "bin" in path.parts)
        ):
            data = path.read_bytes()
            wrong += [str(path.relative_to(tmp_path)) for place in places if place.encode() in data]

    assert wrong == []
    assert os.readlink(tmp_path / "opt/keepstone/bin/python3").startswith("python3")


def test_it_can_be_installed_used_and_removed(
    packages: dict[str, Path], tool: Callable[[str], str], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root installs a package, even on a copy of the system")
    for needed in ("unshare", "chroot", "dpkg", "runuser"):
        tool(needed)
    given = tmp_path / "given"
    given.mkdir()
    os.link(packages["deb"], given / "keepstone.deb")
    (given / "trial.sh").write_text(TRIAL)
    probe = ["unshare", "--mount", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine allows no mount namespaces")

    command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", COPY, "sh", str(tmp_path), str(given)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    said = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in ran.stdout.split("== ")[1:]}

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert said["version"] == said["again"] == f"keepstone {__version__}"
    assert said["where"].startswith("/opt/keepstone/lib/python3.")
    assert said["agent"].startswith("Usage: keepstone agent")
    assert "keepstone" not in said["units"]
    assert "https://localhost:" in said["first"]
    assert said["stop"].startswith("the service in /var/lib/keepstone")
    assert said["unchanged"] == "", "running it wrote beneath /opt, or changed what the package brought"
    assert said["gone"].split() == ["agent.toml", "server.env"]
    assert said["purged"] == "service.json", "vaults stay"
