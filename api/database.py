"""The API's side of the database: a small pool on a role that can only read."""

import math
import time
from collections.abc import Mapping
from typing import Any

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from kalshi_platform.storage.engine import libpq_url

_log = structlog.get_logger(__name__)

# enable_bitmapscan: a prepared statement's generic plan would otherwise collect and sort the whole
# of a busy market to give its first page; benchmarks/api.py watches the ratio.
SESSION_OPTIONS = {
    "role": "kalshi_reader",
    "default_transaction_read_only": "on",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "jit": "off",
    "enable_bitmapscan": "off",
}

# Lists take any filters together. Each statement gets a plan for the values at hand, collected from
# several indexes if need be (an index of words gives nothing else); pages are cached, not on a disk
# that seeks.
LIST_OPTIONS = {
    **SESSION_OPTIONS,
    "enable_bitmapscan": "on",
    "plan_cache_mode": "force_custom_plan",
    "max_parallel_workers_per_gather": "0",
    "random_page_cost": "1.1",
}


class DatabaseUnavailable(Exception):
    """The database could not answer now; the same request may succeed later."""


class DatabaseBusy(DatabaseUnavailable):
    """The database answers, but all connections to it are in use, and others wait for them."""


class SchemaMissing(DatabaseUnavailable):
    """The database answers, but has no tables of this platform, or not for our role."""


class StatementTooSlow(Exception):
    """The statement ran into its time limit."""


class ReadDatabase:
    """Runs statements that answer one row, each in its own read-only transaction.

    Opening never fails: while the database is away statements raise DatabaseUnavailable, and the
    first one after its return succeeds.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 10,
        statement_seconds: float = 5,
        wait_seconds: float = 3,
        most_waiting: int = 2_000,
        options: Mapping[str, str] = SESSION_OPTIONS,
    ) -> None:
        options = {**options, "statement_timeout": f"{statement_seconds * 1000:.0f}"}
        self._pool = AsyncConnectionPool(
            libpq_url(url),
            kwargs={
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
                "autocommit": True,
                "connect_timeout": 2,
                # A host that vanished says nothing; its silence ends like a lost connection.
                "tcp_user_timeout": 10_000,
                "application_name": "kalshi-platform api",
            },
            min_size=min(2, connections),
            max_size=connections,
            open=False,
            timeout=wait_seconds,
            max_waiting=most_waiting,
            # Given up soon, a connection is tried anew by the next request rather than after a
            # pause that grows with the outage.
            reconnect_timeout=1,
        )
        self._in_use = 0
        self._wait_seconds = wait_seconds
        self._answered_at = -math.inf

    async def open(self) -> None:
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close()

    async def row(
        self, statement: str, parameters: Mapping[str, Any] | None = None
    ) -> tuple[bytes | None, ...] | None:
        """The first row of a statement's answer, each value as the text Postgres sent; or None.

        Raises:
            DatabaseUnavailable: no connection, or it broke twice.
            DatabaseBusy: all connections were in use for as long as one may wait.
            SchemaMissing: there are no tables to read.
            StatementTooSlow: the statement ran into its time limit.
            psycopg.Error: the statement itself is wrong: a fault of ours, and no outage.
        """
        try:
            try:
                return await self._row(statement, parameters)
            except psycopg.errors.QueryCanceled as error:
                self._answered_at = time.monotonic()  # an answer, too
                raise StatementTooSlow(str(error)) from error
            except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
                raise SchemaMissing(str(error).strip()) from error
            except (PoolTimeout, TooManyRequests) as error:
                # While the database is away none is in use: whoever had one has lost it. Nor is
                # one in the moment in which all are handed on.
                if self._in_use or time.monotonic() - self._answered_at < self._wait_seconds:
                    raise DatabaseBusy(str(error).strip()) from error
                raise
            except PoolClosed:
                raise
            except psycopg.OperationalError as error:
                # The server was restarted: every pooled connection may be dead. Reads may be
                # repeated; once, on connections that were looked at.
                _log.warning("database_connection_lost", error=str(error).strip())
                await self._pool.check()
                return await self._row(statement, parameters)
        except psycopg.OperationalError as error:  # PoolTimeout is one, too
            raise DatabaseUnavailable(str(error).strip()) from error

    async def _row(
        self, statement: str, parameters: Mapping[str, Any] | None
    ) -> tuple[bytes | None, ...] | None:
        async with self._pool.connection() as connection:
            self._in_use += 1
            try:
                cursor = await connection.execute(statement.encode(), parameters)
                self._answered_at = time.monotonic()
            finally:
                self._in_use -= 1
            result = cursor.pgresult
            assert result is not None
            if result.ntuples == 0:
                return None
            return tuple(result.get_value(0, column) for column in range(result.nfields))
