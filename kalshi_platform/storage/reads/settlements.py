"""Outcomes as customers see them: pages, and single ones with their history, as JSON text."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kalshi_platform.storage.reads.listing import (
    Question,
    instants,
    json_object,
    limited,
    page_of,
    price,
)

# Of a row of `settlements` as s, and of its market as m.
SETTLEMENT = {
    "market_ticker": "s.market_ticker",
    "event_ticker": "m.event_ticker",
    "series_ticker": "nullif(m.series_ticker, '')",
    "status": "s.status",
    "result": "nullif(s.result, '')",
    **price("settlement_value", "s.settlement_value_micros"),
    **instants(
        effective_at="s.effective_at", determined_at="s.determined_at", settled_at="s.settled_at"
    ),
    "source": "s.source",
    **instants(recorded_at="s.recorded_at", confirmed_at="s.confirmed_at"),
}
_VERSION = {
    "version": "h.version",
    "status": "h.status",
    "result": "nullif(h.result, '')",
    **price("settlement_value", "h.settlement_value_micros"),
    **instants(effective_at="h.effective_at"),
    "source": "h.source",
    **instants(recorded_at="h.recorded_at", confirmed_at="h.confirmed_at"),
    "in_force": "h.version = (SELECT max(version) FROM settlement_history"
    " WHERE market_ticker = h.market_ticker)",
}


@dataclass(frozen=True)
class SettlementFilters:
    """Which outcomes; None asks for all. The window of effective_at is half-open."""

    result: str | None = None
    status: str | None = None
    event_ticker: str | None = None
    series_ticker: str | None = None
    start: datetime | None = None
    end: datetime | None = None


def settlements_page(
    filters: SettlementFilters, *, after: tuple[datetime, str] | None, limit: int
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of outcomes by (effective_at, market_ticker), those after `after`.

    Returns:
        Statement and parameters; see `page_of`. The position is [Unix microseconds, ticker].
    """
    question = Question(parameters=dict(limited(limit)))
    question.ask_if_given("s.result = %(result)s", result=filters.result)
    question.ask_if_given("s.status = %(status)s", status=filters.status)
    question.ask_if_given("m.event_ticker = %(event)s", event=filters.event_ticker)
    question.ask_if_given("m.series_ticker = %(series)s", series=filters.series_ticker)
    question.ask_if_given("s.effective_at >= %(start)s", start=filters.start)
    question.ask_if_given("s.effective_at < %(end)s", end=filters.end)
    if after is not None:
        question.ask(
            "(s.effective_at, s.market_ticker) > (%(after_time)s, %(after_ticker)s)",
            after_time=after[0],
            after_ticker=after[1],
        )
    source = "settlements AS s"
    if filters.event_ticker is not None or filters.series_ticker is not None:
        source += " JOIN markets AS m USING (market_ticker)"
    keys = (
        f"SELECT s.market_ticker FROM {source} WHERE {question.where}"  # noqa: S608 (constants)
        " ORDER BY s.effective_at, s.market_ticker LIMIT %(rows)s"
    )
    statement = page_of(
        keys,
        SETTLEMENT,
        "keys JOIN settlements AS s USING (market_ticker)"
        " LEFT JOIN markets AS m USING (market_ticker)",
        order="s.effective_at, s.market_ticker",
        position="json_build_array((extract(epoch FROM s.effective_at) * 1000000)::bigint,"
        " s.market_ticker)",
    )
    return statement, question.parameters


# One row for a known market: its outcome (JSON, null before it has one) and since when it is
# closed (ISO text; null while it trades or where the time is not known).
SETTLEMENT_BY_TICKER = f"""\
SELECT CASE WHEN s.market_ticker IS NOT NULL THEN {
    json_object(
        {
            **SETTLEMENT,
            "history": "(SELECT coalesce(json_agg(version ORDER BY number), '[]') FROM (SELECT"
            f" {json_object(_VERSION)}::json AS version, h.version AS number"
            " FROM settlement_history AS h WHERE h.market_ticker = s.market_ticker) AS versions)",
        }
    )
} END AS record,
       {instants(at="CASE WHEN m.closes_at <= now() THEN m.closes_at END")["at"]} AS closed_at
FROM markets AS m LEFT JOIN settlements AS s USING (market_ticker)
WHERE m.market_ticker = %(ticker)s"""  # noqa: S608 (constants)
