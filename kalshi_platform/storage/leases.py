"""Leases: session-level advisory locks, so that one recorder and one loader run, wherever they run.

A lock belongs to a database connection: a process that dies, however hard, gives its lease back.
"""

import contextlib

import psycopg

from kalshi_platform.storage.engine import connect

RECORDER = 4_242
LOADER = 4_244
HEALER = 4_245
CANDLES = 4_246
REFERENCE = 4_249
CENSUS = 4_250
REFERENCE_DAYS = 4_251
ALERTS = 4_252


class Lease:
    """One advisory lock on a connection of its own. Not for use by several threads at once."""

    def __init__(self, url: str, lock: int) -> None:
        self._url = url
        self._lock = lock
        self._connection: psycopg.Connection | None = None

    def acquire(self) -> bool:
        """Take the lease, or say that another process has it.

        Raises:
            psycopg.OperationalError: the database cannot be reached.
        """
        self.release()
        connection = connect(self._url, autocommit=True)
        # A holder whose machine vanished must not keep the lease for the hours TCP would wait.
        if connection.info.host and not connection.info.host.startswith("/"):
            connection.execute("SET tcp_keepalives_idle = 5")
            connection.execute("SET tcp_keepalives_interval = 2")
            connection.execute("SET tcp_keepalives_count = 3")
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [self._lock]).fetchone()
        if row == (True,):
            self._connection = connection
            return True
        connection.close()
        return False

    def still_held(self) -> bool:
        """Whether the lease's connection, and with it the lease, is alive; asks the server."""
        if self._connection is None:
            return False
        try:
            self._connection.execute("SELECT 1")
        except psycopg.OperationalError:
            self._connection = None
            return False
        return True

    def release(self) -> None:
        """Give the lease back; does nothing without one."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.OperationalError):
                self._connection.close()
            self._connection = None


def held(connection: psycopg.Connection, lock: int) -> bool:
    """Whether any session of this database holds the lock."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND classid = 0 AND objid = %s AND objsubid = 1"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        [lock],
    ).fetchone()
    return row == (True,)
