"""Markets as customers see them: pages and single ones, as JSON text built by Postgres."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kalshi_platform.storage.reads.archived import evidence
from kalshi_platform.storage.reads.listing import (
    Question,
    count_of,
    instants,
    json_object,
    keys_in_order,
    keys_of_category,
    limited,
    page_of,
    price,
)
from kalshi_platform.storage.reads.settlements import SETTLEMENT

# Statuses that the clock decides while there is no outcome.
_LIVE_STATUS = """\
CASE WHEN m.opens_at IS NULL OR m.closes_at IS NULL THEN m.told_status
     WHEN now() >= m.closes_at THEN 'closed'
     WHEN now() < m.opens_at THEN 'initialized'
     WHEN m.is_paused THEN 'inactive'
     ELSE 'active' END"""
# The same as in the view v_markets.
MARKET_STATUS = f"coalesce(m.outcome_status, {_LIVE_STATUS})"

# The same as _LIVE_STATUS = 'active', in words that the planner has figures for.
_ACTIVE = """m.opens_at <= now() AND m.closes_at > now() AND NOT m.is_paused
    OR (m.opens_at IS NULL OR m.closes_at IS NULL) AND m.told_status = 'active'"""

# Combos are those whose ticker starts with KXMVE: one block in the order of tickers.
_COMBOS = "m.market_ticker >= 'KXMVE' AND m.market_ticker < 'KXMVF'"
_BEFORE_COMBOS = "m.market_ticker < 'KXMVE'"
_AFTER_COMBOS = "m.market_ticker >= 'KXMVF'"

# Where the rows of a status that few have are found.
_FEW = {
    "closed": "m.closes_at <= now()",
    "initialized": "m.opens_at > now()",
    "inactive": "m.is_paused",
}

MARKET = {
    "ticker": "m.market_ticker",
    "event_ticker": "m.event_ticker",
    "series_ticker": "nullif(m.series_ticker, '')",
    "market_type": "m.market_type",
    "title": "m.title",
    "yes_sub_title": "m.yes_sub_title",
    "no_sub_title": "m.no_sub_title",
    "status": MARKET_STATUS,
    "result": "nullif(s.result, '')",
    **price("settlement_value", "s.settlement_value_micros"),
    **instants(
        created_time="m.created_at",
        open_time="m.opens_at",
        close_time="m.closes_at",
        expected_expiration_time="m.expected_expires_at",
    ),
    "can_close_early": "m.can_close_early",
    "settlement_timer_seconds": "m.settlement_timer_seconds",
    "strike_type": "m.strike_type",
    "floor_strike": "trim_scale(m.floor_strike)",
    "cap_strike": "trim_scale(m.cap_strike)",
    "functional_strike": "m.functional_strike",
    "custom_strike": "m.custom_strike",
    "price_level_structure": "m.price_level_structure",
    "price_ranges": "m.price_ranges",
    "is_combo": "m.is_combo",
}
_LAST_TIMES = instants(updated_time="m.exchange_updated_at", first_seen_at="m.first_seen_at")


def _quote(source: str, quoted_at: str) -> dict[str, str]:
    return {
        **price("yes_bid", f"{source}.yes_bid_micros"),
        **price("yes_ask", f"{source}.yes_ask_micros"),
        **price("last_price", f"{source}.last_price_micros"),
        **count_of("volume", f"{source}.volume_centis"),
        **count_of("open_interest", f"{source}.open_interest_centis"),
        **instants(quoted_at=quoted_at),
    }


LISTED_MARKET = {
    **MARKET,
    **_quote("m", "CASE WHEN m.yes_bid_micros IS NOT NULL THEN m.read_at END"),
    **_LAST_TIMES,
}


@dataclass(frozen=True)
class MarketFilters:
    """Which markets; None asks for all. Closing times are half-open, [closes_from, closes_to).

    The category is that of the market's series.
    """

    status: str | None = None
    event_ticker: str | None = None
    series_ticker: str | None = None
    category: str | None = None
    closes_from: datetime | None = None
    closes_to: datetime | None = None
    is_combo: bool | None = None
    search: str | None = None


def markets_page(
    filters: MarketFilters, *, after: str | None, limit: int
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of markets by ticker, those after the ticker `after`.

    Returns:
        Statement and parameters; see `page_of`. The position is the ticker.
    """
    question = Question(parameters=dict(limited(limit)))
    question.ask_if_given("m.event_ticker = %(event)s", event=filters.event_ticker)
    question.ask_if_given("m.series_ticker = %(series)s", series=filters.series_ticker)
    question.ask_if_given("m.closes_at >= %(closes_from)s", closes_from=filters.closes_from)
    question.ask_if_given("m.closes_at < %(closes_to)s", closes_to=filters.closes_to)
    question.search("m.words", filters.search)
    if filters.series_ticker and filters.search and filters.status not in _FEW:
        question.ask(_NOT_BEHIND_SERIES)
    by_series = _is_walked_by_series(filters)
    if by_series:
        question.parameters["category"] = filters.category
    else:
        question.ask_if_given(_OF_CATEGORY, category=filters.category)
    source = _rows_of_status(question, filters.status)
    question.ask_if_given("m.market_ticker > %(after)s", after=after)
    sources = [f"{source} WHERE {question.where} AND {block}" for block in _blocks(filters)]
    if by_series:
        keys = keys_of_category("m.market_ticker", "m.series_ticker", sources)
    else:
        keys = keys_in_order("m.market_ticker", sources)
    statement = page_of(
        keys,
        LISTED_MARKET,
        "keys JOIN markets AS m USING (market_ticker)"
        " LEFT JOIN settlements AS s USING (market_ticker)",
        order="m.market_ticker",
        position="to_json(m.market_ticker)",
    )
    return statement, question.parameters


# A walk in order for common words ends where the series does: a last page, which is never full,
# would otherwise look through all tickers that follow.
_NOT_BEHIND_SERIES = (
    "m.market_ticker <="
    " (SELECT max(b.market_ticker) FROM markets AS b WHERE b.series_ticker = %(series)s)"
)

_OF_CATEGORY = (
    "m.series_ticker IN (SELECT c.series_ticker FROM series AS c WHERE c.category = %(category)s)"
)


def _is_walked_by_series(filters: MarketFilters) -> bool:
    """Whether a category's markets are taken from its series one by one: unless another filter
    names rows that are quicker to find."""
    return (
        filters.category is not None
        and filters.status in (None, "active", "finalized")
        and filters.event_ticker is None
        and filters.series_ticker is None
        and filters.search is None
    )


def _blocks(filters: MarketFilters) -> list[str]:
    """Conditions of the ranges of tickers to look in, in order."""
    if filters.is_combo is None:
        return ["true"]
    return [_COMBOS] if filters.is_combo else [_BEFORE_COMBOS, _AFTER_COMBOS]


def _rows_of_status(question: Question, status: str | None) -> str:
    """Ask for a status; returns what the other conditions are asked of."""
    if status is None:
        return "markets AS m"
    if status == "active":
        question.ask("m.outcome_status IS NULL")
        question.ask(f"({_ACTIVE})")
        return "markets AS m"
    if status not in _FEW:
        question.ask("m.outcome_status = %(status)s", status=status)
        return "markets AS m"
    # Found before anything else is asked: the planner takes them for many, since most markets are
    # past their closing time, and would look through all others instead.
    few = f"""(
        SELECT m.market_ticker FROM markets AS m
        WHERE m.outcome_status IS NULL AND {_FEW[status]} AND {_LIVE_STATUS} = '{status}'
        UNION
        SELECT m.market_ticker FROM markets AS m
        WHERE m.outcome_status IS NULL AND (m.opens_at IS NULL OR m.closes_at IS NULL)
          AND m.told_status = '{status}'
        OFFSET 0
    )"""  # noqa: S608 (constants)
    if not question.conditions:
        return f"{few} AS m"
    return f"{few} AS few JOIN markets AS m USING (market_ticker)"


# The newest of what was quoted: by the feed, or beside the facts in a REST answer.
_NEWEST_QUOTE = """
SELECT quoted_at, received_at, yes_bid_micros, yes_ask_micros, price_micros AS last_price_micros,
       volume_centis, open_interest_centis, 'feed' AS source
FROM quotes WHERE market_ticker = m.market_ticker
ORDER BY quoted_at DESC, feed_order DESC LIMIT 1"""

# The market %(ticker)s, null if unknown; %(first_archived)s and %(last_archived)s are its
# first and last trade on days that were dropped, null without any. And the evidence of all days.
MARKET_BY_TICKER = f"""\
SELECT (SELECT {
    json_object(
        {
            **MARKET,
            **_quote("q", "q.quoted_at"),
            "quote_source": "q.source",
            **_LAST_TIMES,
            "settlement": "CASE WHEN s.market_ticker IS NOT NULL THEN"
            f" {json_object(SETTLEMENT)}::json END",
            **instants(
                first_trade_at="least((SELECT min(traded_at) FROM trades"
                " WHERE market_ticker = m.market_ticker), %(first_archived)s::timestamptz)",
                last_trade_at="greatest((SELECT max(traded_at) FROM trades"
                " WHERE market_ticker = m.market_ticker), %(last_archived)s::timestamptz)",
            ),
            "metadata": "m.metadata",
        }
    )
}
FROM markets AS m
LEFT JOIN settlements AS s USING (market_ticker)
LEFT JOIN LATERAL (
    SELECT * FROM (
        ({_NEWEST_QUOTE})
        UNION ALL
        SELECT m.read_at, m.read_at, m.yes_bid_micros, m.yes_ask_micros, m.last_price_micros,
               m.volume_centis, m.open_interest_centis, 'rest'
        WHERE m.yes_bid_micros IS NOT NULL
    ) AS told
    ORDER BY received_at DESC LIMIT 1
) AS q ON true
WHERE m.market_ticker = %(ticker)s) AS record,
       {evidence("trades", first=False, last=False)} AS archives"""  # noqa: S608 (constants)
