"""Schema migrations, run by Alembic."""

from datetime import UTC, datetime
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from kalshi_platform.storage.engine import connect, database_engine
from kalshi_platform.storage.partitions import days_ahead, ensure_partitions

_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaMismatch(RuntimeError):
    """The database's schema is not the one this code was written for."""


def head_revision() -> str:
    """The schema revision this code was written for."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert head is not None, "the package carries no migrations"
    return head


def known_revisions() -> set[str]:
    """The schema revisions that this code can bring to its own."""
    return {script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}


def current_revision(connection: psycopg.Connection) -> str | None:
    """The database's schema revision; None for an empty database."""
    if connection.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def migrate(url: str) -> str:
    """Bring the database at `url` to the newest schema and make the coming days' partitions.

    Returns:
        The revision it now has.

    Raises:
        SchemaMismatch: the database is of a newer release than this code.
    """
    with connect(url) as connection:
        refuse_newer_schema(connection)
    engine = database_engine(url)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection_to_migrate:
        config.attributes["connection"] = connection_to_migrate
        command.upgrade(config, "head")
    engine.dispose()
    with connect(url) as connection:
        ensure_partitions(connection, days_ahead(datetime.now(UTC)))
    return head_revision()


def refuse_newer_schema(connection: psycopg.Connection) -> None:
    """Raise SchemaMismatch when the database knows a revision that this code does not."""
    current = current_revision(connection)
    if current is not None and current not in known_revisions():
        raise SchemaMismatch(
            f"The database has schema {current}, newer than this release knows "
            f"({head_revision()}). Install the newer release of kalshi-platform and start again."
        )


def require_current_schema(connection: psycopg.Connection) -> None:
    """Raise SchemaMismatch, saying what to do, unless the database has this code's schema."""
    refuse_newer_schema(connection)
    current = current_revision(connection)
    if current != head_revision():
        raise SchemaMismatch(
            f"The database has schema {current or 'none'}, this release needs {head_revision()}. "
            "Run: kalshi-platform migrate"
        )
