"""`kalshi-platform backfill`: past days over REST: trades compared, candles made, markets read."""

import threading
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from rich.progress import Progress

from kalshi_platform.archive.restoring import restore_dropped
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_days import ReferenceDayReport, backfill_days
from kalshi_platform.ingest.sweep import DayNotBegun, DayReport, sweep_day
from kalshi_platform.operations.asking import STOPPED, client, progress_bar, shown_in
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.settings import Settings
from kalshi_platform.storage.budget import Priority
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import CandleCounts, rebuild_day


class Part(StrEnum):
    """What a backfill may be held to."""

    TRADES = "trades"
    CANDLES = "candles"
    MARKETS = "markets"


ALL_PARTS = frozenset(Part)


def backfill(
    settings: Settings,
    first: date,
    last: date,
    stop: threading.Event,
    parts: Collection[Part] = ALL_PARTS,
) -> bool:
    """Fill the days `first` to `last` (both included), oldest first; prints a line a day.

    Markets come last: those that trades have named meanwhile are then asked for as well, combos
    above all. Stopped and run again, it continues inside the day it was in; a day done before is
    compared again and changes no row.

    Returns:
        Whether all days were done; False after a stop.
    """
    days = _days(first, last)
    changed = 0
    with client(settings, Priority.CENSUS, stop) as rest, progress_bar() as progress:
        if parts != {Part.MARKETS}:
            for day in days:
                done = _backfill_trades(settings, rest, day, stop, parts, progress)
                if done is None:
                    progress.console.print(STOPPED)
                    return False
                changed += done
        if Part.MARKETS in parts:
            done = _backfill_markets(settings, rest, days, stop, progress)
            if done is None:
                progress.console.print(STOPPED)
                return False
            changed += done
        progress.console.print(
            "Every row was there already; nothing changed."
            if changed == 0
            else f"{changed:,} rows added or changed."
        )
    return True


def parts_named(names: Collection[str]) -> frozenset[Part]:
    """The parts of these names, all where none is named.

    Raises:
        Refusal: one is no part.
    """
    known = {part.value: part for part in Part}
    for name in names:
        if name not in known:
            raise Refusal(f"--only {name} is not known: give {', '.join(known)}.", 2)
    return frozenset(known[name] for name in names) or ALL_PARTS


def day_line(day: date, report: DayReport | None, candles: CandleCounts | None) -> str:
    """What happened to one day's trades and candles; None for what was not asked for."""
    done = []
    if report is not None:
        done.append(f"{report.swept:,} trades compared")
        if report.added + report.changed:
            done.append(f"{report.added:,} added, {report.changed:,} made more exact")
    if candles is not None and candles.changed:
        done.append(f"{candles.changed:,} candles written")
    if len(done) <= (report is not None):
        done.append("nothing changed")
    return f"{day}  {'; '.join(done)}"


def markets_line(report: ReferenceDayReport) -> str:
    """What happened to one day's markets."""
    told = f"{report.day}  {report.told:,} times told of a market"
    if report.added + report.changed == 0:
        return f"{told}; nothing changed"
    return f"{told}; {report.added:,} added, {report.changed:,} changed"


def _backfill_trades(
    settings: Settings,
    rest: RestClient,
    day: date,
    stop: threading.Event,
    parts: Collection[Part],
    progress: Progress,
) -> int | None:
    """Trades and candles of one day; rows that changed, None after a stop."""
    report: DayReport | None = None
    candles: CandleCounts | None = None
    task = progress.add_task(f"{day}", total=1.0)
    # Compared with a day that is in the archive alone, every trade would seem to be missing.
    restore_dropped(settings.url, settings.archive, "trades", [day], progress.console.print)
    if Part.TRADES in parts:
        try:
            report = sweep_day(
                settings.url, rest, day, on_progress=shown_in(progress, task), stop=stop
            )
        except Interrupted:
            return None
        except DayNotBegun as error:
            raise Refusal(f"{error}.", 2) from error
        if not report.complete:
            return None
    if stop.is_set():
        return None
    if Part.CANDLES in parts:
        with connect(settings.url) as connection:
            candles = rebuild_day(connection, day)
    progress.remove_task(task)
    progress.console.print(day_line(day, report, candles), soft_wrap=True)
    changed = 0 if report is None else report.added + report.changed
    return changed + (0 if candles is None else candles.changed)


def _backfill_markets(
    settings: Settings,
    rest: RestClient,
    days: list[date],
    stop: threading.Event,
    progress: Progress,
) -> int | None:
    """Markets of all the days at once, since the archive is walked once for all of them."""
    task = progress.add_task("markets", total=1.0)
    reports = backfill_days(settings.url, rest, days, shown_in(progress, task), stop)
    if not all(report.complete for report in reports):
        return None
    progress.remove_task(task)
    for report in reports:
        progress.console.print(markets_line(report), soft_wrap=True)
    # The same in each report: of all the days.
    rejected, beside = reports[0].rejected, reports[0].beside
    if beside:
        progress.console.print(f"{beside:,} events, series and other traded markets beside")
    if rejected:
        progress.console.print(
            f"{rejected:,} answers could not be read: see the table rejected_messages."
        )
    return sum(report.added + report.changed for report in reports) + beside


def _days(first: date, last: date) -> list[date]:
    today = datetime.now(UTC).date()
    if first > last:
        raise Refusal(f"--from {first} is after --to {last}: give the earlier day first.", 2)
    if last > today:
        raise Refusal(f"--to {last} is in the future; today is {today} (UTC).", 2)
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
