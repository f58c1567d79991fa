"""`kalshi-platform reference` and `kalshi-platform census`: markets, events, series, outcomes."""

import threading

import structlog

from kalshi_platform.ingest.census import CensusReport
from kalshi_platform.ingest.census import census as read_all
from kalshi_platform.ingest.reference import refresh
from kalshi_platform.operations.asking import STOPPED, client, progress_bar, shown_in
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.settings import Settings
from kalshi_platform.storage.budget import Priority

log = structlog.get_logger(__name__)

# A lease that was lost, and a database that was away, are seen again after so long.
_WINDOW_SECONDS = 600.0
_PAUSE_SECONDS = 2.0
_STAND_BY_SECONDS = 0.5
# A call is given up soon, so that the outage shows in the status; the next look repeats it.
_RETRY_SECONDS = 15.0


def keep_reference(settings: Settings, stop: threading.Event) -> None:
    """Keep in step with REST until `stop` is set; while another process does, stand by.

    Raises:
        ExchangeError: the exchange refuses our key.
    """
    standing_by = False
    with client(settings, Priority.ENRICHMENT, stop, retry_seconds=_RETRY_SECONDS) as rest:
        while not stop.is_set():
            report = refresh(settings.url, rest, stop, seconds=_WINDOW_SECONDS)
            if not report.is_elsewhere:
                standing_by = False
                stop.wait(_PAUSE_SECONDS if report.failures else 0)
                continue
            if not standing_by:
                log.info("standing_by", reason="another process keeps the markets of this database")
                standing_by = True
            stop.wait(_STAND_BY_SECONDS)


def take_census(settings: Settings, stop: threading.Event) -> bool:
    """Read every list of the exchange once, or go on where the last census stopped.

    Returns:
        Whether it was done; False after a stop.

    Raises:
        Refusal: another census is under way.
    """
    with client(settings, Priority.CENSUS, stop) as rest, progress_bar() as progress:
        task = progress.add_task("census", total=1.0)
        report = read_all(settings.url, rest, stop, shown_in(progress, task))
        if report.is_elsewhere:
            raise Refusal("Another census is under way: wait for it, or stop it.")
        if not report.complete:
            progress.console.print(STOPPED)
            return False
        progress.remove_task(task)
        for line in census_lines(report):
            progress.console.print(line, soft_wrap=True)
    return True


def census_lines(report: CensusReport) -> list[str]:
    """What a census found."""
    tally = report.tally
    lines = [
        f"{name:<8} {sum(changes):>9,} read, {changes.added:,} added, {changes.changed:,} changed"
        for name, changes in (
            ("series", tally.series),
            ("events", tally.events),
            ("markets", tally.markets),
        )
    ]
    if tally.rejected:
        lines.append(f"{tally.rejected:,} could not be read: see the table rejected_messages.")
    if tally.changed == 0:
        lines.append("Every row was there already; nothing changed.")
    return lines
