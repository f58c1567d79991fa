"""The read budget: a token bucket that is asked before each REST call.

The exchange counts tokens, 10 a call, refilled all the time (200 a second on the basic tier), and
answers 429 when its bucket is empty (docs.kalshi.com/getting_started/rate_limits, read 2026-10-15).
Its bucket holds one to three seconds of budget, depending on tier and on the month of the text.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

# Less than the exchange's bucket: calls that the network bunches together then find tokens there.
BURST_SECONDS = 1.0


class Turn(NamedTuple):
    """What a budget answers: wait so many seconds, then call (`granted`) or ask again."""

    seconds: float
    granted: bool = True


class Budget(Protocol):
    """Something that knows when the next call may be made."""

    def reserve(self, tokens: float) -> tuple[float, bool]:
        """Take `tokens`, ahead of time if need be, or refuse them to who must stand back.

        Returns:
            The seconds to wait, and whether the tokens are taken; as `Turn`.
        """
        ...


class LocalBudget:
    """A bucket of this process alone; threads may share it."""

    def __init__(
        self,
        tokens_per_second: float,
        *,
        burst_seconds: float = BURST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = tokens_per_second
        self._capacity = tokens_per_second * burst_seconds
        self._tokens = self._capacity
        self._clock = clock
        self._updated = clock()
        self._lock = threading.Lock()

    def reserve(self, tokens: float) -> Turn:
        """Take `tokens`; what the bucket lacks is waited for, so calls keep their order."""
        with self._lock:
            now = self._clock()
            refill = max(0.0, now - self._updated) * self._rate
            self._tokens = min(self._capacity, self._tokens + refill) - tokens
            self._updated = now
            return Turn(max(0.0, -self._tokens / self._rate))
