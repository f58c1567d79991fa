"""The loader: follows the tape and commits its rows together with how far it has come.

Rows and checkpoint share a transaction, so each line is loaded exactly once: a loader that dies
continues from the last commit. While the database is away the tape grows; nothing is lost.
"""

import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import structlog
from psycopg.types.json import Jsonb

from kalshi_platform.ingest.batch import Batch
from kalshi_platform.ingest.books import BookRows
from kalshi_platform.ingest.feed import BOOKS, QUOTES, FeedState
from kalshi_platform.ingest.figures import Committed, Figures, label
from kalshi_platform.ingest.tape import Block, Position, TapeDamaged, TapeReader
from kalshi_platform.storage.bulk import send_far_ahead
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import LOADER
from kalshi_platform.storage.migrate import require_current_schema
from kalshi_platform.storage.writes.feed import add_to_counters, set_gauges
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.storage.writes.stale import mark_gap
from kalshi_platform.storage.writes.starts import note_start

log = structlog.get_logger()

# Some 36,000 trades: large enough for COPY, small enough that reading and writing overlap.
_BATCH_BYTES = 12 << 20
_MOST_BATCHES_AHEAD = 1
_IDLE_SECONDS = 0.05
_METRICS_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 2.0
# Tickers remembered as known; past this many the set starts anew (a million combos are born a day).
_MOST_KNOWN_MARKETS = 500_000


Checkpoint = dict[str, Any]
"""What a loader needs to continue: segment, offset, and what it knows of the feed."""


class Loader:
    """Loads one tape into one database until told to stop.

    Args:
        database_url: where the rows go.
        tape_folder: the tape.
        wake: set when something new is on the tape.
    """

    def __init__(
        self, database_url: str, tape_folder: Path, wake: threading.Event | None = None
    ) -> None:
        self._url = database_url
        self._folder = tape_folder
        self._wake = wake or threading.Event()
        self._known_markets: set[str] = set()
        self._state = FeedState()
        self._reader = TapeReader(tape_folder)
        self._metrics_at = 0.0
        self._writing_failed = False
        self._newest: dict[str, tuple[int, int]] = {}
        self._figures = Figures()
        self._read_until_ns: int | None = None
        self.rows_added = 0
        self.batches = 0

    def run(self, stop: threading.Event) -> None:
        """Load until `stop` is set and the tape is read to its end, or the database is away.

        Raises:
            SchemaMismatch: the database's schema is not this release's.
        """
        pause = 0.0
        while not stop.is_set():
            try:
                with connect(self._url, autocommit=True) as connection:
                    pause = 0.0
                    self._follow(connection, stop)
            except psycopg.OperationalError as error:
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2 or 0.1)
                log.warning("database_away", error=str(error).strip(), retry_seconds=pause)
                stop.wait(pause)
            finally:
                self._reader.close()

    def _follow(self, connection: psycopg.Connection, stop: threading.Event) -> None:
        require_current_schema(connection)
        send_far_ahead(connection)
        # Should the server die, a commit of the last moment is lost with its checkpoint, and the
        # tape, which is on disk, is loaded once more from there.
        connection.execute("SET synchronous_commit = off")
        # Compiling the few large statements would take longer than running them.
        connection.execute("SET jit = off")
        while not _take_lease(connection):
            if stop.wait(0.5):
                return
        self._resume(connection)
        note_start(connection, "loader")
        # Batches are written while the next ones are read: reading is Python's work, writing
        # Postgres's. They are written in order, and none after one that failed.
        self._writing_failed = False
        with ThreadPoolExecutor(1, "loader-writes") as writer:
            writing: deque[Future[int]] = deque()
            while True:
                stopping = stop.is_set()
                try:
                    blocks = self._reader.blocks(_BATCH_BYTES)
                except TapeDamaged as error:
                    self._finish(writing, 0)
                    self._give_up(connection, str(error))
                    continue
                if blocks:
                    batch, checkpoint = self._read(blocks)
                    writing.append(writer.submit(self._write, connection, batch, checkpoint))
                    self._finish(writing, _MOST_BATCHES_AHEAD)
                    self._remember(batch)
                elif writing:
                    self._finish(writing, 0)
                elif stopping:
                    self._report(connection, None, 0, force=True)
                    return
                else:
                    self._report(connection, None, 0)
                    self._wake.wait(_IDLE_SECONDS)
                    self._wake.clear()

    def _resume(self, connection: psycopg.Connection) -> None:
        """Take up state and position as last committed."""
        row = connection.execute(
            "SELECT position FROM ingestion_checkpoints WHERE source = 'ws' AND scope = 'tape'"
        ).fetchone()
        position = None
        self._state = FeedState()
        if row is not None:
            position = Position(row[0]["segment"], row[0]["offset"])
            self._state = msgspec.convert(row[0]["feed"], FeedState, strict=False)
        self._known_markets = set()
        self._reader.close()
        self._reader = TapeReader(self._folder, position)

    def _read(self, blocks: list[Block]) -> tuple[Batch, Checkpoint]:
        """Read some blocks into rows, and the position after them."""
        batch = Batch(self._state, self._known_markets, datetime.now(UTC))
        for block in blocks:
            batch.read(block)
        batch.pack()
        segment, offset = blocks[-1].end
        feed = msgspec.to_builtins(self._state, str_keys=True)
        return batch, {"segment": segment, "offset": offset, "feed": feed}

    def _write(self, connection: psycopg.Connection, batch: Batch, checkpoint: Checkpoint) -> int:
        """Commit a batch and the position after it; returns how many trades were new."""
        if self._writing_failed:
            return 0  # the batch before is not in; all are read again
        began = time.monotonic()
        try:
            with connection.transaction():
                added = batch.write(connection)
                self._save(connection, checkpoint)
                self._report(connection, batch, added)
        except BaseException:
            self._writing_failed = True
            raise
        self._figures.note(
            Committed(
                batch.row_count(),
                time.monotonic() - began,
                batch.first_received_ns,
                batch.newest,
            )
        )
        return added

    def _finish(self, writing: "deque[Future[int]]", ahead: int) -> None:
        """Wait until at most `ahead` batches are not committed; raises what a writing raised."""
        while len(writing) > ahead:
            self.rows_added += writing.popleft().result()
            self.batches += 1

    def _remember(self, batch: Batch) -> None:
        """Markets that are named once this batch is in; if it fails, `_resume` forgets them."""
        if len(self._known_markets) > _MOST_KNOWN_MARKETS:
            self._known_markets = set()
        self._known_markets |= batch.new_markets

    def _save(self, connection: psycopg.Connection, checkpoint: Checkpoint) -> None:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position) VALUES ('ws', 'tape', %s)"
            " ON CONFLICT (source, scope)"
            " DO UPDATE SET position = excluded.position, updated_at = now()",
            [Jsonb(checkpoint)],
        )

    def _give_up(self, connection: psycopg.Connection, reason: str) -> None:
        """A damaged stretch of tape: every channel has a gap up to now."""
        log.error("tape_damaged", reason=reason)
        now = datetime.now(UTC)
        with connection.transaction():
            lost = BookRows()
            for name in self._state.channels:
                starts_at = self._state.complete_until(name) or now
                gap = Gap(name, "tape_damaged", min(starts_at, now), now, detail=reason)
                open_gap(connection, gap)
                if name == QUOTES:
                    mark_gap(connection, gap.starts_at, gap.ends_at, None)
                if name == BOOKS:
                    lost.follow_gap(gap)
            lost.write(connection)

    def _report(
        self,
        connection: psycopg.Connection,
        batch: Batch | None,
        added: int,
        *,
        force: bool = False,
    ) -> None:
        """Raise the counters with the batch; set the gauges about once a second."""
        counters: Counter[tuple[str, str]] = Counter()
        gauges: dict[tuple[str, str], float] = {}
        now = time.monotonic()
        is_due = force or now - self._metrics_at >= _METRICS_SECONDS
        if is_due:
            self._metrics_at = now
            counters, gauges = self._figures.take()
        if batch is not None:
            batch.counters["trades_added_total", 'source="ws"'] += added
            batch.counters["batches_total", ""] += 1
            for channel, messages in batch.messages.items():
                batch.counters["messages_total", label(channel)] += messages
            counters.update(batch.counters)
            self._newest |= batch.newest
        add_to_counters(connection, counters)
        if is_due:
            set_gauges(connection, gauges | self._gauges())

    def _gauges(self) -> dict[tuple[str, str], float]:
        """How far it has come; of what is new since the last report."""
        backlog = float(self._reader.backlog_bytes())
        gauges: dict[tuple[str, str], float] = {
            ("tape_backlog_bytes", ""): backlog,
            ("loader_seen_at_seconds", ""): time.time(),
        }
        for channel, (received_ns, sent_ms) in self._newest.items():
            received = received_ns / 1e9
            gauges["last_received_at_seconds", label(channel)] = received
            gauges["received_lag_seconds", label(channel)] = received - sent_ms / 1e3
            self._read_until_ns = max(self._read_until_ns or 0, received_ns)
        self._newest.clear()
        if not backlog:
            gauges["tape_backlog_seconds", ""] = 0.0
        elif self._read_until_ns is not None:
            gauges["tape_backlog_seconds", ""] = time.time() - self._read_until_ns / 1e9
        return gauges


def _take_lease(connection: psycopg.Connection) -> bool:
    """The loader's lease lives on the connection that loads: both end together."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOADER]).fetchone()
    return row == (True,)
