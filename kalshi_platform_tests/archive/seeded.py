"""Seeded rows of every table that is archived: ties, nulls, odd texts, extremes."""

import json
import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from kalshi_platform.archive.layout import TABLES
from kalshi_platform.storage.partitions import ensure_partitions

TICKERS = ["KXA-1", "KXA-1-T50", "KXB", "KXB-ü'\"\\-\t2", "kxb", "KX" + "LONG" * 30]
_DAY_MICROS = 86_400_000_000
_BIG = 2**63 - 1


def fill(
    connection: psycopg.Connection[Any], day: date, rows: int = 200, seed: int = 1
) -> dict[str, int]:
    """Add seeded rows of the day to all six tables; returns how many to each."""
    dice = random.Random(f"{seed} {day}")
    ensure_partitions(connection, [day])
    counts = {}
    for table, make in _MAKERS.items():
        some = rows if table != "book_snapshots" else max(1, rows // 20)
        made = [make(dice, day, number) for number in range(some)]
        add(connection, table, made)
        counts[table] = len(made)
    return counts


def add(connection: psycopg.Connection[Any], table: str, rows: Iterable[dict[str, Any]]) -> None:
    """COPY rows into a table of the archive."""
    columns = [column.name for column in TABLES[table].columns]
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row([row[name] for name in columns])


def held(connection: psycopg.Connection[Any], table: str, day: date | None = None) -> list[Any]:
    """The rows of a table, or of one of its days, as texts in order: to compare contents."""
    source = table if day is None else f"{table}_{day:%Y%m%d}"
    rows = connection.execute(
        sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(source))
    )
    return [text for (text,) in rows]


def _at(dice: random.Random, day: date) -> datetime:
    # Few instants, so that many rows share one; the day's first and last among them.
    midnight = datetime.combine(day, time(), UTC)
    micros = dice.choice([0, _DAY_MICROS - 1, dice.randrange(40) * 1_000_000, 123_456])
    return midnight + timedelta(microseconds=micros)


def trade(dice: random.Random, day: date, number: int) -> dict[str, Any]:
    return {
        "traded_at": _at(dice, day),
        "feed_order": dice.choice([None, number, 1_790_000_000 << 32 | number]),
        "count_centis": dice.choice([1, 100, dice.randrange(1, 10**9), _BIG]),
        "yes_price_micros": dice.randrange(1, 1_000_000),
        "traded_on": day,
        "trade_id": UUID(int=dice.getrandbits(128)),
        "exact_time": dice.random() < 0.5,
        "is_block_trade": dice.choice([None, True, False]),
        "taker_side": dice.choice(["yes", "no"]),
        "market_ticker": dice.choice(TICKERS),
    }


def _raw_trade(dice: random.Random, day: date, number: int) -> dict[str, Any]:
    place = dice.random() < 0.5
    return {
        **{name: value for name, value in trade(dice, day, number).items() if name in _RAW},
        "landed_at": _at(dice, day),
        "received_at": _at(dice, day - timedelta(days=dice.randrange(3))),
        "connection": 1_790_000_000 if place else None,
        "seq": number if place else None,
        "tape_segment": 1_790_000_000_123 if place else None,
        "tape_offset": number * 17 if place else None,
        "source": "ws" if place else dice.choice(["rest", "historical"]),
    }


_RAW = {column.name for column in TABLES["raw_trades"].columns}


def _quote(dice: random.Random, day: date, number: int) -> dict[str, Any]:
    return {
        "quoted_at": _at(dice, day),
        "received_at": _at(dice, day),
        "feed_order": number,
        **{
            name: dice.choice([0, dice.randrange(10**9), -_BIG - 1])
            for name in (
                "yes_bid_size_centis",
                "yes_ask_size_centis",
                "last_trade_size_centis",
                "volume_centis",
                "open_interest_centis",
                "dollar_volume",
                "dollar_open_interest",
            )
        },
        "price_micros": dice.randrange(1_000_001),
        "yes_bid_micros": dice.randrange(1_000_001),
        "yes_ask_micros": dice.choice([1_000_000, -(2**31), 2**31 - 1]),
        "market_ticker": dice.choice(TICKERS),
    }


def _delta(dice: random.Random, day: date, number: int) -> dict[str, Any]:
    return {
        "at": _at(dice, day),
        "received_at": _at(dice, day),
        "feed_order": number,
        "seq": number,
        "delta_centis": dice.randrange(-(10**9), 10**9),
        "price_micros": dice.randrange(1_000_001),
        "sid": dice.randrange(5),
        "side": dice.choice(["yes", "no"]),
        "market_ticker": dice.choice(TICKERS),
    }


def _snapshot(dice: random.Random, day: date, number: int) -> dict[str, Any]:
    levels = {side: sorted(dice.sample(range(1_000), dice.choice([0, 1, 99]))) for side in "yn"}
    return {
        "at": _at(dice, day),
        "received_at": _at(dice, day),
        "feed_order": number,
        "seq": dice.choice([None, number]),
        "sid": 1,
        "source": dice.choice(["exchange", "own"]),
        "market_ticker": dice.choice(TICKERS),
        "yes_micros": levels["y"],
        "yes_centis": [dice.choice([1, _BIG]) for _ in levels["y"]],
        "no_micros": levels["n"],
        "no_centis": [dice.randrange(10**6) for _ in levels["n"]],
    }


def _lifecycle(dice: random.Random, day: date, number: int) -> dict[str, Any]:
    message = {
        "n": number,
        "price": "0.10",
        "ratio": 1.0,
        "words": dice.choice(["", "ü\n", "x" * 999]),
    }
    return {
        "received_at": _at(dice, day),
        "sent_at": dice.choice([None, _at(dice, day)]),
        "connection": 1_790_000_000,
        "sid": 2,
        "seq": number,
        "message_type": "market_lifecycle_v2",
        "event_type": dice.choice([None, "created"]),
        "market_ticker": dice.choice([None, *TICKERS]),
        "event_ticker": dice.choice([None, "KXA"]),
        "message": Jsonb(message, dumps=lambda value: json.dumps(value, ensure_ascii=False)),
    }


_MAKERS = {
    "trades": trade,
    "raw_trades": _raw_trade,
    "quotes": _quote,
    "book_deltas": _delta,
    "book_snapshots": _snapshot,
    "lifecycle_events": _lifecycle,
}
