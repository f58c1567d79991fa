"""Connections: one URL, spelled once for each driver, always in UTC."""

from typing import Any

import psycopg
from sqlalchemy import URL, Engine, create_engine, make_url

_CONNECTION: dict[str, Any] = {
    # Dates and instants must not depend on the server's time zone.
    "options": "-c TimeZone=UTC",
    # A server whose machine has vanished answers nothing, not even that it is gone.
    "connect_timeout": 5,
    "tcp_user_timeout": 30_000,  # milliseconds until what was sent must have arrived
}


def database_engine(url: str, pool_size: int = 5) -> Engine:
    """An SQLAlchemy engine (psycopg 3) for any spelling of a PostgreSQL URL; opens nothing yet."""
    return create_engine(
        _with_driver(url, "postgresql+psycopg"),
        pool_size=pool_size,
        pool_pre_ping=True,
        connect_args=dict(_CONNECTION),
    )


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection:
    """A plain psycopg connection, for COPY, advisory locks and the hot path."""
    return psycopg.connect(libpq_url(url), autocommit=autocommit, **_CONNECTION)


def libpq_url(url: str) -> str:
    """The URL as libpq and its tools read it, without an SQLAlchemy driver name."""
    return _rendered(_with_driver(url, "postgresql"))


def psycopg2_url(url: str) -> str:
    """The URL for Dagster's storage, which speaks psycopg2 and must be told so by name."""
    return _rendered(_with_driver(url, "postgresql+psycopg2"))


def sibling_database(url: str, name: str) -> str:
    """The same server, another database."""
    return _rendered(make_url(url).set(database=name))


def _rendered(url: URL) -> str:
    """The URL as every reader understands it: SQLAlchemy writes a blank as +, libpq reads %20."""
    address, mark, query = url.render_as_string(hide_password=False).partition("?")
    return address + mark + query.replace("+", "%20")


def _with_driver(url: str, drivername: str) -> URL:
    # Hosting providers write postgres://, which SQLAlchemy does not know.
    return make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername=drivername)
