"""The rate of a key."""

from random import Random

import pytest

from api.limits import Limits


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_slow_plan_may_still_ask_for_a_few_things_at_once():
    clock = Clock()
    limits = Limits(clock)
    taken = [limits.take(1, 2) for _ in range(6)]
    assert [one.remaining for one in taken] == [4, 3, 2, 1, 0, 0]
    assert [one.retry_after for one in taken] == [None] * 5 + [1]
    assert taken[-1].burst == 5
    assert taken[-1].reset == 3  # 5 requests at 2/s
    clock.now += 0.5
    assert limits.take(1, 2).retry_after is None
    assert limits.take(1, 2).retry_after == 1


def test_keys_do_not_share_their_rates():
    limits = Limits(Clock())
    for _ in range(5):
        limits.take(1, 1)
    assert limits.take(1, 1).retry_after == 1
    assert limits.take(2, 1).retry_after is None


def test_whoever_waits_as_told_is_let_in():
    clock = Clock()
    limits = Limits(clock)
    dice = Random(4)
    for _ in range(500):
        allowance = limits.take(1, 3)
        if allowance.retry_after is not None:
            clock.now += allowance.retry_after
            assert limits.take(1, 3).retry_after is None
        clock.now += dice.random() / 5


@pytest.mark.parametrize("rate", [1, 2, 10, 50])
def test_over_time_no_more_than_the_rate_gets_through(rate):
    clock = Clock()
    limits = Limits(clock)
    through = 0
    for _ in range(20_000):
        through += limits.take(1, rate).retry_after is None
        clock.now += 0.001
    assert 20 * rate <= through <= 20 * rate + max(rate, 5)
