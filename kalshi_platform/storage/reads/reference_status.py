"""How markets, events, series and outcomes are: the part of the status that speaks of them."""

from datetime import datetime
from typing import Literal

import msgspec

from kalshi_platform.storage.leases import REFERENCE
from kalshi_platform.storage.reads.reference import CENSUS, REFRESHED, SOURCE

# A sync is due each minute.
REFRESH_SECONDS = 180.0
# Confirmed within seconds, as a rule; REST behind the stream by longer needs eyes.
UNCONFIRMED_SECONDS = 600.0
# Beyond this, rows are not counted one by one.
_COUNTED = 10_000

# One JSON object. Each count reads an index that holds little else; in that index's order, so that
# it is read before statistics of a table just filled say so.
REFERENCE_STATUS = f"""json_build_object(
        'refreshed', (SELECT position FROM ingestion_checkpoints
                      WHERE source = '{SOURCE}' AND scope = '{REFRESHED}'),
        'census', (SELECT position FROM ingestion_checkpoints
                   WHERE source = '{SOURCE}' AND scope = '{CENSUS}'),
        'first_used_at', (SELECT first_used_at FROM recorded_exchange),
        'runs', EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                        AND classid = 0 AND objsubid = 1 AND objid = {REFERENCE}
                        AND database = (SELECT oid FROM pg_database
                                        WHERE datname = current_database())),
        'due', (SELECT count(*) FROM (
                    (SELECT FROM markets WHERE next_read_at <= now()
                     ORDER BY next_read_at LIMIT {_COUNTED})
                    UNION ALL (SELECT FROM events WHERE next_read_at <= now()
                               ORDER BY next_read_at LIMIT {_COUNTED})
                    UNION ALL (SELECT FROM series WHERE next_read_at <= now() LIMIT {_COUNTED})
                ) AS counted),
        'pending_outcomes', (SELECT count(*) FROM (
                                 SELECT FROM markets
                                 WHERE outcome_status IS NULL AND closes_at <= now()
                                 ORDER BY closes_at LIMIT {_COUNTED}) AS counted),
        'oldest_pending_at', (SELECT min(closes_at) FROM markets
                              WHERE outcome_status IS NULL AND closes_at <= now()),
        'unconfirmed_outcomes', (SELECT count(*) FROM (
                                     SELECT FROM settlements WHERE confirmed_at IS NULL
                                     ORDER BY recorded_at LIMIT {_COUNTED}) AS counted),
        'oldest_unconfirmed_at', (SELECT min(recorded_at) FROM settlements
                                  WHERE confirmed_at IS NULL),
        'markets_not_found', (SELECT count(*) FROM (
                                  SELECT FROM markets WHERE not_found_at IS NOT NULL
                                  ORDER BY not_found_at LIMIT {_COUNTED}) AS counted),
        'events_not_found', (SELECT count(*) FROM (
                                 SELECT FROM events WHERE not_found_at IS NOT NULL
                                 ORDER BY not_found_at LIMIT {_COUNTED}) AS counted),
        'series_not_found', (SELECT count(*) FROM (
                                 SELECT FROM series WHERE not_found_at IS NOT NULL
                                 LIMIT {_COUNTED}) AS counted),
        'rejected_today', (SELECT count(*) FROM (
                               SELECT source, reason FROM rejected_messages
                               WHERE received_at >= date_trunc('day', now(), 'UTC')
                               LIMIT {_COUNTED}) AS refused
                           WHERE source IN ('rest', 'historical')
                             AND reason ~ '^(markets|events|series): '))"""  # noqa: S608 (constants)


class Reference(msgspec.Struct, frozen=True):
    """Markets, events, series and outcomes; ages in seconds, null where nothing is known yet.

    Counts end at 10,000 (`due` at three times as many).
    """

    runs: bool
    """A sync is at work just now."""
    refreshed_at: datetime | None
    """When everything that had changed was last asked for and answered."""
    refresh_age: float | None
    """Since then; where it never was, since this database has been used."""
    error: str | None
    """The sync's last failure, if nothing has been completed since."""
    census: Literal["never", "under way", "complete"]
    census_completed_at: datetime | None
    due: int
    """Markets, events and series to be asked for now."""
    pending_outcomes: int
    """Markets past their close without an outcome."""
    oldest_pending_age: float | None
    """Since it closed."""
    unconfirmed_outcomes: int
    """Outcomes that the stream told and REST has not."""
    oldest_unconfirmed_age: float | None
    """Since it was recorded."""
    markets_not_found: int
    """Named by a message, but unknown to REST."""
    events_not_found: int
    series_not_found: int
    rejected_today: int
    """Answers about markets, events and series that could not be read, among the day's first
    10,000 messages that could not."""


class _Refreshed(msgspec.Struct):
    at: datetime | None = None
    error: str | None = None


class _Census(msgspec.Struct):
    completed_at: datetime | None = None
    begun_at: datetime | None = None


class ReferenceRead(msgspec.Struct):
    """The answer to REFERENCE_STATUS."""

    refreshed: _Refreshed | None
    census: _Census | None
    first_used_at: datetime | None
    runs: bool
    due: int
    pending_outcomes: int
    oldest_pending_at: datetime | None
    unconfirmed_outcomes: int
    oldest_unconfirmed_at: datetime | None
    markets_not_found: int
    events_not_found: int
    series_not_found: int
    rejected_today: int


def reference_from(read: ReferenceRead, now: datetime) -> Reference:
    """The section, as of `now`."""
    refreshed = read.refreshed or _Refreshed()
    completed_at = None if read.census is None else read.census.completed_at
    return Reference(
        runs=read.runs,
        refreshed_at=refreshed.at,
        refresh_age=_age(now, refreshed.at or read.first_used_at),
        error=refreshed.error,
        census="never" if read.census is None else "complete" if completed_at else "under way",
        census_completed_at=completed_at,
        due=read.due,
        pending_outcomes=read.pending_outcomes,
        oldest_pending_age=_age(now, read.oldest_pending_at),
        unconfirmed_outcomes=read.unconfirmed_outcomes,
        oldest_unconfirmed_age=_age(now, read.oldest_unconfirmed_at),
        markets_not_found=read.markets_not_found,
        events_not_found=read.events_not_found,
        series_not_found=read.series_not_found,
        rejected_today=read.rejected_today,
    )


def reference_reasons(reference: Reference) -> list[str]:
    """What keeps markets and outcomes from being ok, in words."""
    reasons = []
    age, unconfirmed_age = reference.refresh_age, reference.oldest_unconfirmed_age
    if age is not None and age > REFRESH_SECONDS:
        since = "not been" if reference.refreshed_at else "never been"
        cause = f": {reference.error}" if reference.error else ""
        reasons.append(f"markets have {since} refreshed for {age:.0f} s{cause}")
    # While nothing is asked for, nothing is confirmed: that is the same trouble, not a second one.
    elif unconfirmed_age is not None and unconfirmed_age > UNCONFIRMED_SECONDS:
        reasons.append(
            f"outcomes not confirmed by REST: {reference.unconfirmed_outcomes}, "
            f"the oldest for {unconfirmed_age:.0f} s"
        )
    if reference.rejected_today:
        reasons.append(f"{reference.rejected_today} answers about markets could not be read today")
    return reasons


def _age(now: datetime, instant: datetime | None) -> float | None:
    return None if instant is None else (now - instant).total_seconds()
