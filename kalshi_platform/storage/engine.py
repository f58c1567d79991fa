"""Connections: one URL, spelled once for each driver, always in UTC."""

import psycopg
from sqlalchemy import URL, Engine, create_engine, make_url

# Dates and instants must not depend on the server's time zone.
_SESSION_OPTIONS = "-c TimeZone=UTC"


def database_engine(url: str, pool_size: int = 5) -> Engine:
    """An SQLAlchemy engine (psycopg 3) for any spelling of a PostgreSQL URL; opens nothing yet."""
    return create_engine(
        _with_driver(url, "postgresql+psycopg"),
        pool_size=pool_size,
        pool_pre_ping=True,
        connect_args={"options": _SESSION_OPTIONS},
    )


def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection:
    """A plain psycopg connection, for COPY, advisory locks and the hot path."""
    return psycopg.connect(libpq_url(url), options=_SESSION_OPTIONS, autocommit=autocommit)


def libpq_url(url: str) -> str:
    """The URL as libpq and its tools read it, without an SQLAlchemy driver name."""
    return _with_driver(url, "postgresql").render_as_string(hide_password=False)


def psycopg2_url(url: str) -> str:
    """The URL for Dagster's storage, which speaks psycopg2 and must be told so by name."""
    return _with_driver(url, "postgresql+psycopg2").render_as_string(hide_password=False)


def sibling_database(url: str, name: str) -> str:
    """The same server, another database."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _with_driver(url: str, drivername: str) -> URL:
    # Hosting providers write postgres://, which SQLAlchemy does not know.
    return make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername=drivername)
