"""Fixtures for all tests: one real Postgres a session, a fresh migrated database a test."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect, sibling_database
from kalshi_platform.storage.migrate import migrate

# Files that take minutes, most of it waiting.
_LONGEST = (
    "journeys/test_reference_equals",
    "operations/test_deployment",
    "operations/test_up.py",
    "journeys/",
    "archive/test_killed",
    "api/test_specification",
)
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 6_000_000_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: they must not begin when all other workers are about to end."""

    def place(item: pytest.Item) -> int:
        found = (number for number, name in enumerate(_LONGEST) if name in item.nodeid)
        return next(found, len(_LONGEST))

    items.sort(key=place)


def pytest_configure() -> None:
    """What tests write goes to memory, where the machine has a file system there with room.

    Hundreds of databases are made, each of hundreds of files. Set TMPDIR to have them elsewhere.
    """
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES:
        os.environ.setdefault("TMPDIR", str(_MEMORY))  # for child processes, too
        tempfile.tempdir = None  # chosen anew


_names = (f"test_{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedDatabase]:
    """A running embedded server with the migrated template database `migrated`."""
    with tempfile.TemporaryDirectory(prefix="kalshi-tests-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            _forgo_durability(server.create_database("migrated"))
            migrate(server.url("migrated"))
            yield server
        finally:
            server.stop()


def _forgo_durability(url: str) -> None:
    """Nobody's rows are lost if this machine fails, and a database a test is soon made."""
    with connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def database(postgres: EmbeddedDatabase) -> Iterator[str]:
    """URL of a fresh database with the newest schema."""
    name = next(_names)
    with connect(postgres.url("postgres"), autocommit=True) as connection:
        # Files are copied, not logged: quicker by far where nothing is made durable.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE migrated STRATEGY FILE_COPY".encode())
    yield sibling_database(postgres.url(), name)
    with connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def empty_database(postgres: EmbeddedDatabase) -> Iterator[str]:
    """URL of a fresh database without a schema."""
    name = next(_names)
    yield postgres.create_database(name)
    with connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
