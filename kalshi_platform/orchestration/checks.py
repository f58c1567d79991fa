"""Whether a day's tables are right: what must hold, how badly it matters, and the runs that ask.

The predicates are `transform.quality`'s; here they get a day, a severity and a place in the UI.
Checks are steps of their own: the refresh of each minute goes without them, every other run of the
asset ends with them, and each can be asked from the UI at any time.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import dagster as dg

from kalshi_platform.orchestration.partitions import day_of, today
from kalshi_platform.orchestration.resources import Database
from kalshi_platform.transform import quality


class Place(NamedTuple):
    """Where a check stands and how much it matters."""

    asset: str
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    # Candles of such trades would be worthless.
    blocking: bool = False


_WARN = dg.AssetCheckSeverity.WARN
PLACES = {
    "trade_ids_unique": Place("trades", blocking=True),
    "prices_in_range": Place("trades", blocking=True),
    # Work under way, or a hole that the API tells; it must not stop what comes after.
    "no_open_gap": Place("trades", _WARN),
    "candles_equal_trades": Place("candles_1m"),
    # Healing over REST loses the feed's order; such opens and closes are counted, not wrong.
    "ties_decided": Place("candles_1m", _WARN),
    "volume_kept": Place("candles_1d"),
}


def _specs(assets: Container[str]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=PLACES[check.name].asset,
            description=check.description,
            blocking=PLACES[check.name].blocking,
        )
        for check in quality.CHECKS
        if PLACES[check.name].asset in assets
    ]


CHECKS_OF_TRADES = _specs(("trades",))
CHECKS_OF_CANDLES = _specs(("candles_1m", "candles_1h", "candles_1d"))


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


def _results(
    context: dg.AssetCheckExecutionContext, database: Database, specs: Sequence[dg.AssetCheckSpec]
) -> Iterator[dg.AssetCheckResult]:
    days = days_of(context)
    queries = {check.name: check.query for check in quality.CHECKS}
    engine = database.engine()
    try:
        for spec in specs:
            found: dict[date, dict[str, Any]] = {}
            for day in days:
                with engine.connect() as connection:
                    found[day] = dict(connection.execute(queries[spec.name](day)).mappings().one())
            failed = [day for day in days if not found[day].pop("passed")]
            yield dg.AssetCheckResult(
                check_name=spec.name,
                asset_key=spec.asset_key,
                passed=not failed,
                severity=PLACES[spec.name].severity,
                metadata={
                    "days": ", ".join(map(str, days)),
                    **({"failed_days": ", ".join(map(str, failed))} if failed else {}),
                    **_shown(found[failed[0] if failed else days[-1]]),
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
    """Figures as the UI takes them; whole numbers that SQL returns as numeric stay whole."""
    return {
        name: int(value)
        if isinstance(value, Decimal) and value == int(value)
        else value
        if isinstance(value, int | float | str)
        else str(value)
        for name, value in details.items()
    }
