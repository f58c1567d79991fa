"""Closed days as Parquet files: written, read back, and looked at again.

Who drops old days from the database (`partitions_ahead_job`) does so only with a file made here.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg

from kalshi_platform.orchestration.assets.feed import ANY_DAY, OWNERS
from kalshi_platform.orchestration.columns import table_metadata
from kalshi_platform.orchestration.partitions import day_of, utc_days
from kalshi_platform.orchestration.progress import log_progress
from kalshi_platform.orchestration.resources import Database
from kalshi_platform.settings import Settings
from kalshi_platform.storage import tables
from kalshi_platform.storage.reads.days import rows_of_day

ARCHIVE_POOL = "archive"
READS_BACK = "archive_reads_back"
_DAYS_PER_RUN = 7
# Files looked at again with each run; with one run a night each comes up every few weeks.
_LOOKED_AT_AGAIN = 3

_TABLES = {
    table.name: table
    for table in (
        tables.trades,
        tables.raw_trades,
        tables.quotes,
        tables.book_snapshots,
        tables.book_deltas,
        tables.lifecycle_events,
    )
}
ASSETS = {f"archived_{name}": name for name in _TABLES}


def _spec(asset: str, table: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset,
        deps=[table],
        description=(
            f"Closed UTC days of `{table}` as Parquet files (zstd, sorted by market and time, exact"
            " types) under KALSHI_ARCHIVE_URL, each with a manifest; read back and compared with"
            " the table before it counts. Days older than they are kept in the database are read"
            " from here.\n\nStale: see the runs of `archive_days` and the ticks of"
            " `archive_closed_days`; `kalshi-platform archive list` names what is there." + ANY_DAY
        ),
        metadata={
            **table_metadata(_TABLES[table]),
            "dagster/table_name": asset,
        },
        group_name="archive",
        kinds={"parquet", "file"},
        owners=OWNERS,
        code_version="1",
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(hours=30), fail_window=timedelta(hours=54)
        ),
    )


@dg.multi_asset(
    name="archive",
    specs=[_spec(asset, table) for asset, table in ASSETS.items()],
    partitions_def=utc_days,
    # A file is whole by itself: a chunk that fails is tried again, and skips what is done.
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=_DAYS_PER_RUN),
    pool=ARCHIVE_POOL,
    can_subset=True,
)
def archive(
    context: dg.AssetExecutionContext, database: Database
) -> Iterator[dg.MaterializeResult[Any]]:
    """Archive the run's days, unless their files are there and right; dropped days stay so.

    Raises:
        dg.Failure: a day is not over by two days yet; the others are archived.
    """
    from kalshi_platform.archive.days import last_closed_day
    from kalshi_platform.archive.store import Store

    store = Store(Settings().archive)
    days = [day_of(key) for key in context.partition_keys]
    closed = [day for day in days if day <= last_closed_day()]
    chosen = {key.to_user_string() for key in context.selected_asset_keys}
    for asset, table in ASSETS.items():
        if asset not in chosen:
            continue
        for day in closed:
            context.add_asset_metadata(
                _archive_day(context, database, store, table, day),
                asset_key=asset,
                partition_key=str(day),
            )
        if closed == days:
            yield dg.MaterializeResult(asset_key=asset)
    if closed != days:
        raise dg.Failure(
            f"{days[-1]} cannot be archived yet: days up to {last_closed_day()} are over for long"
            " enough, and were archived."
        )


def _archive_day(
    context: dg.AssetExecutionContext, database: Database, store: Any, table: str, day: date
) -> dict[str, Any]:
    from kalshi_platform.archive.writing import archive_day

    with database.connect() as connection:
        expected = rows_of_day(connection, table, day).rows
    tell = log_progress(context.log, f"of {table} of {day} written and read back")
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        tell(min(1.0, done / (2 * max(1, expected))))

    outcome = archive_day(database.url, store, table, day, on_rows=count)
    found = outcome.archive
    if found is None:
        context.log.info("%s has no rows of %s", table, day)
        return {"dagster/partition_row_count": 0}
    context.log.info("%s %s", found.path, "written" if outcome.written else "was there already")
    return {
        "dagster/partition_row_count": found.row_count,
        "path": dg.MetadataValue.path(f"{store.url.rstrip('/')}/{found.path}"),
        "bytes": found.size,
        "sha256": found.sha256.hex(),
        "in_the_database": found.dropped_at is None,
    }


@dg.multi_asset_check(
    name="archive_checks",
    specs=[
        dg.AssetCheckSpec(
            READS_BACK,
            asset=asset,
            description="Files of the archive have the size, sha256, rows and columns that were "
            "noted: those of the run's days, and those that were not read for longest.\n\n"
            "If it fails: a day that is still in the database is written anew by the next run of"
            " `archive_days`; of a day that is not, put back the file that `damaged` names from a"
            " copy of the archive.",
        )
        for asset in ASSETS
    ],
    can_subset=True,
)
def archive_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Read files of the archive again; one that is damaged fails, and its day is not dropped."""
    for key in sorted(context.selected_asset_check_keys):
        asset = key.asset_key.to_user_string()
        yield _read_again(context, database, asset, ASSETS[asset])


def _read_again(
    context: dg.AssetCheckExecutionContext, database: Database, asset: str, table: str
) -> dg.AssetCheckResult:
    from kalshi_platform.archive.days import least_lately_verified
    from kalshi_platform.archive.store import Store
    from kalshi_platform.archive.verifying import verify
    from kalshi_platform.storage.reads.archives import archive_of

    op_context = context.op_execution_context
    of_run = op_context.has_partition_key or op_context.has_partition_key_range
    days = [day_of(key) for key in context.partition_keys] if of_run else []
    with database.connect() as connection:
        asked = [found for day in days if (found := archive_of(connection, table, day))]
        again = least_lately_verified(connection, [table], _LOOKED_AT_AGAIN)
    files = {found.day: found for found in (*again, *asked)}
    store = Store(Settings().archive)
    verdicts = [verify(database.url, store, found) for found in files.values()]
    damaged = [verdict.damage for verdict in verdicts if verdict.damage is not None]
    return dg.AssetCheckResult(
        check_name=READS_BACK,
        asset_key=asset,
        passed=not damaged,
        metadata={
            "files_read": len(verdicts),
            "days": ", ".join(str(day) for day in sorted(files)),
            "changed_since": sum(verdict.has_changed for verdict in verdicts),
            **({"damaged": " ".join(damaged)} if damaged else {}),
        },
    )
