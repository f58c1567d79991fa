"""What works on past days does no harm to one whose rows are in the archive alone."""

import re
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from kalshi_platform.archive.dropping import days_kept, drop_old_days
from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.archive.restoring import restore_dropped
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.ingest.heal import heal_open_gaps
from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.ingest.tape import segment_path, segments
from kalshi_platform.ingest.tape_retention import Outcome, remove_old_segments
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.reads.archives import DayDropped
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform_tests.archive.seeded import fill, held

NOW = datetime(2026, 3, 20, 0, 5, tzinfo=UTC)
OLD = NOW.date() - timedelta(days=9)
NOON = datetime(2026, 3, 11, 12, tzinfo=UTC)
CANDLES = ("candles_1m", "candles_1h", "candles_1d")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "archive"))


@pytest.fixture
def dropped(database: str, store: Store) -> str:
    """A database whose old day has its candles, and its rows in the archive alone."""
    with connect(database) as connection:
        fill(connection, OLD, rows=60)
        connection.execute("UPDATE trades SET count_centis = 100")
        connection.commit()
        rebuild_day(connection, OLD)
        connection.execute("DELETE FROM stale_candles")
    for table in SORTED_BY:
        archive_day(database, store, table, OLD)
    outcome = drop_old_days(database, store, days_kept(5, 5, 5), now=NOW)
    assert len(outcome.dropped) == len(SORTED_BY)
    return database


def candles(database: str) -> dict[str, list[Any]]:
    with connect(database) as connection:
        return {table: held(connection, table) for table in CANDLES}


def test_its_candles_are_never_made_from_nothing(dropped, store):
    before = candles(dropped)
    assert all(before.values())
    with connect(dropped) as connection, pytest.raises(DayDropped, match="archive restore --day"):
        rebuild_day(connection, OLD)
    assert candles(dropped) == before
    restore_dropped(dropped, store.url, "trades", [OLD])
    with connect(dropped) as connection:
        rebuild_day(connection, OLD)
    assert candles(dropped) == before


def test_its_stale_minutes_wait_until_it_is_back(dropped, store):
    before = candles(dropped)
    with connect(dropped) as connection:
        connection.execute(
            "INSERT INTO stale_candles (starts_at, market_ticker)"
            " SELECT starts_at, market_ticker FROM candles_1m"
        )
        stale = held(connection, "candles_1m")
    with connect(dropped) as connection:
        counts = refresh_candles(connection)
    assert (counts.stale_minutes, counts.changed) == (0, 0)
    assert candles(dropped) == before
    with connect(dropped) as connection:
        assert len(held(connection, "stale_candles")) == len(stale)
    outcome = drop_old_days(dropped, store, days_kept(5, 5, 5), now=NOW)
    assert [(each.table, each.day) for each in outcome.restored] == [("trades", OLD)]
    with connect(dropped) as connection:
        assert refresh_candles(connection).stale_minutes == len(stale)
    assert candles(dropped) == before
    with connect(dropped) as connection:
        assert held(connection, "stale_candles") == []


def test_a_quote_that_comes_late_does_not_make_its_candles_forget_the_others(dropped, store):
    restore_dropped(dropped, store.url, "trades", [OLD])
    before = candles(dropped)
    with connect(dropped) as connection:
        row = connection.execute("SELECT market_ticker FROM candles_1d LIMIT 1").fetchone()
        assert row is not None
        ensure_partitions(connection, [OLD])
        connection.execute(
            "INSERT INTO quotes VALUES (%s, now(), 1, 1, 1, 1, 1, 1, 1, 1, 5, 4, 6, 'KXLATE')",
            [NOON],
        )
    with connect(dropped) as connection:
        rebuild_day(connection, OLD)
    after = candles(dropped)
    for table in CANDLES:
        assert set(before[table]) <= set(after[table])


def test_a_sweep_refuses_it_before_it_asks_anybody(dropped):
    with pytest.raises(DayDropped):
        sweep_day(dropped, cast("Any", _Nobody()), OLD)


def test_a_gap_in_it_waits_and_says_for_what(dropped):
    with connect(dropped) as connection:
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
            " VALUES ('trade', 'test', 'open', %s, %s)",
            [NOON, NOON + timedelta(seconds=5)],
        )
    assert heal_open_gaps(dropped, cast("Any", _Nobody()), threading.Event()) == 0
    with connect(dropped) as connection:
        row = connection.execute("SELECT status, attempts, detail FROM gaps").fetchone()
    assert row is not None
    assert row[:2] == ("open", 1)
    assert f"The trades of {OLD} are in the archive only." in row[2]


class _Nobody:
    """An exchange that must not be asked for trades."""

    def drain_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        return {}, {}


@pytest.mark.parametrize(
    ("loaded_beyond", "archived", "old", "removed"),
    [
        (True, True, True, True),
        (False, True, True, False),
        (True, False, True, False),
        (True, True, False, False),
    ],
)
def test_tape_goes_once_it_is_loaded_archived_and_old(
    database, store, tmp_path, loaded_beyond, archived, old, removed
):
    tape = tmp_path / "tape"
    tape.mkdir()
    opened = [int((NOON + timedelta(minutes=5 * n)).timestamp() * 1000) for n in range(4)]
    for segment in opened:
        segment_path(tape, segment).write_bytes(b"frames")
    with connect(database) as connection:
        fill(connection, OLD, rows=3)
        position = opened[-1] if loaded_beyond else opened[0]
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position)"
            " VALUES ('ws', 'tape', jsonb_build_object('segment', %s::bigint, 'offset', 0))",
            [position],
        )
    for table in SORTED_BY if archived else list(SORTED_BY)[:-1]:
        archive_day(database, store, table, OLD)
    with connect(database) as connection:
        days = 7 if old else 30
        told = remove_old_segments(connection, tape, days, now=NOW, dry_run=True)
        assert segments(tape) == opened
        outcome = remove_old_segments(connection, tape, days, now=NOW)
    assert told == outcome
    # The newest file is never touched.
    assert segments(tape) == (opened[-1:] if removed else opened)
    if removed:
        assert outcome == Outcome(3, 18, 0, None)
    elif old:
        assert outcome.removed == 0 and outcome.left == 3 and outcome.reason is not None


def test_a_file_opens_in_pandas_as_the_documentation_shows(database, store, tmp_path, monkeypatch):
    day = date(2026, 11, 13)
    with connect(database) as connection:
        fill(connection, day, rows=30)
        expected = {
            (Decimal(price).scaleb(-6), Decimal(count).scaleb(-2))
            for price, count in connection.execute(
                "SELECT yes_price_micros, count_centis FROM trades WHERE traded_on = %s",
                [day],
            )
        }
    archive_day(database, Store(str(tmp_path / ".kalshi/archive")), "trades", day)
    text = (DOCS / "operations.md").read_text()
    [example] = re.findall(r"```python\n(.*?pandas.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "operations.md", "exec"), names)
    frame = names["trades"]
    found = set(zip(frame["yes_price"], frame["contracts"], strict=True))
    assert found == expected
    assert all(isinstance(price, Decimal) for price in frame["yes_price"])
    assert str(frame["feed_order"].dtype) == "int64[pyarrow]"
