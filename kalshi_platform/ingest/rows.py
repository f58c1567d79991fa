"""Rows of one transaction: collected while lines are read, written all together."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from importlib.metadata import version

import psycopg
from psycopg import errors as postgres_errors

from kalshi_platform.ingest.landing import unix_micros
from kalshi_platform.ingest.tape import Position
from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes import feed as feed_writes
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform.storage.writes.trades import TradeRows, merge_trades

MICROS_PER_DAY = 86_400_000_000
_CODE_VERSION = version("kalshi-platform")
# How the database says that it cannot hold a document: its text, its depth, its size.
_DOCUMENT_REFUSED = (
    psycopg.DataError,
    postgres_errors.StatementTooComplex,
    postgres_errors.ProgramLimitExceeded,
)


class Rows:
    """Everything that one batch writes.

    Args:
        landed_at: of all its rows.
    """

    def __init__(self, landed_at: datetime) -> None:
        self.landed_at = landed_at
        self.trades = TradeRows("ws", unix_micros(landed_at))
        self.quotes: list[bytes] = []
        self.lifecycle: list[feed_writes.LifecycleRow] = []
        self.rejected: list[feed_writes.RejectedRow] = []
        self.gaps: list[Gap] = []
        self.new_markets: set[str] = set()
        self.counters: Counter[tuple[str, str]] = Counter()
        # Unix days that need their partitions.
        self.trade_days: set[int] = set()
        self.quote_days: set[int] = set()
        self.received_days: set[int] = set()

    def refuse(
        self,
        received_at: datetime,
        connection: int,
        position: Position | None,
        message: bytes,
        reason: str,
    ) -> None:
        """Keep a message that cannot be read, and say why."""
        segment, offset = (None, None) if position is None else position
        self.rejected.append(
            feed_writes.RejectedRow(
                received_at, "ws", connection, segment, offset, reason, _CODE_VERSION, message
            )
        )
        self.received_days.add(unix_micros(received_at) // MICROS_PER_DAY)
        self.counters["rejected_total", 'source="ws"'] += 1

    def write(self, connection: psycopg.Connection) -> int:
        """Write everything; the caller owns the transaction. Returns how many trades were new."""
        ensure_partitions(connection, map(_date, sorted(self.trade_days)), [tables.trades])
        ensure_partitions(connection, map(_date, sorted(self.quote_days)), [tables.quotes])
        ensure_partitions(
            connection,
            {_date(day) for day in self.received_days},
            [tables.lifecycle_events, tables.rejected_messages],
        )
        ensure_partitions(connection, [self.landed_at.date()], [tables.raw_trades])
        added = 0
        if self.new_markets:
            name_markets(connection, self.new_markets)
        if self.trades:
            added = merge_trades(connection, self.trades).added
        if self.quotes:
            feed_writes.add_quotes(connection, self.quotes)
        if self.lifecycle:
            self._write_lifecycle(connection, self.lifecycle)
        if self.rejected:
            feed_writes.add_rejected(connection, self.rejected)
        for gap in self.gaps:
            open_gap(connection, gap)
        return added

    def _write_lifecycle(
        self, connection: psycopg.Connection, rows: Sequence[feed_writes.LifecycleRow]
    ) -> None:
        """Write the rows; where the database refuses a document, find it and land the rest."""
        try:
            with connection.transaction():
                feed_writes.add_lifecycle_events(connection, rows)
        except _DOCUMENT_REFUSED as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write_lifecycle(connection, rows[:middle])
                self._write_lifecycle(connection, rows[middle:])
                return
            [row] = rows
            reason = str(error).strip()
            self.refuse(row.received_at, row.connection, None, row.message.encode(), reason)


def instant(unix_micros: int) -> datetime:
    seconds, micros = divmod(unix_micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def _date(unix_day: int) -> date:
    return datetime.fromtimestamp(unix_day * 86_400, UTC).date()
