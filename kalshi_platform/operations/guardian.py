"""Ends what a killed `up` left behind: `python -m kalshi_platform.operations.guardian HOME`.

It waits on a pipe that the supervisor holds open. A supervisor that ends in order says so first;
one that is killed closes the pipe without a word, and the guardian ends its processes and the
embedded database in order. It holds the home folder's lock (inherited) until that is done.
"""

import signal
import sys
from pathlib import Path


def main(home: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    # Imported when needed: until then this process is to be small.
    from kalshi_platform.operations.processes import end_processes
    from kalshi_platform.storage.embedded import EmbeddedDatabase

    end_processes(home)
    # An embedded database that is not in use has no postmaster: stopping it does nothing.
    EmbeddedDatabase(home / "postgres").stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
