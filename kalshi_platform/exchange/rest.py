"""The REST API: one method an endpoint, over signed and budgeted calls (see `calls`).

Endpoints: docs.kalshi.com/api-reference, read 2026-10-15.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar
from urllib.parse import quote

from kalshi_platform.exchange import answers, candlesticks
from kalshi_platform.exchange.answers import Page, TradesPage
from kalshi_platform.exchange.calls import Calls, Parameters
from kalshi_platform.exchange.candlesticks import Candlestick
from kalshi_platform.exchange.errors import Unavailable, UnreadableAnswer
from kalshi_platform.exchange.messages import Unreadable, read_rest_trades
from kalshi_platform.exchange.reference import (
    EventFacts,
    MarketFacts,
    SeriesFacts,
    read_event,
    read_market,
    read_series,
)

Tier = Literal["live", "historical"]
T = TypeVar("T")

TRADES_A_PAGE = 1000
MARKETS_A_PAGE = 1000
EVENTS_A_PAGE = 200
NAMED_AT_MOST = 100
_TRADES = {"live": "/markets/trades", "historical": "/historical/trades"}
_MARKETS = {"live": "/markets", "historical": "/historical/markets"}


class RestClient(Calls):
    """Asks one exchange; made like `Calls`, raises like it."""

    # Exchange

    def exchange_status(self) -> answers.ExchangeStatus:
        """Whether the exchange and its trading are active; in maintenance it comes with a 503."""
        try:
            body = self.get("/exchange/status", retry_seconds=0)
        except Unavailable as error:
            try:
                return answers.read_answer(error.body, answers.ExchangeStatus)
            except UnreadableAnswer:
                raise error from None
        return answers.read_answer(body, answers.ExchangeStatus)

    def cutoff(self) -> answers.Cutoff:
        """Where the live tier begins; it moves in jumps."""
        return answers.read_answer(self.get("/historical/cutoff"), answers.Cutoff)

    # Trades

    def trades_page(
        self,
        tier: Tier,
        min_ts: int,
        max_ts: int,
        cursor: str | None = None,
        *,
        ticker: str | None = None,
        limit: int = TRADES_A_PAGE,
    ) -> TradesPage:
        """One page of all markets' trades, newest first.

        Args:
            min_ts, max_ts: Unix seconds; whether the ends belong to the window is not documented.
            cursor: of the page before.
        """
        path = _TRADES[tier]
        body = self.get(
            path,
            {
                "min_ts": min_ts,
                "max_ts": max_ts,
                "limit": limit,
                "ticker": ticker,
                "cursor": cursor,
            },
        )
        received_at = datetime.now(UTC)
        try:
            trades, rejected, following = read_rest_trades(body)
        except Unreadable as error:
            raise UnreadableAnswer(f"The exchange's answer to {path}: {error}.") from error
        if following is not None and following == cursor:
            raise UnreadableAnswer(f"The exchange's paging of {path} does not advance.")
        return TradesPage(trades, rejected, following, received_at)

    def newest_trade_at(self) -> datetime | None:
        """When the last trade was made: how far the exchange's clock is, at least; None: never."""
        body = self.get("/markets/trades", {"limit": 1})
        try:
            trades, _, _ = read_rest_trades(body)
        except Unreadable as error:
            raise UnreadableAnswer(f"The exchange's answer to /markets/trades: {error}.") from error
        if not trades:
            return None
        return datetime.fromtimestamp(trades[0].traded_at_micros // 1_000_000, UTC)

    def trade_pages(
        self, tier: Tier, min_ts: int, max_ts: int, cursor: str | None = None
    ) -> Iterator[TradesPage]:
        """All pages from `cursor` on; the last is the one without a cursor, not a short one."""
        while True:
            page = self.trades_page(tier, min_ts, max_ts, cursor)
            yield page
            cursor = page.cursor
            if cursor is None:
                return

    # Markets, events, series

    def markets_page(
        self, tier: Tier, cursor: str | None = None, **filters: str | int | None
    ) -> Page[MarketFacts]:
        """One page of the markets that match the exchange's own filters.

        Which filters go together: docs.kalshi.com/api-reference/market/get-markets; the historical
        tier takes one of tickers, event_ticker, series_ticker and mve_filter.
        """
        parameters = {"limit": MARKETS_A_PAGE, **filters}
        return self._page(_MARKETS[tier], "markets", read_market, parameters, cursor)

    def markets_named(self, tier: Tier, tickers: Sequence[str]) -> Page[MarketFacts]:
        """The markets of these names, 100 at most; one that the tier has not is left out."""
        page = self.markets_page(tier, tickers=",".join(tickers))
        while page.cursor is not None:
            more = self.markets_page(tier, page.cursor, tickers=",".join(tickers))
            page = Page(
                page.items + more.items,
                page.rejected + more.rejected,
                more.cursor,
                more.received_at,
            )
        return page

    def events_page(
        self, cursor: str | None = None, **filters: str | int | None
    ) -> Page[EventFacts]:
        """One page of the events (those of combos are not among them) that match the filters."""
        parameters = {"limit": EVENTS_A_PAGE, **filters}
        return self._page("/events", "events", read_event, parameters, cursor)

    def event(self, ticker: str) -> Page[EventFacts]:
        """One event, of combos too; NotFound where there is none."""
        body = self.get(f"/events/{_quoted(ticker)}", endpoint="/events/{event_ticker}")
        return answers.read_single(body, "event", read_event)

    def series_list(self, **filters: str | int | None) -> Page[SeriesFacts]:
        """All series that match the filters, in one answer."""
        return answers.read_page(self.get("/series", filters), "series", read_series)

    def series_one(self, ticker: str) -> Page[SeriesFacts]:
        """One series; NotFound where there is none."""
        body = self.get(f"/series/{_quoted(ticker)}", endpoint="/series/{series_ticker}")
        return answers.read_single(body, "series", read_series)

    # Candlesticks

    def candlesticks(
        self, series_ticker: str, ticker: str, start_ts: int, end_ts: int, minutes: int
    ) -> list[Candlestick]:
        """Candles that end in [start_ts, end_ts] (Unix seconds), at most 5,000 of 1, 60 or 1440."""
        body = self.get(
            f"/series/{_quoted(series_ticker)}/markets/{_quoted(ticker)}/candlesticks",
            {"start_ts": start_ts, "end_ts": end_ts, "period_interval": minutes},
            endpoint="/series/{series_ticker}/markets/{ticker}/candlesticks",
        )
        return candlesticks.read_live_candles(body)

    def candlesticks_of(
        self, tickers: Sequence[str], start_ts: int, end_ts: int, minutes: int
    ) -> dict[str, list[Candlestick]]:
        """The same for up to 100 markets; tickers × periods may be at most 10,000.

        A market without a candle has an empty list; one that the live tier has not is left out.
        """
        body = self.get(
            "/markets/candlesticks",
            {
                "market_tickers": ",".join(tickers),
                "start_ts": start_ts,
                "end_ts": end_ts,
                "period_interval": minutes,
            },
        )
        return candlesticks.read_batch_candles(body)

    def historical_candlesticks(
        self, ticker: str, start_ts: int, end_ts: int, minutes: int
    ) -> list[Candlestick]:
        """The same for a market that settled before the cutoff."""
        body = self.get(
            f"/historical/markets/{_quoted(ticker)}/candlesticks",
            {"start_ts": start_ts, "end_ts": end_ts, "period_interval": minutes},
            endpoint="/historical/markets/{ticker}/candlesticks",
        )
        return candlesticks.read_historical_candles(body)

    def _page(
        self,
        path: str,
        envelope: str,
        read: Callable[[bytes], T],
        parameters: Parameters,
        cursor: str | None,
    ) -> Page[T]:
        body = self.get(path, {**parameters, "cursor": cursor})
        page = answers.read_page(body, envelope, read)
        if page.cursor is not None and page.cursor == cursor:
            raise UnreadableAnswer(f"The exchange's paging of {path} does not advance.")
        return page


def _quoted(ticker: str) -> str:
    return quote(ticker, safe="")
