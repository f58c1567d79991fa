"""Lists: what they read, so that a million rows cost no more than a thousand."""

from datetime import UTC, datetime

import psycopg
import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.events import EventFilters, events_page
from kalshi_platform.storage.reads.markets import MarketFilters, markets_page
from kalshi_platform.storage.reads.settlements import SettlementFilters, settlements_page

_NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def connection(database):
    """Where reading a whole table is the planner's last resort, as with many rows."""
    with connect(database) as connection:
        connection.execute("SET enable_seqscan = off")
        yield connection


def indexes_of(connection: psycopg.Connection, page) -> str:
    statement, parameters = page
    plan = connection.execute(f"EXPLAIN {statement}".encode(), parameters).fetchall()
    return "\n".join(line for (line,) in plan)


@pytest.mark.parametrize(
    ("page", "index"),
    [
        (markets_page(MarketFilters(status="disputed"), after=None, limit=9), "by_outcome"),
        (markets_page(MarketFilters(category="Sports"), after=None, limit=9), "markets_by_series"),
        (events_page(EventFilters(status="open"), after=None, limit=9), "unsettled_by_event"),
        (events_page(EventFilters(status="closed"), after="KX", limit=9), "unsettled_by_event"),
        (events_page(EventFilters(status="settled"), after="KX", limit=9), "unsettled_by_event"),
        (events_page(EventFilters(category="Sports"), after=None, limit=9), "events_by_category"),
        (
            settlements_page(SettlementFilters(status="amended"), after=(_NOW, "KX"), limit=9),
            "settlements_unsettled",
        ),
        (
            settlements_page(SettlementFilters(result="void"), after=None, limit=9),
            "settlements_by_rare_result",
        ),
        (
            settlements_page(SettlementFilters(result="yes"), after=None, limit=9),
            "settlements_by_time",
        ),
    ],
)
def test_a_filter_is_answered_from_its_index(connection, page, index):
    assert index in indexes_of(connection, page)


@pytest.mark.parametrize("table", ["markets", "events"])
def test_words_are_looked_up_in_their_index(connection, table):
    # The order of letters in which the words are compared must be the index's own.
    connection.execute("SET enable_indexscan = off")
    connection.execute("SET enable_indexonlyscan = off")
    page = (
        markets_page(MarketFilters(search="Rain in Oslo"), after=None, limit=9)
        if table == "markets"
        else events_page(EventFilters(search="Rain in Oslo"), after=None, limit=9)
    )
    assert f"{table}_by_word" in indexes_of(connection, page)


@pytest.mark.parametrize("index", ["markets_listed", "markets_live", "markets_by_series"])
def test_a_status_is_read_from_the_index_alone(connection, index):
    filters = {
        "markets_listed": MarketFilters(status="finalized", search="rain"),
        "markets_live": MarketFilters(status="active", search="rain"),
        "markets_by_series": MarketFilters(status="finalized", series_ticker="KX"),
    }[index]
    for method in ("indexscan", "bitmapscan", "sort"):
        connection.execute(f"SET enable_{method} = off".encode())
    page = markets_page(filters, after=None, limit=9)
    assert f"Index Only Scan using {index}" in indexes_of(connection, page)


def test_a_search_in_a_series_ends_where_the_series_does(connection):
    # With many rows, common words are walked in order of tickers rather than taken by series.
    connection.execute("DROP INDEX markets_by_series")
    for method in ("bitmapscan", "sort"):
        connection.execute(f"SET enable_{method} = off".encode())
    filters = MarketFilters(series_ticker="KX", status="finalized", search="rain")
    plan = indexes_of(connection, markets_page(filters, after="KX-1", limit=9))
    [bounds] = [line for line in plan.splitlines() if "market_ticker > 'KX-1'" in line]
    assert "Index Cond" in bounds
    assert "market_ticker <= (InitPlan" in bounds
