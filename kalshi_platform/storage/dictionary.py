"""The data dictionary: every table, view and column in words, from the schema itself.

`python -m kalshi_platform.storage.dictionary` writes docs/data-dictionary.md.
"""

import tempfile
from pathlib import Path

import psycopg
from sqlalchemy import Column, Index, Table
from sqlalchemy.dialects import postgresql

from kalshi_platform.storage import tables
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.units import unit_of

_INTRODUCTION = """\
# Data dictionary

Generated from the schema by `python -m kalshi_platform.storage.dictionary`; a test keeps it so.

Prices are integers, millionths of a dollar (`*_micros`: 360000 is $0.36); counts are integers,
hundredths of a contract (`*_centis`: 1250 is 12.50 contracts). Instants are `timestamptz` in UTC,
days are UTC days. Only figures about the platform itself are floating-point numbers. A price of the
no side is 1000000 less that of the yes side.

The views `v_…` show the same rows with decimals, for people. What customers see is in
[api.md](api.md).
"""

# Families in the order in which data goes: a heading, and its tables.
FAMILIES = {
    "Trades": ("trades", "raw_trades"),
    "Candles": ("candles_1m", "candles_1h", "candles_1d", "stale_candles"),
    "Quotes": ("quotes",),
    "Order books": ("book_snapshots", "book_deltas", "book_watches"),
    "Series, events, markets": ("series", "events", "markets", "lifecycle_events"),
    "Outcomes": ("settlements", "settlement_history"),
    "Completeness": ("coverage", "gaps", "rejected_messages"),
    "Archive": ("archives",),
    "Customers": ("api_keys", "api_balances", "api_usage", "credit_grants", "api_meters"),
    "Alerts": ("alerts", "alert_deliveries"),
}
_BOOKKEEPING = "Bookkeeping"

# Names that mean the same in every table.
_EVERYWHERE = {
    "market_ticker": "the exchange's name of the market",
    "event_ticker": "the exchange's name of the event",
    "series_ticker": "the exchange's name of the series",
    "connection": "WebSocket connection: Unix seconds of its opening",
    "sid": "the exchange's number of the subscription",
    "seq": "the exchange's number of the message on its subscription",
    "tape_segment": "tape file: Unix ms of its opening",
    "tape_offset": "byte offset of the zstd frame in that file",
    "trade_id": "the exchange's identity of the trade",
    "trade_count": "trades within the interval",
    "read_attempts": "questions to REST since it last told something new",
    "title": "in the exchange's words, like all below that say nothing else",
}

_VIEW_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod)
FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0
ORDER BY attnum"""

_VIEWS = """
SELECT viewname FROM pg_views WHERE schemaname = current_schema() ORDER BY viewname"""


def dictionary(connection: psycopg.Connection) -> str:
    """The whole document.

    Args:
        connection: to a migrated database, whose views are described.
    """
    by_name = tables.metadata.tables
    told = {name for names in FAMILIES.values() for name in names}
    families = {**FAMILIES, _BOOKKEEPING: tuple(sorted(set(by_name) - told))}
    parts = [_INTRODUCTION]
    for heading, names in families.items():
        parts.append(f"## {heading}\n")
        parts += [_table(by_name[name]) for name in names]
    parts.append("## Views\n")
    parts += [_view(connection, str(name)) for (name,) in connection.execute(_VIEWS)]
    return "\n".join(parts)


def _table(table: Table) -> str:
    keys = [column.name for column in table.primary_key.columns]
    facts = [
        f"Key: {_listed(keys)}." if keys else "No key: rows are only appended.",
        *(
            [f"One partition a {table.info['partitions']} of `{table.info['partition_column']}`."]
            if "partitions" in table.info
            else []
        ),
    ]
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    if indexes:
        facts.append(f"Indexes: {'; '.join(_index(index) for index in indexes)}.")
    rows = [_column(column) for column in table.columns]
    return (
        f"### {table.name}\n\n{table.comment}\n\n{' '.join(facts)}\n\n"
        "| column | type | may be null | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _index(index: Index) -> str:
    names = [getattr(expression, "name", str(expression)) for expression in index.expressions]
    options = index.dialect_options["postgresql"]
    kind = f" ({options['using']})" if options["using"] else ""
    part = " of some rows" if options["where"] is not None else ""
    return f"{', '.join(names)}{kind}{part}"


def _column(column: Column[object]) -> str:
    kind = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    kind = kind.replace(' COLLATE "C"', "").replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
    told = column.comment or _EVERYWHERE.get(column.name, "")
    unit = "" if column.name.endswith(("_at", "_on")) else unit_of(column.name)
    if unit and unit.split()[0] not in told:
        told = f"{told}; {unit}" if told else unit
    null = "yes" if column.nullable else ""
    return f"| `{column.name}` | {kind.lower()} | {null} | {told.replace('|', chr(92) + '|')} |"


def _view(connection: psycopg.Connection, name: str) -> str:
    rows = [
        f"| `{column}` | {kind.replace('timestamp with time zone', 'timestamptz')} |"
        for column, kind in connection.execute(_VIEW_COLUMNS, [name])
    ]
    return f"### {name}\n\n| column | type |\n|---|---|\n" + "\n".join(rows) + "\n"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    """Write the document beside the others, from a database made for it."""
    with tempfile.TemporaryDirectory(prefix="kalshi-dictionary-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            url = server.create_database("dictionary")
            migrate(url)
            with connect(url) as connection:
                text = dictionary(connection)
        finally:
            server.stop()
    (Path(__file__).parents[2] / "docs" / "data-dictionary.md").write_text(text)


if __name__ == "__main__":
    main()
