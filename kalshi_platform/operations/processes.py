"""The processes of one `up`, found by the marks in their environment.

Every service is started with `KALSHI_UP_ID` (the home folder: only one `up` runs in it) and
`KALSHI_UP_SERVICE`, and hands both on to what it starts itself, such as the runs of Dagster's code
server. /proc therefore knows all of them, also after the supervisor was killed: no file of process
ids can be stale or name a stranger.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

HOME_MARK = "KALSHI_UP_ID"
SERVICE_MARK = "KALSHI_UP_SERVICE"

# Dagster passes only an interrupt on to its runs; it is what lets the stream flush.
CODE_SERVICE = "dagster-code"

_POLL_SECONDS = 0.05
_KILL_SECONDS = 5


@dataclass(frozen=True)
class Marked:
    """A living process that some `up` of this home folder started, directly or not."""

    pid: int
    service: str


def marks(home: Path, service: str) -> dict[str, str]:
    """Environment variables that mark a service's processes."""
    return {HOME_MARK: str(home.absolute()), SERVICE_MARK: service}


def marked_processes(home: Path) -> list[Marked]:
    """All living processes marked for `home`, except this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            service = _service_of(int(entry.name), home)
            if service is not None:
                found.append(Marked(int(entry.name), service))
    return found


def end_processes(
    home: Path, *, code_seconds: float = 10, other_seconds: float = 5
) -> list[Marked]:
    """End everything marked for `home`: Dagster's runs first, so that recording flushes.

    Args:
        home: the home folder of the `up` whose processes these are.
        code_seconds, other_seconds: patience before the code server's processes, then before
            the others are killed.

    Returns:
        The processes that had to be killed.
    """
    slow = _end(home, signal.SIGINT, code_seconds, only={CODE_SERVICE})
    slow += _end(home, signal.SIGTERM, other_seconds)
    return slow


def _end(
    home: Path, number: signal.Signals, seconds: float, only: set[str] | None = None
) -> list[Marked]:
    deadline = time.monotonic() + seconds
    told: set[int] = set()
    killed: list[Marked] = []
    while remaining := [p for p in marked_processes(home) if only is None or p.service in only]:
        late = time.monotonic() > deadline
        for process in remaining:
            if late:
                _send(process.pid, home, signal.SIGKILL)
                if process not in killed:
                    killed.append(process)
                elif time.monotonic() > deadline + _KILL_SECONDS:
                    return killed  # stuck in the kernel: nothing more can be done from here
            elif process.pid not in told:
                _send(process.pid, home, number)
                told.add(process.pid)
        time.sleep(_POLL_SECONDS)
    return killed


def _service_of(pid: int, home: Path) -> str | None:
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or of another user: not ours in either case
        return None
    variables = dict(item.split(b"=", 1) for item in block.split(b"\0") if b"=" in item)
    if variables.get(HOME_MARK.encode()) != str(home.absolute()).encode():
        return None
    return variables.get(SERVICE_MARK.encode(), b"unknown").decode()


def _send(pid: int, home: Path, number: signal.Signals) -> None:
    """Signal the process if it still is one of ours; a reused process id is left alone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _service_of(pid, home) is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
