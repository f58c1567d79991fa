"""How fast a key may ask: a bucket of requests each, filled at the plan's rate."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from api.errors import TooManyRequests

# A page of an application asks for several things at once, whatever the plan.
SMALLEST_BURST = 5


class Allowance(NamedTuple):
    """Where a key stands after a request; all whole numbers."""

    burst: int  # requests that may be asked at once
    remaining: int  # of these, now
    reset: int  # seconds until all of them may be asked again
    retry_after: int | None  # seconds until one may; None where this one may


class Limits:
    """The buckets of one process: each process of the API allows a key its rate anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Requests in the bucket, and when; at most one entry a key that exists.
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, key_id: int, requests_per_second: int) -> Allowance:
        """Count a request of a key against its rate."""
        now = self._clock()
        burst = max(requests_per_second, SMALLEST_BURST)
        held, at = self._buckets.get(key_id, (burst, now))
        held = min(burst, held + (now - at) * requests_per_second)
        taken = held >= 1
        if taken:
            held -= 1
        self._buckets[key_id] = (held, now)
        retry_after = None if taken else max(1, math.ceil((1 - held) / requests_per_second))
        reset = math.ceil((burst - held) / requests_per_second)
        return Allowance(burst, int(held), reset, retry_after)


def refusal(allowance: Allowance, requests_per_second: int) -> TooManyRequests:
    """The problem to raise where an allowance has a `retry_after`."""
    return TooManyRequests(
        f"This key may ask {requests_per_second:,} times a second;"
        f" try again in {allowance.retry_after} s.",
        headers={"Retry-After": str(allowance.retry_after)},
    )
