"""The watchlist: which order books the recorder is to watch, chosen anew as markets come and go.

A thread of the recording service. It reads the tables, where the loader leaves what is traded and
which markets are open; while they are away the last choice stays. It also sees to it that the books
that the stream watches are known to the tables: of one that is not (its last message could not be
read) a snapshot is asked for.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import structlog

from kalshi_platform.exchange.books import Books
from kalshi_platform.ingest.book_choice import BookChoice
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.watchlist import (
    busiest_markets,
    closed_among,
    feed_clock,
    loader_lag,
    open_markets_of,
    open_watches,
    outdated_books,
)
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.watchlist import Refusal, WatchState, save_watch_state

log = structlog.get_logger()

_CHOOSE_SECONDS = 15.0
# At first, trades and markets are only just becoming known.
_BEGINNING_SECONDS, _CHOOSE_FIRST_SECONDS = 60.0, 2.0
_GLANCE_SECONDS = 0.25
# The loader commits a snapshot well within this, beside its lag.
_UNKNOWN_SECONDS = 0.5
_FIRST_ASK_AGAIN_SECONDS, _LONGEST_ASK_AGAIN_SECONDS = 5.0, 300.0
_OUTDATED_SECONDS = 60.0
_PROOF_AGAIN_SECONDS = 900.0
_AGAIN_SECONDS = 5.0
# A recorder that ends waits for it.
_STATEMENT_SECONDS = 4
_MOST_EXAMPLES = 20


@dataclass
class _Unknown:
    """A book that the stream watches and the tables do not know."""

    since: float
    ask_at: float
    pause_seconds: float = _FIRST_ASK_AGAIN_SECONDS


class Watchlist:
    """Chooses the books of one recorder.

    Args:
        database_url: the tables that the choice is made from.
        books: where the choice goes, and where the stream tells what became of it.
        words: the setting KALSHI_BOOKS.
        at_most: never more books than this.

    Raises:
        ValueError: the setting cannot be read.
    """

    def __init__(self, database_url: str, books: Books, words: str, at_most: int) -> None:
        self._url = database_url
        self._books = books
        self._words = words
        self._choice = BookChoice.parse(words)
        self._at_most = at_most
        self._left_out = 0
        self._unknown: dict[str, _Unknown] = {}
        self._short_since: datetime | None = None
        self._error: str | None = None
        self._saved: WatchState | None = None
        self._saved_at = 0.0
        self._choose_at = 0.0
        self._outdated_at = 0.0
        self._proof_asked_at: dict[str, float] = {}
        self._began_at: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Choose until `stop` is set. No failure of this may stop recording: it is tried again."""
        while not stop.is_set():
            try:
                with connect(self._url, autocommit=True) as connection:
                    connection.execute(f"SET statement_timeout = '{_STATEMENT_SECONDS} s'".encode())
                    while not stop.wait(_GLANCE_SECONDS):
                        self.look(connection, time.monotonic())
            except psycopg.OperationalError as error:
                log.warning("database_away", error=str(error).strip(), retry_seconds=_AGAIN_SECONDS)
            except Exception as error:  # recording goes on with the last choice
                log.error("choosing_books_failed", retry_seconds=_AGAIN_SECONDS, exc_info=error)
                _count_failure(self._url)
            stop.wait(_AGAIN_SECONDS)

    def look(self, connection: psycopg.Connection, now: float) -> None:
        """One look: choose if it is time, see that what is watched is known, tell the tables.

        Args:
            connection: commits by itself.
            now: seconds of a monotonic clock.
        """
        if now >= self._choose_at:
            self._began_at = now if self._began_at is None else self._began_at
            self._choose(connection)
            begins = now - self._began_at < _BEGINNING_SECONDS
            self._choose_at = now + (_CHOOSE_FIRST_SECONDS if begins else _CHOOSE_SECONDS)
        known = open_watches(connection)
        self._ask_for_unknown(connection, known, now)
        if now >= self._outdated_at:
            self._outdated_at = now + _OUTDATED_SECONDS
            self._ask_for_outdated(connection, now)
        self._save(connection, known, now)

    def _choose(self, connection: psycopg.Connection) -> None:
        try:
            wanted = self._chosen(connection)
        except psycopg.errors.QueryCanceled as error:
            self._error = str(error).strip()
            log.warning("books_not_chosen", reason=self._error)
            return
        self._error = None
        if wanted != self._books.wanted:
            log.info("books_wanted", markets=len(wanted), left_out=self._left_out)
            self._books.wanted = wanted

    def _chosen(self, connection: psycopg.Connection) -> tuple[str, ...]:
        """The books that are wanted now, the most wanted first."""
        choice, most = self._choice, self._at_most
        clock = feed_clock(connection)
        now = clock.now if clock is not None else datetime.now(UTC)
        closed = closed_among(connection, choice.tickers, now) if choice.tickers else set()
        chosen = [ticker for ticker in choice.tickers if ticker not in closed]
        if choice.series:
            chosen += open_markets_of(connection, choice.series, now, most + 1)
        if choice.busiest and clock is not None:
            ranked = busiest_markets(connection, clock, 2 * choice.busiest)
            chosen += still_busiest(ranked, self._books.wanted, choice.busiest)
        distinct = tuple(dict.fromkeys(chosen))
        self._left_out = max(0, len(distinct) - most)
        return distinct[:most]

    def _ask_for_unknown(self, connection: psycopg.Connection, known: set[str], now: float) -> None:
        """Ask for the books that the stream watches and the tables do not know."""
        unknown = self._books.report.watched - known
        self._unknown = {
            ticker: self._unknown.get(ticker) or _Unknown(now, now + _UNKNOWN_SECONDS)
            for ticker in unknown
        }
        due = [ticker for ticker, one in self._unknown.items() if now >= one.ask_at]
        if not due:
            return
        lag = loader_lag(connection)
        if lag is None:
            return  # nobody loads; who begins to will find the snapshots on the tape
        for ticker in due:
            one = self._unknown[ticker]
            if now - one.since < _UNKNOWN_SECONDS + lag:
                continue
            self._books.doubted.append(ticker)
            one.ask_at = now + one.pause_seconds
            one.pause_seconds = min(_LONGEST_ASK_AGAIN_SECONDS, one.pause_seconds * 2)

    def _ask_for_outdated(self, connection: psycopg.Connection, now: float) -> None:
        """Ask for a snapshot of each book now and then: the loader holds it to its deltas."""
        if loader_lag(connection) is None:
            return
        # What was asked for lately may be on its way, or never be answered.
        self._proof_asked_at = {
            ticker: at
            for ticker, at in self._proof_asked_at.items()
            if now - at < _PROOF_AGAIN_SECONDS
        }
        watched = self._books.report.watched - self._proof_asked_at.keys()
        outdated = outdated_books(connection, watched)
        self._proof_asked_at |= dict.fromkeys(outdated, now)
        self._books.outdated.extend(outdated)

    def _save(self, connection: psycopg.Connection, known: set[str], now: float) -> None:
        """Tell the tables what changed, and now and then that somebody is here."""
        wanted = self._books.wanted
        watched = len(known.intersection(wanted))
        if watched >= len(wanted):
            self._short_since = None
        elif self._short_since is None:
            self._short_since = datetime.now(UTC)
        state = WatchState(
            choice=self._words,
            wanted=len(wanted),
            watched=watched,
            left_out=self._left_out,
            refused=_by_reason(self._books.report.refused.items()),
            short_since=None if self._short_since is None else self._short_since.isoformat(),
            error=self._error,
        )
        if state != self._saved or now - self._saved_at >= _CHOOSE_SECONDS:
            with connection.transaction():
                save_watch_state(connection, state)
            self._saved, self._saved_at = state, now


def still_busiest(ranked: Sequence[str], watched: Sequence[str], count: int) -> list[str]:
    """The `count` busiest, where one that is watched stays while it is among twice as many.

    Args:
        ranked: the busiest markets in order, twice `count` of them.
        watched: what is watched now, in order of preference; it keeps its place.
    """
    among = set(ranked)
    staying = [ticker for ticker in watched if ticker in among][:count]
    coming = [ticker for ticker in ranked if ticker not in set(staying)]
    return staying + coming[: count - len(staying)]


def _by_reason(refused: Iterable[tuple[str, str]]) -> tuple[Refusal, ...]:
    by_reason: dict[str, list[str]] = {}
    for ticker, reason in refused:
        by_reason.setdefault(reason, []).append(ticker)
    most = max(1, _MOST_EXAMPLES // max(1, len(by_reason)))
    return tuple(
        Refusal(reason, len(tickers), tuple(sorted(tickers)[:most]))
        for reason, tickers in sorted(by_reason.items())
    )


def _count_failure(database_url: str) -> None:
    try:
        with connect(database_url) as connection:
            add_to_counters(connection, {("book_choice_failures_total", ""): 1})
    except psycopg.Error as error:
        log.warning("failure_not_counted", reason=str(error).strip())
