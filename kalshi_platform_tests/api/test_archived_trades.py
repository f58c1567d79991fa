"""POST /trades of days that are only in the archive."""

import json
import random
from datetime import timedelta
from itertools import pairwise
from urllib.parse import quote

import pytest

from api.app import create_app
from kalshi_platform.archive import layout
from kalshi_platform.archive.store import Store
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day
from kalshi_platform_tests.api.archived import (
    Question,
    archive_and_drop,
    ask,
    day,
    following,
    markets,
    moments,
    next_cursor,
    random_uuid,
    restore,
    start_of,
    walk,
    windows,
)
from kalshi_platform_tests.api.rows import Row, cover, land

DAYS = 5


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(layout, "_ROW_GROUP", 64)


@pytest.fixture
async def app(database, tmp_path):
    app = create_app(database, simulated=True, archive=str(tmp_path), connections=4)
    async with app.router.lifespan_context(app):
        yield app


def _trades(dice: random.Random, count: int) -> list[Row]:
    names = markets(12)
    return [
        Row(
            traded_at=at,
            yes_price_micros=dice.choice([10_000, 362_500, 360_000, 990_001]),
            count_centis=dice.randint(1, 100_000),
            taker_side=dice.choice(["yes", "no"]),
            is_block_trade=dice.choice([True, False, None]),
            feed_order=dice.choice([None, dice.randint(1, 50), dice.getrandbits(62)]),
            market_ticker=dice.choice(names[:3] if dice.random() < 0.6 else names),
            trade_id=random_uuid(dice),
        )
        for at in moments(dice, count, DAYS)
    ]


def _questions(dice: random.Random, count: int) -> list[Question]:
    return [
        Question(
            "POST",
            "/trades",
            {
                "market_ticker": dice.choice(markets(13)),
                "limit": dice.choice([1, 7, 100, 1000]),
                **window,
            },
        )
        for window, _ in zip(windows(dice, DAYS), range(count), strict=False)
    ]


@pytest.mark.parametrize("seed", [1, 2])
async def test_answers_are_the_same_bytes_wherever_the_rows_are(client, database, tmp_path, seed):
    dice = random.Random(seed)
    land(database, *_trades(dice, 900))
    for number in range(DAYS):
        cover(database, day(number), "proven", None)
    questions = _questions(dice, 15)
    before = [await walk(client, question, most=6) for question in questions]
    assert any(len(pages) > 3 for pages in before)
    # A day between dropped ones stays, and is dropped when the others are back.
    for gone in ([0, 1, 3], [2, 4]):
        days = [day(number) for number in gone]
        archive_and_drop(database, tmp_path, "trades", days)
        for question, pages in zip(questions, before, strict=True):
            assert await walk(client, question, most=6) == pages
            # Cursors of before lead on, from page to page.
            for page, successor in pairwise(pages):
                cursor = next_cursor(page)
                assert cursor and await ask(client, following(question, cursor)) == successor
        with connect(database) as connection:
            for on in days:
                restore(connection, "trades", on)
        for question, pages in zip(questions[:5], before, strict=False):
            assert await walk(client, question, most=6) == pages


async def test_a_market_that_trades_seldom_is_found_without_opening_every_day(
    client, database, tmp_path, monkeypatch
):
    seldom, often = "KX-SELDOM", "KX-OFTEN"
    for number in range(DAYS):
        noon = start_of(day(number)) + timedelta(hours=12)
        land(database, Row(traded_at=noon, market_ticker=often))
    late = start_of(day(DAYS - 2)) + timedelta(hours=1)
    land(database, Row(traded_at=late, market_ticker=seldom))
    for number in range(DAYS):
        cover(database, day(number), "proven", None)
        with connect(database) as connection:
            rebuild_day(connection, day(number))
    questions = [
        Question("POST", "/trades", {"market_ticker": ticker}) for ticker in (seldom, often, "KX-3")
    ]
    before = [await ask(client, question) for question in questions]
    archive_and_drop(database, tmp_path, "trades", [day(number) for number in range(DAYS)])
    opened, open_file = [], Store.open

    def counted(self, path):
        opened.append(path.partition("/day=")[2][:10])
        return open_file(self, path)

    monkeypatch.setattr(Store, "open", counted)
    assert [await ask(client, question) for question in questions[:1]] == before[:1]
    assert set(opened) == {str(day(DAYS - 2))}
    # A trade that came late is found by its stale minute, and meets those of the file.
    assert [await ask(client, question) for question in questions] == before
    land(database, Row(traded_at=late + timedelta(hours=1), market_ticker="KX-3"))
    found = json.loads((await ask(client, questions[2])).body)["data"]
    assert [trade["ts"][:13] for trade in found] == [f"{day(DAYS - 2)}T02"]


@pytest.mark.parametrize("gone", [[0], [4], [0, 1], [1, 2, 3], [0, 1, 2, 3, 4]])
async def test_a_market_says_the_same_of_its_first_and_last_trade(client, database, tmp_path, gone):
    dice = random.Random(3)
    rows = _trades(dice, 60)
    land(database, *rows)
    for number in range(DAYS):
        with connect(database) as connection:
            rebuild_day(connection, day(number))
    names = sorted({row.market_ticker for row in rows if "/" not in row.market_ticker})
    questions = [Question("GET", f"/markets/{quote(name)}", {}) for name in names]
    before = [await ask(client, question) for question in questions]
    assert {answer.status for answer in before} == {200}
    archive_and_drop(database, tmp_path, "trades", map(day, gone))
    assert [await ask(client, question) for question in questions] == before
