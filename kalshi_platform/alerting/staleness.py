"""What is stale: the feed, its tables, candles, markets and outcomes.

One trouble is one condition: a feed of which nothing comes is told of as a whole, a table not while
its source is late.
"""

from collections.abc import Sequence

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.conditions import Condition, Links
from kalshi_platform.storage.reads.freshness import Source, TableAge
from kalshi_platform.storage.reads.reference_status import (
    REFRESH_SECONDS,
    UNCONFIRMED_SECONDS,
    Reference,
)
from kalshi_platform.storage.reads.status import Status

# Two sources that stop together are late within this of each other, and are one alert then; a
# table is told of when its source is not.
TOGETHER_SECONDS = 4.0
TABLE_SECONDS = 9.0

# Which asset of the feed shows a channel's data.
_ASSETS = {"trade": "raw_trades", "ticker": "quotes"}


def is_silent(sources: Sequence[Source]) -> bool:
    """Whether nothing comes of the whole feed: what follows from that is no trouble of its own."""
    late = [source.late for source in sources if source.limit is not None]
    return len(late) > 1 and all(late)


def source_conditions(sources: Sequence[Source], watched: float, links: Links) -> list[Condition]:
    """A feed of which nothing comes is one trouble, whatever it consists of."""
    late = [source for source in sources if source.late]
    whole = is_silent(sources)
    remedy = (
        "Look at `kalshi-platform status` and at the log of the run of stream_job (or of "
        "`kalshi-platform record`); `kalshi-platform doctor` tries key, clock and exchange."
    )
    conditions = [
        Condition(
            f"stale {source.channel}",
            kinds.STALE,
            "error",
            f"No message of the channel {source.channel} {_since(source)}.",
            remedy,
            links.asset(_ASSETS.get(source.channel, "feed_tape")),
            tells=not whole and watched >= (source.limit or 0),
            holds_seconds=TOGETHER_SECONDS,
        )
        for source in late
    ]
    if whole:
        words = "; ".join(f"{source.channel}: none {_since(source)}" for source in late)
        conditions.append(
            Condition(
                "stale feed",
                kinds.STALE,
                "error",
                f"No message of any channel comes. {words}.",
                remedy,
                links.asset("feed_tape"),
                tells=watched >= max(source.limit or 0 for source in late),
            )
        )
    return conditions


def _since(source: Source) -> str:
    limit = f" (limit {source.limit:.0f} s)" if source.limit is not None else ""
    if source.last_message_age is None:
        return f"so far{limit}"
    return f"for {source.last_message_age:.0f} s{limit}"


# Whose rows a channel brings; without it they cannot be new.
_CHANNELS = {"raw_trades": "trade", "quotes": "ticker"}


def table_conditions(status: Status, watched: float, links: Links) -> list[Condition]:
    """Tables that are late for another reason than their source is."""
    late = {source.channel for source in status.sources if source.late}
    silent = is_silent(status.sources)
    return [
        Condition(
            f"stale {table.table}",
            kinds.STALE,
            "error",
            _of_table(table),
            _TABLE_REMEDIES.get(table.table, _TABLE_REMEDY),
            links.asset(table.table),
            tells=watched >= (table.limit_seconds or 0)
            and _CHANNELS.get(table.table) not in late
            and not (silent and table.table in _OF_THE_FEED),
            holds_seconds=TABLE_SECONDS,
        )
        for table in status.tables
        if table.late
    ]


_OF_THE_FEED = ("raw_trades", "quotes", "lifecycle_events", "book_deltas")
_TABLE_REMEDY = (
    "Look at `kalshi-platform status`: a growing tape means that the loader does not keep up or "
    "does not run (`kalshi-platform load`); else nothing of the kind is being recorded."
)
_TABLE_REMEDIES = {
    "candles_1m": "Look at the runs of refresh_candles; answers stay right meanwhile, but slower.",
    "book_deltas": "Look at the books in `kalshi-platform status`, and at KALSHI_BOOKS.",
}


def _of_table(table: TableAge) -> str:
    limit = "" if table.limit_seconds is None else f" (limit {table.limit_seconds:.0f} s)"
    if table.age_seconds is None:
        return f"The table {table.table} has no row yet{limit}."
    if table.table == "candles_1m":
        return f"Candles have not been refreshed for {table.age_seconds:.0f} s{limit}."
    return f"The newest row of {table.table} is {table.age_seconds:.0f} s old{limit}."


def reference_conditions(
    reference: Reference | None, watched: float, links: Links
) -> list[Condition]:
    if reference is None:
        return []
    age, unconfirmed = reference.refresh_age, reference.oldest_unconfirmed_age
    remedy = (
        "Look at the runs of refresh_reference (or at the service `kalshi-platform reference`); "
        "`kalshi-platform doctor` tries the exchange's REST API."
    )
    if age is not None and age > REFRESH_SECONDS:
        cause = f": {reference.error}" if reference.error else ""
        return [
            Condition(
                "stale markets",
                kinds.STALE,
                "error",
                f"Markets have not been refreshed for {age:.0f} s "
                f"(limit {REFRESH_SECONDS:.0f} s){cause}.",
                remedy,
                links.runs("refresh_reference"),
                tells=watched >= REFRESH_SECONDS,
            )
        ]
    if unconfirmed is not None and unconfirmed > UNCONFIRMED_SECONDS:
        return [
            Condition(
                "stale settlements",
                kinds.STALE,
                "warning",
                f"{reference.unconfirmed_outcomes} outcomes have not been confirmed by REST, the "
                f"oldest for {unconfirmed:.0f} s (limit {UNCONFIRMED_SECONDS:.0f} s).",
                remedy,
                links.asset("settlements"),
                tells=watched >= UNCONFIRMED_SECONDS,
            )
        ]
    return []
