# SPDX-License-Identifier: Apache-2.0
"""What the administrator of this machine says to its agent: `agent.toml`, which no service can change.

    log_level = "info"          # debug, info, warning, error
    threads = 2                 # default: as many as there are processors
    cache = "1 GB"              # what the agent may keep to be faster

    [limits]                    # at all times, but
    bandwidth = "20 MB"         # a second
    cpu = 50                    # percent of one core
    nice = 10
    io = "idle"                 # normal, low, idle

    [[limits.times]]            # the first that it is now counts
    days = ["mon", "tue", "wed", "thu", "fri"]
    from = "08:00"
    until = "18:00"             # before `from`: on the next day
    bandwidth = "2 MB"          # 0: nothing goes then

    [backup]
    allow = ["/", "/dev/vdb"]   # a device only where its own path is beneath /dev here
    deny = ["/root/.ssh"]
    exclude = ["*.tmp"]         # patterns of gitignore, in addition to the item's
    snapshots = "/var/snap"     # machines may keep snapshots, with their files there; default: none

    [restore]
    allow = ["/srv"]            # default: one folder of the agent's own
    deny = []
    machines = true             # new machines of QEMU and libvirt may be started; default: not
    networks = ["bridge=br0"]   # that these may be put into, or "user"; default: none

    [sealed]                    # the service is not to read these
    passphrase_file = "/etc/keepstone/passphrase"
    items = ["/srv/*"]          # default: all
    # previous_file = "…"       # the passphrase until now, while it is being changed

    [[before]]                  # before a backup; [[after]] as well
    run = ["/usr/local/bin/freeze", "--all"]
    items = ["/srv/*"]          # default: all
    timeout = 300               # seconds
    ignore = true               # go on where it fails

A service that fell into wrong hands can ask for every job there is. What it cannot have, because this file decides it:
commands; files that are denied; a way to write to places that nobody opened. The file counts only where nobody else may
write to it. Keys that nobody knows are errors, so that a limit with a slip of the pen is no silent lack of one.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from keepstone.agent import system
from keepstone.env import Env
from keepstone.errors import NotFound, UsageError
from keepstone.objects import failure

__all__ = ["Command", "Configuration", "ConfigurationFile", "LimitsSettings", "PathSettings", "SealedSettings", "Span"]

_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[_Day, ...] = get_args(_Day)
_Path = Annotated[str, msgspec.Meta(min_length=1)]
_Percent = Annotated[float, msgspec.Meta(gt=0)]
_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([A-Za-z]*)")
_NETWORK = re.compile(r"user|bridge=[A-Za-z0-9_.-]{1,15}")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


class Size(int):
    """Bytes: a number, or a text with a unit: `20 MB`, `64 KiB`."""


class Moment(str):
    """A time of day, `08:30`; `24:00` is its end."""

    __slots__ = ()


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all parts of the file have in common."""


class Span(Struct, frozen=True, rename={"begin": "from"}):
    """A part of the week in local time. `begin` and `until` equal: the whole day."""

    days: tuple[_Day, ...] = _DAYS
    begin: Moment = Moment("00:00")
    until: Moment = Moment("24:00")
    bandwidth: Size | None = None
    cpu: _Percent | None = None

    def has(self, now: datetime) -> bool:
        """Whether it is then. A span over midnight belongs to the day on which it begins."""
        clock, begin, until = f"{now:%H:%M}", str(self.begin), str(self.until)
        today, yesterday = _DAYS[now.weekday()] in self.days, _DAYS[now.weekday() - 1] in self.days
        if begin < until:
            return today and begin <= clock < until
        return (today and clock >= begin) or (yesterday and clock < until)


class LimitsSettings(Struct, frozen=True):
    """`bandwidth` in bytes a second, `cpu` in percent of one core; None: no limit. `nice`, `io`: see `system`."""

    bandwidth: Size | None = None
    cpu: _Percent | None = None
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 0
    io: system.IoClass = "normal"
    times: tuple[Span, ...] = ()


class PathSettings(Struct, frozen=True):
    """What the service may read, or write to: what is beneath `allow` and not beneath `deny`; `paths` says the rest."""

    allow: tuple[_Path, ...] | None = None
    deny: tuple[_Path, ...] = ()


class RestoreSettings(PathSettings, frozen=True):
    """`machines`: whether machines may be started here out of points. `networks`: which ones these may be put into;
    none is always possible."""

    machines: bool = False
    networks: tuple[str, ...] = ()


class BackupSettings(PathSettings, frozen=True):
    """`exclude`: patterns of every backup. `snapshots`: the folder of what guests overwrite while their machines keep
    snapshots; None: they keep none."""

    exclude: tuple[str, ...] = ()
    snapshots: _Path | None = None


class SealedSettings(Struct, frozen=True):
    """`passphrase_file`: what opens the keys of sealed items; without it there are none. `previous_file`: what opened
    them until now. `items`: patterns of paths (as fnmatch(3)) of those items, see `sealing`; none: all."""

    passphrase_file: _Path | None = None
    previous_file: _Path | None = None
    items: tuple[_Path, ...] = ()


class Command(Struct, frozen=True):
    """`run`: the program and its arguments; no shell reads them. `items`: patterns of paths (as fnmatch(3)) of the
    items that it is for; none: all. `timeout`: seconds. `ignore`: whether a failure of it is none of the job's."""

    run: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    items: tuple[str, ...] = ()
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    ignore: bool = False


class Configuration(Struct, frozen=True):
    """The whole file. `threads` of None: as many as there are processors. `cache`: bytes."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    cache: Size = Size(1_000_000_000)
    limits: LimitsSettings = LimitsSettings()
    backup: BackupSettings = BackupSettings()
    restore: RestoreSettings = RestoreSettings()
    sealed: SealedSettings = SealedSettings()
    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()

    @classmethod
    def parse(cls, text: str, name: str = "agent.toml") -> Configuration:
        """`UsageError` that names the file, the key and what is wrong with it; all keys that nobody knows at once."""
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{name} is not TOML: {error}; correct it") from error
        if unknown := list(_unknown(raw, cls, "")):
            raise UsageError(f"{name}: {'; '.join(unknown)}")
        try:
            found = msgspec.convert(raw, cls, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise UsageError(f"{name}: {_readable(str(error))}; correct it") from error
        for part, paths in (("backup", found.backup), ("restore", found.restore)):
            for key in ("allow", "deny"):
                for path in getattr(paths, key) or ():
                    if not Path(path).is_absolute():
                        raise UsageError(f"{name}: {part}.{key} has {path!r}; paths there are absolute")
        if not Path(found.backup.snapshots or "/").is_absolute():
            raise UsageError(f"{name}: backup.snapshots is {found.backup.snapshots!r}; name an absolute folder")
        for network in found.restore.networks:
            if not _NETWORK.fullmatch(network):
                raise UsageError(f"{name}: restore.networks has {network!r}; write `user` or `bridge=NAME`")
        if (found.sealed.items or found.sealed.previous_file) and found.sealed.passphrase_file is None:
            raise UsageError(f"{name}: [sealed] needs a passphrase_file; say where the passphrase is")
        for path in (found.sealed.passphrase_file or "/", found.sealed.previous_file or "/", *found.sealed.items):
            if not Path(path).is_absolute():
                raise UsageError(f"{name}: sealed has {path!r}; paths there are absolute")
        for key, commands in (("before", found.before), ("after", found.after)):
            for command in commands:
                if not Path(command.run[0]).is_absolute():
                    raise UsageError(f"{name}: {key} runs {command.run[0]!r}; name the program by its absolute path")
        return found


class ConfigurationFile:
    """The file `path`. One that is not `needed` may be missing: everything is as by default then."""

    def __init__(self, env: Env, path: Path, *, needed: bool = True) -> None:
        self._env = env
        self._needed = needed
        self.path = path
        self._seen: object = None

    def load(self) -> Configuration:
        """What it says. `NotFound`, `AccessDenied` where others may write to it, `UsageError`."""
        self._seen = self._stamp()
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            if self._needed:
                raise NotFound(f"there is no {self.path}; check the path, or leave it out") from error
            return Configuration()
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.path} is not UTF-8 ({error}); correct it") from error
        except OSError as error:
            raise failure(error, str(self.path), missing=NotFound) from error
        system.only_ours(self.path)
        return Configuration.parse(text, str(self.path))

    def reload(self) -> Configuration | None:
        """What it says now where it was changed since the last look, else None; cheap. Raises what `load` raises, once
        for each change: whoever gets it goes on with what he has."""
        return None if self._stamp() == self._seen else self.load()

    def _stamp(self) -> object:
        try:
            found = self._env.fs.stat(self.path)
        except OSError as error:
            return error.errno
        return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode, found.st_uid


def _decode(kind: type, value: object) -> object:
    """Sizes and times of day. `ValueError` goes on as an error of msgspec's that names the place."""
    if kind is Size:
        match = _SIZE.fullmatch(value.removesuffix("/s").strip()) if isinstance(value, str) else None
        if match is not None and match[2] in _UNITS:
            return Size(float(match[1]) * _UNITS[match[2]])
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return Size(value)
        raise ValueError(f"{value!r} is no size; write `20 MB` or a number of bytes")
    if kind is Moment:
        if isinstance(value, time) and not (value.second or value.microsecond):
            value = f"{value:%H:%M}"
        if isinstance(value, str) and _TIME.fullmatch(value):
            return Moment(value)
        raise ValueError(f"{value!r} is no time of day; write `08:30`")
    raise NotImplementedError(kind)  # so a hook tells msgspec that it does not know a type


def _unknown(raw: object, kind: Any, where: str) -> Iterator[str]:
    """What has no meaning, at any depth."""
    if get_origin(kind) is tuple and isinstance(raw, list):
        for number, one in enumerate(raw):
            yield from _unknown(one, get_args(kind)[0], f"{where}[{number}]")
    elif isinstance(kind, type) and issubclass(kind, Struct) and isinstance(raw, dict):
        hints = get_type_hints(kind)
        known = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
        for key, value in raw.items():
            path = f"{where}.{key}" if where else key
            if key in known:
                yield from _unknown(value, known[key], path)
            else:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
                yield f"`{path}` is no setting; {hint}"


def _readable(message: str) -> str:
    """msgspec's `… - at `$.limits.times[...].cpu`` with the place in front."""
    what, _, place = message.partition(" - at `$")
    return f"{place.rstrip('`').lstrip('.')}: {what}" if place else what
