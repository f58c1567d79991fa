"""What becomes of a market's row when REST tells of it: taken, left alone, asked again when.

No SQL and no clock of its own: `now` comes with the row, and is only used to pace the questions.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from kalshi_platform.storage.outcomes import FINALIZED, Outcome
from kalshi_platform.storage.writes.told import MOST_STALE_READS, growing, retry_pause

_LONGEST_RETRY_SECONDS = 600
_SHORTEST_FINAL_SECONDS = 60
_LONGEST_FINAL_SECONDS = 3600
_FIRST_OPEN_SECONDS = 60
_LONGEST_OPEN_SECONDS = 6 * 3600
_AFTER_CLOSE = timedelta(minutes=2)
# The calendar ends with the year 9999, and some markets do not close before.
_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


class Told(Protocol):
    """What a verdict rests on; `exchange.reference.MarketFacts` has it."""

    market_ticker: str
    status: str
    result: str
    settlement_value_micros: int | None
    settled_at: datetime | None
    settlement_timer_seconds: int
    closes_at: datetime
    expected_expires_at: datetime | None
    exchange_updated_at: datetime


class Standing(NamedTuple):
    """A market as it stands beside what was told of it."""

    market_ticker: str
    is_known: bool
    is_combo: bool
    differs: bool
    exchange_updated_at: datetime | None
    read_attempts: int
    next_read_at: datetime | None
    was_not_found: bool
    now: datetime

    @property
    def is_due(self) -> bool:
        return self.next_read_at is not None and self.next_read_at <= self.now


class Verdict(NamedTuple):
    """What becomes of a market's row."""

    market_ticker: str
    is_known: bool
    is_taken: bool
    """Whether REST is believed; it may be behind what we know."""
    is_changed: bool
    moves: bool
    """Whether the row is written at all."""
    outcome: Outcome | None
    """Its outcome, if that changed."""
    outcome_status: str | None
    next_read_at: datetime | None
    read_attempts: int


def judge(
    told: Told,
    standing: Standing,
    outcomes: Mapping[str, Outcome],
    source: str,
    read_at: datetime,
) -> Verdict:
    """What becomes of one market.

    Args:
        outcomes: those of the markets that have one; changed in place.
    """
    outcome = outcomes.get(standing.market_ticker, Outcome())
    if _is_stale(told, standing):
        attempts = standing.read_attempts + 1
        return Verdict(
            standing.market_ticker,
            standing.is_known,
            is_taken=False,
            is_changed=False,
            moves=standing.is_due,
            outcome=None,
            outcome_status=None,
            next_read_at=standing.now + retry_pause(attempts, _LONGEST_RETRY_SECONDS),
            read_attempts=attempts,
        )
    before = outcome.state()
    agrees = outcome.told(
        told.status,
        told.result,
        told.settlement_value_micros,
        settled_at=told.settled_at,
        updated_at=told.exchange_updated_at,
        source=source,
        read_at=read_at,
    )
    is_other_outcome = outcome.state() != before
    is_changed = standing.differs or is_other_outcome
    attempts = 0 if is_changed else standing.read_attempts + 1
    pause = _pause(told, outcome, agrees, attempts, standing)
    if isinstance(pause, timedelta):
        next_read_at: datetime | None = standing.now + pause
    else:
        next_read_at, attempts = pause, 0
    is_out_of_place = next_read_at is None and standing.next_read_at is not None
    last = outcome.last
    return Verdict(
        standing.market_ticker,
        standing.is_known,
        is_taken=True,
        is_changed=is_changed,
        moves=is_changed or standing.is_due or standing.was_not_found or is_out_of_place,
        outcome=outcome if is_other_outcome else None,
        outcome_status=None if last is None else last.status,
        next_read_at=next_read_at,
        read_attempts=attempts,
    )


def _is_stale(told: Told, standing: Standing) -> bool:
    held = standing.exchange_updated_at
    if held is None or told.exchange_updated_at >= held:
        return False
    return standing.read_attempts < MOST_STALE_READS


def _pause(
    told: Told, outcome: Outcome, agrees: bool, attempts: int, standing: Standing
) -> timedelta | datetime | None:
    """How long until REST is asked again, or when; None where it has told all there will be."""
    if outcome.last is not None:
        if not agrees:
            return retry_pause(attempts, _LONGEST_RETRY_SECONDS)
        if outcome.is_final and told.status == FINALIZED:
            return None
        first = max(_SHORTEST_FINAL_SECONDS, told.settlement_timer_seconds + 60)
        return growing(min(first, _LONGEST_FINAL_SECONDS), attempts, _LONGEST_FINAL_SECONDS)
    again = growing(_FIRST_OPEN_SECONDS, attempts, _LONGEST_OPEN_SECONDS)
    if told.closes_at <= standing.now:
        return again
    after_close = min(told.closes_at, _END_OF_TIME) + _AFTER_CLOSE
    expected_at = told.expected_expires_at
    if not standing.is_combo or expected_at is None:
        return after_close
    # A combo is over days before it closes, and only the stream says so: no list of changes holds
    # it, so the loss of that one message must not leave it without an outcome until then.
    if expected_at > standing.now:
        return min(after_close, min(expected_at, _END_OF_TIME) + _AFTER_CLOSE)
    return min(after_close - standing.now, again)
