"""When the newest row of a table was received, and what counts as a start."""

import time
from datetime import UTC, datetime, timedelta

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.reads.freshness import Start
from kalshi_platform.storage.writes.starts import note_start
from kalshi_platform_tests.api.health_rows import received, told

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def newest_age(url: str, table: str, source: str | None = None) -> float | None:
    with connect(url) as connection:
        row = connection.execute(
            "SELECT extract(epoch FROM now() - newest_received_at(%s::regclass, %s))::float8",
            [table, source],
        ).fetchone()
    assert row is not None
    age: float | None = row[0]
    return age


def test_a_table_without_rows_has_no_newest(database: str) -> None:
    assert newest_age(database, "quotes") is None
    with connect(database) as connection:
        ensure_partitions(connection, [datetime.now(UTC).date()])
    assert newest_age(database, "quotes") is None


def test_the_newest_row_is_found_however_old_its_day_is(database: str) -> None:
    received(database, "quotes", age=3 * 86_400)
    age = newest_age(database, "quotes")
    assert age is not None
    assert 3 * 86_400 <= age < 3 * 86_400 + 60


def test_only_the_last_pages_are_read(database: str) -> None:
    received(database, "lifecycle_events", age=5, rows=40_000)
    with connect(database) as connection:
        connection.execute("SELECT newest_received_at('lifecycle_events')")
        connection.execute("SET track_functions = 'all'")
        before = _blocks(connection)
        connection.execute("SELECT newest_received_at('lifecycle_events')")
        assert _blocks(connection) - before < 300
        pages = connection.execute(
            "SELECT sum(pg_relation_size(inhrelid)) / 8192 FROM pg_inherits"
            " WHERE inhparent = 'lifecycle_events'::regclass"
        ).fetchone()
    assert pages is not None
    assert pages[0] > 400


def _blocks(connection) -> int:  # type: ignore[no-untyped-def]
    """Blocks of the table that this session has read since it began."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.commit()
    row = connection.execute(
        "SELECT sum(heap_blks_hit + heap_blks_read) FROM pg_statio_user_tables"
        " WHERE relname LIKE 'lifecycle_events_%'"
    ).fetchone()
    return int(row[0])


def test_the_newest_of_one_source_is_found_behind_many_of_others(database: str) -> None:
    received(database, "raw_trades", age=200)
    received(database, "raw_trades", age=1, source="rest", rows=30_000)
    of_stream, of_any = newest_age(database, "raw_trades", "ws"), newest_age(database, "raw_trades")
    assert of_stream is not None and of_any is not None
    assert of_stream >= 200 > of_any


def test_what_lies_too_far_back_to_look_for_is_never_told_too_young_a_limit(database: str) -> None:
    """Beyond the pages looked through, the answer is their oldest row: as young as it can be."""
    received(database, "raw_trades", age=900)
    # Five a page.
    wide = "X" * 1_500
    received(database, "raw_trades", age=500, source="rest", rows=21_000, market=wide)
    received(database, "raw_trades", age=1, source="rest", rows=1_000)
    age = newest_age(database, "raw_trades", "ws")
    assert age is not None
    assert 500 <= age < 900


def start_age(url: str) -> float:
    with connect(url) as connection:
        row = connection.execute(
            "SELECT value FROM ingestion_metrics WHERE name = 'started_at_seconds'"
        ).fetchone()
    assert row is not None
    return time.time() - float(row[0])


def restart(url: str, *, started: float, seen: float, received_last: float) -> float:
    """A loader that started, was seen and last received so many seconds ago starts again."""
    now = time.time()
    told(url, "started_at_seconds", 'part="loader"', now - started)
    told(url, "loader_seen_at_seconds", "", now - seen)
    told(url, "last_received_at_seconds", 'channel="trade"', now - received_last)
    with connect(url) as connection:
        note_start(connection, "loader")
    return start_age(url)


def test_the_first_start_is_noted(database: str) -> None:
    with connect(database) as connection:
        note_start(connection, "loader")
    assert start_age(database) < 30


def test_a_start_after_a_stop_is_a_new_one(database: str) -> None:
    assert restart(database, started=9_000, seen=3_600, received_last=3_600) < 30


def test_a_start_after_one_that_brought_data_is_a_new_one(database: str) -> None:
    assert restart(database, started=9_000, seen=5, received_last=5) < 30


def test_who_starts_again_and_again_and_brings_nothing_has_been_starting_all_along(
    database: str,
) -> None:
    assert restart(database, started=400, seen=20, received_last=4_000) >= 400


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_nothing_is_late_within_its_limit() -> None:
    assert Start(NOW, ago(5_000), None).judge(59, 60) == (False, False)


def test_what_has_no_limit_is_never_late() -> None:
    assert Start(NOW, ago(5_000), None).judge(None, None) == (False, False)


def test_the_first_minutes_after_a_start_excuse_silence() -> None:
    for age in (None, 4_000.0):
        assert Start(NOW, ago(100), ago(9_000)).judge(age, 60) == (False, True)
        assert Start(NOW, ago(181), ago(9_000)).judge(age, 60) == (True, False)


def test_what_may_be_silent_for_an_hour_may_be_so_after_a_start_as_well() -> None:
    for age in (None, 9_000.0):
        assert Start(NOW, ago(3_000), None).judge(age, 3_600) == (False, False)
        assert Start(NOW, ago(3_700), None).judge(age, 3_600) == (True, False)
