"""Pages of candles: the right numbers, printed exactly, fresh at every instant."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.candle_slots import Fill
from kalshi_platform.storage.reads.candles import busiest_markets, candle_page_sql, candles_frame
from kalshi_platform.storage.writes.candles import refresh_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.transform.reference import (
    DAY,
    MARKET,
    expected_candles,
    land,
    quote,
    rows_of,
    tell,
    trade,
)

ONE_MINUTE, ONE_HOUR, ONE_DAY = Interval


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that is rolled back."""
    with connect(shared_database) as opened:
        yield opened
        opened.rollback()


def page(
    connection: psycopg.Connection[Any],
    interval: Interval = ONE_MINUTE,
    fill: Fill = Fill.NONE,
    *,
    market: str = MARKET,
    start: datetime = DAY,
    end: datetime = DAY + timedelta(days=1),
    limit: int = 5000,
) -> list[dict[str, Any]]:
    return whole_page(connection, interval, fill, market, start, end, limit)[0]


def whole_page(connection, interval, fill, market, start, end, limit):
    parameters = {"market_ticker": market, "start": start, "end": end, "limit": limit}
    row = connection.execute(candle_page_sql(interval, fill).encode(), parameters).fetchone()
    body, count, has_more, last = row
    records = json.loads(body, parse_float=Decimal)
    assert len(records) == count
    return records, has_more, last


def test_a_record_carries_every_field_exactly(connection):
    land(connection, trade("10:00:05", 362_500, 1250), trade("10:00:06", 400_000, 1))
    [record] = page(connection)
    assert record == {
        "bucket": "2026-10-05T10:00:00Z",
        "market_ticker": MARKET,
        "open": Decimal("36.25"),
        "high": 40,
        "low": Decimal("36.25"),
        "close": 40,
        "open_dollars": "0.3625",
        "high_dollars": "0.4000",
        "low_dollars": "0.3625",
        "close_dollars": "0.4000",
        "volume": Decimal("12.51"),
        "volume_fp": "12.51",
        "trade_count": 2,
        "vwap_dollars": "0.362530",
        "previous_dollars": None,
        "filled": False,
        "yes_bid": None,
        "yes_ask": None,
        "open_interest": None,
        "open_interest_fp": None,
        "quoted_at": None,
        "quote_count": 0,
        "quote_gap": False,
    }


def test_prices_of_every_size_are_printed_exactly(connection):
    prices = [1, 9, 10, 99, 100, 101, 999, 1000, 1234, 9_999, 10_000, 10_050, 99_999, 100_000]
    prices += [123_456, 360_000, 990_000, 999_900, 999_999, 1_000_000]
    for minute, price in enumerate(prices):
        land(connection, trade(f"10:{minute:02}:00", price, 10 * price + 1))
    for price, record in zip(prices, page(connection), strict=True):
        assert Decimal(record["open"]) == Decimal(price) / 10_000
        assert str(record["open"]) == f"{Decimal(price) / 10_000:f}"
        whole = f"{Decimal(price) / 1_000_000:.6f}"
        assert record["close_dollars"] == whole.removesuffix("00")
        assert record["vwap_dollars"] == whole
        assert record["volume_fp"] == f"{Decimal(10 * price + 1) / 100:.2f}"
        assert Decimal(record["volume"]) == Decimal(record["volume_fp"])
        assert not str(record["volume"]).endswith("0") or record["volume"] == int(record["volume"])


@pytest.mark.parametrize(
    "fills", [[(1, 1), (2, 1)], [(2, 1), (3, 1)], [(1, 2), (2, 1)], [(700_001, 7), (3, 11)]]
)
def test_vwap_is_rounded_half_to_even(connection, fills):
    land(connection, *(trade("10:00:05", price, count) for price, count in fills))
    exact = Fraction(sum(price * count for price, count in fills), sum(n for _, n in fills))
    micros = (Decimal(exact.numerator) / exact.denominator).quantize(Decimal(1), ROUND_HALF_EVEN)
    assert page(connection)[0]["vwap_dollars"] == f"{micros / 1_000_000:.6f}"


def test_a_ticker_with_quotes_is_data_not_syntax(connection):
    odd = "KX\"'; DROP TABLE trades; --%s"
    land(connection, trade(market=odd))
    [record] = page(connection, market=odd)
    assert record["market_ticker"] == odd


@pytest.mark.parametrize("interval", Interval)
def test_a_trade_is_in_its_candle_before_any_refresh(connection, interval):
    trades = [trade("10:00:05"), trade("10:07:00", 700_000)]
    land(connection, *trades)
    refresh_candles(connection)
    assert page(connection, interval)[-1]["high"] == 70
    land(connection, trade("10:07:30", 910_000, 5), trade("10:07:31", 50_000, 5))
    before = page(connection, interval)
    assert (before[-1]["high"], before[-1]["close"]) == (91, 5)
    refresh_candles(connection)
    assert page(connection, interval) == before


@pytest.mark.parametrize("interval", Interval)
def test_a_trade_that_moved_away_leaves_no_candle_before_the_refresh(connection, interval):
    land(connection, trade("23:59:59.999", number=4))
    refresh_candles(connection)
    land(connection, trade(DAY + timedelta(days=1, microseconds=100), number=4))
    assert page(connection, interval) == []
    assert len(page(connection, interval, end=DAY + timedelta(days=2))) == 1


def test_a_page_holds_candles_that_start_in_the_half_open_window(connection):
    land(connection, *(trade(f"10:0{minute}:59") for minute in range(5)))
    for refreshed in (False, True):
        if refreshed:
            refresh_candles(connection)
        start, end = DAY.replace(hour=10, minute=1), DAY.replace(hour=10, minute=3)
        buckets = [each["bucket"][14:16] for each in page(connection, start=start, end=end)]
        assert buckets == ["01", "02"]
        later = page(connection, start=start + timedelta(seconds=1), end=end)
        assert [each["bucket"][14:16] for each in later] == ["02"]
        assert page(connection, ONE_HOUR, start=start) == []


@pytest.mark.parametrize("fill", Fill)
def test_pages_by_key_give_every_candle_once(connection, fill):
    land(connection, *(trade(f"10:{minute:02}:30") for minute in range(0, 30, 3)))
    refresh_candles(connection)
    land(connection, trade("10:14:00"), trade("10:15:10"))
    start, end = DAY.replace(hour=10), DAY.replace(hour=10, minute=30)
    at_once = page(connection, fill=fill, start=start, end=end)
    collected = []
    while True:
        records, has_more, last = whole_page(
            connection, ONE_MINUTE, fill, MARKET, start, end, limit=4
        )
        collected += records
        if not has_more:
            break
        start = last + timedelta(minutes=1)
    assert collected == at_once
    assert len(at_once) == {Fill.NONE: 11, Fill.NULL: 30, Fill.CARRY: 30}[fill]


def test_an_empty_page_is_an_empty_array(connection):
    assert whole_page(
        connection, ONE_MINUTE, Fill.NONE, "UNKNOWN", DAY, DAY + timedelta(1), 10
    ) == ([], False, None)


def test_null_fill_marks_the_intervals_without_trades(connection):
    land(connection, trade("10:01:30", 420_000))
    records = page(
        connection,
        fill=Fill.NULL,
        start=DAY.replace(hour=10),
        end=DAY.replace(hour=10, minute=3),
    )
    assert [each["filled"] for each in records] == [True, False, True]
    assert [each["close"] for each in records] == [None, 42, None]
    empty = {name for name, value in records[0].items() if value is None}
    assert empty >= {"open", "open_dollars", "volume", "volume_fp", "trade_count", "vwap_dollars"}
    assert records[0].keys() == records[1].keys()


@pytest.mark.parametrize("refreshed", [False, True])
def test_carry_brings_the_last_close_forward_from_before_the_window(connection, refreshed):
    land(
        connection,
        trade(DAY - timedelta(days=40), 110_000),
        trade("09:00:00", 220_000),
        trade("10:01:30", 330_000),
    )
    if refreshed:
        refresh_candles(connection)

    def closes(start: datetime, minutes: int) -> list[int | None]:
        end = start + timedelta(minutes=minutes)
        records = page(connection, fill=Fill.CARRY, start=start, end=end)
        assert all(each["volume"] == 0 for each in records if each["filled"])
        return [each["close"] for each in records]

    assert closes(DAY.replace(hour=10), 4) == [22, 33, 33, 33]
    assert closes(DAY.replace(hour=8), 2) == [11, 11]
    assert closes(DAY - timedelta(days=41), 1) == [None]
    days = page(connection, ONE_DAY, Fill.CARRY, start=DAY - timedelta(days=1))
    assert [(each["close"], each["filled"]) for each in days] == [(11, True), (33, False)]


def test_intervals_that_have_not_begun_are_not_filled(connection):
    now = datetime.now(UTC)
    start = now.replace(second=0, microsecond=0) - timedelta(minutes=5)
    records = page(
        connection, fill=Fill.CARRY, start=start, end=now + timedelta(hours=1), limit=5000
    )
    assert len(records) in (6, 7)  # the clock may pass into the next minute meanwhile


def test_the_frame_holds_the_same_candles_as_integers(connection):
    trades = [trade("10:00:05"), trade("10:05:05", 700_000), trade("11:05:05", 110_000)]
    land(connection, *trades)
    for interval in Interval:
        frame = candles_frame(connection, MARKET, interval, DAY, DAY + timedelta(days=1))
        assert rows_of(frame) == expected_candles(trades, interval)
        assert all(str(kind) == "Int64" for kind in frame.dtypes.loc["open_micros":"trade_count"])
    assert candles_frame(connection, "UNKNOWN", ONE_DAY, DAY, DAY).empty


def test_the_busiest_markets_are_those_with_the_most_contracts(connection):
    land(connection, trade(market="A"), trade(market="B", count=900), trade(market="C", count=500))
    refresh_candles(connection)
    assert busiest_markets(connection, DAY.date(), 2) == ["B", "C"]


@pytest.mark.parametrize("refreshed", [False, True])
def test_previous_is_the_last_price_before_whatever_lies_between(connection, refreshed):
    land(
        connection,
        trade(DAY - timedelta(days=40), 110_000),
        trade("09:00:00", 220_000, feed_order=2),
        trade("09:00:00", 230_000, feed_order=3),
        trade("10:01:30", 330_000),
    )
    tell(connection, quote("08:00:30"), quote("10:00:30"), quote("10:02:30"))
    if refreshed:
        refresh_candles(connection)

    def previous(hour: int, fill: Fill = Fill.NONE) -> list[str | None]:
        start = DAY.replace(hour=hour)
        records = page(connection, fill=fill, start=start, end=start + timedelta(minutes=4))
        return [each["previous_dollars"] for each in records]

    assert previous(10) == ["0.2300", "0.2300", "0.3300"]
    assert previous(10, Fill.NULL) == ["0.2300", "0.2300", "0.3300", "0.3300"]
    assert previous(8) == ["0.1100"]
    days = page(connection, ONE_DAY, start=DAY - timedelta(days=50))
    assert [each["previous_dollars"] for each in days] == [None, "0.1100"]


@pytest.mark.parametrize("refreshed", [False, True])
def test_carry_brings_bid_ask_and_open_interest_forward(connection, refreshed):
    tell(
        connection,
        quote(DAY - timedelta(days=2), 100_000, 200_000, 300),
        quote("10:01:30", 300_000, 400_000, 500, feed_order=2),
    )
    if refreshed:
        refresh_candles(connection)
    start = DAY.replace(hour=10)
    records = page(connection, fill=Fill.CARRY, start=start, end=start + timedelta(minutes=3))
    assert [each["yes_bid"]["close"] for each in records] == [10, 30, 30]
    assert [each["yes_bid"]["open"] for each in records] == [10, 10, 30]
    assert [each["yes_ask"]["high"] for each in records] == [20, 40, 40]
    assert [each["open_interest"] for each in records] == [3, 5, 5]
    assert [each["quote_count"] for each in records] == [0, 1, 0]
    assert [each["filled"] for each in records] == [True, True, True]
    empty = page(connection, fill=Fill.NULL, start=start, end=start + timedelta(minutes=2))
    assert [each["filled"] for each in empty] == [True, False]
    assert [each["volume"] for each in empty] == [None, 0]
    assert empty[0].keys() == empty[1].keys()
