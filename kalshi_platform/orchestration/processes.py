"""Whose child a run is, and whether a process named in the books still lives."""

import multiprocessing
import os
import socket
from pathlib import Path

# What a run's process writes into the run's tags, so that its death can be seen at once.
PROCESS_TAG = "kalshi/process"


class Parent:
    """The code server that started this process; none for a process started by hand."""

    def __init__(self) -> None:
        self._process = multiprocessing.parent_process()

    def is_gone(self) -> bool:
        return self._process is not None and os.getppid() != self._process.pid


def process_name() -> str:
    """host/pid/start of this process; the start tells it from a later one with the same id."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{_started_at(pid)}"


def process_is_gone(name: str) -> bool:
    """Whether the named process is known to be dead: it was of this host and is no more."""
    host, _, process = name.partition("/")
    pid, _, start = process.partition("/")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    return _started_at(int(pid)) != start


def _started_at(pid: int) -> str | None:
    """Clock ticks from the machine's start to the process's; None for one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; proc(5) numbers the fields from 1.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
