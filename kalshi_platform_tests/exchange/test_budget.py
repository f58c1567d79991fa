"""The local bucket: no window of time ever gets more than burst and refill."""

from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.exchange.budget import LocalBudget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_at_once_and_the_rest_is_spread():
    budget = LocalBudget(200, clock=Clock())
    waits = [budget.reserve(10).seconds for _ in range(23)]
    assert waits[:20] == [0.0] * 20
    assert [round(wait, 6) for wait in waits[20:]] == [0.05, 0.1, 0.15]


def test_an_idle_hour_saves_no_more_than_a_burst():
    clock = Clock()
    budget = LocalBudget(200, clock=clock)
    clock.now += 3600
    waits = [budget.reserve(10).seconds for _ in range(21)]
    assert waits.count(0.0) == 20


def test_a_clock_that_steps_back_gives_nothing_away():
    clock = Clock()
    budget = LocalBudget(200, clock=clock)
    budget.reserve(200)
    clock.now -= 50
    assert budget.reserve(10) == (0.05, True)


@given(st.lists(st.floats(0, 0.5), min_size=2, max_size=60))
def test_no_stretch_of_calls_exceeds_burst_and_rate(pauses):
    clock = Clock()
    budget = LocalBudget(200, clock=clock)
    calls = []
    for pause in pauses:
        clock.now += pause
        calls.append(clock.now + budget.reserve(10).seconds)
    for first, start in enumerate(calls):
        for last in range(first, len(calls)):
            tokens = 10 * (last - first + 1)
            assert tokens <= 200 + 200 * (calls[last] - start) + 1e-6
