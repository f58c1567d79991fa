"""The read budget in the database: one token bucket for all processes that use the account."""

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy import ColumnElement, Insert, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from kalshi_platform.storage.engine import database_engine
from kalshi_platform.storage.tables import rest_budget

_THE_BUDGET = 1
_DATABASE_PAUSE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class PostgresBudget:
    """A token bucket that all processes and threads share through one row.

    Time is the database's, so the processes need not agree on theirs. Tokens may go negative: a
    caller reserves ahead and waits for what is missing, so that calls keep their order.

    Without the database each process paces itself at half the rate: it cannot see the others then,
    and two at a time (a recorder that heals, a sweep) are the usual most.

    Args:
        url: the database.
        tokens_per_second: the account's read budget.
        burst_seconds: what the bucket holds. The exchange's holds up to three seconds; holding
            less leaves room there for calls that the network bunches together.
        clock: seconds, for the pacing without the database.
    """

    def __init__(
        self,
        url: str,
        tokens_per_second: float,
        *,
        burst_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = database_engine(url, pool_size=1).execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._rate = tokens_per_second
        self._capacity = tokens_per_second * burst_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._ask_database_at = clock()
        self._next_paced_at = clock()

    def reserve(self, tokens: float) -> float:
        """Take `tokens`; returns the seconds to wait before they may be used."""
        with self._lock:
            if self._clock() < self._ask_database_at:
                return self._pace(tokens)
        try:
            with self._engine.connect() as connection:
                left = connection.execute(_take(tokens, self._rate, self._capacity)).scalar_one()
        except DBAPIError as error:
            log.warning("rest_budget_without_database", reason=str(error.orig).strip())
            with self._lock:
                # A server that does not answer must not be waited for before every call.
                self._ask_database_at = self._clock() + _DATABASE_PAUSE_SECONDS
                return self._pace(tokens)
        return max(0.0, -float(left) / self._rate)

    def close(self) -> None:
        """Give the connection back; a later call opens another."""
        self._engine.dispose()

    def _pace(self, tokens: float) -> float:
        now = self._clock()
        starts_at = max(now, self._next_paced_at)
        self._next_paced_at = starts_at + tokens / (self._rate / 2)
        return starts_at - now


def _take(tokens: float, rate: float, capacity: float) -> Insert:
    """One statement that refills for the time passed, takes `tokens` and returns what is left."""
    # Not now(), which is the start of the transaction: a statement may have waited for the row.
    clock = func.clock_timestamp()
    passed = func.extract("epoch", clock - rest_budget.c.updated_at)
    refilled: ColumnElement[float] = func.least(
        capacity, rest_budget.c.tokens + func.greatest(0.0, passed) * rate
    )
    return (
        insert(rest_budget)
        .values(budget_id=_THE_BUDGET, tokens=capacity - tokens, updated_at=clock)
        .on_conflict_do_update(
            index_elements=[rest_budget.c.budget_id],
            set_={"tokens": refilled - tokens, "updated_at": clock},
        )
        .returning(rest_budget.c.tokens)
    )
