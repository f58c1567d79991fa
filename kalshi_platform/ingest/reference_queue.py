"""The queue: markets, events and series whose turn has come are asked for by name."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import psycopg

from kalshi_platform.exchange.answers import Page
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import BadRequest, NotFound
from kalshi_platform.exchange.reference import EventFacts, MarketFacts, SeriesFacts
from kalshi_platform.exchange.rest import NAMED_AT_MOST, RestClient
from kalshi_platform.ingest.reference_pages import SOURCES, Pages, names_in
from kalshi_platform.storage.reads.reference import due_events, due_markets, due_series
from kalshi_platform.storage.writes.reference import Kind, note_missing, postpone_reads

# Looked up at once; then what became more urgent meanwhile has its turn.
_MARKETS_A_TURN = 1000
_EVENTS_A_TURN = 300
_SERIES_A_TURN = 100
# A call each, so outcomes would wait for many of them.
_COMBO_EVENTS_A_TURN = 60
# From so many on, the whole list (one call) is cheaper than asking for each.
_SERIES_ONE_BY_ONE = 5
# Servers refuse addresses beyond 8,000 characters; a comma takes three.
_LONGEST_LIST = 6000
_COMBO = "KXMVE"


class Queue:
    """Asks for what is due and lands it.

    Args:
        pages: where the answers go.
        is_over: asked between two calls; True ends a turn early.
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

    def take_markets(self) -> bool:
        """Ask for the markets that are due; whether there may be more."""
        tickers = due_markets(self._connection, _MARKETS_A_TURN)
        self._connection.commit()
        self.ask_markets(tickers)
        return len(tickers) == _MARKETS_A_TURN

    def take_events(self) -> bool:
        """Ask for the events that are due; whether there may be more."""
        tickers = due_events(self._connection, _EVENTS_A_TURN)
        self._connection.commit()
        ordinary = [ticker for ticker in tickers if not ticker.startswith(_COMBO)]
        taken = tickers[: len(ordinary) + _COMBO_EVENTS_A_TURN]  # those of combos come last
        self.ask_events(taken)
        return len(tickers) == _EVENTS_A_TURN or len(taken) < len(tickers)

    def take_series(self) -> bool:
        """Ask for the series that are due; whether there may be more."""
        tickers = due_series(self._connection, _SERIES_A_TURN)
        self._connection.commit()
        self.ask_series(tickers)
        return len(tickers) == _SERIES_A_TURN

    def ask_markets(self, tickers: Sequence[str]) -> None:
        """Ask both tiers for these markets; what neither has is asked for again later."""
        for batch in batches(tickers):
            if self._ends():
                return
            self._ask_markets(batch)

    def ask_events(self, tickers: Sequence[str]) -> None:
        """Ask for these events: ordinary ones in lists, those of combos one by one."""
        ordinary = [ticker for ticker in tickers if not ticker.startswith(_COMBO)]
        one_by_one = [ticker for ticker in tickers if ticker.startswith(_COMBO)]
        for batch in batches(ordinary):
            if self._ends():
                return
            one_by_one = [*self._list_events(batch), *one_by_one]
        self._each("events", one_by_one, self._ask_event)

    def ask_series(self, tickers: Sequence[str]) -> None:
        """Ask for these series; the exchange may not have one that an event names."""
        left = set(tickers)
        if len(left) > _SERIES_ONE_BY_ONE and not self._ends():
            page = self._rest.series_list()
            self._pages.land_series(page)
            told = left & {facts.series_ticker for facts in page.items}
            self._put_off("series", told)
            left -= told
        self._each("series", sorted(left), self._ask_series)

    def _ask_markets(self, batch: Sequence[str]) -> None:
        missing, unreadable = set(batch), set[str]()
        try:
            for tier, source in SOURCES.items():
                if missing:
                    page: Page[MarketFacts] = self._rest.markets_named(tier, sorted(missing))
                    self._pages.land_markets(page, source)
                    unreadable |= names_in(page.rejected, "ticker")
                    missing -= {facts.market_ticker for facts in page.items} | unreadable
        except BadRequest:
            # One name that the exchange does not take must not keep the others waiting.
            if len(batch) > 1:
                middle = len(batch) // 2
                self._ask_markets(batch[:middle])
                self._ask_markets(batch[middle:])
                return
        else:
            self._note_missing("markets", missing)
        self._put_off("markets", batch)

    def _list_events(self, batch: Sequence[str]) -> list[str]:
        """Those of `batch` that the list does not tell of."""
        try:
            page = self._rest.events_page(tickers=",".join(batch))
        except BadRequest:
            return list(batch)
        self._pages.land_events(page)
        told = {facts.event_ticker for facts in page.items}
        self._put_off("events", told & set(batch))
        return [ticker for ticker in batch if ticker not in told]

    def _ask_event(self, ticker: str) -> None:
        page: Page[EventFacts] = self._rest.event(ticker)
        self._pages.land_events(page)

    def _ask_series(self, ticker: str) -> None:
        page: Page[SeriesFacts] = self._rest.series_one(ticker)
        self._pages.land_series(page)

    def _each(self, kind: Kind, tickers: Iterable[str], ask: Callable[[str], None]) -> None:
        for ticker in tickers:
            if self._ends():
                return
            try:
                ask(ticker)
            except NotFound:
                self._note_missing(kind, [ticker])
            except BadRequest:
                pass  # put off
            self._put_off(kind, [ticker])

    def _note_missing(self, kind: Kind, tickers: Iterable[str]) -> None:
        missing = set(tickers)
        note_missing(self._connection, kind, missing)
        self._connection.commit()
        self._pages.tally.missing += len(missing)

    def _put_off(self, kind: Kind, tickers: Iterable[str]) -> None:
        """What has been asked for and is still due (refused, unreadable) waits before it is again.

        A market that the database cannot hold would else be asked for without end.
        """
        postpone_reads(self._connection, kind, set(tickers))
        self._connection.commit()

    def _ends(self) -> bool:
        if self._stop.is_set():
            raise Interrupted("asked to stop")
        return self._is_over()


def batches(tickers: Iterable[str]) -> Iterator[list[str]]:
    """Lists of names that one call takes: a hundred at most, and not too long together."""
    batch: list[str] = []
    length = 0
    for ticker in tickers:
        if batch and (len(batch) == NAMED_AT_MOST or length + len(ticker) + 3 > _LONGEST_LIST):
            yield batch
            batch, length = [], 0
        batch.append(ticker)
        length += len(ticker) + 3
    if batch:
        yield batch
