"""Sweeping: a whole UTC day over REST, compared with what is held, its coverage written down.

It needs no gap to have been noticed: trades lost before they were numbered are found, and days
before recording began are filled. A second sweep of the same day changes nothing.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import psycopg
import structlog

from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import ExchangeError
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.window import (
    CHECKPOINTS,
    Progress,
    count_calls,
    saved_progress,
    sweep_window,
)
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.archives import refuse_dropped
from kalshi_platform.storage.reads.sweeps import (
    DAY_LOCKS,
    DayCounts,
    MarketDifference,
    checkpoint,
    day_counts,
    market_differences,
    open_gaps_touching,
)
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.sweeps import (
    close_gaps_inside,
    drop_checkpoint,
    note_unknown_coverage,
    write_day_coverage,
)

DIFFERENCES_SHOWN = 20
# REST may lag behind the stream: the youngest trades are left to the next sweep …
_FENCE = timedelta(seconds=30)
# … and so are those that the stream has brought and REST has not reported, up to this age.
_YOUNG = timedelta(minutes=10)
_RESUMABLE_SECONDS = 3600
_LOCK_POLL_SECONDS = 0.5

log = structlog.get_logger(__name__)


class DayNotBegun(ValueError):
    """The day lies ahead, or began less than half a minute ago."""


@dataclass(frozen=True)
class DayReport:
    """What one sweep found and did.

    `complete` is False after an interruption; the counts then tell how far it came.
    """

    day: date
    complete: bool
    status: str
    """As in `coverage`: proven, healed, degraded or unknown."""
    swept_until: datetime
    """The statement holds for the day's trades before this instant."""
    held: int
    swept: int
    """Of those held, the ones that REST has reported."""
    added: int
    """By this run."""
    changed: int
    """By this run: known trades that gained microseconds or a block flag."""
    rest_alone: int
    """Trades that no stream has brought, whichever run found them."""
    unconfirmed: int
    """Held, but not reported by REST."""
    contradicted: int
    """Reported with other values than held."""
    rejected: int
    """Reported, but unreadable."""
    open_gaps: int
    gaps_closed: int
    differences: list[MarketDifference]
    """The markets in which stream and REST differ most, twenty at most."""


def sweep_day(
    url: str,
    rest: RestClient,
    day: date,
    *,
    on_progress: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
    force: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> DayReport:
    """Ask REST for every trade of `day`, land what is new, and write the day's coverage.

    A sweep that was interrupted less than an hour ago is continued, unless `force`. Of today it
    covers what is older than 30 seconds. Another sweep of the same day is waited for.

    Args:
        on_progress: is told the fraction done, from 0 to 1.
        stop: ends the sweep between two pages; its position is kept.

    Raises:
        DayNotBegun: there is nothing to ask for yet.
        DayDropped: the day's trades are in the archive alone: all of them would seem missing.
        ExchangeError: REST could not be asked to the end; the position is kept.
        psycopg.OperationalError: the database is away.
    """
    stop = stop or threading.Event()
    start = datetime.combine(day, time(), UTC)
    until = min(start + timedelta(days=1), (now() - _FENCE).replace(microsecond=0))
    if until <= start:
        raise DayNotBegun(f"{day} has not begun: it can be swept 30 seconds after midnight, UTC")
    scope = f"day:{day}"
    with connect(url) as connection, _alone(connection, day, stop) as alone:
        # While we hold the day nobody drops it.
        refuse_dropped(connection, "trades", [day])
        progress = _progress(connection, scope, start, until, force=force)
        complete = False
        try:
            if alone:
                sweep_window(connection, rest, progress, scope, stop, on_progress)
                complete = True
        except Interrupted:
            connection.rollback()
        except ExchangeError:
            connection.rollback()
            note_unknown_coverage(connection, day, start)
            connection.commit()
            raise
        finally:
            if not connection.broken:
                connection.rollback()
                count_calls(connection, rest)
                connection.commit()
        report = _conclude(connection, day, start, until, now(), progress, complete=complete)
        if complete:
            drop_checkpoint(connection, CHECKPOINTS, scope)
        connection.commit()
    log.info(
        "day_swept",
        day=str(day),
        complete=complete,
        status=report.status,
        swept=report.swept,
        added=report.added,
        unconfirmed=report.unconfirmed,
    )
    return report


def _progress(
    connection: psycopg.Connection, scope: str, start: datetime, until: datetime, *, force: bool
) -> Progress:
    begun = Progress.over(int(start.timestamp()), int(until.timestamp()))
    saved = checkpoint(connection, CHECKPOINTS, scope)
    connection.commit()
    if saved is None or force or saved[1] >= _RESUMABLE_SECONDS:
        return begun
    known = saved_progress(saved[0])
    if known is None:
        return begun
    if known.end != begun.end:
        # Today has gone on; a cursor belongs to the window it was given for.
        known.end, known.cursor, known.tiers_done = begun.end, None, []
    return known


@contextmanager
def _alone(connection: psycopg.Connection, day: date, stop: threading.Event) -> Iterator[bool]:
    """Hold the day's lock; False if `stop` came first."""
    key = [DAY_LOCKS, day.toordinal()]
    taken = False
    try:
        while not taken:
            row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
            connection.commit()
            taken = row == (True,)
            if not taken and stop.wait(_LOCK_POLL_SECONDS):
                break
        yield taken
    finally:
        if taken and not connection.broken:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", key)
            connection.commit()


def _conclude(
    connection: psycopg.Connection,
    day: date,
    start: datetime,
    until: datetime,
    now: datetime,
    progress: Progress,
    *,
    complete: bool,
) -> DayReport:
    """Compare, close the gaps inside, write the coverage; the caller commits."""
    if not complete:
        until = max(start, datetime.fromtimestamp(progress.chunk_start, UTC))
    counts = day_counts(connection, day, until, now - _YOUNG)
    if counts.first_awaited_at is not None:
        # The stream is ahead of REST from here on: what REST told of later is not known to be all.
        until = max(start, counts.first_awaited_at)
        counts = day_counts(connection, day, until, now - _YOUNG)
    closed = 0
    if complete and not progress.rejected:
        closed = close_gaps_inside(connection, start, until, progress.healed_by)
        if closed:
            add_to_counters(connection, {("gaps_healed_total", ""): closed})
    open_gaps = open_gaps_touching(connection, start, until)
    status = status_of(counts, progress, open_gaps, complete=complete)
    if complete:
        write_day_coverage(
            connection,
            day,
            status=status,
            held=counts.held,
            swept=counts.swept,
            added=counts.rest_alone,
            unconfirmed=counts.unconfirmed,
            swept_until=until,
        )
    else:
        note_unknown_coverage(connection, day, start)
    return DayReport(
        day=day,
        complete=complete,
        status=status,
        swept_until=until,
        held=counts.held,
        swept=counts.swept,
        added=progress.added,
        changed=progress.changed,
        rest_alone=counts.rest_alone,
        unconfirmed=counts.unconfirmed,
        contradicted=progress.contradicted,
        rejected=progress.rejected,
        open_gaps=open_gaps,
        gaps_closed=closed,
        differences=market_differences(connection, day, until, DIFFERENCES_SHOWN),
    )


def status_of(counts: DayCounts, progress: Progress, open_gaps: int, *, complete: bool) -> str:
    """What a sweep says of its day.

    degraded: something is known to be missing or contradictory; healed: REST had to add trades,
    and now nothing is missing; proven: the stream had brought all that REST reports.
    """
    if not complete:
        return "unknown"
    if open_gaps or counts.unconfirmed or progress.rejected or progress.contradicted:
        return "degraded"
    return "healed" if counts.rest_alone else "proven"
