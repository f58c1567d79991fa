"""A day's file holds the day's rows, in order, exactly; it is noted once it was read back."""

import json
from datetime import date
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kalshi_platform.archive.errors import ArchiveDamaged
from kalshi_platform.archive.layout import SORTED_BY, TABLES, schema_of
from kalshi_platform.archive.reading_back import check_file, sum_of_file
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.archives import all_archives, archive_of
from kalshi_platform_tests.archive.seeded import TICKERS, fill

DAY = date(2026, 3, 1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "archive"))


@pytest.fixture
def filled(database: str) -> str:
    """A database with seeded rows of one day in all six tables."""
    with connect(database) as connection:
        fill(connection, DAY)
    return database


def rows_of(store: Store, path: str) -> list[dict[str, object]]:
    return pq.read_table(store.place(path)).to_pylist()


@pytest.mark.parametrize("table", SORTED_BY)
def test_a_file_holds_every_row_of_the_day_in_order_and_nothing_else(filled, store, table):
    outcome = archive_day(filled, store, table, DAY)
    assert outcome.written and outcome.archive is not None
    with connect(filled) as connection:
        columns = [column.name for column in TABLES[table].columns]
        order = ", ".join(SORTED_BY[table])
        cursor = connection.execute(
            f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}".encode()
        )
        expected = [dict(zip(columns, row, strict=True)) for row in cursor]
    found = rows_of(store, outcome.archive.path)
    for row in expected:
        if "trade_id" in row:
            row["trade_id"] = row["trade_id"].bytes
    for row in found:
        if "message" in row:
            row["message"] = json.loads(row["message"])
    key = repr if table == "lifecycle_events" else None
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    if key is None:
        assert [[row[name] for name in SORTED_BY[table]] for row in found] == [
            [row[name] for name in SORTED_BY[table]] for row in expected
        ]
    assert pq.read_schema(store.place(outcome.archive.path)).equals(schema_of(table))


def test_what_is_noted_of_a_file_is_so_and_its_manifest_says_the_same(filled, store):
    for table in SORTED_BY:
        archive_day(filled, store, table, DAY)
    with connect(filled) as connection:
        archives = all_archives(connection)
    assert {archive.table_name for archive in archives} == set(SORTED_BY)
    for archive in archives:
        data = Path(store.place(archive.path)).read_bytes()
        assert archive.path.endswith(f".{archive.sha256.hex()[:12]}.parquet")
        assert (archive.size, archive.sha256) == (len(data), sha256(data).digest())
        assert archive.verified_at is not None and archive.dropped_at is None
        folder = Path(store.place(archive.path)).parent
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["sha256"] == archive.sha256.hex()
        assert manifest["rows"] == archive.row_count == len(rows_of(store, archive.path))
        assert manifest["checksum"] == str(archive.checksum)
        assert manifest["first"] < manifest["last"]
        assert [column["name"] for column in manifest["columns"]] == schema_of(
            archive.table_name
        ).names
        assert {path.name for path in folder.iterdir()} == {
            "manifest.json",
            archive.path.rpartition("/")[2],
        }


@pytest.mark.parametrize("table", SORTED_BY)
def test_archiving_again_writes_nothing_unless_a_row_came_or_changed(filled, store, table):
    first = archive_day(filled, store, table, DAY).archive
    again = archive_day(filled, store, table, DAY)
    assert not again.written and again.archive == first
    with connect(filled) as connection:
        connection.execute(
            f"UPDATE {table} SET market_ticker = 'KXCHANGED'"
            f" WHERE ctid = (SELECT min(ctid) FROM {table})".encode()
        )
    third = archive_day(filled, store, table, DAY)
    assert third.written and third.archive is not None and first is not None
    assert third.archive.checksum != first.checksum
    folder = Path(store.place(third.archive.path)).parent
    assert len(list(folder.iterdir())) == 2


def test_values_exchanged_between_two_rows_are_noticed(database, store):
    with connect(database) as connection:
        fill(connection, DAY, rows=2)
    first = archive_day(database, store, "quotes", DAY).archive
    with connect(database) as connection:
        connection.execute(
            "UPDATE quotes SET price_micros ="
            " (SELECT price_micros FROM quotes AS other WHERE other.ctid <> quotes.ctid)"
        )
    second = archive_day(database, store, "quotes", DAY)
    assert second.written and second.archive is not None and first is not None
    assert second.archive.checksum != first.checksum


def test_a_day_without_rows_is_a_file_without_rows(database, store):
    with connect(database) as connection:
        fill(connection, DAY, rows=0)
        connection.execute("DELETE FROM book_snapshots")
    for table in SORTED_BY:
        archive = archive_day(database, store, table, DAY).archive
        assert archive is not None and archive.row_count == 0
        assert rows_of(store, archive.path) == []


def test_a_day_that_has_no_partition_is_not_archived(database, store):
    outcome = archive_day(database, store, "trades", date(2020, 1, 1))
    assert outcome == (None, False)


def test_row_groups_say_which_markets_and_times_they_hold(database, store, monkeypatch):
    monkeypatch.setattr("kalshi_platform.archive.writing.rows_per_group", lambda table: 64)
    monkeypatch.setattr("kalshi_platform.archive.copying._CHUNK_BYTES", 1_000)
    with connect(database) as connection:
        fill(connection, DAY, rows=500)
    archive = archive_day(database, store, "trades", DAY).archive
    assert archive is not None
    metadata = pq.ParquetFile(store.place(archive.path)).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [
        *[64] * 7,
        52,
    ]
    names = metadata.schema.names
    groups = [
        metadata.row_group(group).column(names.index("market_ticker")).statistics
        for group in range(metadata.num_row_groups)
    ]
    assert all(one.max <= other.min for one, other in pairwise(groups))
    assert {groups[0].min, groups[-1].max} == {min(TICKERS), max(TICKERS)}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "replace"])
def test_a_damaged_file_is_found(filled, store, damage):
    archive = archive_day(filled, store, "trades", DAY).archive
    assert archive is not None
    check_file(store, archive)
    path = Path(store.place(archive.path))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"PAR1")
    with pytest.raises(ArchiveDamaged):
        check_file(store, archive)
    # What the table still has is written once more.
    assert archive_day(filled, store, "trades", DAY).written
    with connect(filled) as connection:
        mended = archive_of(connection, "trades", DAY)
    assert mended is not None
    check_file(store, mended)


@pytest.mark.parametrize("table", SORTED_BY)
def test_a_file_restores_to_the_very_same_rows(filled, store, table):
    archive = archive_day(filled, store, table, DAY).archive
    assert archive is not None
    with connect(filled, autocommit=True) as connection:
        found = sum_of_file(connection, store, archive.path, table)
    assert found == (archive.row_count, archive.checksum)
