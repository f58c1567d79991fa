"""Events as customers see them: pages, and single ones with their markets, as JSON text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kalshi_platform.storage.reads.listing import (
    Question,
    instants,
    json_object,
    keys_in_order,
    keys_of_category,
    limited,
    page_of,
)
from kalshi_platform.storage.reads.markets import LISTED_MARKET

# A single event shows this many of its markets; a combo's event may have any number.
NESTED_MARKETS = 1_000

# An event is open while one of its markets can trade or will, settled once all are final, and
# closed in between. The first condition names the index of what is not final.
_UNSETTLED = "m.outcome_status IS DISTINCT FROM 'finalized'"
_OPEN = "m.outcome_status IS NULL AND (m.closes_at IS NULL OR m.closes_at > now())"
_OF_EVENT = "SELECT FROM markets AS m WHERE m.event_ticker = e.event_ticker"
# The fences keep the planner from working it out for all events before the first is known.
_SETTLED = f"EXISTS ({_OF_EVENT} OFFSET 0) AND NOT EXISTS ({_OF_EVENT} AND {_UNSETTLED} OFFSET 0)"

# The category of an event whose answer names none is its series'.
_CATEGORY = "coalesce(e.category, c.category)"
_IN_CATEGORY = """%(category)s = coalesce(e.category, (
    SELECT c.category FROM series AS c WHERE c.series_ticker = e.series_ticker))"""

_EVENT = {
    "event_ticker": "e.event_ticker",
    "series_ticker": "nullif(e.series_ticker, '')",
    "title": "e.title",
    "sub_title": "e.sub_title",
    "category": _CATEGORY,
    "status": "CASE WHEN held.markets = 0 THEN NULL WHEN held.any_open THEN 'open'"
    " WHEN held.any_open IS NULL THEN 'settled' ELSE 'closed' END",
    "market_count": "held.markets",
    "mutually_exclusive": "e.mutually_exclusive",
    "collateral_return_type": "nullif(e.collateral_return_type, '')",
    **instants(strike_date="e.strike_date"),
    "strike_period": "nullif(e.strike_period, '')",
    "fee_type_override": "e.fee_type_override",
    "fee_multiplier_override": "trim_scale(e.fee_multiplier_override)",
    **instants(updated_time="e.exchange_updated_at", first_seen_at="e.first_seen_at"),
}
# any_open is null where nothing is unsettled.
_SOURCE = f"""events AS e
    LEFT JOIN series AS c ON c.series_ticker = e.series_ticker
    CROSS JOIN LATERAL (
        SELECT (SELECT count(*) FROM markets AS m WHERE m.event_ticker = e.event_ticker) AS markets,
               (SELECT bool_or({_OPEN}) FROM markets AS m
                WHERE m.event_ticker = e.event_ticker AND {_UNSETTLED}) AS any_open
    ) AS held"""  # noqa: S608 (constants)


@dataclass(frozen=True)
class EventFilters:
    """Which events; None asks for all."""

    status: str | None = None
    series_ticker: str | None = None
    category: str | None = None
    search: str | None = None


def events_page(
    filters: EventFilters, *, after: str | None, limit: int
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of events by ticker, those after the ticker `after`.

    Returns:
        Statement and parameters; see `page_of`. The position is the ticker.
    """
    question = Question(parameters=dict(limited(limit)))
    question.ask_if_given("e.series_ticker = %(series)s", series=filters.series_ticker)
    question.search("e.words", filters.search)
    question.ask_if_given("e.event_ticker > %(after)s", after=after)
    source = "events AS e"
    if filters.status == "settled":
        question.ask(_SETTLED)
    elif filters.status is not None:
        source = f"{_unsettled(filters.status, after)} AS found JOIN {source} USING (event_ticker)"
    keys = keys_in_order("e.event_ticker", [f"{source} WHERE {question.where}"])
    if filters.category is not None:
        question.parameters["category"] = filters.category
        keys = _keys_of_category(filters, f"{source} WHERE {question.where}")
    statement = page_of(
        keys,
        _EVENT,
        f"keys JOIN {_SOURCE.replace('events AS e', 'events AS e USING (event_ticker)', 1)}",
        order="e.event_ticker",
        position="to_json(e.event_ticker)",
    )
    return statement, question.parameters


def _keys_of_category(filters: EventFilters, source: str) -> str:
    if filters.status in ("open", "closed") or filters.search or filters.series_ticker:
        return keys_in_order("e.event_ticker", [f"{source} AND {_IN_CATEGORY}"])
    named = keys_in_order("e.event_ticker", [f"{source} AND e.category = %(category)s"])
    unnamed = keys_of_category(
        "e.event_ticker", "e.series_ticker", [f"{source} AND e.category IS NULL"]
    )
    return (
        f"SELECT event_ticker FROM (({named}) UNION ALL ({unnamed})) AS found"  # noqa: S608
        " ORDER BY event_ticker LIMIT %(rows)s"
    )


def _unsettled(status: str, after: str | None) -> str:
    """Events that are open, or closed, in order; from an index of what is not final alone."""
    rest = "" if after is None else " AND m.event_ticker > %(after)s"
    negation = "" if status == "open" else "NOT "
    return f"""(
        SELECT m.event_ticker FROM markets AS m WHERE {_UNSETTLED}{rest}
        GROUP BY m.event_ticker HAVING {negation}bool_or({_OPEN})
        ORDER BY m.event_ticker OFFSET 0
    )"""  # noqa: S608 (constants)


_MARKETS = f"""(
    SELECT coalesce(json_agg(record ORDER BY market_ticker), '[]')
    FROM (
        SELECT {json_object(LISTED_MARKET)}::json AS record, m.market_ticker
        FROM (SELECT * FROM markets WHERE event_ticker = e.event_ticker
              ORDER BY market_ticker LIMIT {NESTED_MARKETS}) AS m
        LEFT JOIN settlements AS s USING (market_ticker)
    ) AS nested
)"""  # noqa: S608 (constants)

EVENT_BY_TICKER = f"""\
SELECT {json_object({**_EVENT, "markets": _MARKETS, "metadata": "e.metadata"})} AS record
FROM {_SOURCE} WHERE e.event_ticker = %(ticker)s"""  # noqa: S608 (constants)
