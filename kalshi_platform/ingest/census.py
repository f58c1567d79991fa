"""The census: every market that is not settled, every event, every series, once through.

It fills an empty database, and finds what a sync may have missed ever since. Where it stands is
saved with each page, so it goes on after any interruption; a second one changes nothing.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import structlog

from kalshi_platform.exchange.answers import Page
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import BadRequest
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_changes import WATERMARKS, read_watermark
from kalshi_platform.ingest.reference_pages import NOTHING, Pages, Tally, plus
from kalshi_platform.ingest.window import count_calls
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import CENSUS as CENSUS_LEASE
from kalshi_platform.storage.leases import Lease
from kalshi_platform.storage.reads.reference import CENSUS, SOURCE
from kalshi_platform.storage.reads.sweeps import checkpoint
from kalshi_platform.storage.writes.sweeps import save_checkpoint
from kalshi_platform.storage.writes.told import Changes

# In this order what one names is there already, and a market that moves on in its life while the
# lists are read is met again in a later one. One that moves back is a change, which the sync sees.
LISTS = ("series", "events", "unopened", "open", "paused", "closed")
# Pages after which a list of unknown length counts as half read.
_USUAL_PAGES = 20
# Lists begun again in one run; an exchange that refuses its own cursors would be asked without end.
_MOST_RESTARTS = 5

log = structlog.get_logger(__name__)


class _Position(msgspec.Struct):
    """Where a census stands; the counts are those of the lists read so far, per list."""

    begun_at: str
    list_number: int = 0
    cursor: str | None = None
    pages: int = 0
    """Read of the list."""
    counts: dict[str, list[int]] = {}
    """Added, changed, unchanged; series, events, markets."""
    rejected: int = 0
    completed_at: str | None = None
    """When a census was last completed; it stays while another one goes on."""
    usual_pages: dict[str, int] = {}
    """Of each list, when it was last read to the end."""


@dataclass
class CensusReport:
    """What a census found; after an interruption, what it found so far."""

    complete: bool = False
    is_elsewhere: bool = False
    """Another process is at it; nothing was done."""
    is_continued: bool = False
    """It went on where an earlier one was interrupted."""
    tally: Tally = field(default_factory=Tally)


def census(
    url: str,
    rest: RestClient,
    stop: threading.Event,
    on_progress: Callable[[float], None] | None = None,
) -> CensusReport:
    """Read all lists, or go on where the last census was interrupted.

    Args:
        on_progress: is told the fraction done, from 0 to 1; the length of a list is known only
            once it has been read, until then the fraction is an estimate that never falls.

    Raises:
        ExchangeError: REST could not be asked to the end; the position is kept.
        psycopg.OperationalError: the database is away.
    """
    lease = Lease(url, CENSUS_LEASE)
    try:
        if not lease.acquire():
            return CensusReport(is_elsewhere=True)
        with connect(url) as connection:
            return _Census(connection, rest, stop, on_progress).run()
    finally:
        lease.release()


class _Census:
    def __init__(
        self,
        connection: psycopg.Connection,
        rest: RestClient,
        stop: threading.Event,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._connection = connection
        self._rest = rest
        self._stop = stop
        self._on_progress = on_progress
        self._told = 0.0
        self._restarts = 0
        self._pages = Pages(connection)
        self._position, self._is_continued = _begin(connection)

    def run(self) -> CensusReport:
        complete = False
        try:
            # What changes from now on, on pages that have been read, is the sync's to see.
            for kind in WATERMARKS:
                read_watermark(self._connection, self._rest, kind)
            while self._position.list_number < len(LISTS):
                self._read_list(LISTS[self._position.list_number])
            complete = True
            # Queries planned for empty tables would read all of these rows until autovacuum comes.
            self._connection.execute("ANALYZE series, events, markets, settlements")
            self._connection.commit()
        except Interrupted:
            self._connection.rollback()
        finally:
            if not self._connection.broken:
                self._connection.rollback()
                count_calls(self._connection, self._rest)
                self._connection.commit()
        report = self._report(complete=complete)
        log.info(
            "census_taken",
            complete=complete,
            changed=report.tally.changed,
            rejected=report.tally.rejected,
        )
        return report

    def _read_list(self, name: str) -> None:
        while self._position.list_number < len(LISTS) and LISTS[self._position.list_number] == name:
            if self._stop.is_set():
                raise Interrupted("asked to stop")
            self._tell()
            try:
                self._read_page(name)
            except BadRequest:
                if self._position.cursor is None or self._restarts == _MOST_RESTARTS:
                    raise
                self._restarts += 1
                # A cursor may have died with a restart of ours or theirs.
                self._position.cursor, self._position.pages = None, 0
        self._tell()

    def _read_page(self, name: str) -> None:
        cursor = self._position.cursor
        if name == "series":
            series = self._rest.series_list()
            self._pages.land_series(series, self._saved(series, "series"))
        elif name == "events":
            events = self._rest.events_page(cursor)
            self._pages.land_events(events, self._saved(events, "events"))
        else:
            markets = self._rest.markets_page("live", cursor, status=name, mve_filter="exclude")
            self._pages.land_markets(markets, also=self._saved(markets, "markets"))

    def _saved(self, page: Page[Any], table: str) -> Callable[[Changes], None]:
        """Saves the position after this page, in the transaction of its rows."""
        before = self._position
        name = LISTS[before.list_number]

        def save(changes: Changes) -> None:
            after = msgspec.structs.replace(
                before,
                cursor=page.cursor,
                pages=before.pages + 1,
                counts={**before.counts, table: list(plus(_counted(before, table), changes))},
                rejected=before.rejected + len(page.rejected),
            )
            if page.cursor is None:
                after.usual_pages = {**before.usual_pages, name: after.pages}
                after.list_number, after.pages = before.list_number + 1, 0
            if after.list_number == len(LISTS):
                after.completed_at = datetime.now(UTC).isoformat()
            save_checkpoint(self._connection, SOURCE, CENSUS, msgspec.to_builtins(after))
            self._position = after

        return save

    def _report(self, *, complete: bool) -> CensusReport:
        position = self._position
        tally = Tally(
            markets=_counted(position, "markets"),
            events=_counted(position, "events"),
            series=_counted(position, "series"),
            rejected=position.rejected,
        )
        return CensusReport(complete=complete, is_continued=self._is_continued, tally=tally)

    def _tell(self) -> None:
        position = self._position
        if position.list_number == len(LISTS):
            fraction = 1.0
        else:
            usual = position.usual_pages.get(LISTS[position.list_number])
            within = (
                position.pages / (position.pages + _USUAL_PAGES)
                if usual is None
                else min(1.0, position.pages / usual)
            )
            fraction = (position.list_number + within) / len(LISTS)
        if self._on_progress is not None and fraction > self._told:
            self._told = fraction
            self._on_progress(fraction)


def _begin(connection: psycopg.Connection) -> tuple[_Position, bool]:
    """The position to go on from, and whether it is that of an interrupted census."""
    saved = checkpoint(connection, SOURCE, CENSUS)
    connection.commit()
    begun = _Position(begun_at=datetime.now(UTC).isoformat())
    if saved is None:
        return begun, False
    try:
        known = msgspec.convert(saved[0], _Position)
    except msgspec.ValidationError as error:
        log.warning("position_not_continued", reason=str(error))
        return begun, False
    if known.list_number < len(LISTS):
        return known, known.pages > 0 or known.list_number > 0
    begun.completed_at, begun.usual_pages = known.completed_at, known.usual_pages
    return begun, False


def _counted(position: _Position, table: str) -> Changes:
    counts = position.counts.get(table)
    return NOTHING if counts is None else Changes(*counts)
