"""Order books: what the stream tells of the markets that are watched, by UTC day.

Filled by the recorder like the rest of the feed, and so materialized by reports
(`orchestration/report.py`). A book that nothing happens to is up to date: the report says so while
it is watched, and also while no book is wanted, so that stale means stale.
"""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Table

from kalshi_platform.orchestration.assets.feed import ANY_DAY, FILLED, OWNERS, feed_tape
from kalshi_platform.orchestration.columns import Sources, table_metadata
from kalshi_platform.orchestration.partitions import utc_days
from kalshi_platform.storage import tables


def _spec(
    table: Table, deps: list[dg.AssetSpec], description: str, lineage: Sources | None = None
) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=description + FILLED + ANY_DAY,
        metadata=table_metadata(table, lineage),
        partitions_def=utc_days,
        group_name="feed",
        kinds={"postgres"},
        owners=OWNERS,
        # A platform that never watched a book has nothing to be stale: its state is unknown.
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(minutes=10), fail_window=timedelta(minutes=20)
        ),
    )


book_deltas = _spec(
    tables.book_deltas,
    [feed_tape],
    "Each change of one price level of an order book that is watched, in the order of the feed.",
)
book_snapshots = _spec(
    tables.book_snapshots,
    [feed_tape, book_deltas],
    "Whole order books: the exchange's, which begin each watch, and our own in between (rebuilt "
    "from the one before and the deltas since), so that the book of any instant is found from a "
    "few thousand deltas at most.",
    {
        name: [("book_deltas", source)]
        for name, source in {
            "at": "at",
            "feed_order": "feed_order",
            "market_ticker": "market_ticker",
            "yes_micros": "price_micros",
            "yes_centis": "delta_centis",
            "no_micros": "price_micros",
            "no_centis": "delta_centis",
        }.items()
    },
)
TABLES = (tables.book_snapshots.name, tables.book_deltas.name)
