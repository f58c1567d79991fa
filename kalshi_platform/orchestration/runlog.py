"""The recorder's log lines on their way into the run's log.

Dagster's storage may be slow or down; the recorder must notice neither. Its threads put lines
into a bounded queue, the run's main thread alone writes them, keeps what it could not write, and
tries again.
"""

import contextlib
import logging
import queue
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import dagster as dg
import structlog
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError

# What Dagster's storage raises while it cannot be reached.
STORAGE_DOWN = (DBAPIError, DagsterPostgresException)

_WAITING_LINES = 1_000


class RunLog:
    """Lines from any thread; written by the thread that calls `write`."""

    def __init__(self, log: dg.DagsterLogManager) -> None:
        self._log = log
        self._arriving: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._waiting: deque[tuple[int, str]] = deque(maxlen=_WAITING_LINES)
        self._dropped = 0

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Send everything that is logged through structlog here; logging never blocks or fails."""
        before = structlog.get_config()
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                _line,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=lambda *_: _Sink(self.put),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def put(self, level: int, line: str) -> None:
        self._arriving.put((level, line))

    def write(self) -> bool:
        """Write what has arrived; False while Dagster's storage cannot be reached.

        While it cannot, the newest lines are kept; how many older ones were let go is told later.
        """
        while not self._arriving.empty():
            self._dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(self._arriving.get())
        try:
            if self._dropped:
                self._log.warning("%d lines were let go while the log was down", self._dropped)
                self._dropped = 0
            while self._waiting:
                level, line = self._waiting[0]
                self._log.log(level, line)
                self._waiting.popleft()
        except STORAGE_DOWN:
            return False
        return True


class _Sink:
    """What structlog calls with a finished line, by the name of its level."""

    def __init__(self, put: Callable[[int, str], None]) -> None:
        self._put = put

    def debug(self, line: str) -> None:
        self._put(logging.DEBUG, line)

    def info(self, line: str) -> None:
        self._put(logging.INFO, line)

    def warning(self, line: str) -> None:
        self._put(logging.WARNING, line)

    def error(self, line: str) -> None:
        self._put(logging.ERROR, line)

    def critical(self, line: str) -> None:
        self._put(logging.CRITICAL, line)

    msg = info
    warn = warning
    exception = error
    fatal = critical


def _line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """`batch_landed rows=412 lag_seconds=0.8`, an exception's traceback below."""
    name = str(event.pop("event", ""))
    traceback = event.pop("exception", None)
    fields = " ".join(f"{key}={value}" for key, value in event.items())
    line = f"{name} {fields}".strip()
    return f"{line}\n{traceback}" if traceback else line
