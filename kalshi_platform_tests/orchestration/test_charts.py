"""Pictures of a day: what traded, and bid and ask where there was one."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from kalshi_platform.orchestration.charts import (
    busiest_market,
    caption,
    chart_of,
    day_chart,
    small_chart,
    svg,
)
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day
from kalshi_platform_tests.transform.reference import DAY, MARKET, land, quote, tell, trade


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that is rolled back."""
    with connect(shared_database) as opened:
        yield opened
        opened.rollback()


def test_a_day_without_anything_has_no_chart(connection):
    rebuild_day(connection, DAY.date())
    assert busiest_market(connection, DAY.date()) is None
    assert day_chart(connection, DAY.date()) is None


def test_hours_of_trades_come_with_bid_and_ask_at_their_end(connection):
    for hour in (9, 12, 15):
        land(connection, trade(f"{hour:02}:00:05", 400_000 + hour))
        tell(connection, quote(f"{hour:02}:00:06", 390_000, 420_000))
    rebuild_day(connection, DAY.date())
    chart = chart_of(connection, MARKET, DAY.date())
    assert chart is not None
    assert [bar.position for bar in chart.bars] == [9, 12, 15]
    assert caption(MARKET, chart.bars) == (
        f"{MARKET} $0.400009 → $0.400015, 3.00 contracts, bid $0.3900, ask $0.4200"
    )
    picture = svg(chart)
    assert picture.count("<rect") == 1 + 3
    assert picture.count("stroke-width") == 2


def test_half_an_hour_of_quotes_alone_is_shown_by_minute(connection):
    for minute in range(30, 55, 5):
        tell(connection, quote(f"22:{minute}:00", minute * 10_000, minute * 10_000 + 20_000))
    rebuild_day(connection, DAY.date())
    chart = chart_of(connection, MARKET, DAY.date())
    assert chart is not None
    assert (chart.first, chart.slots) == (22 * 60, 60)
    assert [bar.position for bar in chart.bars] == [22 * 60 + minute for minute in range(30, 55, 5)]
    assert small_chart(connection, DAY.date()) == (
        f"{MARKET}, 0.00 contracts, bid $0.5000, ask $0.5200\n\n`▁▂▄▆█`"
    )


def test_a_side_without_orders_has_no_price(connection):
    tell(connection, quote("10:00:00", 0, 300_000), quote("14:00:00", 0, 1_000_000, feed_order=2))
    land(connection, trade("18:00:00", 310_000))
    rebuild_day(connection, DAY.date())
    chart = chart_of(connection, MARKET, DAY.date())
    assert chart is not None
    assert [(bar.bid_micros, bar.ask_micros, bar.last_micros) for bar in chart.bars] == [
        (None, 300_000, 300_000),
        (None, None, 310_000),
    ]
