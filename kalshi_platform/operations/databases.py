"""The databases of `up`: started where embedded, made where missing, migrated."""

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.simulator import exchange_of
from kalshi_platform.operations.supervisor import Supervisor
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect, sibling_database
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.recorded_exchange import claim_database
from kalshi_platform.storage.writes.starts import note_start


def prepare_databases(settings: Settings, supervisor: Supervisor) -> None:
    """Start the embedded database unless another is configured; make and migrate what is needed."""
    embedded = settings.embedded_database
    if embedded is not None:
        try:
            supervisor.keep_database(embedded)
        except RuntimeError as error:
            raise Refusal(str(error)) from error
    ensure_database(settings.url)
    if settings.dagster_database_url is None:
        ensure_database(dagster_url(settings))
    supervisor.wait(0)
    migrate(settings.url)
    with connect(settings.url) as connection:
        claim_database(connection, exchange_of(settings))
        note_start(connection, "platform")


def dagster_url(settings: Settings) -> str:
    """Where Dagster keeps its books: the URL configured, or a database beside our own."""
    if settings.dagster_database_url is not None:
        return settings.dagster_database_url.get_secret_value()
    return sibling_database(settings.url, "dagster")


def database_name(url: str) -> str:
    return make_url(url.replace("postgres://", "postgresql://", 1)).database or "postgres"


def ensure_database(url: str) -> bool:
    """Make the database unless it is there; whether it was made.

    Raises:
        Refusal: the user may not make one.
    """
    try:
        connect(url).close()
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error):
            raise
        _create_database(url)
        return True
    return False


def drop_database(url: str) -> None:
    """Drop the database with all it holds, ending its connections."""
    with connect(sibling_database(url, "postgres"), autocommit=True) as connection:
        name = sql.Identifier(database_name(url))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _create_database(url: str) -> None:
    name = database_name(url)
    try:
        with connect(sibling_database(url, "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refusal(
            f"There is no database {name}, and the user of DATABASE_URL may not make one: create "
            f"it (CREATE DATABASE {name}), or GRANT that user CREATEDB; DAGSTER_PG_URL may name "
            "another one for Dagster."
        ) from error
