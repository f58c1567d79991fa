"""Runs Dagster's code server so that a container's stop reaches the runs it has started:

    python -m kalshi_platform.operations.interrupting [--close-runs] dagster api grpc …

On SIGTERM a code server ends and leaves its runs to be killed; only an interrupt makes them flush.
So this process takes the SIGTERM and interrupts the code server and its runs.

With --close-runs, runs that Dagster's books call alive are closed in them before the server
starts and after it has ended: where one code server starts all runs, none can be alive then. A run
that was interrupted while it was only starting has written nothing about its end.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kalshi_platform.operations.processes import CODE_SERVICE, end_processes, marks

CLOSE_RUNS = "--close-runs"
_POLL_SECONDS = 0.1
# At the end there is little time; what stays open in the books then, the next start closes.
_CLOSE_FIRST_SECONDS = 120
_CLOSE_AT_END_SECONDS = 20


def main(arguments: list[str], home: Path) -> int:
    """Run the command until it ends or a signal comes; nothing that it started is left then.

    Returns:
        The command's exit code; 0 after a signal.
    """
    close_runs = arguments[:1] == [CLOSE_RUNS]
    command = arguments[1:] if close_runs else arguments
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    environment = {**os.environ, **marks(home, CODE_SERVICE)}
    end_processes(home)
    if close_runs:
        code = _close_runs(environment, _CLOSE_FIRST_SECONDS)
        if code != 0 or stopped:
            return 0 if stopped else code
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    while not stopped and child.poll() is None:
        time.sleep(_POLL_SECONDS)
    code = 0 if stopped else child.returncode
    end_processes(home)
    child.wait()
    if close_runs:
        _close_runs(environment, _CLOSE_AT_END_SECONDS)
    return code


def _close_runs(environment: dict[str, str], seconds: float) -> int:
    """Close every run in Dagster's books; 0 if that was done. What it says goes to our output."""
    command = [sys.executable, "-m", "kalshi_platform.orchestration.opening", "--close-all"]
    try:
        return subprocess.run(
            command, env=environment, start_new_session=True, timeout=seconds
        ).returncode
    except subprocess.TimeoutExpired:
        print("Dagster's books did not open in time.", file=sys.stderr, flush=True)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ.get("KALSHI_HOME", ".kalshi"))))
