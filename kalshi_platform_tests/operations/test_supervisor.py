"""The supervisor, with small real processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalshi_platform.operations.ground import only_up
from kalshi_platform.operations.processes import CODE_SERVICE, end_processes, marked_processes
from kalshi_platform.operations.supervisor import Service, Stopped, Supervisor, shorten_log
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform_tests.operations import supervised
from kalshi_platform_tests.waiting import until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_processes(tmp_path, code_seconds=0, other_seconds=0)


def start(home: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kalshi_platform_tests.operations.supervised", str(home)],
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: (home / "child-runs").exists() and len(marked_processes(home)) == 3)
    until(lambda: (home / "parent-runs").exists())
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process_and_runs_are_interrupted_first(
    home: Path, number: signal.Signals
) -> None:
    process = start(home)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output.endswith("stopped\n")
    assert marked_processes(home) == []
    assert (home / "child-ended").read_text() == "SIGINT"


def test_kill_9_of_the_supervisor_leaves_no_process_and_lets_runs_flush(home: Path) -> None:
    process = start(home)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: marked_processes(home) == [])
    assert (home / "child-ended").read_text() == "SIGINT"
    # The guardian holds the lock until it is done, then the next one may start.
    with only_up(home):
        pass


def test_a_service_that_is_killed_is_started_again(home: Path) -> None:
    process = start(home)
    first = int((home / "parent-runs").read_text())
    os.kill(first, signal.SIGKILL)
    until(lambda: int((home / "parent-runs").read_text() or first) != first)
    process.terminate()
    output, _ = process.communicate(timeout=20)
    assert f"{CODE_SERVICE} ended (SIGKILL); starting it again in 0.2 s" in output
    assert marked_processes(home) == []


def test_a_service_that_keeps_failing_is_started_less_and_less_often(home: Path) -> None:
    said: list[str] = []
    with only_up(home) as lock:
        supervisor = Supervisor(home, said.append, lock)
        supervisor.start(Service("broken", (sys.executable, "-S", "-c", "raise SystemExit(3)"), {}))
        while supervisor.ends("broken") < 3:
            supervisor.wait(0.05)
        supervisor.stop()
    pauses = [line.split(" in ")[1].split(" s.")[0] for line in said]
    assert pauses == ["0.2", "0.4", "0.8"]
    assert "broken ended (exit code 3)" in said[0]


def test_a_process_that_will_not_end_is_killed_in_time_and_named(home: Path) -> None:
    said: list[str] = []
    with only_up(home) as lock:
        supervisor = Supervisor(home, said.append, lock)
        supervisor.start(Service("stubborn", (sys.executable, "-S", "-c", supervised.STUBBORN), {}))
        [stubborn] = until(lambda: marked_processes(home))
        until(lambda: _ignores_sigterm(stubborn.pid))
        killed = end_processes(home, other_seconds=0.3)
        supervisor.stop()
    assert killed == [stubborn]
    assert marked_processes(home) == []


def test_services_print_into_their_logs(home: Path) -> None:
    with only_up(home) as lock:
        supervisor = Supervisor(home, lambda line: None, lock)
        supervisor.start(Service("talker", ("echo", "hello"), {}))
        until(lambda: supervisor.log_path("talker").read_text() == "hello\n")
        supervisor.stop()


def test_a_long_log_is_emptied_and_its_past_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("x" * 100)
    shorten_log(log, limit=99)
    assert log.read_text() == ""
    assert (tmp_path / "api.log.1").read_text() == "x" * 100


def _ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.split("SigIgn:")[1].split()[0], 16)
    return bool(mask & (1 << (signal.SIGTERM - 1)))


class SlowDatabase(EmbeddedDatabase):
    """One whose start takes until it is stopped or told to end, and which notes what is asked."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        super().__init__(folder)
        self.go = threading.Event()
        self.error = error
        self.starts = self.stops = 0

    def start(self) -> None:
        self.starts += 1
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error

    def pid(self) -> int | None:
        return None

    def stop(self, timeout_seconds: float = 20) -> None:
        self.stops += 1
        self.go.set()


def test_services_are_watched_and_signals_heard_while_the_database_recovers(home: Path) -> None:
    said: list[str] = []
    database = SlowDatabase(home)
    with only_up(home) as lock:
        supervisor = Supervisor(home, said.append, lock)
        database.go.set()
        supervisor.keep_database(database)
        database.go.clear()
        supervisor.start(Service("broken", (sys.executable, "-S", "-c", "raise SystemExit(3)"), {}))
        supervisor.wait(0.1)
        assert database.starts == 2
        while supervisor.ends("broken") < 2:
            supervisor.wait(0.05)
        supervisor._note_signal()
        with pytest.raises(Stopped):
            supervisor.wait(60)
        supervisor.stop()
    assert said[0] == "The embedded database is gone; starting it again."
    assert database.starts == 2, "not started again while it starts"


@pytest.mark.parametrize("error", [RuntimeError("no luck"), None])
def test_a_database_that_does_not_come_up_is_stopped(
    home: Path, error: RuntimeError | None
) -> None:
    database = SlowDatabase(home, error)
    with only_up(home) as lock:
        supervisor = Supervisor(home, lambda line: None, lock)
        if error is None:
            supervisor._note_signal()
        else:
            database.go.set()
        with pytest.raises(Stopped if error is None else RuntimeError):
            supervisor.keep_database(database)
        assert database.stops == 0
        supervisor.stop()
    assert database.stops >= 1


def test_the_databases_log_is_kept_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kalshi_platform.operations.supervisor._LOG_CHECK_SECONDS", 0)
    database = SlowDatabase(home / "postgres")
    database.go.set()
    database.log_path.parent.mkdir()
    database.log_path.write_bytes(b"x" * 50_000_001)
    with only_up(home) as lock:
        supervisor = Supervisor(home, lambda line: None, lock)
        supervisor.keep_database(database)
        supervisor.wait(0.1)
        supervisor.stop()
    assert database.log_path.stat().st_size == 0
