"""The simulator's ledger as the tables should hold it, and as the stream would have brought it."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.messages import Trade, centis, micros
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.landing import unix_micros
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.storage.writes.trades import (
    TradeRows,
    ensure_trade_partitions,
    merge_trades,
)
from kalshi_simulator.testing import RunningSimulator

CONNECTION = 1_790_000_000
LedgerTrade = dict[str, Any]


def client(simulator: RunningSimulator, **options: Any) -> RestClient:
    signer = Signer.from_pem(simulator.key_id, simulator.private_key_path)
    rate = options.pop("tokens_per_second", 20_000)
    return RestClient(simulator.rest_url, signer, LocalBudget(rate), **options)


def ledger(simulator: RunningSimulator, start: datetime, end: datetime) -> list[LedgerTrade]:
    return simulator.ledger_trades(start.isoformat(), end.isoformat())


def made_at(trade: LedgerTrade) -> datetime:
    return datetime.fromisoformat(trade["created_time"])


def held(database: str, start: datetime, end: datetime) -> dict[UUID, tuple]:
    """Trades of [start, end) as held."""
    with connect(database) as connection:
        rows = connection.execute(
            "SELECT trade_id, market_ticker, yes_price_micros, count_centis, taker_side,"
            " is_block_trade, traded_at FROM trades WHERE traded_at >= %s AND traded_at < %s",
            [start, end],
        ).fetchall()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def expected(trades: Iterable[LedgerTrade]) -> dict[UUID, tuple]:
    """The same of the ledger."""
    return {
        UUID(trade["trade_id"]): (
            trade["ticker"],
            micros(trade["yes_price_dollars"]),
            centis(trade["count_fp"]),
            trade["taker_outcome_side"],
            trade["is_block_trade"],
            made_at(trade),
        )
        for trade in trades
    }


def land_from_feed(database: str, trades: Iterable[LedgerTrade], first_seq: int = 1) -> None:
    """Land trades as the stream brings them: milliseconds, and a place in the feed."""
    landed_at = datetime.now(UTC)
    read = [
        Trade(
            trade["trade_id"],
            trade["ticker"],
            micros(trade["yes_price_dollars"]),
            centis(trade["count_fp"]),
            trade["taker_outcome_side"],
            trade["is_block_trade"],
            unix_micros(made_at(trade)) // 1000 * 1000,
            exact_time=False,
        )
        for trade in trades
    ]
    now = unix_micros(landed_at)
    rows = TradeRows("ws", now)
    rows.place(CONNECTION, tape_segment=0, tape_offset=0)
    for seq, trade in enumerate(read, first_seq):
        rows.add(trade, now, seq)
    with connect(database) as connection:
        ensure_trade_partitions(connection, read, landed_at)
        merge_trades(connection, rows)


def add_gap(database: str, start: datetime, end: datetime, channel: str = "trade") -> int:
    """An open gap, noticed when it ended."""
    with connect(database) as connection:
        gap_id = open_gap(connection, Gap(channel, "sequence_jump", start, end))
        connection.execute("UPDATE gaps SET detected_at = ends_at WHERE gap_id = %s", [gap_id])
    return gap_id


def gap_row(database: str, gap_id: int) -> dict[str, Any]:
    with connect(database) as connection:
        cursor = connection.execute("SELECT * FROM gaps WHERE gap_id = %s", [gap_id])
        row = cursor.fetchone()
        assert row is not None
        assert cursor.description is not None
        return {column.name: value for column, value in zip(cursor.description, row, strict=True)}


def make_due(database: str) -> None:
    """Let the next attempt at every gap be now."""
    with connect(database) as connection:
        connection.execute("UPDATE gaps SET next_attempt_at = now()")


def everything(database: str) -> dict[str, list[tuple]]:
    """Every row that a sweep may write."""
    tables = (
        "trades", "raw_trades", "coverage", "gaps", "stale_candles", "markets",
        "ingestion_checkpoints", "rejected_messages",
    )  # fmt: skip
    with connect(database) as connection:
        return {
            table: sorted(connection.execute(f"SELECT t::text FROM {table} t".encode()).fetchall())
            for table in tables
        }
