"""The application: parts put together, opened and closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import memory
from api.archive import Archive
from api.bodies import BodyLimit
from api.charge_database import ACCOUNT_OPTIONS, ChargeDatabase
from api.completeness import Completeness
from api.compression import Compression
from api.database import LIST_OPTIONS, ReadDatabase
from api.documentation import DESCRIPTION, TAGS, TITLE, install_documentation
from api.errors import install_problem_handlers
from api.keys import Keys
from api.limits import Limits
from api.metering import Meter
from api.routes import (
    account,
    candles,
    coverage,
    deltas,
    events,
    markets,
    operations,
    orderbook,
    quotes,
    series,
    settlements,
    trades,
)
from api.telemetry import RequestMetrics, Telemetry


def create_app(
    database_url: str,
    *,
    simulated: bool,
    archive: str | None = None,
    connections: int = 10,
    statement_seconds: float = 5,
) -> FastAPI:
    """The API on a database; nothing is opened before the application starts.

    Args:
        database_url: any spelling of a PostgreSQL URL; its user must be able to become the roles
            kalshi_reader and kalshi_meter.
        simulated: whether the recorded exchange is the made-up one; shown in /health.
        archive: folder or URL of the archive, where days are that left the database.
        connections: most connections for customers' pages; as many again for lists.
        statement_seconds: longest time one page may take in the database.
    """
    database = ReadDatabase(
        database_url, connections=connections, statement_seconds=statement_seconds
    )
    lists = ReadDatabase(
        database_url,
        connections=connections,
        statement_seconds=statement_seconds,
        options=LIST_OPTIONS,
    )
    # Keys and accounts, and what charges them: a role of their own, that cannot read the data.
    accounts = ReadDatabase(
        database_url, connections=2, statement_seconds=2, options=ACCOUNT_OPTIONS
    )
    charges = ChargeDatabase(database_url)
    meter = Meter(charges)
    archived = Archive(database, archive)
    # Health has a connection of its own, so that it answers while all others are busy.
    status_database = ReadDatabase(database_url, connections=1, statement_seconds=1, wait_seconds=1)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await database.open()
        await lists.open()
        await accounts.open()
        await charges.open()
        await status_database.open()
        giving_back = asyncio.create_task(memory.give_back(), name="memory")
        try:
            yield
        finally:
            giving_back.cancel()
            archived.close()
            await meter.close()
            await charges.close()
            await accounts.close()
            await database.close()
            await lists.close()
            await status_database.close()

    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version="1",
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # /markets/ is no market, and not the list either
    )
    app.state.database = database
    app.state.lists = lists
    app.state.status_database = status_database
    app.state.accounts = accounts
    app.state.keys = Keys(accounts)
    app.state.limits = Limits()
    app.state.meter = meter
    app.state.archive = archived
    app.state.completeness = Completeness(database)
    app.state.simulated = simulated
    app.state.metrics = RequestMetrics()
    install_problem_handlers(app)
    install_documentation(app)
    for told in (trades, candles, quotes, orderbook, deltas):
        app.include_router(told.router)
    for listed in (settlements, markets, events, series, coverage):
        app.include_router(listed.router)
    app.include_router(account.router)
    app.include_router(operations.router)
    app.add_middleware(BodyLimit)
    app.add_middleware(Compression)
    # Added last, it is around all others.
    app.add_middleware(Telemetry, metrics=app.state.metrics)
    return app
