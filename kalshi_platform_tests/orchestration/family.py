"""A code server and its run, for tests: processes that import next to nothing."""

import multiprocessing
import time
from multiprocessing.connection import Connection

from kalshi_platform.orchestration.processes import Parent


def code_server(pipe: Connection) -> None:
    """Start a run and wait for it, as a code server does."""
    process = multiprocessing.get_context("spawn").Process(target=run, args=(pipe,))
    process.start()
    process.join()


def run(pipe: Connection) -> None:
    """Tell whether the code server is there, and once more when that has changed."""
    parent = Parent()
    pipe.send("orphan" if parent.is_gone() else "with parent")
    deadline = time.monotonic() + 20
    while not parent.is_gone() and time.monotonic() < deadline:
        time.sleep(0.05)
    pipe.send("orphan" if parent.is_gone() else "still with parent")
