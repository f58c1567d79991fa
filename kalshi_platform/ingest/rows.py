"""Rows of one transaction: collected while lines are read, written all together."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import NamedTuple, TypeVar

import psycopg
from psycopg import errors as postgres_errors

from kalshi_platform.exchange.lifecycle import LifecycleChange
from kalshi_platform.ingest.books import BookRows
from kalshi_platform.ingest.feed import QUOTES
from kalshi_platform.ingest.figures import OTHER, channel_of, label
from kalshi_platform.ingest.landing import unix_micros
from kalshi_platform.ingest.tape import Position
from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes import feed as feed_writes
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.storage.writes.lifecycle import apply_changes
from kalshi_platform.storage.writes.markets import ask_again, ask_open_combos, is_ordinary
from kalshi_platform.storage.writes.stale import mark_gap, mark_quoted
from kalshi_platform.storage.writes.trades import TradeRows, merge_trades

MICROS_PER_DAY = 86_400_000_000
_CODE_VERSION = version("kalshi-platform")
_COMBO_CHANNEL = "multivariate_market_lifecycle"
# How the database says that it cannot hold a document: its text, its depth, its size.
_DOCUMENT_REFUSED = (
    psycopg.DataError,
    postgres_errors.StatementTooComplex,
    postgres_errors.ProgramLimitExceeded,
)


_Item = TypeVar("_Item")


class Told(NamedTuple):
    """What a lifecycle message changes, and its row."""

    change: LifecycleChange
    row: feed_writes.LifecycleRow


class Rows:
    """Everything that one batch writes.

    Args:
        landed_at: of all its rows.
    """

    def __init__(self, landed_at: datetime) -> None:
        self.landed_at = landed_at
        self.trades = TradeRows("ws", unix_micros(landed_at))
        self.quotes: list[bytes] = []
        self.quote_minutes: set[tuple[str, int]] = set()
        """(market, Unix minute) of every quote: the candles that no longer hold."""
        self.books = BookRows()
        self.lifecycle: list[feed_writes.LifecycleRow] = []
        self.changes: list[Told] = []
        """What the lifecycle messages change, in their order."""
        self.rejected: list[feed_writes.RejectedRow] = []
        self.gaps: list[Gap] = []
        self.new_markets: set[str] = set()
        self.unread_markets: set[str] = set()
        """Markets of which a message could not be read: REST is asked instead."""
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
        channel: str = OTHER,
    ) -> None:
        """Keep a message that cannot be read, and say why; `channel`: what it seems to be of."""
        segment, offset = (None, None) if position is None else position
        self.rejected.append(
            feed_writes.RejectedRow(
                received_at, "ws", connection, segment, offset, reason, _CODE_VERSION, message
            )
        )
        self.received_days.add(unix_micros(received_at) // MICROS_PER_DAY)
        self.counters["rejected_total", f'source="ws",{label(channel)}'] += 1

    def pack(self) -> None:
        """Do now what writing need not wait for; nothing more is read."""
        if self.trades:
            _ = self.trades.packed

    def row_count(self) -> int:
        """Rows that it adds to the tables of the feed."""
        return (
            len(self.trades)
            + len(self.quotes)
            + len(self.books.deltas)
            + len(self.books.snapshots)
            + len(self.lifecycle)
            + len(self.rejected)
        )

    def write(self, connection: psycopg.Connection) -> int:
        """Write everything; the caller owns the transaction. Returns how many trades were new."""
        ensure_partitions(connection, map(_date, sorted(self.trade_days)), [tables.trades])
        ensure_partitions(connection, map(_date, sorted(self.quote_days)), [tables.quotes])
        ensure_partitions(
            connection,
            {_date(day) for day in self.books.days},
            [tables.book_snapshots, tables.book_deltas],
        )
        ensure_partitions(
            connection,
            {_date(day) for day in self.received_days},
            [tables.lifecycle_events, tables.rejected_messages],
        )
        ensure_partitions(connection, [self.landed_at.date()], [tables.raw_trades])
        added = 0
        refused: set[int] = set()
        if self.lifecycle:
            refused = self._write_lifecycle(connection, self.lifecycle)
        changes = [told for told in self.changes if id(told.row) not in refused]
        self._write_changes(connection, changes)
        if self.unread_markets:
            ask_again(connection, self.unread_markets)
        if self.trades:
            added = merge_trades(connection, self.trades).added
        if self.quotes:
            feed_writes.add_quotes(connection, self.quotes)
            mark_quoted(connection, self.quote_minutes)
        if differ := self.books.write(connection):
            self.counters["books_differ_total", ""] += differ
        if self.rejected:
            feed_writes.add_rejected(connection, self.rejected)
        for gap in self.gaps:
            self.counters["gaps_detected_total", label(gap.channel)] += 1
            open_gap(connection, gap)
            if gap.channel == QUOTES:
                mark_gap(connection, gap.starts_at, gap.ends_at, gap.market_ticker)
        if any(gap.channel == _COMBO_CHANNEL for gap in self.gaps):
            ask_open_combos(connection)
        return added

    def _write_lifecycle(
        self, connection: psycopg.Connection, rows: Sequence[feed_writes.LifecycleRow]
    ) -> set[int]:
        """Write the rows; where the database refuses a document, find it and land the rest.

        Returns:
            Identities of the rows that were refused.
        """
        try:
            with connection.transaction():
                feed_writes.add_lifecycle_events(connection, rows)
        except _DOCUMENT_REFUSED as error:
            if len(rows) > 1:
                first, second = _halves(rows)
                refused = self._write_lifecycle(connection, first)
                return refused | self._write_lifecycle(connection, second)
            [row] = rows
            self._refuse_row(row, str(error).strip())
            return {id(row)}
        return set()

    def _write_changes(self, connection: psycopg.Connection, changes: Sequence[Told]) -> None:
        """Apply what the messages change, and name the new markets.

        As with their rows, what the database refuses spoils nothing else. The message stays in
        `lifecycle_events`, is refused besides, and REST is asked for its market.
        """
        if not changes and not self.new_markets:
            return
        try:
            with connection.transaction():
                apply_changes(connection, [_timed(told) for told in changes], self.new_markets)
        except _DOCUMENT_REFUSED as error:
            if not changes:
                raise  # names alone: they were read, so this is no document's fault
            if len(changes) > 1:
                # In order still: the second half follows the first.
                for half in _halves(changes):
                    self._write_changes(connection, half)
                return
            [told] = changes
            self._write_changes(connection, [])
            self._refuse_row(told.row, str(error).strip())

    def _refuse_row(self, row: feed_writes.LifecycleRow, reason: str) -> None:
        channel = channel_of(row.message_type)
        self.refuse(row.received_at, row.connection, None, row.message.encode(), reason, channel)
        if row.market_ticker is not None and is_ordinary(row.market_ticker):
            self.unread_markets.add(row.market_ticker)


def _halves(rows: Sequence[_Item]) -> tuple[Sequence[_Item], Sequence[_Item]]:
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]


def _timed(told: Told) -> tuple[LifecycleChange, datetime, datetime]:
    return told.change, told.row.sent_at or told.row.received_at, told.row.received_at


def _date(unix_day: int) -> date:
    return datetime.fromtimestamp(unix_day * 86_400, UTC).date()
