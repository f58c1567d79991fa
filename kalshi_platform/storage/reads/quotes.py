"""Pages of quotes as JSON text, and whether some are known to be missing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kalshi_platform.storage.reads.archived import ArchivedRows, first_day_held
from kalshi_platform.storage.reads.feed_pages import FeedPosition, feed_page
from kalshi_platform.storage.reads.trades import (
    cents,
    contracts,
    dollars,
    fixed_contracts,
    instant,
)

# What a record is made of, with its types.
QUOTE_COLUMNS = {
    "quoted_at": "timestamptz",
    **dict.fromkeys(
        (
            "feed_order",
            "yes_bid_size_centis",
            "yes_ask_size_centis",
            "last_trade_size_centis",
            "volume_centis",
            "open_interest_centis",
            "dollar_volume",
            "dollar_open_interest",
        ),
        "bigint",
    ),
    "price_micros": "integer",
    "yes_bid_micros": "integer",
    "yes_ask_micros": "integer",
}


def _price(name: str, micros: str) -> str:
    return (
        f"""|| ',"{name}":' || {cents(micros)}"""
        f""" || ',"{name}_dollars":"' || {dollars(micros)} || '"'\n"""
    )


def _count(name: str, centis: str) -> str:
    return (
        f"""|| ',"{name}":' || {contracts(centis)}"""
        f""" || ',"{name}_fp":"' || {fixed_contracts(centis)} || '"'\n"""
    )


_QUOTE_JSON = f"""\
'{{' || %(ticker_member)s
|| ',"ts":"' || {instant("quoted_at")} || '"'
{_price("yes_bid", "yes_bid_micros")}\
{_price("yes_ask", "yes_ask_micros")}\
{_count("yes_bid_size", "yes_bid_size_centis")}\
{_count("yes_ask_size", "yes_ask_size_centis")}\
{_price("last_price", "price_micros")}\
{_count("last_trade_size", "last_trade_size_centis")}\
{_count("volume", "volume_centis")}\
{_count("open_interest", "open_interest_centis")}\
|| ',"dollar_volume":' || dollar_volume
|| ',"dollar_open_interest":' || dollar_open_interest || '}}'"""


def quotes_page(
    market_ticker: str,
    *,
    start: datetime | None,
    end: datetime | None,
    after: FeedPosition | None,
    limit: int,
    archived: ArchivedRows | None = None,
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of a market's quotes; see `feed_page`."""
    return feed_page(
        "quotes",
        "quoted_at",
        _QUOTE_JSON,
        QUOTE_COLUMNS,
        market_ticker,
        start=start,
        end=end,
        after=after,
        limit=limit,
        archived=archived,
    )


# Whether a quote of %(market_ticker)s in [%(start)s, %(end)s) was lost or is held no more. Without
# a start the window begins with the first day held, since what came before is not asked for.
QUOTES_MISSING = f"""\
SELECT EXISTS (SELECT FROM gaps
               WHERE channel = 'ticker' AND (market_ticker IS NULL
                                             OR market_ticker = %(market_ticker)s)
                 AND starts_at < %(end)s
                 AND ends_at >= coalesce(%(start)s::timestamptz, '-infinity'))
    OR %(start)s::timestamptz < {first_day_held("quotes")}"""  # noqa: S608 (constants)
