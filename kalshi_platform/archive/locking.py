"""One process at a time for each day of a table: who archives, drops or restores it holds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any
from zlib import crc32

import psycopg

# First half of the advisory locks; the second tells table and day.
_ARCHIVE_LOCKS = 4_252


class DayInUse(RuntimeError):
    """Another process archives, drops or restores the day just now."""


@contextmanager
def day_held(
    connection: psycopg.Connection[Any], table: str, day: date, *, wait: bool = True
) -> Iterator[None]:
    """Hold the day while the block runs; a process that dies gives it back.

    Args:
        connection: in autocommit mode.
        wait: for another holder; else DayInUse is raised.

    Raises:
        DayInUse: another process holds it, and was not to be waited for.
    """
    key = [_ARCHIVE_LOCKS, crc32(f"{table} {day}".encode()) - (1 << 31)]
    if wait:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", key)
    else:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
        if row != (True,):
            raise DayInUse(f"{table} of {day} is being archived, dropped or restored.")
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", key)
