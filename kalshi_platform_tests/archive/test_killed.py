"""kill -9 at any step of archiving, dropping or restoring: a rerun ends right, nothing is lost.

Judged by content: at every moment each row is in the table, or in a file that was read back.
"""

import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kalshi_platform.archive.dropping import days_kept, drop_old_days
from kalshi_platform.archive.layout import SORTED_BY, partition_name
from kalshi_platform.archive.reading_back import check_file, sum_of_file
from kalshi_platform.archive.restoring import restore_day
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import PARTITIONED
from kalshi_platform.storage.reads.archives import all_archives
from kalshi_platform_tests.archive.seeded import fill, held

NOW = datetime(2026, 3, 20, 0, 5, tzinfo=UTC)
OLD = NOW.date() - timedelta(days=9)
SIGKILLED = -9
KILLS = 4


def run(work: str, database: str, folder: Path, step: int | None = None) -> int | None:
    """Work in a process of its own; how many steps it took, or None if it was killed."""
    command = [sys.executable, "-m", "kalshi_platform_tests.archive.killed", work, database]
    command += [str(folder), str(OLD), NOW.isoformat(), *([] if step is None else [str(step)])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if ended.returncode == SIGKILLED:
        return None
    assert ended.returncode == 0, ended.stderr[-2000:]
    return int(ended.stdout)


def do(work: str, database: str, store: Store) -> None:
    """The same work, to its end."""
    if work == "drop":
        drop_old_days(database, store, days_kept(5, 5, 5), now=NOW)
        return
    for table in SORTED_BY:
        (archive_day if work == "archive" else restore_day)(database, store, table, OLD)


def rows_anywhere(database: str, store: Store) -> dict[str, list[str]]:
    """The day's rows: of the table, or of the file where the table has no partition any more."""
    found = {}
    with connect(database, autocommit=True) as connection:
        archives = {archive.table_name: archive for archive in all_archives(connection)}
        for table in SORTED_BY:
            archive = archives.get(table)
            partition = partition_name(table, OLD)
            is_held = connection.execute("SELECT to_regclass(%s)", [partition]).fetchone() != (
                None,
            )
            # Never neither, and never half: the note and the rows go together.
            assert is_held == (archive is None or archive.dropped_at is None), table
            if is_held:
                found[table] = held(connection, table, OLD)
            else:
                assert archive is not None and archive.verified_at is not None
                check_file(store, archive)
                total = sum_of_file(connection, store, archive.path, table)
                assert total == (archive.row_count, archive.checksum)
                found[table] = ["file"] * archive.row_count
            if archive is not None:
                check_file(store, archive)
    return found


def counts(rows: dict[str, list[str]]) -> dict[str, int]:
    return {table: len(found) for table, found in rows.items()}


@pytest.mark.timeout(300)
def test_a_rerun_after_any_kill_ends_right_with_every_row(database, tmp_path):
    store = Store(str(tmp_path / "archive"))
    folder = tmp_path / "archive"
    with connect(database) as connection:
        for table in PARTITIONED:
            connection.execute(
                f"DROP TABLE IF EXISTS {table.name}_{OLD:%Y%m%d}".encode(), prepare=False
            )
        fill(connection, OLD, rows=40)
    whole = rows_anywhere(database, store)
    dice = random.Random(20260311)
    # How many steps each takes is measured first, in a folder and rows of its own turn.
    steps = {}
    for work in ("archive", "drop", "restore"):
        steps[work] = run(work, database, folder)
    for turn in range(KILLS):
        with connect(database) as connection:
            # Changed, so that there is something to write again.
            connection.execute("UPDATE quotes SET dollar_volume = dollar_volume % 1000 + 1")
            connection.execute("UPDATE archives SET verified_at = NULL, restored_at = NULL")
            whole = {table: held(connection, table, OLD) for table in SORTED_BY}
        for work in ("archive", "drop", "restore"):
            total = steps[work]
            assert total is not None
            share = (turn + dice.random()) / KILLS
            step = max(1, int(total * share))
            killed = run(work, database, folder, step)
            assert counts(rows_anywhere(database, store)) == counts(whole), (work, step, total)
            do(work, database, store)
            assert counts(rows_anywhere(database, store)) == counts(whole), (work, step, total)
            if work == "drop":
                with connect(database) as connection:
                    gone = [one.table_name for one in all_archives(connection) if one.dropped_at]
                assert sorted(gone) == sorted(SORTED_BY), (step, killed)
                for path in folder.rglob("*.parquet"):
                    pq.read_table(path)
        # Back in the tables: row by row what they were.
        assert rows_anywhere(database, store) == whole
        for day_folder in folder.glob("*/day=*"):
            assert len(list(day_folder.iterdir())) == 2, day_folder
