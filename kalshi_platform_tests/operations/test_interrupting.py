"""A container's stop reaches what the code server has started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalshi_platform.operations.processes import end_processes, marked_processes
from kalshi_platform_tests.operations import supervised
from kalshi_platform_tests.waiting import until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_processes(tmp_path, code_seconds=0, other_seconds=0)


def start(home: Path, *code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "kalshi_platform.operations.interrupting"),
            *(sys.executable, "-c", *code),
        ],
        env={**os.environ, "KALSHI_HOME": str(home)},
    )


def test_sigterm_becomes_an_interrupt_of_the_server_and_its_runs(home: Path) -> None:
    process = start(home, supervised.PARENT, str(home), supervised.CHILD)
    until(lambda: (home / "child-runs").exists() and (home / "parent-runs").exists())
    process.terminate()
    assert process.wait(20) == 0
    assert (home / "child-ended").read_text() == signal.SIGINT.name
    assert marked_processes(home) == []


def test_a_server_that_ends_ends_the_container_with_its_code(home: Path) -> None:
    assert start(home, "raise SystemExit(3)").wait(20) == 3


def test_books_that_do_not_open_keep_the_server_from_starting(home: Path) -> None:
    code = f"import pathlib; pathlib.Path({str(home)!r}, 'started').touch()"
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_platform.operations.interrupting", "--close-runs"),
            *(sys.executable, "-c", code),
        ],
        env={**environment, "KALSHI_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert "DAGSTER_HOME" in done.stderr
    assert not (home / "started").exists(), "its container is started again until they open"
