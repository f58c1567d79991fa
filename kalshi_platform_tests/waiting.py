"""Waiting for a condition with a deadline, in place of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found], seconds: float = 20, every: float = 0.02) -> Found:
    """What `condition` returns once it is true; fails the test when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds:g} s")
        time.sleep(every)
    return found
