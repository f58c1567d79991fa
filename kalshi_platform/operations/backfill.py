"""`kalshi-platform backfill`: days over REST, compared, healed and made into candles."""

import threading
from datetime import UTC, date, datetime, timedelta
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.sweep import DayNotBegun, DayReport, sweep_day
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.settings import Settings
from kalshi_platform.storage.budget import PostgresBudget
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import CandleCounts, rebuild_day


def backfill(settings: Settings, first: date, last: date, stop: threading.Event) -> bool:
    """Sweep the days `first` to `last` (both included), oldest first; prints a line a day.

    Stopped and run again, it continues inside the day it was in; a day done before is compared
    again and changes no row.

    Returns:
        Whether all days were done; False after a stop.
    """
    days = _days(first, last)
    assert settings.api_key_id is not None, "the settings name an exchange"
    assert settings.private_key_path is not None, "the settings name an exchange"
    signer = Signer.from_pem(settings.api_key_id, settings.private_key_path)
    budget = PostgresBudget(settings.url, settings.rest_tokens_per_second)
    changed = 0
    with RestClient(settings.rest_url, signer, budget, stop=stop) as rest, _progress() as progress:
        for day in days:
            task = progress.add_task(f"{day}", total=1.0)
            try:
                report = sweep_day(
                    settings.url,
                    rest,
                    day,
                    on_progress=partial(_show, progress, task),
                    stop=stop,
                )
            except Interrupted:
                stop.set()
            except DayNotBegun as error:
                raise Refusal(f"{error}.", 2) from error
            if stop.is_set() or not report.complete:
                progress.console.print("Stopped; run the same command again to continue.")
                return False
            with connect(settings.url) as connection:
                candles = rebuild_day(connection, day)
            progress.remove_task(task)
            progress.console.print(day_line(day, report, candles), soft_wrap=True)
            changed += report.added + report.changed + candles.changed
        progress.console.print(
            "Every row was there already; nothing changed."
            if changed == 0
            else f"{changed:,} rows added or changed."
        )
    return True


def day_line(day: date, report: DayReport, candles: CandleCounts) -> str:
    """What happened to one day."""
    if report.added + report.changed + candles.changed == 0:
        return f"{day}  {report.swept:,} trades compared; nothing changed"
    return (
        f"{day}  {report.swept:,} trades compared, {report.added:,} added, "
        f"{report.changed:,} made more exact; {candles.changed:,} candles written"
    )


def _days(first: date, last: date) -> list[date]:
    today = datetime.now(UTC).date()
    if first > last:
        raise Refusal(f"--from {first} is after --to {last}: give the earlier day first.", 2)
    if last > today:
        raise Refusal(f"--to {last} is in the future; today is {today} (UTC).", 2)
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def _show(progress: Progress, task: TaskID, done: float) -> None:
    progress.update(task, completed=done)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(),
    )
