"""Whose child a run is, and whether a process named in the books still lives."""

import multiprocessing
import os
import socket
import time


class Parent:
    """The code server that started this process; none for a process started by hand."""

    def __init__(self) -> None:
        self._process = multiprocessing.parent_process()
        self._gone_since: float | None = None
        self.told = False

    def is_gone(self) -> bool:
        if self._process is None or os.getppid() == self._process.pid:
            return False
        self._gone_since = self._gone_since or time.monotonic()
        return True

    def gone_seconds(self) -> float:
        return 0 if self._gone_since is None else time.monotonic() - self._gone_since


def process_name() -> str:
    """host/pid of this process."""
    return f"{socket.gethostname()}/{os.getpid()}"


def process_is_gone(name: str) -> bool:
    """Whether the named process is known to be dead: it was of this host and is no more."""
    host, _, pid = name.rpartition("/")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
