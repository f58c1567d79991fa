"""Whether a day's tables are right: what must hold, how badly it matters, and the runs that ask.

The predicates are `transform.quality`'s; here they get a day, a severity and a place in the UI.
Checks are steps of their own: the refresh of each minute goes without them, every other run of the
asset ends with them, and each can be asked from the UI at any time.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import dagster as dg

from kalshi_platform.orchestration.partitions import day_of, today
from kalshi_platform.orchestration.resources import Database
from kalshi_platform.storage.reads.archives import dropped_days
from kalshi_platform.transform import (
    quality,
    quality_books,
    quality_candles,
    quality_quotes,
    quality_reference,
)


class Place(NamedTuple):
    """Where a check stands and how much it matters."""

    asset: str
    remedy: str
    """What an operator does when it fails."""
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    # Candles of such trades would be worthless.
    blocking: bool = False


_WARN = dg.AssetCheckSeverity.WARN
_REBUILD = "materialize the candles of that day."
_REPORT = "a fault of ours: report it with the rows named."
_ASK_AGAIN = "materialize the day, which asks REST again; what stays is unknown to the exchange."
PLACES = {
    "trade_ids_unique": Place("trades", _REPORT, blocking=True),
    "prices_in_range": Place(
        "trades",
        "look at the rows named: the exchange changed its units, or we misread them.",
        blocking=True,
    ),
    # Work under way, or a hole that the API tells; it must not stop what comes after.
    "no_open_gap": Place(
        "trades",
        "wait a minute, or look at the table gaps: `detail` says why REST was not trusted yet.",
        _WARN,
    ),
    "candles_equal_trades": Place("candles_1m", _REBUILD),
    "candles_equal_quotes": Place("candles_1m", _REBUILD),
    # The feed may tell both sides of a quote one after the other.
    "candles_in_order": Place(
        "candles_1m", "look at the quotes of the interval named: the exchange told them so.", _WARN
    ),
    # Healing over REST loses the feed's order; such opens and closes are counted, not wrong.
    "ties_decided": Place(
        "candles_1m",
        "nothing: REST alone saw trades of one instant, whose order nobody knows.",
        _WARN,
    ),
    "volume_kept": Place("candles_1d", _REBUILD),
    # Asked again until REST answers; what nobody would ask again for is an error.
    "traded_markets_known": Place("markets", _ASK_AGAIN, _WARN),
    "hierarchy_complete": Place("markets", _ASK_AGAIN, _WARN),
    "past_markets_have_outcomes": Place(
        "settlements", "see the runs of `refresh_reference`; then materialize the day."
    ),
    "outcome_value_matches_result": Place(
        "settlements", "compare the markets named with the exchange's own pages."
    ),
    "outcomes_are_their_last_version": Place("settlements", _REPORT),
    "settlements_confirmed": Place(
        "settlements", "see the runs of `refresh_reference`; REST may be behind the stream.", _WARN
    ),
    "events_belong_to_series": Place("events", _ASK_AGAIN, _WARN),
    "books_equal_their_deltas": Place(
        "book_snapshots",
        "load the day anew from the tape; do not trust the books of the markets named.",
    ),
    # The exchange's own word, which is kept as it was told.
    "books_not_crossed": Place(
        "book_snapshots",
        "one market for a moment: the exchange's own doing; many: a delta is missing.",
        _WARN,
    ),
    "watches_explained": Place("book_deltas", _REPORT),
    "quotes_in_range": Place(
        "quotes", "the exchange changed its units, or we misread them: leave that day's quotes."
    ),
    "quotes_not_crossed": Place(
        "quotes", "the exchange said so; many at once are worth a question to it.", _WARN
    ),
    "quoted_volume_never_falls": Place(
        "quotes",
        "nothing, as a rule: the exchange corrected it, or quotes came out of order.",
        _WARN,
    ),
    "odometer_agrees": Place(
        "quotes",
        "missing_centis: materialize `trades` of that day, which asks REST for what is missing.",
        _WARN,
    ),
}


_OF_TRADES = frozenset({"trades", "candles_1m", "candles_1h", "candles_1d"})


CHECKS = (
    *quality.CHECKS,
    *quality_candles.CHECKS,
    *quality_reference.CHECKS,
    *quality_books.CHECKS,
    *quality_quotes.CHECKS,
)


def _specs(assets: Container[str]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=PLACES[check.name].asset,
            description=f"{check.description}\n\nIf it fails: {PLACES[check.name].remedy}",
            blocking=PLACES[check.name].blocking,
        )
        for check in CHECKS
        if PLACES[check.name].asset in assets
    ]


CHECKS_OF_TRADES = _specs(("trades",))
CHECKS_OF_CANDLES = _specs(("candles_1m", "candles_1h", "candles_1d"))
CHECKS_OF_REFERENCE = _specs(("series", "events", "markets", "settlements"))
CHECKS_OF_FEED = _specs(("quotes", "book_snapshots", "book_deltas"))


# Each is a subset, so that any of them may be asked for alone: in the UI, too.
@dg.multi_asset_check(name="trades_checks", specs=CHECKS_OF_TRADES, can_subset=True)
def trades_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Check the run's days of trades; without a day: today's."""
    yield from _results(days_of(context), database, _asked(context, CHECKS_OF_TRADES))


@dg.multi_asset_check(name="candles_checks", specs=CHECKS_OF_CANDLES, can_subset=True)
def candles_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Check the run's days of candles; without a day: today's."""
    yield from _results(days_of(context), database, _asked(context, CHECKS_OF_CANDLES))


@dg.multi_asset_check(name="reference_checks", specs=CHECKS_OF_REFERENCE, can_subset=True)
def reference_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Check the run's days of markets, events and outcomes; without a day: today's."""
    yield from _results(days_of(context), database, _asked(context, CHECKS_OF_REFERENCE))


@dg.multi_asset_check(name="feed_checks", specs=CHECKS_OF_FEED, can_subset=True)
def feed_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Check today's and yesterday's quotes and books: no run makes their days, and so certifies."""
    days = [today() - timedelta(days=1), today()]
    yield from _results(days, database, _asked(context, CHECKS_OF_FEED))


def _asked(
    context: dg.AssetCheckExecutionContext, specs: Sequence[dg.AssetCheckSpec]
) -> list[dg.AssetCheckSpec]:
    asked = context.selected_asset_check_keys
    return [spec for spec in specs if spec.key in asked]


def _results(
    days: Sequence[date], database: Database, specs: Sequence[dg.AssetCheckSpec]
) -> Iterator[dg.AssetCheckResult]:
    queries = {check.name: check.query for check in CHECKS}
    with database.connect() as connection:
        archived = dropped_days(connection, "trades", days)
    engine = database.engine()
    try:
        for spec in specs:
            found: dict[date, dict[str, Any]] = {}
            # Candles of a day whose trades are in the archive alone have nothing to be equal to.
            left_out = archived if spec.asset_key.to_user_string() in _OF_TRADES else []
            asked = [day for day in days if day not in left_out]
            for day in asked:
                with engine.connect() as connection:
                    found[day] = dict(connection.execute(queries[spec.name](day)).mappings().one())
            failed = [day for day in asked if not found[day].pop("passed")]
            yield dg.AssetCheckResult(
                check_name=spec.name,
                asset_key=spec.asset_key,
                passed=not failed,
                severity=PLACES[spec.name].severity,
                metadata={
                    "days": ", ".join(map(str, asked)),
                    **({"archived_days": ", ".join(map(str, left_out))} if left_out else {}),
                    **({"failed_days": ", ".join(map(str, failed))} if failed else {}),
                    **(_shown(found[failed[0] if failed else asked[-1]]) if asked else {}),
                },
            )
    finally:
        engine.dispose()


def days_of(context: dg.AssetCheckExecutionContext) -> list[date]:
    """The days of the run that the check is part of; asked alone: today."""
    op_context = context.op_execution_context
    if op_context.has_partition_key or op_context.has_partition_key_range:
        return [day_of(key) for key in context.partition_keys]
    return [today()]


def _shown(details: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as the UI takes them: whole numbers stay whole, rows are a table."""
    return {name: shown for name, value in details.items() if (shown := _value(value)) is not None}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return _table(value)
    if isinstance(value, Decimal) and value == int(value):
        return int(value)
    return value if isinstance(value, int | float | str) else str(value)


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue | None:
    """Rows named in a check's answer, all with the same columns; None for no row."""
    if not rows:
        return None
    schema = dg.TableSchema([dg.TableColumn(name, "text") for name in rows[0]])
    records = [
        dg.TableRecord({name: "" if value is None else str(value) for name, value in row.items()})
        for row in rows
    ]
    return dg.MetadataValue.table(records, schema)
