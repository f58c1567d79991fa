"""Old days of quotes and books go whole; nothing else does, and nobody is kept waiting."""

from datetime import UTC, date, datetime, timedelta

import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import PARTITIONED, ensure_partitions
from kalshi_platform.storage.retention import BOOKS, QUOTES, Outcome, drop_old_days

NOW = datetime(2026, 3, 20, 0, 5, tzinfo=UTC)
TODAY = NOW.date()
DAYS = [TODAY - timedelta(days=back) for back in range(-1, 12)]


@pytest.fixture
def kept(database: str) -> str:
    """A database with partitions of tomorrow and the last twelve days."""
    with connect(database) as connection:
        for table in PARTITIONED:
            for name in days_of(database, table.name):
                connection.execute(f"DROP TABLE {table.name}_{name:%Y%m%d}".encode())
        ensure_partitions(connection, DAYS)
    return database


def days_of(database: str, table: str) -> list[date]:
    with connect(database) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
            " WHERE inhparent = %s::regclass AND relname ~ '_[0-9]{8}$'",
            [table],
        )
        return sorted(date.fromisoformat(name.rpartition("_")[2]) for (name,) in rows)


def drop(database: str, quotes_days: int = 5, books_days: int = 3) -> Outcome:
    with connect(database, autocommit=True) as connection:
        return drop_old_days(connection, quotes_days=quotes_days, books_days=books_days, now=NOW)


def test_days_that_are_older_than_they_are_kept_are_dropped_and_named(kept):
    outcome = drop(kept)
    assert days_of(kept, "quotes") == sorted(DAYS[:6])  # tomorrow, today, and four before
    for table in BOOKS:
        assert days_of(kept, table.name) == sorted(DAYS[:4])
    assert {(table, day) for table, day, _ in outcome.dropped} == {
        *((table.name, day) for table in QUOTES for day in DAYS[6:]),
        *((table.name, day) for table in BOOKS for day in DAYS[4:]),
    }
    assert all(size > 0 for _, _, size in outcome.dropped)
    assert outcome.in_use == []


def test_no_other_table_loses_a_day(kept):
    drop(kept)
    for table in PARTITIONED:
        if table not in (*QUOTES, *BOOKS) and table.info["partitions"] == "day":
            assert days_of(kept, table.name) == sorted(DAYS), table.name


def test_a_second_pass_has_nothing_to_drop(kept):
    drop(kept)
    assert drop(kept) == Outcome([], [])


@pytest.mark.parametrize("days", [2, 1, 0, -5])
def test_today_and_yesterday_stay_whatever_is_asked(kept, days):
    drop(kept, days, days)
    for table in (*QUOTES, *BOOKS):
        assert days_of(kept, table.name) == sorted(DAYS[:3])


def test_a_day_in_use_is_left_for_the_next_pass_and_stops_no_other(kept):
    busy = f"quotes_{DAYS[8]:%Y%m%d}"
    with connect(kept) as reader:
        reader.execute(f"SELECT count(*) FROM {busy}".encode())
        outcome = drop(kept)
        assert outcome.in_use == [busy]
        assert days_of(kept, "quotes") == sorted([*DAYS[:6], DAYS[8]])
    assert [(each.table, each.day) for each in drop(kept).dropped] == [("quotes", DAYS[8])]


def test_watches_go_with_the_books_that_they_speak_of(kept):
    first_kept = datetime(2026, 3, 18, tzinfo=UTC)
    hour = timedelta(hours=1)
    watches = [
        ("ENDED-BEFORE", first_kept - 2 * hour, first_kept - hour),
        ("REACHES-INTO", first_kept - 2 * hour, first_kept + hour),
        ("GOES-ON", first_kept - 200 * hour, None),
    ]
    with connect(kept) as connection:
        for watch in watches:
            connection.execute(
                "INSERT INTO book_watches (market_ticker, starts_at, ends_at, start_order,"
                " connection, sid, use_yes_price) VALUES (%s, %s, %s, 1, 1, 1, false)",
                watch,
            )
    drop(kept)
    with connect(kept) as connection:
        left = {
            ticker for (ticker,) in connection.execute("SELECT market_ticker FROM book_watches")
        }
    assert left == {"REACHES-INTO", "GOES-ON"}
