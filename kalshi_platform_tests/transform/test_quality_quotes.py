"""Each check of quotes passes on a right day and names what is wrong on another."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage import tables
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.transform import quality_quotes
from kalshi_platform_tests.transform.asking import ask
from kalshi_platform_tests.transform.book_rows import CONNECTION, DAY, MARKET, second
from kalshi_platform_tests.transform.reference import land, trade


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A market quoted before and after a trade, in a transaction that is rolled back."""
    with connect(shared_database) as opened:
        quote(opened, 0, 1, volume_centis=1_000)
        quote(opened, 60, 2, volume_centis=1_150)
        land(opened, trade(second(30), count=150))
        day_candle(opened, MARKET)
        yield opened
        opened.rollback()


def quote(connection: psycopg.Connection[Any], seconds: float, frame: int, **fields: Any) -> None:
    """A quote so many seconds after noon of DAY."""
    at = second(seconds)
    ensure_partitions(connection, [at.date()], only=[tables.quotes])
    row = {
        "quoted_at": at,
        "received_at": at,
        "feed_order": CONNECTION << 32 | frame,
        "yes_bid_size_centis": 100,
        "yes_ask_size_centis": 100,
        "last_trade_size_centis": 100,
        "volume_centis": 1_000,
        "open_interest_centis": 500,
        "dollar_volume": 10,
        "dollar_open_interest": 5,
        "price_micros": 410_000,
        "yes_bid_micros": 400_000,
        "yes_ask_micros": 420_000,
        "market_ticker": MARKET,
        **fields,
    }
    connection.execute(
        f"INSERT INTO quotes ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})".encode(),
        list(row.values()),
    )


def day_candle(connection: psycopg.Connection[Any], market: str, quotes: int = 2) -> None:
    """The row that says that the market was quoted on DAY."""
    ensure_partitions(connection, [DAY.date()], only=[tables.candles_1d])
    connection.execute(
        "INSERT INTO candles_1d (starts_at, volume_centis, notional_micro_centis, trade_count,"
        " market_ticker, quote_count) VALUES (%s, 0, 0, 0, %s, %s)",
        [DAY, market, quotes],
    )


@pytest.mark.parametrize("check", quality_quotes.CHECKS, ids=lambda check: check.name)
def test_a_right_day_and_an_empty_day_pass(connection, check):
    assert ask(connection, check.query)["passed"] is True
    assert ask(connection, check.query, DAY - timedelta(days=9))["passed"] is True


def test_quotes_without_orders_on_either_side_are_in_order(connection):
    quote(connection, 90, 3, yes_bid_micros=0, yes_ask_micros=1_000_000, price_micros=0)
    assert ask(connection, quality_quotes.quotes_in_range)["quotes_looked_at"] == 3
    assert ask(connection, quality_quotes.quotes_in_range)["passed"] is True
    assert ask(connection, quality_quotes.quotes_not_crossed)["passed"] is True


@pytest.mark.parametrize(
    ("field", "value", "figure"),
    [
        ("yes_bid_micros", -100, "prices_off_the_grid"),
        ("yes_ask_micros", 1_000_100, "prices_off_the_grid"),
        ("price_micros", 410_050, "prices_off_the_grid"),
        ("yes_bid_size_centis", -1, "counts_negative"),
        ("open_interest_centis", -1, "counts_negative"),
    ],
)
def test_values_that_cannot_be_are_counted(connection, field, value, figure):
    quote(connection, 90, 3, **{field: value})
    found = ask(connection, quality_quotes.quotes_in_range)
    assert (found["passed"], found[figure]) == (False, 1)


def test_a_bid_that_meets_the_ask_is_named(connection):
    quote(connection, 90, 3, yes_bid_micros=420_000)
    found = ask(connection, quality_quotes.quotes_not_crossed)
    assert (found["passed"], found["quotes_crossed"], found["markets_crossed"]) == (False, 1, 1)
    assert found["examples"][0]["yes_bid_micros"] == 420_000


def test_a_volume_that_falls_is_named_in_the_order_of_time(connection):
    # Late on the wire, in order by the exchange's clock.
    quote(connection, 50, 3, volume_centis=1_100)
    assert ask(connection, quality_quotes.quoted_volume_never_falls)["passed"] is True
    quote(connection, 70, 4, volume_centis=1_149)
    found = ask(connection, quality_quotes.quoted_volume_never_falls)
    assert (found["passed"], found["falls"], found["quotes_looked_at"]) == (False, 1, 4)
    [example] = found["examples"]
    assert (example["volume_centis_before"], example["volume_centis"]) == (1_150, 1_149)


def test_a_volume_that_grew_by_more_than_is_held_misses_a_trade(connection):
    connection.execute("UPDATE quotes SET volume_centis = 1175 WHERE quoted_at = %s", [second(60)])
    found = ask(connection, quality_quotes.odometer_agrees)
    assert (found["passed"], found["missing_centis"], found["surplus_centis"]) == (False, 25, 0)
    assert found["examples"][0]["held_centis"] == 150


def test_a_volume_that_grew_by_less_has_one_too_many(connection):
    land(connection, trade(second(40), count=7))
    found = ask(connection, quality_quotes.odometer_agrees)
    assert (found["passed"], found["missing_centis"], found["surplus_centis"]) == (False, 0, 7)


@pytest.mark.parametrize("seconds", [-0.5, 0.5, 59.5, 60.5])
def test_a_trade_beside_the_first_or_last_quote_may_count_or_not(connection, seconds):
    land(connection, trade(second(seconds), count=7))
    assert ask(connection, quality_quotes.odometer_agrees)["passed"] is True
    connection.execute("UPDATE quotes SET volume_centis = 1157 WHERE quoted_at = %s", [second(60)])
    assert ask(connection, quality_quotes.odometer_agrees)["passed"] is True


def test_a_market_quoted_only_once_has_no_odometer(connection):
    quote(connection, 5, 9, market_ticker="KXONCE")
    day_candle(connection, "KXONCE", quotes=1)
    assert ask(connection, quality_quotes.odometer_agrees)["markets_compared"] == 1
