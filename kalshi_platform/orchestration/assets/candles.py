"""Candles by UTC day: minutes, hours and days in one transaction, so that they never disagree.

Today is refreshed each minute where trades or quotes changed; a past day is rebuilt whole.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg
import psycopg
from psycopg import sql

from kalshi_platform.orchestration.assets.feed import ANY_DAY, OWNERS
from kalshi_platform.orchestration.assets.trades import trades
from kalshi_platform.orchestration.charts import day_chart, small_chart
from kalshi_platform.orchestration.columns import Sources, table_metadata
from kalshi_platform.orchestration.partitions import day_of, has_partition, today, utc_days
from kalshi_platform.orchestration.resources import Database
from kalshi_platform.settings import Settings
from kalshi_platform.storage import tables
from kalshi_platform.storage.reads.days import rows_of_day
from kalshi_platform.storage.writes.candles import CandleCounts, rebuild_day, refresh_candles

_QUOTE_ORDER = [("quotes", "quoted_at"), ("quotes", "feed_order")]
_QUOTED = {
    f"{side}_{price}_micros": [("quotes", f"{side}_micros"), *_QUOTE_ORDER]
    for side in ("yes_bid", "yes_ask")
    for price in ("open", "high", "low", "close")
}
_FROM_FEED: Sources = {
    "market_ticker": [("trades", "market_ticker"), ("quotes", "market_ticker")],
    "starts_at": [("trades", "traded_at"), ("quotes", "quoted_at")],
    "open_micros": [("trades", "yes_price_micros"), ("trades", "feed_order")],
    "high_micros": [("trades", "yes_price_micros")],
    "low_micros": [("trades", "yes_price_micros")],
    "close_micros": [("trades", "yes_price_micros"), ("trades", "feed_order")],
    "volume_centis": [("trades", "count_centis")],
    "notional_micro_centis": [("trades", "yes_price_micros"), ("trades", "count_centis")],
    "trade_count": [("trades", "trade_id")],
    **_QUOTED,
    "open_interest_centis": [("quotes", "open_interest_centis"), *_QUOTE_ORDER],
    "quoted_at": [("quotes", "quoted_at")],
    "quote_count": [("quotes", "quoted_at")],
    "quote_gap": [("quotes", "quoted_at")],
}
_TRADES = trades.key.to_user_string()
TABLES = {table.name: table for table in (tables.candles_1m, tables.candles_1h, tables.candles_1d)}


def _spec(name: str, finer: str | None, interval: str) -> dg.AssetSpec:
    table = TABLES[name]
    lineage = _FROM_FEED
    # What stood at the start of a wider interval is looked up in the quotes themselves.
    deps = [_TRADES if finer is None else finer, "quotes"]
    if finer is not None:
        looked_up = {**_QUOTED, "quote_gap": _QUOTE_ORDER}
        lineage = {
            column.name: [(finer, column.name), *looked_up.get(column.name, [])]
            for column in table.columns
        }
    return dg.AssetSpec(
        name,
        deps=deps,
        description=(
            f"Trades, best bid and ask, and open interest of each market in each {interval} (UTC,"
            " half-open) in which it traded or was quoted. Block trades count; prices are null"
            " where nothing traded. What stood at the start is part of bid and ask."
            "\n\nRefreshed each minute by `candles_each_minute` where something changed; a quiet "
            "exchange has nothing to refresh. Materializing a past day rebuilds it whole." + ANY_DAY
        ),
        metadata=table_metadata(table, lineage),
        group_name="candles",
        kinds={"postgres"},
        owners=OWNERS,
        code_version="2",
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(minutes=3), fail_window=timedelta(minutes=6)
        ),
    )


class CandleRun(dg.Config):
    """Which candles a run computes."""

    # Only what changed, of any day: what the schedule of each minute asks for, also when its run
    # starts after midnight. Otherwise past days are rebuilt whole.
    only_stale: bool = False


@dg.multi_asset(
    name="candles",
    specs=[
        _spec("candles_1m", None, "minute"),
        _spec("candles_1h", "candles_1m", "hour"),
        _spec("candles_1d", "candles_1h", "day"),
    ],
    partitions_def=utc_days,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def candles(
    context: dg.AssetExecutionContext, config: CandleRun, database: Database
) -> Iterator[dg.MaterializeResult[Any]]:
    """Compute the candles of the run's days; other days that had stale minutes are reported too.

    A past day whose trades are in the archive alone is brought back first.
    """
    from kalshi_platform.archive.restoring import restore_dropped

    asked = [day_of(key) for key in context.partition_keys]
    whole = [] if config.only_stale else [day for day in asked if day != today()]
    restore_dropped(database.url, Settings().archive, "trades", whole, context.log.info)
    touched: dict[date, CandleCounts] = {}
    with database.connect() as connection:
        for day in whole:
            touched[day] = rebuild_day(connection, day)
            # Each day is whole by itself; a long range must not hold one transaction.
            connection.commit()
        if config.only_stale or today() in asked:
            counts = refresh_candles(connection)
            connection.commit()
            touched.update((day, counts) for day in counts.days)
        for name in TABLES:
            for day in asked:
                context.add_asset_metadata(
                    _metadata(connection, name, day, touched.get(day), whole=not config.only_stale),
                    asset_key=name,
                    partition_key=str(day),
                )
        for day in sorted(touched.keys() - set(asked)):
            if has_partition(day):
                for name in TABLES:
                    metadata = _metadata(connection, name, day, touched[day], whole=False)
                    context.log_event(
                        dg.AssetMaterialization(name, partition=str(day), metadata=metadata)
                    )
    for name in TABLES:
        yield dg.MaterializeResult(asset_key=name)


def _metadata(
    connection: psycopg.Connection,
    name: str,
    day: date,
    counts: CandleCounts | None,
    *,
    whole: bool,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"dagster/partition_row_count": _rows(connection, name, day)}
    if counts is not None:
        label = name.removeprefix("candles_")
        metadata["candles_written"] = counts.written[label]
        metadata["candles_removed"] = counts.removed[label]
        metadata["stale_minutes"] = counts.stale_minutes
    if name == "candles_1m":
        chart = (day_chart if whole else small_chart)(connection, day)
        if chart is not None:
            metadata["busiest_market"] = dg.MetadataValue.md(chart)
    return metadata


def _rows(connection: psycopg.Connection, name: str, day: date) -> int:
    if name == "candles_1m":
        return rows_of_day(connection, name, day).rows
    row = connection.execute(
        sql.SQL(
            "SELECT count(*) FROM {} WHERE starts_at >= {}::date::timestamptz"
            " AND starts_at < ({}::date + 1)::timestamptz"
        ).format(sql.Identifier(name), sql.Literal(day), sql.Literal(day))
    ).fetchone()
    assert row is not None, "count(*) returns a row"
    return int(row[0])
