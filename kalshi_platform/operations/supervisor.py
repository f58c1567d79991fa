"""Starts services, starts them again when they end, and ends them all."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kalshi_platform.operations.processes import end_processes, marks
from kalshi_platform.storage.embedded import EmbeddedDatabase

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_SECONDS = 30.0  # a service that lived this long starts again without a pause
LOG_BYTES = 50_000_000

_POLL_SECONDS = 0.1
_LOG_CHECK_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Stopped(BaseException):
    """A signal asked for the end; not an Exception, so that nothing handles it on the way out."""


@dataclass(frozen=True)
class Service:
    """A command to keep running, with what it adds to the environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass
class _Running:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    start_at: float = 0
    ends: int = field(default=0)


class _Starting:
    """A start of the database beside the supervisor's own work: recovery may take minutes."""

    def __init__(self, database: EmbeddedDatabase) -> None:
        self._database = database
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        """Whether the start has ended, well or with `error`; waits that long for it."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._database.start()
        except Exception as error:  # noqa: BLE001 -- carried to the supervisor's thread
            self.error = error


class Supervisor:
    """Owns the services of one home folder; single-threaded, driven by `wait`.

    Args:
        home: the home folder: its `logs/NAME.log` take what the services print.
        say: prints one line to the operator.
        lock: descriptor of the home's lock, handed to the guardian.
    """

    def __init__(self, home: Path, say: Callable[[str], None], lock: int) -> None:
        self.home = home
        self.logs = home / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._say = say
        self._services: dict[str, _Running] = {}
        self._database: EmbeddedDatabase | None = None
        self._starting: _Starting | None = None
        self._database_pause = FIRST_PAUSE_SECONDS
        self._database_start_at = 0.0
        self._logs_checked_at = time.monotonic()
        self._stopped = False
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", "kalshi_platform.operations.guardian", str(home)],
            stdin=subprocess.PIPE,
            pass_fds=(lock,),
            start_new_session=True,
        )

    def catch_signals(self) -> None:
        """Let Ctrl-C and SIGTERM end `wait` with Stopped; a second one is not needed."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note_signal)

    def _note_signal(self, *_: object) -> None:
        # A plain flag: an Event's lock may be held by the very code that the signal interrupts.
        self._stopped = True

    def keep_database(self, database: EmbeddedDatabase) -> None:
        """Start the embedded database and start it again whenever it is gone.

        Raises:
            RuntimeError: it did not come up.
            Stopped: a signal asked for the end.
        """
        self._database = database  # from now on `stop` stops it, however far its start came
        self._starting = starting = _Starting(database)
        while not starting.ended(_POLL_SECONDS):
            if self._stopped:
                raise Stopped
        self._starting = None
        if starting.error is not None:
            raise starting.error

    def start(self, service: Service) -> None:
        """Start a service and keep it running."""
        running = _Running(service)
        self._services[service.name] = running
        self._spawn(running)

    def ends(self, name: str) -> int:
        """How often a service ended by itself since it was first started."""
        return self._services[name].ends

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def wait(self, seconds: float) -> None:
        """Watch over the services for a while.

        Raises:
            Stopped: a signal asked for the end.
        """
        deadline = time.monotonic() + seconds
        while True:
            if self._stopped:
                raise Stopped
            self._watch()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_POLL_SECONDS, left))

    def stop(self) -> None:
        """End everything, the database last; returns when no process is left.

        Raises:
            RuntimeError: the database did not stop; the guardian, not told, tries once more.
        """
        for name in end_processes(self.home):
            self._say(f"{name.service} (process {name.pid}) did not end in time and was killed")
        for running in self._services.values():
            if running.process is not None:
                running.process.wait()
        if self._database is not None:
            self._stop_database(self._database)
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the guardian was killed: nothing to tell
            self._guardian.stdin.write(b"done")
            self._guardian.stdin.close()
        self._guardian.wait(timeout=10)

    def _watch(self) -> None:
        now = time.monotonic()
        if self._database is not None and now >= self._database_start_at:
            self._watch_database(self._database)
        for running in self._services.values():
            self._watch_service(running, now)
        if now - self._logs_checked_at > _LOG_CHECK_SECONDS:
            self._logs_checked_at = now
            for name in self._services:
                shorten_log(self.log_path(name))
            if self._database is not None:
                shorten_log(self._database.log_path)

    def _watch_service(self, running: _Running, now: float) -> None:
        if running.process is None:
            if now >= running.start_at:
                self._spawn(running)
            return
        code = running.process.poll()
        if code is None:
            return
        if now - running.started_at > HEALTHY_SECONDS:
            running.pause_seconds = FIRST_PAUSE_SECONDS
        running.process = None
        running.ends += 1
        running.start_at = now + running.pause_seconds
        name = running.service.name
        self._say(
            f"{name} ended ({_how(code)}); starting it again in {running.pause_seconds:g} s. "
            f"Its log: {self.log_path(name)}"
        )
        running.pause_seconds = min(running.pause_seconds * 2, LONGEST_PAUSE_SECONDS)

    def _watch_database(self, database: EmbeddedDatabase) -> None:
        if self._starting is None:
            if database.pid() is None:
                self._say("The embedded database is gone; starting it again.")
                self._starting = _Starting(database)
            return
        if not self._starting.ended(0):
            return
        error, self._starting = self._starting.error, None
        if error is None:
            self._database_pause = FIRST_PAUSE_SECONDS
            return
        if not isinstance(error, RuntimeError):
            raise error
        self._database_start_at = time.monotonic() + self._database_pause
        self._database_pause = min(self._database_pause * 2, LONGEST_PAUSE_SECONDS)
        self._say(str(error))

    def _stop_database(self, database: EmbeddedDatabase) -> None:
        database.stop()
        # One that is only just starting may have had no process yet.
        while self._starting is not None and not self._starting.ended(_POLL_SECONDS):
            database.stop()
        database.stop()

    def _spawn(self, running: _Running) -> None:
        service = running.service
        log = self.log_path(service.name)
        shorten_log(log)
        with log.open("ab") as output:
            running.process = subprocess.Popen(
                service.command,
                env={**os.environ, **service.environment, **marks(self.home, service.name)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on, in order
                preexec_fn=_die_with_parent,
            )
        running.started_at = time.monotonic()


def shorten_log(path: Path, limit: int = LOG_BYTES) -> None:
    """Keep a log below `limit` bytes: the older part goes to NAME.log.1, for one turn.

    The writer has the file open to append, so it is emptied in place.
    """
    if path.exists() and path.stat().st_size > limit:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
