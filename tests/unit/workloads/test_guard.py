# SPDX-License-Identifier: Apache-2.0
"""A guest that meets the end of the room when nobody looks any more goes on all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import SourceFailed, StorageFull
from keepstone.workloads.machines import guard
from keepstone.workloads.machines.guard import Guard, Room
from tests.machines.guest import until


class Full(Room):
    """It has no room."""

    def ends(self) -> bool:
        return True


class Guarded(Guard):
    """A guest of words."""

    def __init__(self, folder: Path, *, ran: bool = True, room: type[Room] = Full) -> None:
        super().__init__(room(Env(), folder), ran=ran)
        self.stands = self.gone = False
        self.done: list[str] = []

    def _stands(self) -> bool:
        if self.gone:
            raise SourceFailed("the machine has ended")
        return self.stands

    def _give_up(self) -> None:
        self.done.append("given up")

    def _go_on(self) -> None:
        self.done.append("goes on")
        self.stands = False

    def _gone(self, error: Exception) -> bool:
        return self.gone


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_PACE", 0.01)


def given_up(one: Guarded) -> None:
    with one, pytest.raises(StorageFull, match="no more room"):
        until(lambda: one.done, "the end of the room", 10)
        one.check()


def test_it_stands_still_after_the_last_look(tmp_path: Path) -> None:
    one = Guarded(tmp_path)
    given_up(one)
    one.stands = True
    one.settle()
    one.settle()
    assert one.done == ["given up", "goes on"]


def test_it_runs(tmp_path: Path) -> None:
    one = Guarded(tmp_path)
    given_up(one)
    one.settle()
    assert one.done == ["given up"]


def test_it_is_gone(tmp_path: Path) -> None:
    one = Guarded(tmp_path)
    given_up(one)
    one.gone = True
    one.settle()
    assert one.done == ["given up"]


@pytest.mark.parametrize(("ran", "room"), [(False, Full), (True, Room)])
def test_it_stands_still_for_reasons_of_its_own(tmp_path: Path, ran: bool, room: type[Room]) -> None:
    one = Guarded(tmp_path, ran=ran, room=room)
    with one:
        pass
    one.stands = True
    one.settle()
    assert "goes on" not in one.done
