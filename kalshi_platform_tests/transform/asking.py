"""Asks a check of quotes or books about a day."""

from datetime import datetime
from typing import Any

import psycopg

from kalshi_platform.storage.statements import run
from kalshi_platform_tests.transform.book_rows import DAY


def ask(connection: psycopg.Connection[Any], check: Any, day: datetime = DAY) -> dict[str, Any]:
    """The answer's one row: passed, figures, examples."""
    cursor = run(connection, check(day.date()))
    [row] = cursor.fetchall()
    return dict(zip((column.name for column in cursor.description or ()), row, strict=True))
