"""A past day fetched from the simulator agrees with its candlesticks, of either tier."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest

from kalshi_platform.ingest.agreement import Comparison, compare_day
from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes.candles import rebuild_day
from kalshi_platform.transform.agreement import TRADE_COLUMNS, Verdict
from kalshi_platform_tests.ingest.truth import client
from kalshi_simulator.testing import RunningSimulator, running_simulator

# A market of the one settled long enough ago to be in the archive; of the other not.
AGES = {"live": 1, "historical": 4}


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=29,
        trades_per_second=1,
        history_trades_per_second=0.05,
        history_days=5,
        live_days=2,
        read_tokens_per_second=50_000,
    ) as running:
        yield running


def day_of(tier: str) -> date:
    return (datetime.now(UTC) - timedelta(days=AGES[tier])).date()


def fetched(database: str, simulator: RunningSimulator, day: date) -> None:
    with client(simulator) as rest:
        sweep_day(database, rest, day)
    with connect(database) as connection:
        rebuild_day(connection, day)


def compared(database: str, simulator: RunningSimulator, day: date, **options) -> Comparison:
    with client(simulator) as rest, connect(database) as connection:
        return compare_day(connection, rest, day, **options)


@pytest.mark.parametrize("tier", AGES)
def test_a_day_without_quotes_agrees_in_every_column_of_its_trades(database, simulator, tier):
    day = day_of(tier)
    fetched(database, simulator, day)
    with client(simulator) as rest, connect(database) as connection:
        found = compare_day(connection, rest, day)
        asked = Counter({count.endpoint: n for count, n in rest.drain_counts()[0].items()})
    archive = asked["/historical/markets/{ticker}/candlesticks"]
    # Some that traded on an archived day settled later, and are still of the live tier.
    assert (archive > 0) is (tier == "historical")
    assert found.passed, found.agreement.differences[:3]
    assert len(found.markets) >= 10
    assert not found.unknown
    for interval in ("1m", "1h", "1d"):
        for column in TRADE_COLUMNS:
            assert found.agreement.verdicts[interval, column, Verdict.EQUAL] > 0
    assert found.days_without_quotes == [day]
    assert {column for _, column, _ in found.agreement.verdicts} == set(TRADE_COLUMNS)


def test_a_price_that_is_wrong_is_found_in_minute_hour_and_day(database, simulator):
    day = day_of("live")
    fetched(database, simulator, day)
    with connect(database) as connection:
        [(market,)] = connection.execute(
            "SELECT market_ticker FROM candles_1d ORDER BY volume_centis DESC LIMIT 1"
        )
        connection.execute(
            "UPDATE trades SET yes_price_micros = 1000000 WHERE trade_id = (SELECT trade_id"
            " FROM trades WHERE market_ticker = %s ORDER BY traded_at LIMIT 1)",
            [market],
        )
        rebuild_day(connection, day)
    found = compared(database, simulator, day)
    highs = {d for d in found.agreement.differences if d.column == "high_micros"}
    assert {(each.interval, each.market_ticker, each.ours) for each in highs} == {
        (interval, market, 1_000_000) for interval in ("1m", "1h", "1d")
    }


def test_a_trade_that_we_lack_is_found_unless_its_gap_waits_to_be_healed(database, simulator):
    day = day_of("live")
    fetched(database, simulator, day)
    with connect(database) as connection:
        [(market, at)] = connection.execute(
            "DELETE FROM trades WHERE trade_id = (SELECT trade_id FROM trades"
            " ORDER BY count_centis DESC, trade_id LIMIT 1) RETURNING market_ticker, traded_at"
        )
        rebuild_day(connection, day)
    found = compared(database, simulator, day, tickers=[market])
    assert {d.interval for d in found.agreement.differences} == {"1m", "1h", "1d"}
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
            " VALUES ('trade', 'disconnect', 'open', %s, %s)",
            [at - timedelta(seconds=1), at + timedelta(seconds=1)],
        )
    found = compared(database, simulator, day, tickers=[market])
    assert found.passed
    assert found.agreement.count(Verdict.IN_GAP) > 0


def test_a_day_is_compared_from_when_it_was_recorded(database, simulator):
    day = day_of("live")
    fetched(database, simulator, day)
    ten = datetime(day.year, day.month, day.day, 10, 0, 30, tzinfo=UTC)
    with connect(database) as connection:
        # As if the recorder had begun on that morning, and nobody had swept the day.
        connection.execute("UPDATE raw_trades SET source = 'ws', received_at = %s", [ten])
        connection.execute("DELETE FROM coverage")
        connection.execute("DELETE FROM trades WHERE traded_at < %s", [ten])
        ensure_partitions(connection, [day], only=[tables.raw_trades])
        connection.execute(
            "WITH moved AS (DELETE FROM raw_trades RETURNING *)"
            " INSERT INTO raw_trades SELECT %s, received_at, traded_at, connection, seq,"
            " tape_segment, tape_offset, count_centis, yes_price_micros, trade_id, is_block_trade,"
            " source, taker_side, market_ticker FROM moved",
            [ten],
        )
        rebuild_day(connection, day)
    found = compared(database, simulator, day)
    assert found.since == ten
    assert found.passed, found.agreement.differences[:3]
    assert {interval for interval, _, _ in found.agreement.verdicts} == {"1m", "1h"}


def test_minutes_that_wait_to_be_refreshed_are_not_compared(database, simulator):
    day = day_of("live")
    fetched(database, simulator, day)
    with connect(database) as connection:
        [(market,)] = connection.execute(
            "SELECT market_ticker FROM candles_1d ORDER BY volume_centis DESC LIMIT 1"
        )
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        connection.execute("INSERT INTO stale_candles VALUES (%s, %s)", [noon, market])
    found = compared(database, simulator, day)
    assert found.until == noon
    assert {interval for interval, _, _ in found.agreement.verdicts} == {"1m", "1h"}


def test_a_market_that_the_exchange_does_not_have_is_named(database, simulator):
    day = day_of("live")
    fetched(database, simulator, day)
    found = compared(database, simulator, day, tickers=["KXNONE-1"])
    assert (found.markets, found.unknown, found.agreement.compared) == (set(), {"KXNONE-1"}, 0)


def test_a_day_of_which_nothing_is_held_asks_nothing(database, simulator):
    found = compared(database, simulator, day_of("live"))
    assert (found.markets, found.agreement.compared, found.passed) == (set(), 0, True)
