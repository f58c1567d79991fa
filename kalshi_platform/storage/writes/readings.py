"""Readings of events and series: taken where they are newer, left alone where nothing is new.

The rows that stand are looked at first, without a lock; only those that will change are locked,
looked at again, and written. So a second reading of everything neither writes nor waits.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

import psycopg

from kalshi_platform.storage.writes.told import (
    MOST_STALE_READS,
    Changes,
    as_rows,
    columns_of,
    name_rows,
    retry_pause,
)

_LONGEST_RETRY_SECONDS = 3600

Row = Mapping[str, Any]


class _Standing(NamedTuple):
    """A row as it stands beside what was told of it."""

    ticker: str
    is_known: bool
    differs: bool
    exchange_updated_at: datetime | None
    read_attempts: int
    is_queued: bool
    is_due: bool
    now: datetime


class Readings:
    """Writes REST's rows of one table.

    Args:
        table, key: where they go.
        facts: the columns that REST tells, without the time of change.
        name: names tickers: makes their rows where there are none.
    """

    def __init__(
        self,
        table: LiteralString,
        key: LiteralString,
        facts: Sequence[LiteralString],
        name: LiteralString,
    ) -> None:
        told = f"json_populate_recordset(NULL::{table}, %s) AS told"
        written = (*facts, "metadata_source", "read_at")
        self._key = key
        self._name = name
        # A row told without a time of change keeps the one it has.
        self._look = f"""
SELECT told.{key}, held.{key} IS NOT NULL,
       ({columns_of(facts, "held")}) IS DISTINCT FROM ({columns_of(facts, "told")})
       OR held.exchange_updated_at IS DISTINCT FROM
          coalesce(told.exchange_updated_at, held.exchange_updated_at),
       held.exchange_updated_at, coalesce(held.read_attempts, 0),
       held.next_read_at IS NOT NULL OR held.not_found_at IS NOT NULL,
       coalesce(held.next_read_at <= now(), false), now()
FROM {told} LEFT JOIN {table} AS held USING ({key})
"""  # noqa: S608
        self._lock = f"SELECT FROM {table} WHERE {key} = ANY(%s) ORDER BY {key} FOR UPDATE"
        self._take = f"""
UPDATE {table} AS held
SET ({columns_of(written)}) = ROW({columns_of(written, "told")}),
    exchange_updated_at = coalesce(told.exchange_updated_at, held.exchange_updated_at),
    updated_at = now(), next_read_at = NULL, read_attempts = 0, not_found_at = NULL
FROM {told}
WHERE held.{key} = told.{key}
"""  # noqa: S608
        self._settle = f"""
UPDATE {table} SET next_read_at = NULL, read_attempts = 0, not_found_at = NULL, read_at = %s
WHERE {key} = ANY(%s)
"""  # noqa: S608
        self._postpone = f"""
UPDATE {table} AS held SET next_read_at = later.next_read_at, read_attempts = later.read_attempts
FROM unnest(%s::text[], %s::timestamptz[], %s::int[]) AS later (ticker, next_read_at, read_attempts)
WHERE held.{key} = later.ticker
"""  # noqa: S608

    def write(
        self, connection: psycopg.Connection, rows: Iterable[Row], *, source: str, read_at: datetime
    ) -> tuple[Changes, list[str]]:
        """Write rows; returns what changed and the tickers of the rows that are new or changed."""
        told = {row[self._key]: row for row in sorted(rows, key=_by_time)}
        reread = [
            standing
            for standing in self._standing(connection, told.values())
            if not standing.is_known
            or (standing.is_due if _is_stale(told[standing.ticker], standing) else _moves(standing))
        ]
        if not reread:
            return Changes(0, 0, len(told)), []
        added = {standing.ticker for standing in reread if not standing.is_known}
        name_rows(connection, self._name, added)
        tickers = sorted(standing.ticker for standing in reread)
        connection.execute(self._lock, [tickers])
        taken: list[Row] = []
        settled: list[str] = []
        stale: list[_Standing] = []
        for standing in self._standing(connection, [told[ticker] for ticker in tickers]):
            row = told[standing.ticker]
            if _is_stale(row, standing):
                stale.append(standing)
            elif standing.differs:
                taken.append({**row, "metadata_source": source, "read_at": read_at})
            else:
                settled.append(standing.ticker)
        if taken:
            connection.execute(self._take, [as_rows(taken)])
        if settled:
            connection.execute(self._settle, [read_at, settled])
        self._put_off(connection, stale)
        changed = [row[self._key] for row in taken]
        new = len(added.intersection(changed))
        return Changes(new, len(changed) - new, len(told) - len(changed)), changed

    def _standing(self, connection: psycopg.Connection, rows: Iterable[Row]) -> list[_Standing]:
        found = connection.execute(self._look, [as_rows(rows)])
        return [_Standing(*row) for row in found]

    def _put_off(self, connection: psycopg.Connection, stale: Sequence[_Standing]) -> None:
        """REST is behind what we know: it is asked again, later each time."""
        due = [standing for standing in stale if standing.is_due]
        if due:
            attempts = [standing.read_attempts + 1 for standing in due]
            connection.execute(self._postpone, [
                [standing.ticker for standing in due],
                [
                    standing.now + retry_pause(attempt, _LONGEST_RETRY_SECONDS)
                    for standing, attempt in zip(due, attempts, strict=True)
                ],
                attempts,
            ])  # fmt: skip


def _by_time(row: Row) -> float:
    """Of two rows of one ticker the one that changed last is kept."""
    updated_at: datetime | None = row["exchange_updated_at"]
    return float("-inf") if updated_at is None else updated_at.timestamp()


def _is_stale(row: Row, standing: _Standing) -> bool:
    told, held = row["exchange_updated_at"], standing.exchange_updated_at
    if told is None or held is None or told >= held:
        return False
    return standing.read_attempts < MOST_STALE_READS


def _moves(standing: _Standing) -> bool:
    return standing.differs or standing.is_queued
