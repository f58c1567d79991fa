"""What changed since the watermark: one round through the exchange's lists of changes.

A watermark is an instant of the exchange's clock: everything that changed up to five minutes before
it has been seen. It is the largest time of change on the first page of a walk, for what changes
while later pages are read may belong on a page that has been read already. Where the exchange tells
no time of change (events and series may leave it out), the markets' watermark serves: they are
asked first, so the exchange's clock had come that far when the others were asked. A time that the
exchange's clock has not reached is none: believed, everything until then would count as seen.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, TypeVar

import psycopg

from kalshi_platform.exchange.answers import Page
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_pages import Pages
from kalshi_platform.storage.reads.reference import SOURCE
from kalshi_platform.storage.reads.sweeps import checkpoint
from kalshi_platform.storage.writes.sweeps import save_checkpoint

_Kind = Literal["markets", "events", "series"]
WATERMARKS: tuple[_Kind, ...] = ("markets", "events", "series")

# REST is a read model that lags, and not the same for each object.
OVERLAP = timedelta(minutes=5)
# After an outage: a walk that is interrupted begins again, so it must not be long.
SLICE = timedelta(hours=1)
# Combos are asked for by name once they trade; the filter by time of change demands it, too.
_ORDINARY = {"mve_filter": "exclude"}


class _Changed(Protocol):
    @property
    def exchange_updated_at(self) -> datetime | None: ...


C = TypeVar("C", bound=_Changed)


class Changes:
    """One round, which may be repeated at any point.

    Args:
        pages: where the answers go.
        is_over: asked between two slices; True ends the round unfinished.
        stop: raises Interrupted between two calls.
    """

    def __init__(
        self,
        pages: Pages,
        rest: RestClient,
        stop: threading.Event,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pages = pages
        self._connection: psycopg.Connection = pages.connection
        self._rest = rest
        self._stop = stop
        self._is_over = is_over

    def take(self) -> bool:
        """Land all that changed; whether the round was completed.

        Raises:
            ExchangeError, Interrupted: what has landed stays, the watermarks as far as they came.
        """
        reached = self._take_markets()
        if reached is None:
            return False
        self._take_events(reached)
        self._take_series(reached)
        return True

    def _take_markets(self) -> datetime | None:
        """The markets' watermark; None when the time was over before all was read."""
        watermark = read_watermark(self._connection, self._rest, "markets")
        begin = watermark - OVERLAP
        while True:
            end = begin + SLICE
            # Trades tell how far the exchange's clock has come; ours spares asking, as a rule.
            is_last = end >= datetime.now(UTC) or end >= (self._rest.newest_trade_at() or end)
            seen = self._walk_markets(begin, None if is_last else end)
            if is_last:
                return self._save("markets", watermark, seen)
            # It lies in the exchange's past, and has been read to its end.
            watermark = self._save("markets", end, [])
            if self._is_over():
                return None
            begin = end

    def _walk_markets(self, begin: datetime, end: datetime | None) -> list[datetime]:
        """The times of change on the first page."""
        filters = {
            **_ORDINARY,
            "min_updated_ts": int(begin.timestamp()),
            "max_updated_ts": None if end is None else int(end.timestamp()),
        }
        seen: list[datetime] = []
        for number, page in enumerate(
            self._all(lambda cursor: self._rest.markets_page("live", cursor, **filters))
        ):
            self._pages.land_markets(page)
            if number == 0:
                seen = times_of_change(page.items)
        return seen

    def _take_events(self, reached: datetime) -> None:
        watermark = read_watermark(self._connection, self._rest, "events")
        least = int((watermark - OVERLAP).timestamp())
        seen: list[datetime] = []
        for number, page in enumerate(
            self._all(lambda cursor: self._rest.events_page(cursor, min_updated_ts=least))
        ):
            self._pages.land_events(page)
            if number == 0:
                seen = times_of_change(page.items)
        self._save("events", max(watermark, reached), seen)

    def _take_series(self, reached: datetime) -> None:
        watermark = read_watermark(self._connection, self._rest, "series")
        least = int((watermark - OVERLAP).timestamp())
        page = self._rest.series_list(min_updated_ts=least)
        self._pages.land_series(page)
        self._save("series", max(watermark, reached), times_of_change(page.items))

    def _all(self, ask: Callable[[str | None], Page[C]]) -> Iterator[Page[C]]:
        cursor: str | None = None
        while True:
            if self._stop.is_set():
                raise Interrupted("asked to stop")
            page = ask(cursor)
            yield page
            cursor = page.cursor
            if cursor is None:
                return

    def _save(self, kind: _Kind, watermark: datetime, seen: Sequence[datetime]) -> datetime:
        """Move the watermark on to the latest time seen that can be one."""
        if max(seen, default=watermark) > watermark + OVERLAP:
            # Trades tell how far the exchange's clock has come. Within the overlap nothing is lost.
            newest_trade_at = self._rest.newest_trade_at() or watermark
            latest = max(watermark, newest_trade_at) + OVERLAP
            seen = [at for at in seen if at <= latest]
        watermark = max([watermark, *seen])
        save_watermark(self._connection, kind, watermark)
        self._connection.commit()
        return watermark


def read_watermark(connection: psycopg.Connection, rest: RestClient, kind: _Kind) -> datetime:
    """The watermark; one that is not there begins, and is saved, at the exchange's present time."""
    saved = checkpoint(connection, SOURCE, _scope(kind))
    connection.commit()
    if saved is not None and isinstance(at := saved[0].get("at"), str):
        return datetime.fromisoformat(at)
    watermark = rest.newest_trade_at() or datetime.now(UTC)
    save_watermark(connection, kind, watermark)
    connection.commit()
    return watermark


def save_watermark(connection: psycopg.Connection, kind: _Kind, watermark: datetime) -> None:
    """Remember how far the exchange's changes are known; the caller commits."""
    save_checkpoint(connection, SOURCE, _scope(kind), {"at": watermark.isoformat()})


def times_of_change(items: Sequence[_Changed]) -> list[datetime]:
    """The exchange's times of change, as far as it tells them."""
    return [item.exchange_updated_at for item in items if item.exchange_updated_at is not None]


def _scope(kind: _Kind) -> str:
    return f"watermark:{kind}"
