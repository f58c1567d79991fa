"""Markets and outcomes of past UTC days, the events and series they name, and traded combos."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import psycopg
import structlog

from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_pages import Pages
from kalshi_platform.ingest.reference_queue import Queue
from kalshi_platform.ingest.reference_walk import Walk
from kalshi_platform.ingest.window import count_calls
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import REFERENCE_DAYS, Lease
from kalshi_platform.storage.reads.days import reference_figures
from kalshi_platform.storage.reads.reference import due_events_of_days, unread_traded_markets

_NAMES_A_TURN = 1000
_NAMES_LOOKED_UP = 200_000
_LEASE_POLL_SECONDS = 0.5
# Of the work, for the progress: the walk's, the names' of markets; those of events are the rest.
_WALK_SHARE = 0.5
_NAMES_SHARE = 0.95

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ReferenceDayReport:
    """What a backfill found of one day; after an interruption, what it found so far."""

    day: date
    complete: bool
    told: int
    """Markets that REST told as created, changed or settled on the day, each time it did."""
    added: int
    """By this run: rows of markets."""
    changed: int
    """By this run: markets that gained or changed a fact."""
    markets: int
    """Held: created or changed on the day."""
    settlements: int
    """Held: paid on the day."""
    rejected: int
    """Objects that could not be read, of all the days of the run."""
    beside: int
    """Events, series and markets asked for by name that this run added or changed, of all days."""


def backfill_days(
    url: str,
    rest: RestClient,
    days: Sequence[date],
    on_progress: Callable[[float], None] | None,
    stop: threading.Event,
) -> list[ReferenceDayReport]:
    """Land the markets of `days` with their outcomes, their events and series, and traded combos.

    Interrupted less than an hour ago it goes on where it was; done again it changes nothing.
    Another backfill is waited for.

    Args:
        on_progress: is told the fraction done, from 0 to 1, in part an estimate.
        stop: ends it between two calls; the position is kept.

    Returns:
        One report a day, in order.

    Raises:
        ExchangeError: REST could not be asked to the end; the position is kept.
        psycopg.OperationalError: the database is away.
    """
    days = sorted(set(days))
    if not days:
        return []
    with _alone(url, stop) as alone, connect(url) as connection:
        backfill = _Backfill(connection, rest, days, on_progress, stop)
        complete = False
        try:
            if alone:
                backfill.run()
                complete = True
        except Interrupted:
            connection.rollback()
        finally:
            if not connection.broken:
                connection.rollback()
                count_calls(connection, rest)
                connection.commit()
        reports = backfill.reports(complete=complete)
    log.info(
        "reference_backfilled",
        first=str(days[0]),
        last=str(days[-1]),
        complete=complete,
        changed=sum(report.added + report.changed for report in reports) + reports[0].beside,
    )
    return reports


@contextmanager
def _alone(url: str, stop: threading.Event) -> Iterator[bool]:
    """Hold the lease of backfills; False if `stop` came first."""
    lease = Lease(url, REFERENCE_DAYS)
    taken = lease.acquire()
    if not taken:
        # Of a warning's weight, so that it shows beside a bar that stands still.
        log.warning("reference_backfill_waits", reason="another one is under way")
    while not taken and not stop.wait(_LEASE_POLL_SECONDS):
        taken = lease.acquire()
    try:
        yield taken
    finally:
        lease.release()


class _Backfill:
    def __init__(
        self,
        connection: psycopg.Connection,
        rest: RestClient,
        days: Sequence[date],
        on_progress: Callable[[float], None] | None,
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._days = days
        self._on_progress = on_progress
        self._told = 0.0
        self._walk = Walk(
            Pages(connection), rest, days, stop, lambda done: self._tell(_WALK_SHARE * done)
        )
        self._named = Pages(connection)
        self._queue = Queue(self._named, rest, stop)

    def run(self) -> None:
        self._walk.run()
        self._ask_traded()
        self._ask_events()
        self._walk.forget()
        self._tell(1.0)

    def reports(self, *, complete: bool) -> list[ReferenceDayReport]:
        return [self._report(day, complete=complete) for day in self._days]

    def _ask_traded(self) -> None:
        """Markets that traded and are known by name alone, or combos that were not final yet."""
        while tickers := unread_traded_markets(
            self._connection,
            self._days,
            since=self._walk.position.begun_at,
            after=self._walk.position.named,
            limit=_NAMES_LOOKED_UP,
        ):
            self._connection.commit()
            for first in range(0, len(tickers), _NAMES_A_TURN):
                turn = tickers[first : first + _NAMES_A_TURN]
                self._queue.ask_markets(turn)
                self._walk.name_up_to(turn[-1])
                done = (first + len(turn)) / len(tickers)
                self._tell(_WALK_SHARE + (_NAMES_SHARE - _WALK_SHARE) * done)
        self._connection.commit()

    def _ask_events(self) -> None:
        start = datetime.combine(self._days[0], time(), UTC)
        end = datetime.combine(self._days[-1], time(), UTC) + timedelta(days=1)
        while True:
            tickers = due_events_of_days(self._connection, start, end, _NAMES_A_TURN)
            self._connection.commit()
            if not tickers:
                break
            self._queue.ask_events(tickers)
        while self._queue.take_series():
            pass

    def _report(self, day: date, *, complete: bool) -> ReferenceDayReport:
        told, added, changed = self._walk.position.counts.get(str(day), [0, 0, 0])
        return ReferenceDayReport(
            day=day,
            complete=complete,
            told=told,
            added=added,
            changed=changed,
            markets=reference_figures(self._connection, "markets", day)["rows"],
            settlements=reference_figures(self._connection, "settlements", day)["rows"],
            rejected=self._walk.position.rejected + self._named.tally.rejected,
            beside=self._named.tally.changed,
        )

    def _tell(self, fraction: float) -> None:
        if self._on_progress is not None and fraction > self._told:
            self._told = fraction
            self._on_progress(fraction)
