"""What is complete, as customers see it: by day, and by day of one market, as JSON text."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from kalshi_platform.storage.reads.listing import (
    Question,
    count_of,
    instants,
    json_object,
    limited,
    page_of,
)

# Intervals that may lack something are listed up to so many, the longest of a day.
MOST_GAPS = 1000

_FIRST_DAY = """\
least((SELECT min(traded_on) FROM coverage), (SELECT min(traded_on) FROM trades),
      (SELECT min(day) FROM archives WHERE table_name = 'trades' AND row_count > 0))"""
_TODAY = "(now() AT TIME ZONE 'UTC')::date"


def _gaps(market: str) -> str:
    """SQL of the JSON list of the gaps that touch `keys.day`, by start; `market` is a condition."""
    gap = json_object(
        {
            "channel": "g.channel",
            "market_ticker": "g.market_ticker",
            "cause": "g.cause",
            "status": "g.status",
            **instants(starts_at="g.starts_at", ends_at="g.ends_at", healed_at="g.healed_at"),
            "trades_missing": "g.trades_missing",
        }
    )
    midnight = "(keys.day::timestamp AT TIME ZONE 'UTC')"
    return f"""(
    SELECT coalesce(json_agg(told ORDER BY starts_at), '[]') FROM (
        SELECT {gap}::json AS told, g.starts_at FROM gaps AS g
        WHERE g.ends_at >= {midnight} AND g.starts_at < {midnight} + interval '1 day' AND {market}
        ORDER BY g.ends_at - g.starts_at DESC LIMIT {MOST_GAPS}) AS longest)"""  # noqa: S608


_DAY = {
    "date": "keys.day",
    "status": "coalesce(c.status, 'unknown')",
    "trades_held": "c.trades_held",
    "trades_swept": "c.trades_swept",
    "trades_added": "c.trades_added",
    "trades_unconfirmed": "c.trades_unconfirmed",
    **instants(swept_until="c.swept_until", updated_at="c.updated_at"),
    "gaps": _gaps("true"),
}


def coverage_page(
    *, on: date | None, after: date | None, limit: int
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of days, newest first: one day `on`, or those before `after`.

    Returns:
        Statement and parameters; see `page_of`. The position is [the day as ISO text].
    """
    question = Question(parameters=dict(limited(limit)))
    question.ask_if_given("day = %(on)s", on=on)
    question.ask_if_given("day < %(after)s", after=after)
    keys = (
        f"SELECT day::date AS day FROM generate_series({_FIRST_DAY}, {_TODAY},"  # noqa: S608
        f" interval '1 day') AS day WHERE {question.where} ORDER BY day DESC LIMIT %(rows)s"
    )
    statement = page_of(
        keys,
        _DAY,
        "keys LEFT JOIN coverage AS c ON c.traded_on = keys.day AND c.market_ticker = '*'",
        order="keys.day DESC",
        position="json_build_array(keys.day)",
    )
    return statement, question.parameters


_WATCH = json_object(
    {**instants(starts_at="w.starts_at", ends_at="w.ends_at"), "ended_by": "w.ended_by"}
)
_MARKET_DAY = {
    "date": "keys.day",
    "market_ticker": "d.market_ticker",
    "status": "coalesce(c.status, 'unknown')",
    **instants(swept_until="c.swept_until"),
    "trade_count": "d.trade_count",
    **count_of("volume", "d.volume_centis"),
    "quote_count": "d.quote_count",
    "quote_gap": "d.quote_gap",
    "gaps": _gaps("(g.market_ticker IS NULL OR g.market_ticker = %(ticker)s)"),
    "book_watches": f"""(
    SELECT coalesce(json_agg(watch ORDER BY starts_at), '[]') FROM (
        SELECT {_WATCH}::json AS watch, w.starts_at FROM book_watches AS w
        WHERE w.market_ticker = %(ticker)s AND w.starts_at < d.starts_at + interval '1 day'
          AND (w.ends_at IS NULL OR w.ends_at >= d.starts_at)) AS watches)""",  # noqa: S608 (constants)
}


def market_coverage_page(
    market_ticker: str, *, first: date | None, last: date | None, after: date | None, limit: int
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of the days on which a market traded or was quoted, newest first.

    Args:
        first, last: UTC days, both included; None for no bound.
        after: the last day of the page before.

    Returns:
        Statement and parameters; see `page_of`. The position is [the day as ISO text].
    """
    question = Question(parameters={**limited(limit), "ticker": market_ticker})
    question.ask("market_ticker = %(ticker)s")
    midnight = "(%({})s::timestamp AT TIME ZONE 'UTC')"
    question.ask_if_given(f"starts_at >= {midnight.format('first')}", first=first)
    question.ask_if_given(f"starts_at <= {midnight.format('last')}", last=last)
    question.ask_if_given(f"starts_at < {midnight.format('after')}", after=after)
    keys = (
        "SELECT starts_at, (starts_at AT TIME ZONE 'UTC')::date AS day FROM candles_1d"  # noqa: S608
        f" WHERE {question.where} ORDER BY starts_at DESC LIMIT %(rows)s"
    )
    statement = page_of(
        keys,
        _MARKET_DAY,
        "keys JOIN candles_1d AS d ON d.market_ticker = %(ticker)s AND d.starts_at = keys.starts_at"
        " LEFT JOIN coverage AS c ON c.traded_on = keys.day AND c.market_ticker = '*'",
        order="keys.starts_at DESC",
        position="json_build_array(keys.day)",
    )
    return statement, question.parameters
