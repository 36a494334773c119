# SPDX-License-Identifier: Apache-2.0
"""What of a tree is backed up.

Patterns are those of gitignore(5), relative to the source: the last one that matches decides, `!` takes an exclusion
back, and nothing beneath an excluded directory is looked at. With `include` only what matches one of its patterns is
taken, and the directories that lead there.

Who asks for a backup chooses these; who has it made may forbid more (`never`, `always`), and asks for himself: in one
list with theirs, a `!**` would take his exclusions back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keepstone.env import Env, FileSystem
from keepstone.errors import SourceFailed, SourceMissing, UsageError
from keepstone.objects import failure

__all__ = ["CACHE_TAG", "Rules", "Selection", "recorded", "remembered"]

CACHE_TAG = b"CACHEDIR.TAG"
_ODD = re.compile("[\\udc80-\\udcff]")  # as Python has such bytes, see PEP 383
_RECORDED = re.compile("\\0([89a-f][0-9a-f])")
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`exclude_from`: files with one pattern a line, read before `exclude`.

    `one_file_system`: what is mounted beneath the source stays empty. `skip_caches`: of a directory that is marked as a
    cache by a valid CACHEDIR.TAG, only this tag is taken. `never`: paths, relative to the source, that are not taken
    with all that is beneath them, and `always`: patterns of what is left out, whatever the others say.
    """

    exclude: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude_from: Sequence[str | os.PathLike[str]] = ()
    one_file_system: bool = False
    skip_caches: bool = False
    never: Sequence[str] = ()
    always: Sequence[str] = ()

    def compile(self, env: Env) -> Rules:
        """Ready for use. `UsageError` for a pattern that is none, `SourceMissing` or `AccessDenied` for a file of
        `exclude_from`.
        """
        exclude = [line for path in self.exclude_from for line in _lines(env, path)] + list(self.exclude)
        return Rules(
            env.fs,
            exclude,
            list(self.include),
            self.one_file_system,
            self.skip_caches,
            never=self.never,
            always=self.always,
        )

    @classmethod
    def of_record(cls, patterns: Sequence[str]) -> Selection:
        """The selection that a point remembers by its `patterns`."""
        exclude: list[str] = []
        others: dict[str, list[str]] = {"include": [], "never": [], "always": []}
        for text in map(remembered, patterns):
            kind, colon, rest = text.partition(":")
            if colon and kind in others:
                others[kind].append(rest)
            else:
                exclude.append(text)
        return cls(exclude=exclude, include=others["include"], never=others["never"], always=others["always"])


class Rules:
    """A compiled selection. `patterns`: in words, for the record.

    `selective`: whether `takes` is to be asked at all.
    """

    def __init__(
        self,
        fs: FileSystem,
        exclude: list[str],
        include: list[str],
        one_file_system: bool,
        skip_caches: bool,
        *,
        never: Sequence[str] = (),
        always: Sequence[str] = (),
    ) -> None:
        self._fs = fs
        self._never = frozenset(never)
        self._always = _matcher([*always])
        self._excluded = _matcher(exclude)
        self._included = _matcher(include)
        self.one_file_system = one_file_system
        self.skip_caches = skip_caches
        matchers = self._excluded, self._included, self._always
        self.selective = bool(self._never) or any(matcher is not None for matcher in matchers)
        kinds = (("", exclude), ("include:", include), ("always:", always), ("never:", never))
        self.patterns = [recorded(kind + pattern) for kind, patterns in kinds for pattern in patterns]

    def takes(self, path: str, is_directory: bool) -> bool:
        """Whether an entry with this path is taken; one in a directory that is not is never asked for."""
        if path in self._never:
            return False
        if self._always is not None and self._always(path + "/" if is_directory else path):
            return False
        if is_directory:
            return self._excluded is None or not self._excluded(path + "/")
        if self._excluded is not None and self._excluded(path):
            return False
        return self._included is None or self._included(path)

    def keeps_empty(self, path: str) -> bool:
        """Whether a directory in which nothing was taken is itself taken."""
        return self._included is None or self._included(path + "/")

    def is_cache(self, folder: int) -> bool:
        """Whether this open directory, in which there is a `CACHE_TAG`, is a cache."""
        try:
            fd = self._fs.open(CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return False
        try:
            return self._fs.pread(fd, len(_SIGNATURE), 0) == _SIGNATURE
        except OSError:
            return False
        finally:
            self._fs.close(fd)


def recorded(pattern: str) -> str:
    """A pattern as the point has it: a byte that is not UTF-8, which names may have, becomes NUL and two hex digits."""
    return _ODD.sub(lambda odd: f"\0{ord(odd[0]) & 0xFF:02x}", pattern)


def remembered(pattern: str) -> str:
    """The inverse."""
    return _RECORDED.sub(lambda odd: chr(0xDC00 | int(odd[1], 16)), pattern)


def _lines(env: Env, path: str | os.PathLike[str]) -> list[str]:
    try:
        fd = env.fs.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces = []
            while piece := env.fs.read(fd, 1 << 20):
                pieces.append(piece)
        finally:
            env.fs.close(fd)
    except OSError as error:
        raise failure(error, f"the patterns in {os.fspath(path)}", missing=SourceMissing, other=SourceFailed) from error
    return os.fsdecode(b"".join(pieces)).splitlines()


def _matcher(patterns: list[str]) -> Callable[[str], bool] | None:
    lines = [_within(line) for line in patterns if line.strip() and not line.startswith("#")]
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines).match_file
    except ValueError as error:
        raise UsageError(f"{error}; patterns are those of gitignore") from error


def _within(pattern: str) -> str:
    """`a/**` is what is in `a`, without `a` itself, which pathspec takes for a match of `a/` as well."""
    bare = pattern.rstrip()
    return bare + "/*" if bare.endswith("/**") else pattern
