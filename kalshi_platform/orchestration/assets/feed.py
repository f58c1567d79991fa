"""What the stream lands: the tape and the tables loaded from it.

External to Dagster's executor: one recorder fills all four at once and for as long as it runs, so
they are materialized by reports (`orchestration/report.py`), not by runs of their own.
"""

from datetime import timedelta

import dagster as dg
from sqlalchemy import Table

from kalshi_platform.orchestration.columns import table_metadata
from kalshi_platform.orchestration.partitions import utc_days
from kalshi_platform.storage import tables

OWNERS = ["team:data"]
# Dagster's freshness knows no partitions: told with every asset that it can deceive about.
ANY_DAY = (
    "\n\nThe freshness shown here is since any day was last reported, so that a backfill or a "
    "restored old day looks fresh, too. How old the newest rows are is told by `GET /health`, "
    "`kalshi-platform status` and alerts, which read the rows themselves."
)
FILLED = (
    "\n\nFilled by the recorder, which `stream_keeper` starts as a run of `stream_job`; reported "
    "here by `feed_report`. Nothing lands: look at the newest ticks and runs of those."
)
_LINE = dg.TableSchema(
    [
        dg.TableColumn(
            "received_at_ns", "integer", description="receiver's clock; nanoseconds since 1970, UTC"
        ),
        dg.TableColumn(
            "connection", "integer", description="WebSocket connection: Unix seconds of its opening"
        ),
        dg.TableColumn("frame", "object", description="the frame as received, where it is JSON"),
        dg.TableColumn("text", "string", description="the frame as received, where it is not"),
        dg.TableColumn(
            "event",
            "string",
            description="instead of a frame, what the connection did: open, subscribe, close, …",
        ),
    ]
)

feed_tape = dg.AssetSpec(
    "feed_tape",
    description=(
        "Every frame of the exchange's WebSocket as received, with its time and connection, in "
        "compressed files (`kalshi-platform tape cat` prints them). Anything loaded from it can "
        "be loaded again.\n\nStale: no recorder writes. See the runs of `stream_job` and the ticks "
        "of `stream_keeper`, which starts one; `kalshi-platform doctor` checks key and exchange."
    ),
    metadata={"dagster/column_schema": _LINE},
    partitions_def=utc_days,
    group_name="feed",
    kinds={"websockets", "file"},
    owners=OWNERS,
    freshness_policy=dg.FreshnessPolicy.time_window(
        warn_window=timedelta(minutes=3), fail_window=timedelta(minutes=6)
    ),
)


def _loaded(table: Table, description: str, quiet: timedelta) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        deps=[feed_tape],
        description=description + FILLED + ANY_DAY,
        metadata=table_metadata(table),
        partitions_def=utc_days,
        group_name="feed",
        kinds={"postgres"},
        owners=OWNERS,
        freshness_policy=dg.FreshnessPolicy.time_window(warn_window=quiet, fail_window=2 * quiet),
    )


raw_trades = _loaded(
    tables.raw_trades,
    "Each trade as each source reported it (WebSocket, REST, archive), by day of landing. "
    "Appended to only; duplicates are evidence and stay.",
    quiet=timedelta(minutes=3),
)
quotes = _loaded(
    tables.quotes,
    "Each ticker message: best quotes, last price, cumulative volume, open interest.",
    quiet=timedelta(minutes=3),
)
lifecycle_events = _loaded(
    tables.lifecycle_events,
    "Each change of a market's life: created, opened, determined, settled.",
    # The ordinary channel is quiet at night.
    quiet=timedelta(minutes=30),
)

FEED = [feed_tape, raw_trades, quotes, lifecycle_events]
