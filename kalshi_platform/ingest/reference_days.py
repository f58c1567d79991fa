"""Markets and outcomes of past UTC days, through both of the exchange's tiers.

The live tier is asked for each day by time of creation, change and settlement. The historical tier
(markets settled before the cutoff) takes no time, so it is walked once for all days. Markets go
from the one to the other when the cutoff moves; live comes first, so that none is missed: what had
left before it was reached is in the archive when that is walked. Where the cutoff moved during a
walk, that walk is done again, for nothing is documented of pages under which the list changes.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Literal

import msgspec
import psycopg
import structlog

from kalshi_platform.exchange.answers import Page
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import BadRequest
from kalshi_platform.exchange.reference import MarketFacts
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_pages import Pages
from kalshi_platform.ingest.reference_queue import Queue
from kalshi_platform.ingest.window import count_calls
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import REFERENCE_DAYS, Lease
from kalshi_platform.storage.reads.days import reference_figures
from kalshi_platform.storage.reads.reference import (
    SOURCE,
    due_events_of_days,
    unread_traded_markets,
)
from kalshi_platform.storage.reads.sweeps import checkpoint
from kalshi_platform.storage.writes.sweeps import drop_checkpoint, save_checkpoint
from kalshi_platform.storage.writes.told import Changes

_Family = Literal["created", "updated", "settled"]
_FAMILIES: tuple[_Family, ...] = ("created", "updated", "settled")
_ORDINARY = {"mve_filter": "exclude"}
_RESUMABLE_SECONDS = 3600
_NAMES_A_TURN = 1000
_LEASE_POLL_SECONDS = 0.5
# Shares of the work, for the progress: the days in the live tier, the archive, the names.
_LIVE_SHARE, _ARCHIVE_SHARE = 0.6, 0.3
# Pages after which the archive, whose length nobody tells, counts as half walked.
_USUAL_PAGES = 200

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


class _Position(msgspec.Struct):
    """How far the walk has come; it goes on with what follows the last page landed."""

    begun_at: datetime
    day_number: int = 0
    family_number: int = 0
    cutoff: datetime | None = None
    """When the walk under way began: of the day in the live tier, or of the archive."""
    cursor: str | None = None
    archive_pages: int = 0
    archive_done: bool = False
    named: str = ""
    """Traded markets known by name alone have been asked for up to this one."""
    counts: dict[str, list[int]] = {}
    """Told, added, changed, by day."""
    rejected: int = 0


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
        walk = _Walk(connection, rest, days, on_progress, stop)
        complete = False
        try:
            if alone:
                walk.run()
                complete = True
        except Interrupted:
            connection.rollback()
        finally:
            if not connection.broken:
                connection.rollback()
                count_calls(connection, rest)
                connection.commit()
        reports = walk.reports(complete=complete)
    log.info(
        "reference_backfilled",
        first=str(days[0]),
        last=str(days[-1]),
        complete=complete,
        changed=sum(report.added + report.changed for report in reports),
    )
    return reports


@contextmanager
def _alone(url: str, stop: threading.Event) -> Iterator[bool]:
    """Hold the lease of backfills; False if `stop` came first."""
    lease = Lease(url, REFERENCE_DAYS)
    taken = lease.acquire()
    while not taken and not stop.wait(_LEASE_POLL_SECONDS):
        taken = lease.acquire()
    try:
        yield taken
    finally:
        lease.release()


class _Walk:
    def __init__(
        self,
        connection: psycopg.Connection,
        rest: RestClient,
        days: Sequence[date],
        on_progress: Callable[[float], None] | None,
        stop: threading.Event,
    ) -> None:
        self._connection = connection
        self._rest = rest
        self._days = days
        self._on_progress = on_progress
        self._told = 0.0
        self._stop = stop
        self._pages = Pages(connection)
        self._queue = Queue(self._pages, rest, stop)
        self._scope = f"days:{days[0]}..{days[-1]}"
        self._position = self._begin()

    def run(self) -> None:
        while self._position.day_number < len(self._days):
            self._walk_day(self._days[self._position.day_number])
        if not self._position.archive_done:
            self._walk_archive()
        self._ask_traded()
        self._ask_events()
        drop_checkpoint(self._connection, SOURCE, self._scope)
        self._connection.commit()
        self._tell(1.0)

    def reports(self, *, complete: bool) -> list[ReferenceDayReport]:
        return [self._report(day, complete=complete) for day in self._days]

    # The live tier

    def _walk_day(self, day: date) -> None:
        if self._position.cutoff is None:
            self._position.cutoff = self._cutoff()
        while self._position.family_number < len(_FAMILIES):
            self._pages_until_last(partial(self._live_page, day))
        if self._moved():
            self._go_to(family_number=0)
            return
        self._go_to(day_number=self._position.day_number + 1, family_number=0, cutoff=None)

    def _live_page(self, day: date, cursor: str | None) -> None:
        before = self._position
        family = _FAMILIES[before.family_number]
        start = datetime.combine(day, time(), UTC)
        # "later than" the first, "at or before" the last.
        window = {
            f"min_{family}_ts": int(start.timestamp()) - 1,
            f"max_{family}_ts": int((start + timedelta(days=1)).timestamp()),
        }
        page = self._rest.markets_page("live", cursor, **_ORDINARY, **window)

        def save(changes: Changes) -> None:
            told = sum(_instants(facts)[family] == day for facts in page.items)
            family_number = before.family_number + (page.cursor is None)
            self._save(before, page, {day: (told, changes)}, family_number=family_number)

        self._pages.land_markets(page, "rest", save)
        self._tell_live()

    # The historical tier

    def _walk_archive(self) -> None:
        """Walk all of it, if any of the days can have markets there; again if it changed."""
        if self._position.cutoff is None:
            cutoff = self._cutoff()
            if datetime.combine(self._days[0], time(), UTC) >= cutoff:
                self._go_to(archive_done=True)
                return
            self._position.cutoff = cutoff
        while not self._position.archive_done:
            self._pages_until_last(self._archive_page)
            self._go_to(archive_done=not self._moved())

    def _archive_page(self, cursor: str | None) -> None:
        before = self._position
        page = self._rest.markets_page("historical", cursor, **_ORDINARY)
        wanted: dict[date, list[MarketFacts]] = defaultdict(list)
        for facts in page.items:
            for day in sorted(set(_instants(facts).values()) - {None}, key=str):
                if day in self._days:
                    assert day is not None
                    wanted[day].append(facts)
                    break
        landed: dict[date, tuple[int, Changes]] = {}

        def save(_: Changes) -> None:
            self._save(before, page, landed, archive_pages=before.archive_pages + 1)

        # Those of each day by themselves, so that each day can tell what it gained; the page's
        # position goes with the last of them.
        groups = [Page(wanted[day], [], None, page.received_at) for day in sorted(wanted)]
        for day, group in zip(sorted(wanted), groups, strict=True):
            changes = self._pages.land_markets(group, "historical")
            landed[day] = (len(group.items), changes)
        self._pages.land_markets(
            Page([], page.rejected, page.cursor, page.received_at), "historical", save
        )
        pages = self._position.archive_pages
        self._tell(_LIVE_SHARE + _ARCHIVE_SHARE * pages / (pages + _USUAL_PAGES))

    # What they name, and what traded

    def _ask_traded(self) -> None:
        """Markets that traded and are known by name alone: combos above all."""
        while True:
            tickers = unread_traded_markets(
                self._connection,
                self._days,
                since=self._position.begun_at,
                after=self._position.named,
                limit=_NAMES_A_TURN,
            )
            self._connection.commit()
            if not tickers:
                return
            self._queue.ask_markets(tickers)
            self._go_to(named=tickers[-1])

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

    # The position

    def _pages_until_last(self, land: Callable[[str | None], None]) -> None:
        while True:
            if self._stop.is_set():
                raise Interrupted("asked to stop")
            cursor = self._position.cursor
            try:
                land(cursor)
            except BadRequest:
                if cursor is None:
                    raise
                # A cursor may have died with a restart of ours or theirs.
                self._position.cursor = None
                continue
            if self._position.cursor is None:
                return

    def _save(
        self,
        before: _Position,
        page: Page[MarketFacts],
        landed: Mapping[date, tuple[int, Changes]],
        **moved: int,
    ) -> None:
        counts = {day: list(one) for day, one in before.counts.items()}
        for day, (told, changes) in landed.items():
            so_far = counts.get(str(day), [0, 0, 0])
            more = (told, changes.added, changes.changed)
            counts[str(day)] = [one + other for one, other in zip(so_far, more, strict=True)]
        self._position = msgspec.structs.replace(
            before,
            cursor=page.cursor,
            counts=counts,
            rejected=before.rejected + len(page.rejected),
            **moved,
        )
        self._write()

    def _go_to(self, **moved: object) -> None:
        self._position = msgspec.structs.replace(self._position, cursor=None, **moved)
        self._write()
        self._connection.commit()

    def _write(self) -> None:
        position = msgspec.to_builtins(self._position)
        save_checkpoint(self._connection, SOURCE, self._scope, position)

    def _begin(self) -> _Position:
        saved = checkpoint(self._connection, SOURCE, self._scope)
        self._connection.commit()
        begun = _Position(begun_at=datetime.now(UTC))
        if saved is None or saved[1] >= _RESUMABLE_SECONDS:
            return begun
        try:
            return msgspec.convert(saved[0], _Position)
        except msgspec.ValidationError as error:
            log.warning("position_not_continued", reason=str(error))
            return begun

    def _cutoff(self) -> datetime:
        return self._rest.cutoff().market_settled_ts

    def _moved(self) -> bool:
        """Whether the cutoff moved since the walk began; it is then that of the next walk."""
        before, self._position.cutoff = self._position.cutoff, self._cutoff()
        return before != self._position.cutoff

    # What is told

    def _report(self, day: date, *, complete: bool) -> ReferenceDayReport:
        told, added, changed = self._position.counts.get(str(day), [0, 0, 0])
        return ReferenceDayReport(
            day=day,
            complete=complete,
            told=told,
            added=added,
            changed=changed,
            markets=reference_figures(self._connection, "markets", day)["rows"],
            settlements=reference_figures(self._connection, "settlements", day)["rows"],
            rejected=self._position.rejected,
        )

    def _tell_live(self) -> None:
        position = self._position
        done = position.day_number + position.family_number / len(_FAMILIES)
        self._tell(_LIVE_SHARE * done / len(self._days))

    def _tell(self, fraction: float) -> None:
        if self._on_progress is not None and fraction > self._told:
            self._told = fraction
            self._on_progress(fraction)


def _instants(facts: MarketFacts) -> dict[_Family, date | None]:
    """The UTC days of a market's creation, last change and settlement."""
    return {
        "created": facts.created_at.date(),
        "updated": facts.exchange_updated_at.date(),
        "settled": None if facts.settled_at is None else facts.settled_at.date(),
    }
