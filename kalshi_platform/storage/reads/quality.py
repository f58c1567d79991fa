"""Ask the tables whether a day is right."""

from decimal import Decimal
from typing import Any

import psycopg
from sqlalchemy import Select

from kalshi_platform.storage.statements import run


def answer(
    connection: psycopg.Connection[Any], question: Select[Any]
) -> tuple[bool, dict[str, int]]:
    """Whether the truth that `question` states holds, and the figures that go with it.

    Args:
        question: a query of one row, `passed` first, as `transform.quality` makes them.
    """
    cursor = run(connection, question)
    row = cursor.fetchone()
    assert row is not None and cursor.description is not None, "aggregates always give a row"
    passed, *figures = row
    names = [column.name for column in cursor.description[1:]]
    # Sums of bigint come as exact decimals.
    whole = [int(figure) if isinstance(figure, Decimal) else figure for figure in figures]
    return passed, dict(zip(names, whole, strict=True))
