"""The read budget in the database: one token bucket for all processes that use the account."""

import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import structlog
from sqlalchemy import ColumnElement, Float, Insert, Select, func, select, type_coerce
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from kalshi_platform.storage.engine import database_engine
from kalshi_platform.storage.tables import ingestion_metrics, rest_budget

# The exchange counts calls as they arrive, and the network bunches some of them together: what is
# handed out within any one second, burst and refill, stays a little below the budget.
REFILL_SHARE = 0.8
BURST_SECONDS = 0.18
# Each class leaves a call to the class above it and needs one itself.
_LEAST_CAPACITY = 36.0
_SHORTEST_PAUSE_SECONDS = 0.02
_DATABASE_PAUSE_SECONDS = 5.0
_THE_BUDGET = 1

log = structlog.get_logger(__name__)


class Priority(Enum):
    """Who goes first; the value is the share of the bucket that is left to those before.

    Calls that heal reserve ahead. The others take tokens only while more than their share is there,
    so a call of a higher class finds tokens at once, however many of a lower one are waiting.
    """

    HEALING = 0.0
    ENRICHMENT = 0.28
    CENSUS = 0.56


class Turn(NamedTuple):
    """Wait so many seconds, then call (`granted`: the tokens are taken) or ask again."""

    seconds: float
    granted: bool = True


class PostgresBudget:
    """A token bucket that all processes and threads share through one row.

    Time is the database's, so the processes need not agree on theirs. Tokens may go negative: who
    heals reserves ahead and waits for what is missing, so that calls keep their order.

    Without the database each process paces itself at half the rate: it cannot see the others then,
    and two at a time (a recorder that heals, a sweep) are the usual most.

    Args:
        url: the database.
        tokens_per_second: the account's read budget, of which 98 % are used at most.
        priority: of the calls made on this budget.
        burst_seconds: what the bucket holds.
        clock: seconds, for the pacing without the database.
    """

    def __init__(
        self,
        url: str,
        tokens_per_second: float,
        *,
        priority: Priority = Priority.HEALING,
        burst_seconds: float = BURST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = database_engine(url, pool_size=1).execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._rate = tokens_per_second * REFILL_SHARE
        self._capacity = max(_LEAST_CAPACITY, tokens_per_second * burst_seconds)
        self._priority = priority
        self._clock = clock
        self._lock = threading.Lock()
        self._told_limits = False
        self._ask_database_at = clock()
        self._next_paced_at = clock()

    def reserve(self, tokens: float) -> Turn:
        """Take `tokens`, or stand back for a higher class."""
        with self._lock:
            if self._clock() < self._ask_database_at:
                return self._pace(tokens)
        try:
            return self._ask(tokens)
        except DBAPIError as error:
            log.warning("rest_budget_without_database", reason=str(error.orig).strip())
            with self._lock:
                # A server that does not answer must not be waited for before every call.
                self._ask_database_at = self._clock() + _DATABASE_PAUSE_SECONDS
                return self._pace(tokens)

    def close(self) -> None:
        """Give the connection back; a later call opens another."""
        self._engine.dispose()

    def _ask(self, tokens: float) -> Turn:
        heals = self._priority is Priority.HEALING
        needed = None if heals else tokens + self._capacity * self._priority.value
        with self._engine.connect() as connection:
            if not self._told_limits:
                connection.execute(_limits(self._rate, self._capacity))
                self._told_limits = True
            left = connection.execute(
                _take(tokens, self._rate, self._capacity, needed)
            ).scalar_one_or_none()
            if left is not None:
                return Turn(max(0.0, -float(left) / self._rate))
            assert needed is not None, "who heals is never refused"
            held = float(connection.execute(_held(self._rate, self._capacity)).scalar_one())
        return Turn(max(_SHORTEST_PAUSE_SECONDS, (needed - held) / self._rate), granted=False)

    def _pace(self, tokens: float) -> Turn:
        now = self._clock()
        starts_at = max(now, self._next_paced_at)
        self._next_paced_at = starts_at + tokens / (self._rate / 2)
        return Turn(starts_at - now)


def _refilled(rate: float, capacity: float) -> ColumnElement[float]:
    """What is in the bucket, the time since the last call included."""
    # Not now(), which is the start of the transaction: a statement may have waited for the row.
    passed = func.extract("epoch", func.clock_timestamp() - rest_budget.c.updated_at)
    return type_coerce(
        func.least(capacity, rest_budget.c.tokens + func.greatest(0.0, passed) * rate), Float
    )


def _take(tokens: float, rate: float, capacity: float, needed: float | None) -> Insert:
    """One statement that refills for the time passed, takes `tokens` and returns what is left.

    It returns no row and takes nothing where less than `needed` is there.
    """
    refilled = _refilled(rate, capacity)
    return (
        insert(rest_budget)
        .values(budget_id=_THE_BUDGET, tokens=capacity - tokens, updated_at=func.clock_timestamp())
        .on_conflict_do_update(
            index_elements=[rest_budget.c.budget_id],
            set_={"tokens": refilled - tokens, "updated_at": func.clock_timestamp()},
            where=None if needed is None else refilled >= needed,
        )
        .returning(rest_budget.c.tokens)
    )


def _limits(rate: float, capacity: float) -> Insert:
    """Tell what the bucket is, for whoever wants to know what is left in it."""
    told = insert(ingestion_metrics).values(
        [
            {"name": "rest_budget_tokens_per_second", "labels": "", "value": rate},
            {"name": "rest_budget_capacity_tokens", "labels": "", "value": capacity},
        ]
    )
    return told.on_conflict_do_update(
        index_elements=[ingestion_metrics.c.name, ingestion_metrics.c.labels],
        set_={"value": told.excluded.value, "updated_at": func.now()},
    )


def _held(rate: float, capacity: float) -> Select[tuple[float]]:
    return select(_refilled(rate, capacity)).where(rest_budget.c.budget_id == _THE_BUDGET)
