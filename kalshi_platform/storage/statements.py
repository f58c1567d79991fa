"""SQLAlchemy Core statements on plain psycopg connections."""

from typing import Any

import psycopg
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import Compiled


def run(
    connection: psycopg.Connection[Any], statement: ClauseElement
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute `statement` with its values bound.

    Never prepared: each plan is made for the values at hand, so that partitions are left out early.
    """
    compiled = compile_statement(statement)
    return connection.execute(str(compiled).encode(), compiled.params, prepare=False)


def compile_statement(statement: ClauseElement) -> Compiled:
    """The statement as psycopg text with named parameters, and their values."""
    return statement.compile(
        dialect=postgresql.psycopg.dialect(),  # type: ignore[no-untyped-call]
        compile_kwargs={"render_postcompile": True},  # the members of IN (…) one by one
    )
