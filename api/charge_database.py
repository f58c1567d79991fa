"""The API's one way to write: charges, on a role that knows keys and balances and nothing else."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from api.database import DatabaseUnavailable, SchemaMissing
from kalshi_platform.storage.engine import libpq_url
from kalshi_platform.storage.writes.metering import CLOSE_METER, Charge, Outcome, charge

METER_OPTIONS = {
    "role": "kalshi_meter",
    "TimeZone": "UTC",
    "jit": "off",
    # Planning the statement of a batch takes longer than running it.
    "plan_cache_mode": "force_generic_plan",
}
# Keys and accounts are looked up on the same role; see `api.database.ReadDatabase`.
ACCOUNT_OPTIONS = {
    **METER_OPTIONS,
    "default_transaction_read_only": "on",
    "DateStyle": "ISO",
}
_STATEMENT_SECONDS = 3


class ChargeDatabase:
    """One connection, since batches of charges go one after the other; opening never fails."""

    def __init__(self, url: str) -> None:
        options = {**METER_OPTIONS, "statement_timeout": f"{_STATEMENT_SECONDS * 1000}"}
        self._pool = AsyncConnectionPool(
            libpq_url(url),
            kwargs={
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
                "autocommit": True,
                "connect_timeout": 2,
                # A server whose machine has vanished answers nothing, not even that it is gone.
                "tcp_user_timeout": 3_000,
                "keepalives_idle": 2,
                "keepalives_interval": 1,
                "keepalives_count": 2,
                "application_name": "kalshi-platform api charges",
            },
            min_size=1,
            max_size=1,
            open=False,
            timeout=1,
            reconnect_timeout=1,
        )

    async def open(self) -> None:
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close()

    async def charge(self, meter_id: UUID, batch: int, charges: Sequence[Charge]) -> Outcome:
        """Commit a batch of charges; see `storage.writes.metering.charge`.

        Raises:
            DatabaseUnavailable: there was no answer: committed or not, the same may be sent again.
        """
        async with self._connection() as connection:
            return await charge(connection, meter_id, batch, charges)

    async def close_meter(self, meter_id: UUID) -> None:
        """Forget a meter that charges nothing any more."""
        async with self._connection() as connection:
            await connection.execute(CLOSE_METER, {"meter_id": meter_id})

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
            raise SchemaMissing(str(error).strip()) from error
        except (
            psycopg.OperationalError,  # PoolTimeout and a statement's timeout, too
            psycopg.errors.ReadOnlySqlTransaction,  # a standby that is not yet promoted
        ) as error:
            raise DatabaseUnavailable(str(error).strip()) from error
