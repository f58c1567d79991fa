"""The walk over past days: the live tier day by day, then the archive once for all of them.

The live tier is asked by time of creation, change and settlement. The historical tier (markets
settled before the cutoff) takes no time, so it is walked once for all days. Markets go from the one
to the other when the cutoff moves; live comes first, so that none is missed: what had left before
it was reached is in the archive when that is walked. Where the cutoff moved during a walk, that
walk is done again, for nothing is documented of pages under which the list changes.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from kalshi_platform.storage.reads.reference import SOURCE
from kalshi_platform.storage.reads.sweeps import checkpoint
from kalshi_platform.storage.writes.sweeps import drop_checkpoint, save_checkpoint
from kalshi_platform.storage.writes.told import Changes

_Family = Literal["created", "updated", "settled"]
_FAMILIES: tuple[_Family, ...] = ("created", "updated", "settled")
_ORDINARY = {"mve_filter": "exclude"}
_RESUMABLE_SECONDS = 3600
# Of the walk, for the progress; the rest is the archive's.
_LIVE_SHARE = 2 / 3
# Pages after which the archive, whose length nobody tells, counts as half walked.
_USUAL_PAGES = 200
# Lists begun again in one run; an exchange that refuses its own cursors would be asked without end.
_MOST_RESTARTS = 5

log = structlog.get_logger(__name__)


class Position(msgspec.Struct):
    """How far the walk has come; it goes on with what follows the last page landed."""

    begun_at: datetime
    days: list[date]
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


class Walk:
    """Walks the days through both tiers, page by page, each a transaction with the position.

    Args:
        pages: where the answers go.
        days: in order.
        tell: is told the fraction done, from 0 to 1, in part an estimate.
        stop: raises Interrupted between two calls.
    """

    def __init__(
        self,
        pages: Pages,
        rest: RestClient,
        days: Sequence[date],
        stop: threading.Event,
        tell: Callable[[float], None],
    ) -> None:
        self._pages = pages
        self._connection: psycopg.Connection = pages.connection
        self._rest = rest
        self._days = days
        self._stop = stop
        self._tell = tell
        self._restarts = 0
        self._scope = f"days:{days[0]}..{days[-1]}"
        self.position = self._begin()

    def run(self) -> None:
        """Walk from the position to the end.

        Raises:
            ExchangeError, Interrupted: the walk may be continued from the saved position.
        """
        while self.position.day_number < len(self._days):
            self._walk_day(self._days[self.position.day_number])
        if not self.position.archive_done:
            self._walk_archive()
        self._tell(1.0)

    def name_up_to(self, ticker: str) -> None:
        """Remember that traded markets have been asked for by name up to this one."""
        self._go_to(named=ticker)

    def forget(self) -> None:
        """All is done: another backfill of these days begins anew."""
        drop_checkpoint(self._connection, SOURCE, self._scope)
        self._connection.commit()

    # The live tier

    def _walk_day(self, day: date) -> None:
        if self.position.cutoff is None:
            self.position.cutoff = self._cutoff()
        while self.position.family_number < len(_FAMILIES):
            self._pages_until_last(partial(self._live_page, day))
        if self._moved():
            self._go_to(family_number=0)
            return
        self._go_to(day_number=self.position.day_number + 1, family_number=0, cutoff=None)

    def _live_page(self, day: date, cursor: str | None) -> None:
        before = self.position
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
        if self.position.cutoff is None:
            cutoff = self._cutoff()
            if datetime.combine(self._days[0], time(), UTC) >= cutoff:
                self._go_to(archive_done=True)
                return
            self.position.cutoff = cutoff
        while not self.position.archive_done:
            self._pages_until_last(self._archive_page)
            self._go_to(archive_done=not self._moved())

    def _archive_page(self, cursor: str | None) -> None:
        before = self.position
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
        pages = self.position.archive_pages
        self._tell(_LIVE_SHARE + (1 - _LIVE_SHARE) * pages / (pages + _USUAL_PAGES))

    # The position

    def _pages_until_last(self, land: Callable[[str | None], None]) -> None:
        while True:
            if self._stop.is_set():
                raise Interrupted("asked to stop")
            cursor = self.position.cursor
            try:
                land(cursor)
            except BadRequest:
                if cursor is None or self._restarts == _MOST_RESTARTS:
                    raise
                self._restarts += 1
                # A cursor may have died with a restart of ours or theirs.
                self.position.cursor = None
                continue
            if self.position.cursor is None:
                return

    def _save(
        self,
        before: Position,
        page: Page[MarketFacts],
        landed: Mapping[date, tuple[int, Changes]],
        **moved: int,
    ) -> None:
        counts = {day: list(one) for day, one in before.counts.items()}
        for day, (told, changes) in landed.items():
            so_far = counts.get(str(day), [0, 0, 0])
            more = (told, changes.added, changes.changed)
            counts[str(day)] = [one + other for one, other in zip(so_far, more, strict=True)]
        self.position = msgspec.structs.replace(
            before,
            cursor=page.cursor,
            counts=counts,
            rejected=before.rejected + len(page.rejected),
            **moved,
        )
        self._write()

    def _go_to(self, **moved: object) -> None:
        self.position = msgspec.structs.replace(self.position, cursor=None, **moved)
        self._write()
        self._connection.commit()

    def _write(self) -> None:
        position = msgspec.to_builtins(self.position)
        save_checkpoint(self._connection, SOURCE, self._scope, position)

    def _begin(self) -> Position:
        saved = checkpoint(self._connection, SOURCE, self._scope)
        self._connection.commit()
        begun = Position(datetime.now(UTC), list(self._days))
        if saved is None or saved[1] >= _RESUMABLE_SECONDS:
            return begun
        try:
            known = msgspec.convert(saved[0], Position)
        except msgspec.ValidationError as error:
            log.warning("position_not_continued", reason=str(error))
            return begun
        # Other days between the same ends.
        return known if known.days == begun.days else begun

    def _cutoff(self) -> datetime:
        return self._rest.cutoff().market_settled_ts

    def _moved(self) -> bool:
        """Whether the cutoff moved since the walk began; it is then that of the next walk."""
        before, self.position.cutoff = self.position.cutoff, self._cutoff()
        return before != self.position.cutoff

    def _tell_live(self) -> None:
        position = self.position
        done = position.day_number + position.family_number / len(_FAMILIES)
        self._tell(_LIVE_SHARE * done / len(self._days))


def _instants(facts: MarketFacts) -> dict[_Family, date | None]:
    """The UTC days of a market's creation, last change and settlement."""
    return {
        "created": facts.created_at.date(),
        "updated": facts.exchange_updated_at.date(),
        "settled": None if facts.settled_at is None else facts.settled_at.date(),
    }
