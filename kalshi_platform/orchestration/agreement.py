"""The check that our candles are the exchange's: a sample of a day's markets, value by value."""

import threading
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from kalshi_platform.orchestration.checks import days_of
from kalshi_platform.orchestration.resources import Database, Exchange
from kalshi_platform.storage.reads.archives import dropped_days
from kalshi_platform.storage.recorded_exchange import OtherExchange
from kalshi_platform.transform.agreement import COLUMNS, Agreement, Verdict
from kalshi_platform.transform.candles import Interval

if TYPE_CHECKING:
    from kalshi_platform.exchange.rest import RestClient
    from kalshi_platform.ingest.agreement import Comparison

# A backfill of months must not spend the budget on a check.
_MOST_DAYS = 7
_RETRY_SECONDS = 20.0
_DIFFERENCES_SHOWN = 20


@dg.asset_check(
    asset="candles_1m",
    description="Minutes, hours and days of the 10 busiest markets and of 20 drawn by lot are the "
    "exchange's own candlesticks; what differs inside a recorded gap, or where trades of one "
    "instant could all be the first or last, is counted apart.\n\nIf it fails: look at "
    "first_differences. A few at the border of an interval are clocks; a whole column is a "
    "misreading. not_compared: the exchange could not be asked.",
)
def agrees_with_the_exchange(
    context: dg.AssetCheckExecutionContext, database: Database, exchange: Exchange
) -> dg.AssetCheckResult:
    """Compare the run's days (the newest seven at most); without a day: today.

    An exchange that cannot be asked is told, and fails no run.
    """
    from kalshi_platform.exchange.errors import ExchangeError

    days = days_of(context)[-_MOST_DAYS:]
    stop = threading.Event()
    try:
        with (
            exchange.rest(database, stop, retry_seconds=_RETRY_SECONDS) as rest,
            database.connect() as connection,
        ):
            comparison = _compare(connection, rest, days)
    except (ExchangeError, OtherExchange) as error:
        return _result(days, passed=False, not_compared=str(error) or type(error).__name__)
    finally:
        stop.set()
    return _result(days, passed=comparison.passed, **_metadata(comparison))


def _compare(
    connection: psycopg.Connection, rest: "RestClient", days: Sequence[date]
) -> "Comparison":
    from kalshi_platform.ingest.agreement import Comparison, compare_day
    from kalshi_platform.ingest.window import count_calls

    # All that is read of a day is read as of one instant: a refresh may commit in between.
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    total = Comparison()
    try:
        archived = dropped_days(connection, "trades", days)
        connection.commit()
        for day in days:
            # Which of several trades could be a close, only they can say.
            if day in archived:
                continue
            total.add(compare_day(connection, rest, day))
            connection.commit()
    finally:
        connection.rollback()
        count_calls(connection, rest)
        connection.commit()
    return total


def _result(days: Sequence[date], *, passed: bool, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"days": ", ".join(map(str, days)), **metadata},
    )


def _metadata(comparison: "Comparison") -> dict[str, Any]:
    found = comparison.agreement
    metadata: dict[str, Any] = {
        "markets_compared": len(comparison.markets),
        "values_compared": found.compared,
        "values_equal": found.count(Verdict.EQUAL),
        "values_in_gaps": found.count(Verdict.IN_GAP),
        "values_undecided": found.count(Verdict.UNDECIDED),
        "values_different": found.count(Verdict.DIFFERENT),
        "intervals_without_our_quotes": found.not_quoted,
    }
    if found.compared:
        metadata["agreement"] = dg.MetadataValue.md(agreement_table(found))
    if found.differences:
        metadata["first_differences"] = dg.MetadataValue.md(differences_table(found))
    if comparison.since is not None:
        metadata["compared_since"] = comparison.since.isoformat(timespec="seconds")
    if comparison.until is not None:
        metadata["compared_until"] = comparison.until.isoformat(timespec="minutes")
    if comparison.unknown:
        metadata["markets_unknown_to_the_exchange"] = ", ".join(sorted(comparison.unknown))
    if comparison.off_grid:
        metadata["candles_that_end_elsewhere"] = comparison.off_grid
    if comparison.days_without_quotes:
        days = ", ".join(map(str, comparison.days_without_quotes))
        metadata["only_trades_compared"] = f"no quotes were recorded on {days}"
    return metadata


def agreement_table(found: Agreement) -> str:
    """Markdown: per column, how many values of each interval are equal, and what the others are.

    Columns of which nothing was compared are left out.
    """
    labels = [interval.label for interval in Interval]
    others = [verdict for verdict in Verdict if verdict is not Verdict.EQUAL]
    rows: list[list[object]] = []
    for column in COLUMNS:
        counts = {
            verdict: [found.verdicts[label, column, verdict] for label in labels]
            for verdict in Verdict
        }
        compared = [sum(each) for each in zip(*counts.values(), strict=True)]
        if any(compared):
            equal = zip(counts[Verdict.EQUAL], compared, strict=True)
            shares = (f"{part:,} of {whole:,}" for part, whole in equal)
            rows.append([column, *shares, *(sum(counts[verdict]) for verdict in others)])
    header = ["column", *(f"{label} equal" for label in labels), *(each.value for each in others)]
    return _markdown(header, rows)


def differences_table(found: Agreement) -> str:
    """Markdown: the first differences, each with both values in the units of its column."""
    first = sorted(found.differences, key=lambda each: (each.interval, each.starts_at))
    return _markdown(
        ["interval", "market", "starts at", "column", "theirs", "ours"],
        (
            [
                each.interval,
                each.market_ticker,
                each.starts_at.isoformat(timespec="minutes"),
                each.column,
                "none" if each.theirs is None else each.theirs,
                "none" if each.ours is None else each.ours,
            ]
            for each in first[:_DIFFERENCES_SHOWN]
        ),
    )


def _markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
