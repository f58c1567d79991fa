"""Days that left the database: which they are, and their rows as part of a page's statement.

Rows found in an archived file travel as arrays into the statement that renders a page, and meet
the table's own rows there: what becomes of both is the same SQL.

A day can be dropped or restored while a page is made. Each statement therefore answers with its
evidence: a figure over the rows of `archives` in its window that is another one after any change.
Rows and evidence are of one instant (a partition is dropped or attached in the transaction that
says so), so a page whose evidence is not the expected one is made again.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

ArchivedRows = Mapping[str, str]
"""Rows by column, each an array in PostgreSQL's text form; all of one length."""

_PREFIX = "archived_"

# A later change of a row, or a new row, always has a higher transaction id: with their number, the
# sum tells any two states of the list apart.
_EVIDENCE = "count(*) || ' ' || coalesce(sum(xmin::text::bigint), 0)"

# All days of all tables that are in the archive, oldest first; `version` as in the evidence.
ARCHIVED_DAYS = """\
SELECT coalesce(json_agg(json_build_object(
           'table', table_name, 'day', day, 'path', path, 'rows', row_count, 'bytes', bytes,
           'sha256', encode(sha256, 'hex'), 'dropped', dropped_at IS NOT NULL,
           'version', xmin::text::bigint) ORDER BY table_name, day), '[]')
FROM archives"""


def evidence_of(days: int, versions: int) -> str:
    """The evidence that a statement over so many days, of this sum of versions, answers with."""
    return f"{days} {versions}"


def days_of(start: datetime | None, end: datetime | None) -> tuple[date | None, date | None]:
    """First and last UTC day of the half-open window; None on an open side."""
    last = None if end is None else (end - timedelta(microseconds=1)).date()
    return None if start is None else start.date(), last


def first_day_held(table: str) -> str:
    """SQL for the first day that a daily table has a partition for, or an archived day instead."""
    return f"""\
least((SELECT to_date(min(right(relname, 8)), 'YYYYMMDD')
       FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
       WHERE inhparent = '{table}'::regclass),
      (SELECT min(day) FROM archives
       WHERE table_name = '{table}' AND dropped_at IS NOT NULL))"""  # noqa: S608 (constants)


def _market_days(count: str) -> str:
    """SQL for the days on which a market has rows of a table, as a JSON array, oldest first.

    Its candles know: a day is dropped only when none of them is out of date, and what came late
    for it since is stale. Takes the parameters `market_ticker`, `first_day` and `last_day`.

    Args:
        count: the column of candles_1d that counts these rows.
    """
    window = (
        "market_ticker = %(market_ticker)s AND starts_at >= %(first_day)s::date::timestamptz"
        " AND starts_at < (%(last_day)s::date + 1)::timestamptz"
    )
    return f"""\
SELECT coalesce(json_agg(day ORDER BY day), '[]')
FROM (SELECT starts_at::date AS day FROM candles_1d WHERE {window} AND {count} > 0
      UNION
      SELECT starts_at::date FROM stale_candles WHERE {window}) AS days"""  # noqa: S608 (constants)


MARKET_DAYS = {"trades": _market_days("trade_count"), "quotes": _market_days("quote_count")}
"""By table; the candles know nothing of the others."""


def evidence(*tables: str, first: bool, last: bool) -> str:
    """SQL for the evidence of these tables' days.

    Args:
        first, last: whether the window is bound by the parameters `first_day` and `last_day`.
    """
    names = ", ".join(f"'{table}'" for table in tables)
    conditions = [f"table_name IN ({names})"]
    if first:
        conditions.append("day >= %(first_day)s")
    if last:
        conditions.append("day <= %(last_day)s")
    return f"(SELECT {_EVIDENCE} FROM archives WHERE {' AND '.join(conditions)})"  # noqa: S608 (constants)


def rows_sql(columns: Mapping[str, str], prefix: str = "") -> str:
    """SQL for archived rows, a SELECT of `columns`, from the parameters of `parameters_of`.

    Args:
        columns: types by name.
        prefix: tells the parameters of two tables apart.
    """
    arrays = ", ".join(
        f"%({_PREFIX}{prefix}{name})s::{_element(kind)}[]" for name, kind in columns.items()
    )
    values = ", ".join(_value(name, kind) for name, kind in columns.items())
    return f"SELECT {values} FROM unnest({arrays}) AS archived ({', '.join(columns)})"  # noqa: S608 (constants)


def with_archived(held: str, order: str, columns: Mapping[str, str]) -> str:
    """SQL for a page's source: the rows of a table, and the archived ones, as stands in FROM.

    Args:
        held: the table and its conditions.
        order: order and limit of a page; applied to the table's rows, so that no more are read.
    """
    names = ", ".join(columns)
    return f"""\
(
        (SELECT {names} FROM {held} {order})
        UNION ALL
        {rows_sql(columns)}
    ) AS held_and_archived"""  # noqa: S608 (constants)


def parameters_of(
    rows: ArchivedRows, columns: Mapping[str, str], prefix: str = ""
) -> dict[str, str]:
    """The parameters of `rows_sql`."""
    return {f"{_PREFIX}{prefix}{name}": rows[name] for name in columns}


def _element(kind: str) -> str:
    # unnest() takes all levels of an array apart, so an array within one travels as text.
    return "text" if kind.endswith("[]") else kind


def _value(name: str, kind: str) -> str:
    if kind.endswith("[]"):
        return f"{name}::{kind} AS {name}"
    # Of the same collation as the columns of the tables: compared, two would have none.
    return f'{name} COLLATE "C" AS {name}' if kind == "text" else name
