"""Markets, events, series and outcomes as the exchange's ledger has them, and as the tables do."""

import json
from collections.abc import Iterable
from typing import Any

from psycopg.rows import dict_row

from kalshi_platform.exchange.reference import read_event, read_market, read_series
from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import RunningSimulator

Row = dict[str, Any]

# What the tables hold as the wire says it; figures of trading move all the time.
MARKET_FACTS = (
    *("event_ticker", "market_type", "title", "yes_sub_title", "no_sub_title", "created_at"),
    *("opens_at", "closes_at", "expected_expires_at", "can_close_early", "exchange_updated_at"),
    *("settlement_timer_seconds", "strike_type", "floor_strike", "cap_strike"),
    *("functional_strike", "price_level_structure"),
)
EVENT_FACTS = ("series_ticker", "title", "sub_title", "category", "mutually_exclusive")
SERIES_FACTS = ("title", "frequency", "category", "tags", "fee_type", "fee_multiplier")


_MOVING = {
    *("next_read_at", "read_attempts", "read_at", "not_found_at", "last_price_micros"),
    *("yes_bid_micros", "yes_ask_micros", "volume_centis", "open_interest_centis"),
}


def is_combo(ticker: str) -> bool:
    return ticker.startswith("KXMVE")


def ledger_markets(simulator: RunningSimulator) -> dict[str, Row]:
    """Facts of all ordinary markets at the exchange's present time, by name."""
    return _facts(simulator.ledger("markets"), read_market, "market_ticker", MARKET_FACTS)


def ledger_events(simulator: RunningSimulator) -> dict[str, Row]:
    return _facts(simulator.ledger("events"), read_event, "event_ticker", EVENT_FACTS)


def ledger_series(simulator: RunningSimulator) -> dict[str, Row]:
    return _facts(simulator.ledger("series"), read_series, "series_ticker", SERIES_FACTS)


def ledger_outcomes(simulator: RunningSimulator) -> dict[str, tuple[str, str, int | None]]:
    """Status, result and value of every ordinary market that has an outcome."""
    told = (
        read_market(json.dumps(row).encode())
        for row in simulator.ledger("markets")
        if not is_combo(row["ticker"])
    )
    return {
        facts.market_ticker: (facts.status, facts.result, facts.settlement_value_micros)
        for facts in told
        if facts.result
    }


def _facts(rows: Iterable[Row], read: Any, key: str, names: Iterable[str]) -> dict[str, Row]:
    told = (read(json.dumps(row).encode()) for row in rows)
    return {
        getattr(facts, key): {name: getattr(facts, name) for name in names}
        for facts in told
        if not is_combo(getattr(facts, key))
    }


def held_markets(database: str) -> dict[str, Row]:
    return held(database, "markets", "market_ticker", MARKET_FACTS)


def held_events(database: str) -> dict[str, Row]:
    return held(database, "events", "event_ticker", EVENT_FACTS)


def held_series(database: str) -> dict[str, Row]:
    return held(database, "series", "series_ticker", SERIES_FACTS)


def held(database: str, table: str, key: str, names: Iterable[str]) -> dict[str, Row]:
    """Rows that REST has told of, combos left out."""
    return {
        row[key]: {name: row[name] for name in names}
        for row in rows_of(database, table)
        if row["metadata"] is not None and not is_combo(row[key])
    }


def held_outcomes(database: str) -> dict[str, tuple[str, str, int | None]]:
    return {
        row["market_ticker"]: (row["status"], row["result"], row["settlement_value_micros"])
        for row in rows_of(database, "settlements")
    }


def rows_of(database: str, table: str) -> list[Row]:
    with connect(database) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"SELECT * FROM {table}".encode()).fetchall()


def row_of(database: str, table: str, ticker: str) -> Row:
    key = {"markets": "market_ticker", "events": "event_ticker", "series": "series_ticker"}
    name = key.get(table, "market_ticker")
    [row] = [row for row in rows_of(database, table) if row[name] == ticker]
    return row


def facts_alone(database: str) -> dict[str, list[Row]]:
    """All rows without their places in the queue and without figures of trading."""
    return {
        table: sorted(
            (
                {key: value for key, value in row.items() if key not in _MOVING}
                for row in rows_of(database, table)
            ),
            key=str,
        )
        for table in ("markets", "events", "series", "settlements", "settlement_history")
    }


def position(database: str, scope: str) -> Row | None:
    with connect(database) as connection:
        row = connection.execute(
            "SELECT position FROM ingestion_checkpoints WHERE source = 'reference' AND scope = %s",
            [scope],
        ).fetchone()
    return None if row is None else row[0]


def make_due(database: str, *, round_too: bool = False) -> None:
    """Let the turn of everything that waits for one be now."""
    with connect(database) as connection:
        for table in ("markets", "events", "series"):
            connection.execute(
                f"UPDATE {table} SET next_read_at = now() WHERE next_read_at IS NOT NULL".encode()
            )
        if round_too:
            connection.execute(
                "UPDATE ingestion_checkpoints SET position = position || '{\"at\": null}'"
                " WHERE source = 'reference' AND scope = 'refreshed'"
            )
