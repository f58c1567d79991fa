"""The real application on a fresh database, and a client with a key."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from kalshi_platform.storage import tables
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.api.rows import land, trade


@pytest.fixture(scope="session")
def _one_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database("api", template="migrated")


@pytest.fixture
def database(_one_database: str) -> str:
    """URL of a database without rows. Emptying one is quicker than making one a test."""
    with connect(_one_database) as connection:
        for table in tables.metadata.sorted_tables:
            connection.execute(f"DELETE FROM {table.name}".encode())
    return _one_database


@pytest.fixture
def key(database: str) -> str:
    with connect(database) as connection:
        return create_key(connection, "tests")


@pytest.fixture
async def app(database: str) -> AsyncIterator[FastAPI]:
    """The application, opened."""
    app = create_app(database, simulated=True, connections=4)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client


@pytest.fixture
def client(anonymous: httpx.AsyncClient, key: str) -> httpx.AsyncClient:
    """A client whose every request carries a key."""
    anonymous.headers["Authorization"] = f"Bearer {key}"
    return anonymous


@pytest.fixture(scope="session")
def standing(postgres: EmbeddedDatabase) -> Iterator[tuple[str, str]]:
    """A database with two trades of one market that no test changes, and a key."""
    url = postgres.create_database("standing", template="migrated")
    land(url, trade("10:00:00"), trade("10:00:01"))
    with connect(url) as connection:
        key = create_key(connection, "tests")
    yield url, key


@pytest.fixture
async def asker(standing: tuple[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key on the standing database: for requests that are refused."""
    url, key = standing
    app = create_app(url, simulated=True, connections=2)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://api", headers={"X-API-Key": key}
        ) as client,
    ):
        yield client
