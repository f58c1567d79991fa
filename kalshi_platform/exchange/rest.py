"""The REST API: one method an endpoint, over signed and budgeted calls (see `calls`).

Endpoints: docs.kalshi.com/api-reference, read 2026-10-15.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar
from urllib.parse import quote

from kalshi_platform.exchange import answers
from kalshi_platform.exchange.answers import Candlestick, Document, TradesPage
from kalshi_platform.exchange.calls import Calls, Parameters
from kalshi_platform.exchange.errors import Unavailable, UnreadableAnswer
from kalshi_platform.exchange.messages import Unreadable, read_rest_trades

Tier = Literal["live", "historical"]
T = TypeVar("T")

TRADES_A_PAGE = 1000
_TRADES = {"live": "/markets/trades", "historical": "/historical/trades"}


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

    def market(self, ticker: str) -> Document[answers.Market]:
        """One market; NotFound just after its creation, and once it is in the historical tier."""
        body = self.get(f"/markets/{_quoted(ticker)}", endpoint="/markets/{ticker}")
        return answers.read_document(body, "market", answers.Market)

    def markets(self, **filters: str | int | None) -> Iterator[Document[answers.Market]]:
        """All markets that match the exchange's own filters."""
        return self._paged("/markets", "markets", answers.Market, {"limit": 1000, **filters})

    def events(self, **filters: str | int | None) -> Iterator[Document[answers.Event]]:
        """All events (combos have none) that match the exchange's own filters."""
        return self._paged("/events", "events", answers.Event, {"limit": 200, **filters})

    def series(self, **filters: str | int | None) -> list[Document[answers.Series]]:
        """All series, in one answer."""
        return answers.read_documents(self.get("/series", filters), "series", answers.Series)[0]

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
        return answers.read_live_candles(body)

    def candlesticks_of(
        self, tickers: Sequence[str], start_ts: int, end_ts: int, minutes: int
    ) -> dict[str, list[Candlestick]]:
        """The same for up to 100 markets; tickers × periods may be at most 10,000."""
        body = self.get(
            "/markets/candlesticks",
            {
                "market_tickers": ",".join(tickers),
                "start_ts": start_ts,
                "end_ts": end_ts,
                "period_interval": minutes,
            },
        )
        return answers.read_batch_candles(body)

    def historical_candlesticks(
        self, ticker: str, start_ts: int, end_ts: int, minutes: int
    ) -> list[Candlestick]:
        """The same for a market that settled before the cutoff."""
        body = self.get(
            f"/historical/markets/{_quoted(ticker)}/candlesticks",
            {"start_ts": start_ts, "end_ts": end_ts, "period_interval": minutes},
            endpoint="/historical/markets/{ticker}/candlesticks",
        )
        return answers.read_historical_candles(body)

    def _paged(
        self, path: str, envelope: str, kind: type[T], parameters: Parameters
    ) -> Iterator[Document[T]]:
        cursor: str | None = None
        while True:
            body = self.get(path, {**parameters, "cursor": cursor})
            documents, following = answers.read_documents(body, envelope, kind)
            yield from documents
            if following is None:
                return
            if following == cursor:
                raise UnreadableAnswer(f"The exchange's paging of {path} does not advance.")
            cursor = following


def _quoted(ticker: str) -> str:
    return quote(ticker, safe="")
