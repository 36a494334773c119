# SPDX-License-Identifier: Apache-2.0
"""Bandwidth and CPU stay below what is allowed now, whatever changes meanwhile, and cost nothing where nothing is."""

from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from keepstone.agent.configuration import Configuration
from keepstone.agent.limits import Limits
from keepstone.env import Env
from keepstone.errors import JobCancelled

from .clock import Clock

pytestmark = pytest.mark.agents
BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 3, 23, 12, tzinfo=BERLIN)


def limits(env: Env, text: str, used: Callable[[], int] = time.process_time_ns) -> Limits:
    return Limits(env, Configuration.parse(text).limits, zone=BERLIN, used=used)


def test_bytes_take_as_long_as_their_rate_says() -> None:
    clock = Clock(MONDAY)
    throttle = limits(clock, "limits.bandwidth = 1000").bandwidth()

    for _ in range(100):
        throttle.take(123)

    assert clock.passed == pytest.approx(12.3, rel=0.01)


def test_little_is_saved_up_while_nobody_takes() -> None:
    clock = Clock(MONDAY)
    throttle = limits(clock, "limits.bandwidth = 1000").bandwidth()
    throttle.take(1)
    clock.go(3600)
    began = clock.passed

    throttle.take(1250)

    assert clock.passed - began == pytest.approx(1.0, abs=0.01)


def test_one_limit_for_all_who_take() -> None:
    clock = Clock(MONDAY)
    own = limits(clock, "limits.bandwidth = 1000")
    first, second = own.bandwidth(), own.bandwidth()

    for _ in range(5):
        first.take(500)
        second.take(500)

    assert clock.passed == pytest.approx(5.0, rel=0.01)


@pytest.mark.parametrize(
    ("day", "hour", "rate"),
    [
        (0, "07:59", 20_000),
        (0, "08:00", 2_000),
        (0, "17:59", 2_000),
        (0, "18:00", 20_000),
        (4, "23:00", 50_000),  # Friday night
        (5, "05:59", 50_000),  # belongs to Friday
        (5, "06:00", 10**15),  # Saturday: its first span says nothing of this
        (5, "22:00", 10**15),
        (6, "12:00", 20_000),
    ],
)
def test_the_first_span_that_it_is_now_counts(day: int, hour: str, rate: int) -> None:
    text = """
        [limits]
        bandwidth = 20_000
        [[limits.times]]
        days = ["mon", "tue", "wed", "thu", "fri"]
        from = "08:00"
        until = "18:00"
        bandwidth = 2_000
        [[limits.times]]
        days = ["fri"]
        from = "22:00"
        until = "06:00"
        bandwidth = 50_000
        [[limits.times]]
        days = ["sat"]
        cpu = 50
        [[limits.times]]
        days = ["sat"]
        bandwidth = "1000 TB"
        """
    moment = datetime.strptime(hour, "%H:%M")
    now = MONDAY.replace(hour=moment.hour, minute=moment.minute) + timedelta(days=day)

    assert limits(Clock(now), text).bytes_per_second() == rate


def test_times_are_those_of_the_clock_on_the_wall_when_summer_begins() -> None:
    night = datetime(2026, 3, 29, 1, 59, tzinfo=BERLIN)  # 02:00 to 03:00 does not happen
    text = "[[limits.times]]\nfrom='03:00'\nuntil='04:00'\nbandwidth=7"
    clock = Clock(night)
    own = limits(clock, text)

    assert own.bytes_per_second() is None
    clock.go(60)
    assert own.bytes_per_second() == 7
    clock.go(3600)
    assert own.bytes_per_second() is None


def test_another_part_of_the_day_takes_effect_for_who_waits_already() -> None:
    clock = Clock(MONDAY.replace(hour=17, minute=59, second=0))
    text = "[[limits.times]]\nuntil='18:00'\nbandwidth=10"
    throttle = limits(clock, text).bandwidth()

    throttle.take(1_000_000)  # a day's worth

    assert 60 <= clock.passed <= 66


def test_no_bandwidth_is_a_pause() -> None:
    clock = Clock(MONDAY.replace(hour=17, minute=0))
    throttle = limits(clock, "[[limits.times]]\nuntil='18:00'\nbandwidth=0").bandwidth()

    throttle.take(1)

    assert 3600 <= clock.passed <= 3606


def test_a_new_configuration_takes_effect_for_who_waits_already() -> None:
    clock = Clock(MONDAY)
    own = limits(clock, "limits.bandwidth = 10")
    clock.meanwhile = lambda passed: own.change(Configuration().limits) if passed > 3 else None

    own.bandwidth().take(1_000_000)

    assert clock.passed < 4


def test_another_limit_takes_effect_at_once() -> None:
    clock = Clock(MONDAY)
    own = limits(clock, "limits.bandwidth = 10")
    faster = Configuration.parse("limits.bandwidth = '1 MB'").limits
    clock.meanwhile = lambda passed: own.change(faster) if 1 < passed < 1.6 else None

    own.bandwidth().take(1_000_000)

    assert clock.passed < 4


def test_a_limit_that_comes_later_holds_for_who_began_without() -> None:
    clock = Clock(MONDAY)
    own = limits(clock, "")
    throttle = own.bandwidth()
    throttle.take(10**9)
    clock.go(100)
    own.change(Configuration.parse("limits.bandwidth = 1000").limits)

    throttle.take(5000)

    assert clock.passed - 100 == pytest.approx(5, rel=0.01)


def test_who_waits_can_give_up() -> None:
    clock = Clock(MONDAY)

    def check() -> None:
        if clock.passed > 2:
            raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        limits(clock, "limits.bandwidth = 1").bandwidth(check).take(10**9)
    assert clock.passed < 3


def test_a_large_piece_goes_out_evenly() -> None:
    clock = Clock(MONDAY)
    throttle = limits(clock, "limits.bandwidth = '1 MB'").bandwidth()
    data = bytes(range(250)) * 4000
    went: list[tuple[float, int]] = []

    parts = []
    for part in throttle.paced(data):
        parts.append(bytes(part))
        went.append((clock.passed, len(part)))

    assert b"".join(parts) == data
    assert clock.passed == pytest.approx(1, rel=0.05)
    assert max(size for _, size in went) <= 50_000


def test_without_a_limit_a_piece_stays_whole() -> None:
    data = b"x" * (1 << 20)

    assert [piece is data for piece in limits(Clock(MONDAY), "").bandwidth().paced(data)] == [True]


def test_the_processor_is_shared_as_it_is_allowed() -> None:
    """A program that would use all of a core, and a second one that starts between."""
    clock, used = Clock(MONDAY), 5_000_000_000  # what it used before is not counted
    share = limits(clock, "limits.cpu = 25", used=lambda: used).cpu()

    share.pause()
    for _ in range(200):
        used += 50_000_000
        clock.go(0.05)
        share.pause()

    assert clock.passed == pytest.approx(10 / 0.25, rel=0.02)


def test_cpu_of_several_threads_counts_together() -> None:
    clock, used = Clock(MONDAY), 0
    own = limits(clock, "limits.cpu = 150", used=lambda: used)
    first, second = own.cpu(), own.cpu()
    first.pause()

    for _ in range(100):  # both at full speed
        used += 200_000_000
        clock.go(0.1)
        first.pause()
        second.pause()

    assert clock.passed == pytest.approx(20 / 1.5, rel=0.03)


def test_real_threads_on_a_real_clock() -> None:
    own = limits(Env(), "limits.bandwidth = '10 MB'")
    throttle = own.bandwidth()

    def send() -> None:
        for _ in range(10):
            throttle.take(125_000)

    began = time.monotonic()
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - began >= 0.49  # 5 MB; more where the machine is busy


def test_without_limits_it_costs_nothing() -> None:
    own = limits(Env(), "")
    throttle, share = own.bandwidth(), own.cpu()

    for call in (lambda: throttle.take(1 << 20), share.pause):
        assert min(timeit.repeat(call, number=10_000, repeat=5)) / 10_000 < 2e-6  # a frame takes a thousand times that
