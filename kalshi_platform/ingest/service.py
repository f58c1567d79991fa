"""The recording service: recorder, loader and their helpers, each a thread of one process.

The recorder's thread runs the event loop; a failure of recorder or loader ends all, loudly. The
helpers (healing gaps, choosing books, taking snapshots of them) try again instead. Each part can
also run alone: a recorder without a loader (`load=False`), a loader without a recorder (`load`).
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import structlog

from kalshi_platform.exchange.books import Books
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.book_snapshots import keep_snapshots
from kalshi_platform.ingest.heal import heal_open_gaps
from kalshi_platform.ingest.loader import Loader
from kalshi_platform.ingest.recorder import Recorder
from kalshi_platform.ingest.watchlist import Watchlist
from kalshi_platform.storage.budget import PostgresBudget
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.feed import add_to_counters

log = structlog.get_logger()

_HEAL_SECONDS = 1.0
_HEAL_AGAIN_SECONDS = 30.0


@dataclass(frozen=True)
class RecordingOptions:
    """What the service needs to know; the entry points fill it from the settings."""

    database_url: str
    tape_folder: Path
    ws_url: str
    rest_url: str
    key_id: str
    private_key_path: Path
    flush_seconds: float = 0.1
    segment_seconds: float = 300
    silence_seconds: float = 60
    rest_tokens_per_second: float = 200
    books: str = "none"
    """Which order books to watch, as in `ingest.book_choice`."""
    books_at_most: int = 500
    books_use_yes_price: bool = False
    """Ask for no-side prices in terms of yes."""


def record(
    options: RecordingOptions, stop: threading.Event, *, load: bool = True, heal: bool = True
) -> None:
    """Record until `stop` is set; then what was received is on the tape and, if it can be, loaded.

    Raises:
        LeaseHeld: another recorder runs.
        TapeFull: the disk is full.
        ExchangeError: the exchange refuses us for good.
        SchemaMismatch: the database's schema is not this release's.
    """
    options.tape_folder.mkdir(parents=True, exist_ok=True)
    take_short_turns()
    signer = Signer.from_pem(options.key_id, options.private_key_path)
    flushed = threading.Event()
    books = Books(use_yes_price=options.books_use_yes_price)
    watchlist = Watchlist(options.database_url, books, options.books, options.books_at_most)
    recorder = Recorder(
        database_url=options.database_url,
        tape_folder=options.tape_folder,
        ws_url=options.ws_url,
        signer=signer,
        flush_seconds=options.flush_seconds,
        segment_seconds=options.segment_seconds,
        silence_seconds=options.silence_seconds,
        flushed=flushed,
        books=books,
    )
    stop_parts = threading.Event()
    parts = [_Part("watchlist", lambda: watchlist.run(stop_parts), stop)]
    if load:
        loader = Loader(options.database_url, options.tape_folder, flushed)
        parts.append(_Part("loader", lambda: loader.run(stop_parts), stop))
        parts.append(_book_snapshots(options, stop_parts, stop))
    if heal:
        parts.append(_Part("healer", lambda: _heal(options, signer, stop_parts), stop))
    for part in parts:
        part.start()
    try:
        asyncio.run(recorder.run(stop))
    finally:
        # The loader goes on until it has loaded what the recorder flushed last.
        stop_parts.set()
        flushed.set()
        for part in parts:
            part.join()
    for part in parts:
        if part.error is not None:
            raise part.error


def load(options: RecordingOptions, stop: threading.Event) -> None:
    """Load and heal without recording, until `stop` is set."""
    options.tape_folder.mkdir(parents=True, exist_ok=True)
    take_short_turns()
    signer = Signer.from_pem(options.key_id, options.private_key_path)
    parts = [
        _Part("healer", lambda: _heal(options, signer, stop), stop),
        _book_snapshots(options, stop, stop),
    ]
    for part in parts:
        part.start()
    try:
        Loader(options.database_url, options.tape_folder).run(stop)
    finally:
        stop.set()
        for part in parts:
            part.join()
    for part in parts:
        if part.error is not None:
            raise part.error


def take_short_turns() -> None:
    """Let threads that wait for the interpreter have it sooner.

    A thread that writes to Postgres gives the interpreter up at every few kilobytes, and with
    Python's default would wait 5 ms each time for a thread that computes.
    """
    sys.setswitchinterval(0.0005)


def _book_snapshots(
    options: RecordingOptions, stop_parts: threading.Event, stop: threading.Event
) -> "_Part":
    """Whoever loads books keeps them quick to rebuild."""
    return _Part("book snapshots", lambda: keep_snapshots(options.database_url, stop_parts), stop)


def _heal(options: RecordingOptions, signer: Signer, stop: threading.Event) -> None:
    budget = PostgresBudget(options.database_url, options.rest_tokens_per_second)
    with RestClient(options.rest_url, signer, budget, stop=stop) as rest:
        pause = _HEAL_SECONDS
        while not stop.wait(pause):
            pause = _HEAL_SECONDS
            try:
                heal_open_gaps(options.database_url, rest, stop)
            except Exception as error:  # no failure of healing may stop recording
                pause = _HEAL_AGAIN_SECONDS
                log.error("healing_failed", retry_seconds=pause, exc_info=error)
                _count_failure(options.database_url)


def _count_failure(database_url: str) -> None:
    try:
        with connect(database_url) as connection:
            add_to_counters(connection, {("healing_failures_total", ""): 1})
    except psycopg.Error as error:
        log.warning("failure_not_counted", reason=str(error).strip())


class _Part(threading.Thread):
    """A thread whose failure stops the others and is raised by who joins it."""

    def __init__(self, name: str, work: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._stop_all = stop
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001  # raised again by the thread that joins
            self.error = error
            log.error("part_failed", part=self.name, error=str(error))
            self._stop_all.set()
