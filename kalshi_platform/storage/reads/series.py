"""Series as customers see them: pages and single ones, as JSON text built by Postgres."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kalshi_platform.storage.reads.listing import (
    Question,
    instants,
    json_object,
    keys_in_order,
    limited,
    page_of,
)

_SERIES = {
    "ticker": "c.series_ticker",
    "title": "c.title",
    "frequency": "c.frequency",
    "category": "c.category",
    "categories": "c.categories",
    "tags": "c.tags",
    "settlement_sources": "c.settlement_sources",
    "fee_type": "c.fee_type",
    "fee_multiplier": "trim_scale(c.fee_multiplier)",
    **instants(updated_time="c.exchange_updated_at", first_seen_at="c.first_seen_at"),
}
# Named by an event, but the exchange says that there is none.
_ABSENT = "c.not_found_at IS NOT NULL AND c.metadata IS NULL"


@dataclass(frozen=True)
class SeriesFilters:
    """Which series; None asks for all. Any of a series' categories and tags counts."""

    category: str | None = None
    tag: str | None = None
    search: str | None = None


def series_page(
    filters: SeriesFilters, *, after: str | None, limit: int
) -> tuple[str, Mapping[str, Any]]:
    """The statement of one page of series by ticker, those after the ticker `after`.

    Returns:
        Statement and parameters; see `page_of`. The position is the ticker.
    """
    question = Question(parameters=dict(limited(limit)))
    question.ask(f"NOT ({_ABSENT})")
    question.ask_if_given(
        "(c.category = %(category)s OR %(category)s = ANY (c.categories))",
        category=filters.category,
    )
    question.ask_if_given("%(tag)s = ANY (c.tags)", tag=filters.tag)
    question.search("c.words", filters.search)
    question.ask_if_given("c.series_ticker > %(after)s", after=after)
    statement = page_of(
        keys_in_order("c.series_ticker", [f"series AS c WHERE {question.where}"]),
        _SERIES,
        "keys JOIN series AS c USING (series_ticker)",
        order="c.series_ticker",
        position="to_json(c.series_ticker)",
    )
    return statement, question.parameters


# One row for a series that some event names: the record (JSON), and since when the exchange says
# that there is none (ISO text; null where it has never said so, or told of it later).
SERIES_BY_TICKER = f"""\
SELECT {json_object({**_SERIES, "metadata": "c.metadata"})} AS record,
       {instants(at=f"CASE WHEN {_ABSENT} THEN c.not_found_at END")["at"]} AS not_found_at
FROM series AS c WHERE c.series_ticker = %(ticker)s"""  # noqa: S608 (constants)
