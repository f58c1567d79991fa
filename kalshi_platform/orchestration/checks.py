"""Whether a day's tables are right: what must hold, how badly it matters, and the runs that ask.

The predicates are `transform.quality`'s; here they get a day, a severity and a place in the UI.
Checks are steps of their own: the refresh of each minute goes without them, every other run of the
asset ends with them, and each can be asked from the UI at any time.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from kalshi_platform.orchestration.partitions import day_of, today
from kalshi_platform.orchestration.resources import Database

_WRONG = dg.AssetCheckSeverity.ERROR
# An open gap is work under way or a hole that the API tells; it must not stop what comes after.
_SEVERITIES = {"no_open_gap": dg.AssetCheckSeverity.WARN}

CHECKS_OF_TRADES = [
    dg.AssetCheckSpec(
        "trade_ids_unique",
        asset="trades",
        description="No trade_id is held twice on the day or on a neighbouring day.",
        blocking=True,
    ),
    dg.AssetCheckSpec(
        "prices_in_range",
        asset="trades",
        description="Every price of yes is within (0, 1] dollar and every count positive.",
        blocking=True,
    ),
    dg.AssetCheckSpec(
        "no_open_gap",
        asset="trades",
        description="No interval of the day in which trades may be missing is still unhealed.",
    ),
]
CHECKS_OF_CANDLES = [
    dg.AssetCheckSpec(
        "candles_equal_trades",
        asset="candles_1m",
        description=(
            "Each stored minute equals its trades, unless it waits for the next refresh. Opens and "
            "closes that several trades of one instant could decide are counted apart."
        ),
    ),
    dg.AssetCheckSpec(
        "volume_kept",
        asset="candles_1d",
        description="Volume and number of trades are the same in days, hours and minutes.",
    ),
]


@dg.multi_asset_check(name="trades_checks", specs=CHECKS_OF_TRADES)
def trades_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Check the run's days of trades; without a day: today's."""
    yield from _results(context, database, CHECKS_OF_TRADES)


@dg.multi_asset_check(name="candles_checks", specs=CHECKS_OF_CANDLES)
def candles_checks(
    context: dg.AssetCheckExecutionContext, database: Database
) -> Iterator[dg.AssetCheckResult]:
    """Check the run's days of candles; without a day: today's."""
    yield from _results(context, database, CHECKS_OF_CANDLES)


CHECKS = [trades_checks, candles_checks]


def _results(
    context: dg.AssetCheckExecutionContext, database: Database, specs: Sequence[dg.AssetCheckSpec]
) -> Iterator[dg.AssetCheckResult]:
    from kalshi_platform.transform import quality

    days = days_of(context)
    with database.connect() as connection:
        for spec in specs:
            predicate = getattr(quality, spec.name)
            failed: dict[date, Any] = {}
            details: dict[str, Any] = {}
            for day in days:
                passed, found = predicate(connection, day)
                details = found
                if not passed:
                    failed[day] = found
            yield dg.AssetCheckResult(
                check_name=spec.name,
                asset_key=spec.asset_key,
                passed=not failed,
                severity=_SEVERITIES.get(spec.name, _WRONG),
                metadata=_metadata(days, failed, details),
            )


def days_of(context: dg.AssetCheckExecutionContext) -> list[date]:
    """The days of the run that the check is part of."""
    op_context = context.op_execution_context
    if op_context.has_partition_key or op_context.has_partition_key_range:
        return [day_of(key) for key in context.partition_keys]
    return [today()]


def _metadata(
    days: Sequence[date], failed: dict[date, Any], details: dict[str, Any]
) -> dict[str, Any]:
    checked = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
    metadata: dict[str, Any] = {"days": checked}
    if failed:
        metadata["failed_days"] = ", ".join(str(day) for day in failed)
        details = next(iter(failed.values()))
    return metadata | details
