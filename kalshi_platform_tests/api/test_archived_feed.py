"""Quotes, order books and candles of days that are only in the archive."""

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

import pytest

from api.app import create_app
from kalshi_platform.archive import layout
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day
from kalshi_platform_tests.api.archived import (
    Question,
    archive_and_drop,
    day,
    markets,
    moments,
    restore,
    start_of,
    walk,
    windows,
)
from kalshi_platform_tests.api.feed_rows import FIRST_FRAME, Watch, heard, lost, quote, told
from kalshi_platform_tests.api.rows import Row, cover, land
from kalshi_platform_tests.transform.book_rows import CONNECTION, Delta, Snapshot

DAYS = 4
BOOKS = markets(2)
TABLES = ("trades", "quotes", "book_snapshots", "book_deltas")


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(layout, "_ROW_GROUP", 64)
    monkeypatch.setattr(layout, "_ROW_GROUPS", {"book_snapshots": 8})


@pytest.fixture
async def app(database, tmp_path):
    app = create_app(database, simulated=True, archive=str(tmp_path), connections=4)
    async with app.router.lifespan_context(app):
        yield app


def _quotes(dice: random.Random, count: int) -> Iterator[dict]:
    for frame, at in enumerate(moments(dice, count, DAYS)):
        bid = dice.randrange(0, 990_000, 2_500)
        yield quote(
            at.isoformat(timespec="milliseconds")[:-6],
            frame=frame,
            market_ticker=dice.choice(BOOKS),
            yes_bid_micros=bid,
            yes_ask_micros=bid + 10_000,
            open_interest_centis=dice.randrange(10**7),
            dollar_volume=dice.randrange(10**12),
        )


def _books(dice: random.Random, count: int) -> Iterator[Snapshot | Delta | Watch]:
    """Books of several connections: snapshots of the exchange and own ones, clocks a bit turned."""
    for market in BOOKS:
        times = sorted(moments(dice, count, DAYS))
        connection, frame, begun = CONNECTION, 0, None
        for at in times:
            frame += 1
            if begun is None or dice.random() < 0.02:
                if begun is not None:
                    yield Watch(begun, at, "disconnect", market, connection)
                connection, frame, begun = connection + 1, 1, at
                yield Snapshot(at, frame, _side(dice), _side(dice), market, connection)
            elif dice.random() < 0.05:
                yield Snapshot(at, frame, _side(dice), {}, market, connection, 1, "own", 1)
            else:
                near = at - timedelta(seconds=dice.choice([0, 0, 3, 50]))
                yield Delta(
                    near,
                    frame,
                    dice.choice(["yes", "no"]),
                    dice.randrange(10_000, 990_000, 10_000),
                    dice.choice([100, 250, -100]),
                    market,
                    connection,
                )
        yield Watch(begun, None, None, market, connection)


def _side(dice: random.Random) -> dict[int, int]:
    return {dice.randrange(10_000, 990_000, 10_000): dice.randrange(1, 9_999) for _ in range(4)}


def _feed_questions(dice: random.Random, count: int) -> Iterator[Question]:
    for window in islice(windows(dice, DAYS), count):
        market, limit = dice.choice(BOOKS[1:]), dice.choice([1, 7, 200])
        yield Question("GET", f"/quotes/{market}".replace("%", "%25"), {"limit": limit, **window})
        body = {"market_ticker": dice.choice(BOOKS), "limit": limit, **window}
        yield Question("POST", "/deltas", body)
    for at in (*moments(dice, count, DAYS), start_of(day(0)), start_of(day(0)) - timedelta(1)):
        body = {"market_ticker": dice.choice(markets(3)), "timestamp": at.isoformat()}
        yield Question("POST", "/orderbook", body)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_feed_is_the_same_bytes_wherever_the_rows_are(client, database, tmp_path, seed):
    dice = random.Random(seed)
    told(database, *_quotes(dice, 300), *_books(dice, 90))
    lost(database, "ticker", "2026-11-03T10:00:00", "2026-11-03T11:00:00", BOOKS[2])
    heard(database, start_of(day(DAYS)))
    with connect(database) as connection:
        for number in range(DAYS):
            rebuild_day(connection, day(number))
    await _is_the_same_everywhere(
        client, database, tmp_path, dice, list(_feed_questions(dice, 12)), TABLES[1:]
    )


@pytest.mark.parametrize("seed", [1, 2])
async def test_candles_are_the_same_bytes_wherever_the_rows_are(client, database, tmp_path, seed):
    dice = random.Random(seed)
    land(
        database,
        *(
            Row(
                traded_at=at,
                yes_price_micros=dice.randrange(10_000, 990_000, 2_500),
                feed_order=dice.choice([None, FIRST_FRAME + number]),
                market_ticker=dice.choice(BOOKS),
            )
            for number, at in enumerate(moments(dice, 300, DAYS))
        ),
    )
    told(database, *_quotes(dice, 300))
    lost(database, "ticker", "2026-11-03T10:00:00", "2026-11-03T11:00:00", BOOKS[2])
    with connect(database) as connection:
        for number in range(DAYS):
            rebuild_day(connection, day(number))
    for number in range(DAYS):
        cover(database, day(number), "proven", start_of(day(number + 1)))
    questions = [
        Question(
            "GET",
            f"/candles/{dice.choice(BOOKS[1:])}".replace("%", "%25"),
            {
                "interval": interval,
                "fill": dice.choice(["none", "null", "carry", "carry"]),
                "limit": dice.choice([50, 1_000]),
                **window,
            },
        )
        for window in islice((w for w in windows(dice, DAYS) if len(w) == 2), 20)
        for interval in [dice.choice(["1m", "1h", "1d"])]
    ]
    await _is_the_same_everywhere(client, database, tmp_path, dice, questions, TABLES[:2])


async def _is_the_same_everywhere(client, database, folder, dice, questions, tables) -> None:
    """Ask before, with days of each table dropped, and with them back."""
    before = [await walk(client, question, most=4) for question in questions]
    assert {pages[0].status for pages in before} >= {200}
    assert sum(len(pages) > 1 for pages in before) > 1
    for _ in range(2):
        gone = {table: dice.sample(range(DAYS), dice.randint(2, DAYS)) for table in tables}
        for table, numbers in gone.items():
            archive_and_drop(database, folder, table, map(day, numbers))
        for question, pages in zip(questions, before, strict=True):
            assert await walk(client, question, most=4) == pages, (gone, question)
        with connect(database) as connection:
            for table, numbers in gone.items():
                for number in numbers:
                    restore(connection, table, day(number))
    for question, pages in zip(questions[:5], before, strict=False):
        assert await walk(client, question, most=4) == pages
