"""Own snapshots of watched books, so that no rebuild has to read more than a few thousand deltas.

Taken beside the loader, over a connection of its own: it neither waits nor is waited for.
"""

import threading

import psycopg
import structlog

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.own_snapshots import (
    Counted,
    Taken,
    count_deltas,
    take_snapshots,
)

log = structlog.get_logger()

_MOST_DELTAS = 2_000
_LONGEST_SECONDS = 900.0
_LOOK_SECONDS = 5.0
_AGAIN_SECONDS = 30.0
# One transaction takes so many: what it reads stays the same while the loader goes on.
_AT_ONCE = 50


def keep_snapshots(database_url: str, stop: threading.Event) -> None:
    """Take snapshots of books as they become due, until `stop` is set.

    A database that is away is waited for; any other failure is logged, counted and tried again.
    """
    snapshots = BookSnapshots(database_url)
    pause = _LOOK_SECONDS
    while not stop.wait(pause):
        pause = _LOOK_SECONDS
        try:
            snapshots.take_due(stop)
        except psycopg.OperationalError as error:
            log.warning("database_away", error=str(error).strip(), retry_seconds=pause)
        except Exception as error:  # no failure here may stop recording
            pause = _AGAIN_SECONDS
            log.error("book_snapshots_failed", retry_seconds=pause, exc_info=error)
            _count_failure(database_url)


class BookSnapshots:
    """Takes the snapshots that are due.

    Args:
        most_deltas: since the last snapshot; from so many on one is due.
        longest_seconds: since the last snapshot; from then on any delta is reason enough.
    """

    def __init__(
        self,
        database_url: str,
        *,
        most_deltas: int = _MOST_DELTAS,
        longest_seconds: float = _LONGEST_SECONDS,
    ) -> None:
        self._url = database_url
        self._most_deltas = most_deltas
        self._longest_seconds = longest_seconds
        self._counted: list[Counted] = []

    def due(self, connection: psycopg.Connection) -> list[str]:
        """Markets whose book is known and takes long to rebuild."""
        self._counted = count_deltas(connection, self._counted, self._longest_seconds)
        return sorted(
            book.market_ticker
            for book in self._counted
            if book.deltas >= self._most_deltas or (book.old and book.deltas)
        )

    def take_due(self, stop: threading.Event) -> int:
        """Take the snapshots that are due; returns how many were kept."""
        kept = 0
        with connect(self._url, autocommit=True) as connection:
            due = self.due(connection)
            for first in range(0, len(due), _AT_ONCE):
                if stop.is_set():
                    break
                with connection.transaction():
                    taken = take_snapshots(connection, due[first : first + _AT_ONCE])
                    _count(connection, taken)
                kept += taken.kept
                for market in taken.below_zero:
                    log.error("book_below_zero", market=market)
        return kept


def _count(connection: psycopg.Connection, taken: Taken) -> None:
    counts = {
        ("own_snapshots_total", ""): taken.kept,
        ("books_below_zero_total", ""): len(taken.below_zero),
    }
    add_to_counters(connection, {key: count for key, count in counts.items() if count})


def _count_failure(database_url: str) -> None:
    try:
        with connect(database_url) as connection:
            add_to_counters(connection, {("book_snapshot_failures_total", ""): 1})
    except psycopg.Error as error:
        log.warning("failure_not_counted", reason=str(error).strip())
