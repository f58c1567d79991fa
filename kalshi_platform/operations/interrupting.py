"""Runs Dagster's code server so that a container's stop reaches the runs it has started:

    python -m kalshi_platform.operations.interrupting dagster api grpc …

On SIGTERM a code server ends and leaves its runs to be killed; only an interrupt makes them flush.
So this process takes the SIGTERM and interrupts the code server and its runs.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kalshi_platform.operations.processes import CODE_SERVICE, end_processes, marks

_POLL_SECONDS = 0.1


def main(command: list[str], home: Path) -> int:
    """Run `command` until it ends or a signal comes; nothing that it started is left then.

    Returns:
        The command's exit code; 0 after a signal.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    child = subprocess.Popen(
        command, env={**os.environ, **marks(home, CODE_SERVICE)}, start_new_session=True
    )
    while not stopped and child.poll() is None:
        time.sleep(_POLL_SECONDS)
    code = 0 if stopped else child.returncode
    end_processes(home)
    child.wait()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ.get("KALSHI_HOME", ".kalshi"))))
