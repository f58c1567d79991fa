"""Fixtures for all tests: one real Postgres a session, a fresh migrated database a test."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Journeys first: the longest must not begin when all other workers are about to end."""
    items.sort(key=lambda item: "test_reference_equals" not in item.nodeid)
    items.sort(key=lambda item: "journeys" not in item.path.parts)


_names = (f"test_{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedDatabase]:
    """A running embedded server with the migrated template database `migrated`."""
    with tempfile.TemporaryDirectory(prefix="kalshi-tests-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            migrate(server.create_database("migrated"))
            yield server
        finally:
            server.stop()


@pytest.fixture
def database(postgres: EmbeddedDatabase) -> Iterator[str]:
    """URL of a fresh database with the newest schema."""
    name = next(_names)
    yield postgres.create_database(name, template="migrated")
    with connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def empty_database(postgres: EmbeddedDatabase) -> Iterator[str]:
    """URL of a fresh database without a schema."""
    name = next(_names)
    yield postgres.create_database(name)
    with connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
