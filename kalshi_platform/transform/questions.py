"""Questions about a day, in SQL, that one row answers: passed, figures, and rows worth naming."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnClause, Select, column, select, text
from sqlalchemy.dialects.postgresql import JSONB

EXAMPLES = 20
"""Rows that an answer names at most."""


def one_row(query: str, day: date, *figures: str, examples: bool = True) -> Select[Any]:
    """The answer to `query` for a UTC day.

    Args:
        query: SQL that returns one row: `passed`, the figures in this order, and, unless there are
            none, `examples` (see `as_examples`). It may use :start and :end, the day's bounds.
        figures: their names; whole numbers.
    """
    start = datetime.combine(day, time(), UTC)
    columns: list[ColumnClause[Any]] = [
        column("passed", Boolean),
        *(column(name, BigInteger) for name in figures),
    ]
    if examples:
        columns.append(column("examples", JSONB))
    answer = (
        text(query)
        .bindparams(start=start, end=start + timedelta(days=1))
        .columns(*columns)
        .subquery("answer")
    )
    return select(*(answer.c[each.name] for each in columns))


def as_examples(source: str) -> str:
    """SQL of a column: the rows of the source as a JSON list."""
    return f"(SELECT coalesce(jsonb_agg(to_jsonb({source})), '[]') FROM {source}) AS examples"  # noqa: S608
