# SPDX-License-Identifier: Apache-2.0
"""All uploads of a service: how many there may be, when one is given up, and that none keeps another one waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from keepstone.catalogue import jobs, points
from keepstone.control.sessions import registry as registries
from keepstone.control.sessions.registry import Registry
from keepstone.errors import Conflict, JobLost, KeepstoneError
from keepstone.jobs import Status
from keepstone.remote import calls
from keepstone.remote.wire import Begin, Begun, Commit, Committed, Work, decode, encode
from tests.agents.living import Hand, Living, Machine
from tests.cli.services import until

pytestmark = pytest.mark.agents


class Uploads:
    """A registry beside the service's own, and the jobs that its sessions are of."""

    def __init__(self, living: Living, machine: Machine, hand: Hand, folder: Path) -> None:
        self.living, self.machine, self.hand = living, machine, hand
        self.registry = Registry(living.plane, most=2, patience=0.0)
        self.folder = folder
        self.me = UUID(int=0)
        self._count = 0

    def work(self) -> Work:
        """A job of an item of its own."""
        self._count += 1
        item = self.folder / f"item{self._count}"
        item.mkdir()
        self.machine.protect(item)
        work = self.hand.work(item)
        with self.living.plane.look() as connection:
            self.me = connection.execute(sa.select(jobs.c.machine).where(jobs.c.id == UUID(work.job))).scalar_one()
        return work

    def begin(self, work: Work, listens: Callable[[], bool] = lambda: True) -> Begun:
        asked = encode(Begin(job=work.job, token=work.token, kind="files"))
        return decode(self.registry.ask(self.me, "begin", "", 0, memoryview(asked), listens), Begun)

    def waiting(
        self, pool: ThreadPoolExecutor, work: Work, listens: Callable[[], bool] = lambda: True
    ) -> Future[Begun]:
        """One that waits for its turn from now on."""
        self.registry._patience = 30.0
        before = len(self.registry._places._waiting)
        asked = pool.submit(self.begin, work, listens)
        until(lambda: len(self.registry._places._waiting) > before, "its turn")
        return asked

    def ask(self, verb: str, session: str, body: bytes = b"") -> bytes:
        return self.registry.ask(self.me, verb, session, 0, memoryview(body))

    def commit(self, session: str) -> str:
        said = Commit(records=0, root=b"", detail=b"", source=b"/", logical=0, read=0, files=0, warnings=0)
        return decode(self.ask("commit", session, encode(said)), Committed).point

    def leases(self) -> int:
        return len(list(self.living.store.context.storage.list("leases/")))


@pytest.fixture
def uploads(living: Living, machine: Machine, hand: Callable[..., Hand], tmp_path: Path) -> Iterator[Uploads]:
    made = Uploads(living, machine, hand(), tmp_path)
    yield made
    made.registry.close()


def test_so_many_at_a_time(uploads: Uploads) -> None:
    first, second, third = (uploads.work() for _ in range(3))
    one, other = uploads.begin(first), uploads.begin(second)
    assert uploads.begin(first).session == one.session  # asked again

    with pytest.raises(KeepstoneError, match="all sessions are taken") as busy:
        uploads.begin(third)

    assert busy.value.code == "TooManySessions"
    uploads.ask("abort", one.session)
    with pytest.raises(KeepstoneError, match="no such session"):
        uploads.ask("state", one.session)
    uploads.commit(other.session)  # what is over makes room
    uploads.begin(third)
    assert uploads.begin(first).session != one.session


@pytest.mark.parametrize("end", ["commit", "abort", "fail", "sweep"])
def test_whoever_waits_has_the_next_place(uploads: Uploads, end: str) -> None:
    first, second, third, fourth = (uploads.work() for _ in range(4))
    one, other = uploads.begin(first), uploads.begin(second)
    with ThreadPoolExecutor(2) as pool:
        waits = uploads.waiting(pool, third)
        later = uploads.waiting(pool, fourth)
        if end == "commit":
            uploads.commit(one.session)
        elif end == "abort":
            uploads.ask("abort", one.session)
        elif end == "fail":
            with pytest.raises(KeepstoneError):
                uploads.ask("records", one.session, b"\xff" * 100)
        else:
            uploads.registry._open[one.session].used -= int(registries.IDLE * 1e9)
            uploads.registry.sweep()

        assert waits.result(30).session not in (one.session, other.session)
        assert not later.done()
        uploads.commit(other.session)
        uploads.commit(other.session)  # asked again: the same point, and no second place
        later.result(30)
    uploads.registry._patience = 0.0
    with pytest.raises(KeepstoneError, match="all sessions are taken"):
        uploads.begin(uploads.work())


def test_an_agent_waits_longer_for_an_answer_than_for_a_place() -> None:
    """Else it would take the connection for dead, and ask again from the end of the line."""
    assert 2 * registries.PATIENCE < calls._SOCKET


def test_whoever_is_gone_while_he_waits_has_no_place(uploads: Uploads) -> None:
    first, second, third, fourth = (uploads.work() for _ in range(4))
    one, _ = uploads.begin(first), uploads.begin(second)
    with ThreadPoolExecutor(2) as pool:
        gone = uploads.waiting(pool, third, lambda: False)
        there = uploads.waiting(pool, fourth)
        uploads.ask("abort", one.session)

        with pytest.raises(KeepstoneError, match="all sessions are taken"):
            gone.result(30)
        there.result(30)
    assert uploads.leases() == 2


def test_whoever_lost_his_job_while_he_waits_has_no_place(uploads: Uploads) -> None:
    first, second, third = (uploads.work() for _ in range(3))
    one, _ = uploads.begin(first), uploads.begin(second)
    with ThreadPoolExecutor(1) as pool:
        lost = uploads.waiting(pool, third)
        with uploads.living.plane.change() as change:
            change.connection.execute(sa.update(jobs).where(jobs.c.id == UUID(third.job)).values(token=third.token + 1))
        uploads.ask("abort", one.session)

        with pytest.raises(JobLost):
            lost.result(30)
    uploads.registry._patience = 0.0
    uploads.begin(first)


def test_nobody_waits_for_a_registry_that_closes(uploads: Uploads) -> None:
    first, second, third = (uploads.work() for _ in range(3))
    uploads.begin(first), uploads.begin(second)
    with ThreadPoolExecutor(1) as pool:
        waits = uploads.waiting(pool, third)
        uploads.registry.close()

        with pytest.raises(KeepstoneError, match="all sessions are taken"):
            waits.result(30)
    assert uploads.leases() == 0


def test_a_job_that_has_made_its_point_makes_no_other(uploads: Uploads, tmp_path: Path) -> None:
    """The process with its session died after the commit, before anybody heard of it."""
    work = uploads.work()
    begun = uploads.begin(work)
    said = Commit(records=0, root=b"", detail=b"", source=b"/", logical=0, read=0, files=0, warnings=0)
    point = uploads.registry._open[begun.session].session.commit(said)
    uploads.registry.close()
    uploads.registry = Registry(uploads.living.plane, most=2, patience=0.0)
    with pytest.raises(KeepstoneError, match="no such session"):
        uploads.commit(begun.session)

    with pytest.raises(KeepstoneError, match="made already") as made:
        uploads.begin(work)

    assert made.value.code == "PointMade"
    assert uploads.living.commits(tmp_path / "item1") == [point]
    with uploads.living.plane.look() as connection:
        mine = jobs.c.id == UUID(work.job)
        assert connection.execute(sa.select(jobs.c.status).where(mine)).scalar() == Status.COMPLETED
        assert len(connection.execute(sa.select(points).where(points.c.item == UUID(work.item))).all()) == 1
    assert uploads.leases() == 0
    assert uploads.registry._places._free == 2


def test_what_nobody_uses_is_given_up(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reclaim would wait for it for a week."""
    begun = uploads.begin(uploads.work())
    uploads.registry.sweep()
    uploads.ask("state", begun.session)
    assert uploads.leases() == 1
    monkeypatch.setattr(registries, "IDLE", 0.0)
    busy = uploads.registry._open[begun.session]
    busy.busy += 1
    uploads.registry.sweep()
    assert uploads.leases() == 1  # somebody is at it
    busy.busy -= 1

    uploads.registry.sweep()

    assert uploads.leases() == 0
    with pytest.raises(KeepstoneError, match="no such session"):
        uploads.ask("state", begun.session)


def test_one_that_is_stuck_keeps_nobody_waiting(uploads: Uploads) -> None:
    work = uploads.work()
    stuck, other = uploads.begin(work), uploads.begin(uploads.work())
    held = uploads.registry._open[stuck.session].session._lock
    with held:  # as while it writes, or reads a large manifest
        ending = threading.Thread(target=uploads.ask, args=("abort", stuck.session))
        ending.start()
        asked = threading.Thread(target=uploads.ask, args=("state", other.session))
        asked.start()
        asked.join(10)
        assert not asked.is_alive()
        assert ending.is_alive()
    ending.join(10)
    assert not ending.is_alive()


def test_a_catalogue_that_fails_once(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The point is made and nobody could note it: who asks again is answered when that is done, too."""
    work = uploads.work()
    begun = uploads.begin(work)
    with monkeypatch.context() as patch:

        def fails(*_: object, **__: object) -> None:
            raise sa.exc.OperationalError("x", None, Exception("locked"))

        patch.setattr("keepstone.control.sessions.registry.remember", fails)
        with pytest.raises(sa.exc.OperationalError):
            uploads.commit(begun.session)

    point = uploads.commit(begun.session)

    with uploads.living.plane.look() as connection:
        assert connection.execute(sa.select(points.c.commit_id).where(points.c.commit_id == point)).scalar() == point
        status = sa.select(jobs.c.status).where(jobs.c.id == UUID(work.job))
        assert connection.execute(status).scalar() == "Completed"
    assert uploads.commit(begun.session) == point


def test_a_job_of_another_token_takes_the_sessions_place(uploads: Uploads) -> None:
    work = uploads.work()
    begun = uploads.begin(work)
    with uploads.living.plane.database.change() as connection:
        mine = jobs.c.id == UUID(work.job)
        connection.execute(jobs.update().where(mine).values(token=work.token + 1))
    with pytest.raises(KeepstoneError):
        uploads.begin(work)
    with pytest.raises(KeepstoneError, match="is over, or somebody else's"):
        uploads.commit(begun.session)

    newer = Work(**{name: getattr(work, name) for name in work.__struct_fields__} | {"token": work.token + 1})
    again = uploads.begin(newer)

    assert again.session != begun.session
    assert uploads.leases() == 1
    with pytest.raises(KeepstoneError, match="no such session"):
        uploads.ask("state", begun.session)


def test_two_beginnings_at_once(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beginning that is asked again while the first one goes on makes no second session."""
    work = uploads.work()
    make = uploads.registry._make
    inside, go = threading.Event(), threading.Event()

    def slowly(*given: object) -> object:
        inside.set()
        assert go.wait(30)
        return make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(uploads.registry, "_make", slowly)
    first = threading.Thread(target=uploads.begin, args=(work,))
    first.start()
    assert inside.wait(30)
    with pytest.raises(Conflict):
        uploads.begin(work)
    go.set()
    first.join()
    assert uploads.leases() == 1
