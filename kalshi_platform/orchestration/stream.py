"""The streaming job: one run that records the exchange until its window is over.

The recorder works in a thread of the run; the run's main thread only watches: it writes the log,
and ends the recording when it is told to (terminate, Ctrl-C), when the window is over, or when the
run was closed in Dagster's books.

A run whose window is over, and one whose code server died (an orphan: Dagster can neither stop it
nor see it stop), say so in the books and record on until a successor has started, then hand over:
the feed is interrupted for the moment between two leases, not for the start of a run. REST fills
that moment for trades; tickers and lifecycle messages of it are lost.
"""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator

import dagster as dg
import psycopg

from kalshi_platform.orchestration.partitions import today
from kalshi_platform.orchestration.processes import Parent
from kalshi_platform.orchestration.resources import Database, Exchange, Home, first_line
from kalshi_platform.orchestration.runlog import STORAGE_DOWN, RunLog
from kalshi_platform.storage.leases import RECORDER, held
from kalshi_platform.storage.reads.days import (
    newest_received_at,
    open_gaps_of_day,
    seconds_since,
    written_rows,
)
from kalshi_platform.storage.recorded_exchange import OtherExchange

ROLE_TAG = "kalshi/role"
STREAM = "stream"
LOADED = ("raw_trades", "trades", "quotes", "book_snapshots", "book_deltas", "lifecycle_events")
MAX_RUNTIME_TAG = "dagster/max_runtime"
# On a run that records on until its successor has started.
HANDOVER_TAG = "kalshi/hands_over"
# Unix seconds before which the keeper does not start the next run.
PAUSE_TAG = "kalshi/no_new_run_before"

WINDOW_SECONDS = 6 * 3600
_FLUSH_SECONDS = 7  # `up` waits a little longer (operations.processes), a container's stop, too
_GLANCE_SECONDS = 0.5
# Without a successor a run ends all the same: it must not outlive a platform that was killed.
_SUCCESSOR_SECONDS = 60
_HANDOVER_SECONDS = 20
_REPORT_SECONDS = 30
_PAUSE_WHEN_REFUSED_SECONDS = 60
_PAUSE_AFTER_ERROR_SECONDS = 10


class Window(dg.Config):
    """How long one run records; new code arrives with the next run."""

    window_seconds: int = WINDOW_SECONDS


@dg.op(description="Record every public channel to the tape and load the tape into the tables.")
def record_exchange(
    context: dg.OpExecutionContext,
    config: Window,
    database: Database,
    exchange: Exchange,
    home: Home,
) -> None:
    """Record until the window ends; see the module for what ends it earlier.

    Raises:
        Failure: recording ended by an error; the run is tagged with the time before which another
            try makes no sense.
    """
    from kalshi_platform.ingest.recorder import LeaseHeld
    from kalshi_platform.ingest.service import record

    try:
        options = exchange.recording(database, home.tape_folder)
    except OtherExchange as error:
        raise _failure(context, error) from error
    _wait_for_lease(database)
    log = RunLog(context.log)
    recording = Recording(lambda stop: record(options, stop))
    with log.capture():
        try:
            recording.start()
            why = _watch(context, recording, log, database, config.window_seconds)
            log.put(logging.INFO, f"stopping: {why}")
        finally:
            # An interrupt is a BaseException: it passes through here and goes on.
            flushed = recording.finish(_FLUSH_SECONDS)
            log.write()
    if not flushed:
        raise dg.Failure(f"The recorder did not stop within {_FLUSH_SECONDS} s; it is cut off.")
    if isinstance(recording.error, LeaseHeld):
        context.log.warning("Another recorder holds the lease; this run leaves it to that one.")
    elif recording.error is not None:
        raise _failure(context, recording.error) from recording.error


@dg.job(
    description="Hold one recorder for a bounded window. The stream_keeper sensor starts it.",
    executor_def=dg.in_process_executor,
    tags={
        ROLE_TAG: STREAM,
        "dagster/priority": "100",
        # Ends a run whose process and code server died together, if the keeper should not.
        MAX_RUNTIME_TAG: str(WINDOW_SECONDS + 600),
    },
)
def stream_job() -> None:
    record_exchange()


class Recording:
    """A recorder in a thread of its own, where the signals of the main thread do not reach it."""

    def __init__(self, record: Callable[[threading.Event], None]) -> None:
        self._record = record
        self._stop = threading.Event()
        # A daemon: a recorder that hangs must not keep the run's process alive.
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether the recorder still works after this long; returns early when it ends."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def finish(self, seconds: float) -> bool:
        """Let the recorder flush and end; False if it has not after `seconds`.

        A second interrupt while it flushes (Ctrl-C reaches the whole process group, and whoever
        stops the platform signals once more) does not cut the flush short.
        """
        with _interrupts_ignored():
            self._stop.set()
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._record(self._stop)
        except Exception as error:  # noqa: BLE001 -- carried to the main thread, which raises it
            self.error = error


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal handler runs here
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        # A function, not SIG_IGN: threads and children keep what they have.
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(
    context: dg.OpExecutionContext,
    recording: Recording,
    log: RunLog,
    database: Database,
    window_seconds: float,
) -> str:
    """Wait for a reason to stop and return it."""
    until = time.monotonic() + window_seconds
    progress = Progress(database)
    next_report = time.monotonic() + _REPORT_SECONDS
    parent = Parent()
    handover = Handover()
    while recording.wait(_GLANCE_SECONDS):
        if time.monotonic() >= until:
            handover.begin("the window is over")
        if parent.is_gone():
            handover.begin("the code server that started this run is gone")
        if handover.reason and (end := handover.end(context)):
            return end
        if time.monotonic() >= next_report:
            next_report += _REPORT_SECONDS
            log.put(logging.INFO, progress.line())
            if _closed(context):
                return "Dagster has closed this run"
        log.write()
    return "the recorder ended"


class Handover:
    """Asks for a successor in the books, and sees it start."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._begun_at = 0.0
        self._told = False

    def begin(self, reason: str) -> None:
        """A successor is wanted from now on; does nothing the second time."""
        if self.reason is None:
            self.reason = reason
            self._begun_at = time.monotonic()

    def end(self, context: dg.OpExecutionContext) -> str | None:
        """Why the run should stop now; None while it must record on."""
        if time.monotonic() - self._begun_at >= _SUCCESSOR_SECONDS:
            return f"{self.reason}, and no other run has come instead"
        try:
            if not self._told:
                context.instance.add_run_tags(context.run_id, {HANDOVER_TAG: "true"})
                self._told = True
            others = context.instance.get_run_records(
                dg.RunsFilter(job_name=stream_job.name, statuses=[dg.DagsterRunStatus.STARTED]),
                limit=5,
            )
        except STORAGE_DOWN:
            return None
        # Newest first: a run before us in the list started after us.
        if others and others[0].dagster_run.run_id != context.run_id:
            return f"{self.reason}; handing over to the run that has started"
        return None


def _wait_for_lease(database: Database) -> None:
    """Wait until the run before has handed over; one that does not is met by LeaseHeld."""
    deadline = time.monotonic() + _HANDOVER_SECONDS
    try:
        with database.connect(autocommit=True) as connection:
            while held(connection, RECORDER) and time.monotonic() < deadline:
                time.sleep(0.1)
    except psycopg.OperationalError:
        return  # the recorder starts without a lease, too, and takes it when it can


def _closed(context: dg.OpExecutionContext) -> bool:
    try:
        run = context.instance.get_run_by_id(context.run_id)
    except STORAGE_DOWN:
        return False  # nobody can have closed it either
    return run is not None and run.is_finished


class Progress:
    """What the run's log says every half minute: what landed since the last line, lag and gaps."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes: dict[str, int] | None = None

    def line(self) -> str:
        try:
            with self._database.connect() as connection:
                writes = written_rows(connection, LOADED)
                day = today()
                newest = newest_received_at(connection, "raw_trades", day)
                gaps = open_gaps_of_day(connection, day)
        except psycopg.OperationalError as error:
            return f"the database cannot be reached, the tape grows: {first_line(error)}"
        before, self._writes = self._writes, writes
        landed = "(counted from now on)"
        if before is not None:
            landed = " ".join(
                f"{table}=+{max(0, writes[table] - before[table])}" for table in LOADED
            )
        age = "none today" if newest is None else f"{seconds_since(newest):.1f} s old"
        return f"landed {landed} | newest trade {age} | open gaps {gaps}"


def _failure(context: dg.OpExecutionContext, error: Exception) -> dg.Failure:
    from kalshi_platform.exchange.errors import Forbidden, KeyUnusable, Unauthorized

    # Only a person can help with these; trying each ten seconds would bury the first failure.
    refused = isinstance(error, KeyUnusable | Unauthorized | Forbidden | OtherExchange)
    pause = _PAUSE_WHEN_REFUSED_SECONDS if refused else _PAUSE_AFTER_ERROR_SECONDS
    context.instance.add_run_tags(context.run_id, {PAUSE_TAG: str(int(time.time()) + pause)})
    sentence = str(error) or type(error).__name__
    return dg.Failure(sentence, metadata={"next_run_in_seconds": pause}, allow_retries=False)
