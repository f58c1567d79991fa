"""Old days leave the database with a file that equals them, and come back the same."""

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from kalshi_platform.archive.dropping import Outcome, days_kept, drop_old_days
from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.archive.restoring import NotArchived, restore_day
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import PARTITIONED, ensure_partitions
from kalshi_platform.storage.reads.archives import (
    all_archives,
    archive_of,
    days_to_restore,
    dropped_days,
)
from kalshi_platform_tests.archive.seeded import add, fill, held, trade

NOW = datetime(2026, 3, 20, 0, 5, tzinfo=UTC)
TODAY = NOW.date()
OLD = TODAY - timedelta(days=9)
DAYS = [TODAY - timedelta(days=back) for back in range(10)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "archive"))


@pytest.fixture
def filled(database: str) -> str:
    """A database with rows of the old day and of today alone."""
    with connect(database) as connection:
        no_partitions(connection)
        fill(connection, OLD, rows=60)
        fill(connection, TODAY, rows=10)
    return database


def no_partitions(connection: psycopg.Connection) -> None:
    for table in PARTITIONED:
        for day in days_of(connection, table.name):
            connection.execute(f"DROP TABLE {table.name}_{day:%Y%m%d}".encode())


def days_of(connection: psycopg.Connection, table: str) -> list[date]:
    rows = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = %s::regclass AND relname ~ '_[0-9]{8}$' ORDER BY 1",
        [table],
    )
    return [date.fromisoformat(name.rpartition("_")[2]) for (name,) in rows]


def partitions(database: str, table: str) -> list[date]:
    with connect(database) as connection:
        return days_of(connection, table)


def archive_all(database: str, store: Store, day: date = OLD) -> None:
    for table in SORTED_BY:
        archive_day(database, store, table, day)


def drop(database: str, store: Store, days: int = 5, now: datetime = NOW) -> Outcome:
    return drop_old_days(database, store, days_kept(days, days, days), now=now)


def contents(database: str) -> dict[str, list[str]]:
    with connect(database) as connection:
        return {table: held(connection, table) for table in SORTED_BY}


def test_a_week_is_archived_dropped_and_comes_back_the_same(database, store):
    week = [TODAY - timedelta(days=back) for back in range(9, 2, -1)]
    with connect(database) as connection:
        no_partitions(connection)
        for day in (*week, TODAY):
            fill(connection, day, rows=30)
    before = contents(database)
    for day in week:
        archive_all(database, store, day)
    outcome = drop(database, store, days=2)
    assert sorted((table, day) for table, day, _ in outcome.dropped) == sorted(
        (table, day) for table in SORTED_BY for day in week
    )
    assert (outcome.left, outcome.restored) == ([], [])
    for table in SORTED_BY:
        assert partitions(database, table) == [TODAY]
        with connect(database) as connection:
            assert dropped_days(connection, table, [*week, TODAY]) == week
    assert drop(database, store, days=2) == Outcome([], [], [])
    for day in week:
        for table in SORTED_BY:
            assert restore_day(database, store, table, day)
            assert not restore_day(database, store, table, day)
    assert contents(database) == before


def test_what_is_not_archived_stays_and_is_named(filled, store):
    before = contents(filled)
    outcome = drop(filled, store)
    assert outcome.dropped == []
    assert {(table, day) for table, day, _ in outcome.left} == {(name, OLD) for name in SORTED_BY}
    assert {reason for _, _, reason in outcome.left} == {"it is not archived yet"}
    assert contents(filled) == before


@pytest.mark.parametrize("days", [2, 1, 0, -5])
def test_today_and_yesterday_stay_whatever_is_asked(database, store, days):
    with connect(database) as connection:
        no_partitions(connection)
        for day in DAYS[:3]:
            fill(connection, day, rows=3)
    for day in DAYS[:3]:
        archive_all(database, store, day)
    drop(database, store, days)
    for table in SORTED_BY:
        assert partitions(database, table) == sorted(DAYS[:2])


def test_each_table_is_kept_for_its_own_days(filled, store):
    archive_all(filled, store)
    outcome = drop_old_days(filled, store, days_kept(5, 30, 30), now=NOW)
    assert [each.table for each in outcome.dropped] == ["quotes"]
    outcome = drop_old_days(filled, store, days_kept(5, 5, 30), now=NOW)
    assert {each.table for each in outcome.dropped} == {"book_snapshots", "book_deltas"}
    outcome = drop_old_days(filled, store, days_kept(5, 5, 5), now=NOW)
    assert {each.table for each in outcome.dropped} == {"trades", "raw_trades", "lifecycle_events"}


def test_a_look_changes_nothing(filled, store):
    archive_all(filled, store)
    before = contents(filled)
    outcome = drop_old_days(filled, store, days_kept(5, 5, 5), now=NOW, dry_run=True)
    assert {each.table for each in outcome.dropped} == set(SORTED_BY)
    assert contents(filled) == before


@pytest.mark.parametrize("table", SORTED_BY)
def test_a_day_that_changed_since_is_archived_anew_before_it_goes(filled, store, table):
    archive_all(filled, store)
    with connect(filled) as connection:
        first = archive_of(connection, table, OLD)
        connection.execute(
            f"INSERT INTO {table} SELECT * FROM {table}_{OLD:%Y%m%d} LIMIT 1".encode()
            if table != "trades"
            else f"UPDATE trades SET count_centis = 5 WHERE traded_on = '{OLD}'".encode()
        )
    before = contents(filled)
    outcome = drop(filled, store)
    assert {each.table for each in outcome.dropped} == set(SORTED_BY)
    with connect(filled) as connection:
        second = archive_of(connection, table, OLD)
    assert first is not None and second is not None and first.checksum != second.checksum
    for each in SORTED_BY:
        restore_day(filled, store, each, OLD)
    assert contents(filled) == before


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_day_whose_file_was_damaged_is_written_anew_before_it_goes(filled, store, damage):
    archive_all(filled, store)
    before = contents(filled)
    with connect(filled) as connection:
        for archive in all_archives(connection):
            path = Path(store.place(archive.path))
            data = bytearray(path.read_bytes())
            data[len(data) // 3] ^= 0x10
            path.write_bytes(data) if damage == "flipped" else path.unlink()
    assert len(drop(filled, store).dropped) == len(SORTED_BY)
    for table in SORTED_BY:
        restore_day(filled, store, table, OLD)
    assert contents(filled) == before


def test_a_dropped_day_with_a_damaged_file_is_not_restored_by_half(filled, store):
    archive_all(filled, store)
    drop(filled, store)
    with connect(filled) as connection:
        archive = archive_of(connection, "trades", OLD)
    assert archive is not None
    path = Path(store.place(archive.path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveDamaged, match="trades-2026-03-11"):
        restore_day(filled, store, "trades", OLD)
    assert OLD not in partitions(filled, "trades")
    with connect(filled) as connection:
        assert dropped_days(connection, "trades", [OLD]) == [OLD]


def test_a_day_without_an_archive_cannot_be_restored(filled, store):
    with pytest.raises(NotArchived):
        restore_day(filled, store, "trades", OLD)


@pytest.mark.parametrize("mode", ["SHARE", "ROW EXCLUSIVE", "ACCESS SHARE"])
def test_a_day_in_use_is_left_for_the_next_pass_and_stops_no_other(filled, store, mode):
    archive_all(filled, store)
    with connect(filled) as other:
        other.execute(f"LOCK TABLE quotes_{OLD:%Y%m%d} IN {mode} MODE".encode())
        outcome = drop(filled, store)
        assert [(each.table, each.reason) for each in outcome.left] == [("quotes", "it is in use")]
        assert len(outcome.dropped) == len(SORTED_BY) - 1
    assert [each.table for each in drop(filled, store).dropped] == ["quotes"]


def test_a_day_stays_while_a_sweep_compares_it(filled, store):
    archive_all(filled, store)
    with connect(filled) as sweep:
        sweep.execute("SELECT pg_advisory_lock(4248, %s)", [OLD.toordinal()])
        assert [each.table for each in drop(filled, store).left] == ["trades"]


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        (
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
            " VALUES ('trade', 'test', 'open', %(day)s, %(day)s)",
            {"trades"},
        ),
        (
            "INSERT INTO stale_candles (starts_at, market_ticker) VALUES (%(day)s, 'KXA')",
            {"trades", "quotes"},
        ),
    ],
)
def test_a_day_that_is_still_worked_on_stays_and_comes_back(filled, store, statement, tables):
    archive_all(filled, store)
    noon = datetime.combine(OLD, datetime.min.time(), UTC) + timedelta(hours=12)
    with connect(filled) as connection:
        connection.execute(statement.encode(), {"day": noon})
    outcome = drop(filled, store)
    assert {each.table for each in outcome.left} == tables
    with connect(filled) as connection:
        connection.execute("DELETE FROM gaps")
        connection.execute("DELETE FROM stale_candles")
    assert {each.table for each in drop(filled, store).dropped} == tables
    # Once it is needed after all, it comes back, and stays for a day.
    with connect(filled) as connection:
        connection.execute(statement.encode(), {"day": noon})
    assert [each.table for each in drop(filled, store).restored] == ["trades"]
    assert OLD in partitions(filled, "trades")
    with connect(filled) as connection:
        connection.execute("DELETE FROM gaps")
        connection.execute("DELETE FROM stale_candles")
    outcome = drop(filled, store, now=datetime.now(UTC))
    [left] = [each for each in outcome.left if each.day == OLD]
    assert left.table == "trades" and "was brought back" in left.reason
    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert "trades" in {each.table for each in drop(filled, store, now=tomorrow).dropped}


def test_rows_that_come_late_for_a_dropped_day_are_joined_with_it(filled, store):
    archive_all(filled, store)
    before = contents(filled)
    drop(filled, store)
    with connect(filled) as connection:
        fill(connection, OLD, rows=20, seed=2)
        late = {table: held(connection, table, OLD) for table in SORTED_BY}
        assert {table for table, _, _ in days_to_restore(connection)} == set(SORTED_BY)
    outcome = drop(filled, store)
    assert {each.table for each in outcome.restored} == set(SORTED_BY)
    after = contents(filled)
    for table in SORTED_BY:
        assert after[table] == sorted(before[table] + late[table]), table
    # A day later they go, with a file that holds them all.
    later = datetime.now(UTC) + timedelta(days=1, minutes=1)
    assert len(drop(filled, store, now=later).dropped) == len(SORTED_BY)
    for table in SORTED_BY:
        restore_day(filled, store, table, OLD)
    assert contents(filled) == after


def test_a_late_trade_that_is_archived_too_is_there_once_and_says_most(filled, store):
    row = trade(random.Random(3), OLD, 7) | {
        "exact_time": True,
        "feed_order": None,
        "is_block_trade": None,
    }
    with connect(filled) as connection:
        add(connection, "trades", [row])
    archive_all(filled, store)
    drop(filled, store)
    with connect(filled) as connection:
        fill(connection, OLD, rows=0)
        add(
            connection,
            "trades",
            [row | {"exact_time": False, "feed_order": 5, "is_block_trade": True}],
        )
    restore_day(filled, store, "trades", OLD)
    with connect(filled) as connection:
        found = connection.execute(
            "SELECT exact_time, feed_order, is_block_trade, traded_at FROM trades"
            " WHERE trade_id = %s",
            [row["trade_id"]],
        ).fetchall()
    assert found == [(True, 5, True, row["traded_at"])]


def test_rows_that_arrive_all_the_while_are_never_lost(filled, store):
    """A writer adds rows to the day without a pause; archived or not, each is there at the end."""
    stop = threading.Event()
    added: list[object] = []

    def write() -> None:
        dice = random.Random(5)
        with connect(filled) as connection:
            while not stop.is_set():
                row = trade(dice, OLD, len(added))
                # The loader reads a batch again that met another's lock.
                with (
                    contextlib.suppress(psycopg.errors.DeadlockDetected),
                    connection.transaction(),
                ):
                    ensure_partitions(connection, [OLD], [tables.trades])
                    add(connection, "trades", [row])
                    added.append(row["trade_id"])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(4):
                archive_day(filled, store, "trades", OLD)
                drop_old_days(filled, store, {"trades": 5}, now=NOW)
        finally:
            stop.set()
        writing.result()
    assert added
    drop_old_days(filled, store, {}, now=NOW)
    with connect(filled) as connection:
        if dropped_days(connection, "trades", [OLD]):
            restore_day(filled, store, "trades", OLD)
        rows = connection.execute("SELECT trade_id FROM trades WHERE traded_on = %s", [OLD])
        found = [trade_id for (trade_id,) in rows]
    assert len(found) == len(set(found)) == 60 + len(added)
    assert set(added) <= set(found)


def test_a_partition_that_a_writer_has_found_stays_until_it_commits(filled, store):
    archive_day(filled, store, "trades", OLD)
    row = trade(random.Random(5), OLD, 1)
    with connect(filled) as writer:
        ensure_partitions(writer, [OLD], [tables.trades])
        outcome = drop_old_days(filled, store, {"trades": 5}, now=NOW)
        assert [(each.table, each.reason) for each in outcome.left] == [("trades", "it is in use")]
        add(writer, "trades", [row])
    before = contents(filled)["trades"]
    outcome = drop_old_days(filled, store, {"trades": 5}, now=NOW)
    assert [each.table for each in outcome.dropped] == ["trades"]
    restore_day(filled, store, "trades", OLD)
    assert contents(filled)["trades"] == before


def test_two_at_once_write_one_file_and_drop_once(filled, store):
    before = contents(filled)
    outcomes: list[Outcome] = []

    def work() -> None:
        archive_all(filled, store)
        outcomes.append(drop(filled, store))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes.append(drop(filled, store))
    dropped = [each.table for outcome in outcomes for each in outcome.dropped]
    assert sorted(dropped) == sorted(SORTED_BY)
    with connect(filled) as connection:
        for archive in all_archives(connection):
            folder = Path(store.place(archive.path)).parent
            assert len(list(folder.iterdir())) == 2
    for table in SORTED_BY:
        restore_day(filled, store, table, OLD)
    assert contents(filled) == before
