"""What else the feed brings: quotes, lifecycle events, refused messages, counters."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from struct import Struct
from typing import Any, LiteralString, NamedTuple, Protocol

import psycopg
from psycopg import sql

from kalshi_platform.storage.bulk import POSTGRES_EPOCH_MICROS, copy_binary, text_field
from kalshi_platform.storage.texts import storable

_QUOTE_COLUMNS = (
    "quoted_at",
    "received_at",
    "feed_order",
    "yes_bid_size_centis",
    "yes_ask_size_centis",
    "last_trade_size_centis",
    "volume_centis",
    "open_interest_centis",
    "dollar_volume",
    "dollar_open_interest",
    "price_micros",
    "yes_bid_micros",
    "yes_ask_micros",
    "market_ticker",
)
_QUOTE = Struct(">h" + "iq" * 10 + "ii" * 3)
_ADD: LiteralString = """
INSERT INTO ingestion_metrics (name, labels, value)
SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[])
ON CONFLICT (name, labels)
DO UPDATE SET value = ingestion_metrics.value + excluded.value, updated_at = now()
"""
_SET: LiteralString = """
INSERT INTO ingestion_metrics (name, labels, value)
SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[])
ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value, updated_at = now()
"""
_cached_text = lru_cache(maxsize=1 << 17)(text_field)


class QuoteValues(Protocol):
    """What a row needs; `exchange.messages.Quote` has it."""

    market_ticker: str
    quoted_at_ms: int
    price_micros: int
    yes_bid_micros: int
    yes_ask_micros: int
    yes_bid_size_centis: int
    yes_ask_size_centis: int
    last_trade_size_centis: int
    volume_centis: int
    open_interest_centis: int
    dollar_volume: int
    dollar_open_interest: int


class LifecycleRow(NamedTuple):
    """One row of `lifecycle_events`."""

    received_at: datetime
    sent_at: datetime | None
    connection: int
    sid: int
    seq: int
    message_type: str
    event_type: str | None
    market_ticker: str | None
    event_ticker: str | None
    message: str


class RejectedRow(NamedTuple):
    """One row of `rejected_messages`."""

    received_at: datetime
    source: str
    connection: int | None
    tape_segment: int | None
    tape_offset: int | None
    reason: str
    code_version: str
    message: bytes


def encode_quote(quote: QuoteValues, received_at_micros: int, feed_order: int) -> bytes:
    """One row of `quotes` in COPY BINARY."""
    return _QUOTE.pack(
        len(_QUOTE_COLUMNS),
        8,
        quote.quoted_at_ms * 1000 - POSTGRES_EPOCH_MICROS,
        8,
        received_at_micros - POSTGRES_EPOCH_MICROS,
        8,
        feed_order,
        8,
        quote.yes_bid_size_centis,
        8,
        quote.yes_ask_size_centis,
        8,
        quote.last_trade_size_centis,
        8,
        quote.volume_centis,
        8,
        quote.open_interest_centis,
        8,
        quote.dollar_volume,
        8,
        quote.dollar_open_interest,
        4,
        quote.price_micros,
        4,
        quote.yes_bid_micros,
        4,
        quote.yes_ask_micros,
    ) + _cached_text(quote.market_ticker)


def add_quotes(connection: psycopg.Connection, rows: Sequence[bytes]) -> None:
    """Append encoded quotes; the caller has made the partitions and commits."""
    copy_binary(connection, "quotes", _QUOTE_COLUMNS, rows)


def add_lifecycle_events(connection: psycopg.Connection, rows: Sequence[LifecycleRow]) -> None:
    """Append lifecycle events; the caller has made the partitions and commits."""
    _copy_rows(connection, "lifecycle_events", LifecycleRow._fields, rows)


def add_rejected(connection: psycopg.Connection, rows: Sequence[RejectedRow]) -> None:
    """Append refused messages; the caller has made the partitions and commits."""
    kept = [row._replace(reason=storable(row.reason)) for row in rows]
    _copy_rows(connection, "rejected_messages", RejectedRow._fields, kept)


def add_to_counters(
    connection: psycopg.Connection, deltas: Mapping[tuple[str, str], float]
) -> None:
    """Raise counters in `ingestion_metrics`; keys are (name, labels)."""
    _upsert_metrics(connection, deltas, _ADD)


def set_gauges(connection: psycopg.Connection, values: Mapping[tuple[str, str], float]) -> None:
    """Set gauges in `ingestion_metrics`; keys are (name, labels)."""
    _upsert_metrics(connection, values, _SET)


def _upsert_metrics(
    connection: psycopg.Connection,
    values: Mapping[tuple[str, str], float],
    statement: LiteralString,
) -> None:
    if not values:
        return
    keys = sorted(values)
    connection.execute(
        statement,
        [
            [name for name, _ in keys],
            [labels for _, labels in keys],
            [float(values[key]) for key in keys],
        ],
    )


def _copy_rows(
    connection: psycopg.Connection,
    table: str,
    columns: Iterable[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
