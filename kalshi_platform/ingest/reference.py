"""The sync of markets, events, series and outcomes with REST.

Each minute everything that changed is asked for; in between, what the stream has named and what
waits for its outcome to be confirmed, each when its turn comes (`next_read_at` of its row). All
that is to be done stands in the database, so a crash forgets nothing.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import structlog

from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import (
    ExchangeError,
    Forbidden,
    KeyUnusable,
    Unauthorized,
    is_transient,
)
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_changes import Changes
from kalshi_platform.ingest.reference_pages import Pages, Tally
from kalshi_platform.ingest.reference_queue import Queue
from kalshi_platform.ingest.window import count_calls
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import REFERENCE, Lease
from kalshi_platform.storage.reads.reference import REFRESHED, SOURCE, completed_at
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.sweeps import save_checkpoint

ROUND_SECONDS = 60.0
# After an outage the changes of hours are read; outcomes have their turn in between.
_LONGEST_ROUND_SECONDS = 15.0
# Things that become due one by one are asked for together.
_LOOK_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError)
# No waiting makes these pass.
_FATAL = (KeyUnusable, Unauthorized, Forbidden)

log = structlog.get_logger(__name__)


@dataclass
class RefreshReport:
    """What one call of `refresh` did."""

    is_elsewhere: bool = False
    """Another process is at it; nothing was done."""
    rounds: int = 0
    """Complete ones: everything that changed was asked for, and answered."""
    failures: int = 0
    error: str | None = None
    """The last failure."""
    tally: Tally = field(default_factory=Tally)


def refresh(url: str, rest: RestClient, stop: threading.Event, *, seconds: float) -> RefreshReport:
    """Keep in step with REST for `seconds`, or until `stop` is set; one process at a time.

    An exchange that fails or cannot be reached, and a database that is away, are not raised: they
    are logged, counted, shown in the status, and asked again with growing pauses.

    Args:
        rest: a call of its own that meets an outage is repeated for as long as it was made to.

    Raises:
        ExchangeError: the exchange refuses our key.
    """
    report = RefreshReport()
    lease = Lease(url, REFERENCE)
    try:
        if not lease.acquire():
            report.is_elsewhere = True
            return report
        with connect(url) as connection:
            _Sync(connection, rest, stop, time.monotonic() + seconds, report).run(lease)
    except Interrupted:
        pass  # asked to stop; what has landed stays
    except _AWAY as error:
        report.failures += 1
        report.error = str(error).strip()
        log.warning("reference_waits_for_database", reason=report.error)
    finally:
        lease.release()
    return report


class _Sync:
    def __init__(
        self,
        connection: psycopg.Connection,
        rest: RestClient,
        stop: threading.Event,
        ends_at: float,
        report: RefreshReport,
    ) -> None:
        self._connection = connection
        self._rest = rest
        self._stop = stop
        self._ends_at = ends_at
        self._report = report
        pages = Pages(connection, report.tally)
        self._round_began = time.monotonic()
        self._changes = Changes(pages, rest, stop, self._round_is_long)
        self._queue = Queue(pages, rest, stop, self._is_over)

    def run(self, lease: Lease) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            failures = self._report.failures
            try:
                has_more = self._turn()
            finally:
                self._count_calls()
            if self._report.failures > failures:
                wait, pause = pause, min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                wait, pause = 0.0 if has_more else _LOOK_SECONDS, _FIRST_PAUSE_SECONDS
            if time.monotonic() + wait >= self._ends_at or self._stop.wait(wait):
                return
            if not lease.still_held():
                log.warning("reference_lease_lost")
                return

    def _turn(self) -> bool:
        """One look at everything; whether there is more to do at once.

        A refused request of one kind does not keep the others waiting; an outage does.
        """
        has_more = False
        steps: tuple[tuple[str, Callable[[], bool]], ...] = (
            ("outcomes and markets", self._queue.take_markets),
            ("changes", self._round),
            ("events", self._queue.take_events),
            ("series", self._queue.take_series),
        )
        for name, take in steps:
            if self._is_over():
                break
            try:
                has_more |= take()
            except _FATAL as error:
                self._note_failure(name, error)
                raise
            except ExchangeError as error:
                self._note_failure(name, error)
                if is_transient(error):
                    break
        return has_more

    def _round(self) -> bool:
        """A round of changes, if its time has come."""
        age = self._age_of_last_round()
        if age is not None and age < ROUND_SECONDS:
            return False
        self._round_began = time.monotonic()
        if not self._changes.take():
            return True  # the rest of it follows, from the watermark on
        self._report.rounds += 1
        self._save_refreshed(datetime.now(UTC), None)
        log.info(
            "reference_refreshed",
            seconds=round(time.monotonic() - self._round_began, 2),
            changed=self._report.tally.changed,
        )
        return False

    def _age_of_last_round(self) -> float | None:
        at = completed_at(self._connection)
        self._connection.commit()
        return None if at is None else (datetime.now(UTC) - at).total_seconds()

    def _note_failure(self, step: str, error: ExchangeError) -> None:
        self._connection.rollback()
        self._report.failures += 1
        self._report.error = str(error)
        add_to_counters(self._connection, {("reference_failures_total", ""): 1})
        self._save_refreshed(completed_at(self._connection), str(error))
        log.warning("reference_failed", step=step, reason=str(error))

    def _save_refreshed(self, at: datetime | None, error: str | None) -> None:
        position = {"at": None if at is None else at.isoformat(), "error": error}
        save_checkpoint(self._connection, SOURCE, REFRESHED, position)
        self._connection.commit()

    def _count_calls(self) -> None:
        if not self._connection.broken:
            self._connection.rollback()
            count_calls(self._connection, self._rest)
            self._connection.commit()

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends_at

    def _round_is_long(self) -> bool:
        return self._is_over() or time.monotonic() - self._round_began > _LONGEST_ROUND_SECONDS
