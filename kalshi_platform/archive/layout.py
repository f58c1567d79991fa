"""What an archived day looks like: its tables, the order of its rows, its columns, its paths.

    {table}/day={YYYY-MM-DD}/{table}-{YYYY-MM-DD}.{first 12 hex digits of the sha256}.parquet
    {table}/day={YYYY-MM-DD}/manifest.json

A file is never changed: what is archived anew has another name. Types are those of the tables,
exactly: whole numbers stay whole, instants have microseconds and UTC, a JSON document is its text.
"""

from datetime import date
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from kalshi_platform.storage import tables
from kalshi_platform.storage.units import unit_of

SCHEMA_VERSION = 1
"""Of the files' columns; raised when a column is added, or means something else."""

# Time and what follows it tell rows of one market apart, so that a file has one order only.
SORTED_BY: dict[str, tuple[str, ...]] = {
    "trades": ("market_ticker", "traded_at", "feed_order", "trade_id"),
    "raw_trades": ("market_ticker", "traded_at", "trade_id", "landed_at"),
    "quotes": ("market_ticker", "quoted_at", "feed_order"),
    "book_snapshots": ("market_ticker", "at", "feed_order"),
    "book_deltas": ("market_ticker", "at", "feed_order"),
    "lifecycle_events": ("market_ticker", "received_at", "connection", "sid", "seq"),
}
TABLES: dict[str, Table] = {name: tables.metadata.tables[name] for name in SORTED_BY}

_ROW_GROUP = 65_536
# Rows of these are long: a group must fit into memory several times.
_ROW_GROUPS = {"book_snapshots": 8_192, "lifecycle_events": 16_384}

MANIFEST = "manifest.json"


class Field(NamedTuple):
    """A column as COPY BINARY and Arrow hold it."""

    name: str
    arrow: pa.DataType
    nullable: bool
    width: int | None
    """Bytes in COPY BINARY; None where they vary."""
    is_json: bool
    """Led by a version in COPY BINARY."""


def partition_name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def folder_of(table: str, day: date) -> str:
    """Below the archive's URL."""
    return f"{table}/day={day}"


def path_of(table: str, day: date, sha256: bytes) -> str:
    """Of the Parquet file, below the archive's URL."""
    return f"{folder_of(table, day)}/{table}-{day}.{sha256.hex()[:12]}.parquet"


def rows_per_group(table: str) -> int:
    return _ROW_GROUPS.get(table, _ROW_GROUP)


def time_column(table: str) -> str:
    """The instant that rows of a market are sorted by."""
    return SORTED_BY[table][1]


@cache
def fields_of(table: str) -> tuple[Field, ...]:
    """The columns in the order in which COPY takes and gives them: those of fixed width first."""
    fields = [_field(column) for column in TABLES[table].columns]
    return tuple(sorted(fields, key=lambda field: field.width is None or field.nullable))


@cache
def schema_of(table: str) -> pa.Schema:
    """The columns of the file, in the order of the table, with their comments and units."""
    known = {field.name: field for field in fields_of(table)}
    columns = []
    for column in TABLES[table].columns:
        told = {"comment": column.comment, "unit": unit_of(column.name)}
        columns.append(
            pa.field(
                column.name,
                known[column.name].arrow,
                nullable=bool(column.nullable),
                metadata={name: text for name, text in told.items() if text},
            )
        )
    return pa.schema(columns, metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})


def _field(column: Column[Any]) -> Field:
    kind = column.type
    nullable, name = bool(column.nullable), column.name
    if isinstance(kind, ARRAY):
        item = pa.int64() if isinstance(kind.item_type, BigInteger) else pa.int32()
        return Field(name, pa.list_(item), nullable, None, False)
    if isinstance(kind, JSONB):
        return Field(name, pa.string(), nullable, None, True)
    if isinstance(kind, Text):
        return Field(name, pa.string(), nullable, None, False)
    for of, arrow, width in _FIXED:
        if isinstance(kind, of):
            return Field(name, arrow, nullable, width, False)
    raise TypeError(f"{column} has a type that is not archived yet: {kind}")


_FIXED: tuple[tuple[type, pa.DataType, int], ...] = (
    (BigInteger, pa.int64(), 8),
    (Integer, pa.int32(), 4),
    (DateTime, pa.timestamp("us", tz="UTC"), 8),
    (Date, pa.date32(), 4),
    (Boolean, pa.bool_(), 1),
    (Uuid, pa.binary(16), 16),
)
