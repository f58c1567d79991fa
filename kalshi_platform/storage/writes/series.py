"""Series: named by the first event that names them, filled by REST."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

import msgspec
import psycopg

from kalshi_platform.storage.writes.readings import Readings
from kalshi_platform.storage.writes.told import Changes, name_rows

_NAME = "INSERT INTO series (series_ticker) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
_FACTS = (
    "title",
    "frequency",
    "category",
    "categories",
    "tags",
    "settlement_sources",
    "fee_type",
    "fee_multiplier",
    "metadata",
)
_readings = Readings("series", "series_ticker", _FACTS, _NAME)


class SeriesValues(Protocol):
    """What a row needs; `exchange.reference.SeriesFacts` has it."""

    series_ticker: str
    title: str
    frequency: str
    category: str
    categories: list[str] | None
    tags: list[str] | None
    settlement_sources: bytes | None
    fee_type: str
    fee_multiplier: Decimal
    exchange_updated_at: datetime | None
    metadata: bytes


def name_series(connection: psycopg.Connection, tickers: Iterable[str]) -> None:
    """Make sure that each series has its row; the caller commits."""
    name_rows(connection, _NAME, tickers)


def write_series(
    connection: psycopg.Connection,
    facts: Sequence[SeriesValues],
    *,
    source: Literal["rest", "historical"],
    read_at: datetime,
) -> Changes:
    """Write what REST told of series; the caller commits."""
    return _readings.write(connection, map(_row, facts), source=source, read_at=read_at)[0]


def _row(told: SeriesValues) -> dict[str, object]:
    sources = told.settlement_sources
    row: dict[str, object] = {name: getattr(told, name) for name in _FACTS}
    return row | {
        "series_ticker": told.series_ticker,
        "exchange_updated_at": told.exchange_updated_at,
        "settlement_sources": None if sources is None else msgspec.Raw(sources),
        "metadata": msgspec.Raw(told.metadata),
    }
