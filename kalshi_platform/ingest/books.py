"""Rows of order books: what their messages say, and which books are known from when to when.

A book is known from a snapshot on, as long as no message of its subscription is missing. What
begins and what ends is told to the database in the order of the feed; the loader itself remembers
the subscription, not the books on it.
"""

import psycopg
import structlog
from msgspec import UNSET

from kalshi_platform.exchange.book_messages import BookDelta, read_delta, read_snapshot
from kalshi_platform.exchange.messages import (
    BookDeltaFrame,
    BookSnapshotFrame,
    ErrorFrame,
    OkFrame,
    UnsubscribedFrame,
    markets_listed,
)
from kalshi_platform.ingest.feed import BOOKS, FeedState
from kalshi_platform.ingest.landing import instant
from kalshi_platform.storage.writes.books import (
    SnapshotRow,
    WatchBegins,
    WatchChange,
    WatchEnds,
    add_deltas,
    add_snapshots,
    change_watches,
    encode_delta,
)
from kalshi_platform.storage.writes.gaps import Gap
from kalshi_platform.transform.books import CLOCK_SECONDS

log = structlog.get_logger()

# A delta's own time is believed so far from its frame's: a rebuild looks for deltas within that.
_REACH_MS = CLOCK_SECONDS * 1000
# These end the subscription that they name.
_SUBSCRIPTION_ENDED = {10, 25}


class BookRows:
    """Everything that one batch writes of books."""

    def __init__(self) -> None:
        self.deltas: list[bytes] = []
        self.snapshots: list[SnapshotRow] = []
        self.watches: list[WatchChange] = []
        """What begins and ends, in the order of the feed."""
        self._ended: set[str | None] = set()
        """Markets (None: all) whose watches have ended since the last one began."""
        self.days: set[int] = set()
        """Unix days that need their partitions."""

    def add_delta(
        self,
        frame: BookDeltaFrame,
        feed_order: int,
        received_ns: int,
        now_ms: int,
        *,
        use_yes_price: bool,
    ) -> tuple[BookDelta, int]:
        """Add one delta; returns it, and its time on the exchange's clock in Unix ms.

        Raises:
            Unreadable: nothing was added.
        """
        delta = read_delta(frame.msg, use_yes_price=use_yes_price)
        at_ms = frame.msg.ts_ms
        if at_ms is UNSET or not -_REACH_MS <= at_ms - now_ms <= _REACH_MS:
            at_ms = now_ms
        self.deltas.append(
            encode_delta(
                at_ms * 1000,
                received_ns // 1000,
                feed_order,
                frame.seq,
                frame.sid,
                delta.side,
                delta.price_micros,
                delta.delta_centis,
                delta.market_ticker,
            )
        )
        self.days.add(at_ms // 86_400_000)
        return delta, at_ms

    def add_snapshot(
        self, frame: BookSnapshotFrame, state: FeedState, received_ns: int, now_ms: int
    ) -> str:
        """Add one snapshot, from which its book is known; returns the market.

        Raises:
            Unreadable: nothing was added.
        """
        in_yes_terms = state.in_yes_terms(frame.sid)
        book = read_snapshot(frame.msg, use_yes_price=in_yes_terms)
        market, at = book.market_ticker, instant(now_ms * 1000)
        order = state.connection << 32 | state.frames
        received_at = instant(received_ns // 1000)
        self.snapshots.append(
            SnapshotRow(at, received_at, order, frame.seq, frame.sid, market, book.yes, book.no)
        )
        if frame.sid == state.book_sid:
            begins = WatchBegins(market, at, order, state.connection, frame.sid, in_yes_terms)
            self.watches.append(begins)
            self._ended.clear()
        self.days.add(now_ms // 86_400_000)
        return market

    def follow_reply(
        self, reply: OkFrame | UnsubscribedFrame | ErrorFrame, state: FeedState, now_ms: int
    ) -> None:
        """A reply on the books' subscription: what it no longer holds is no longer known.

        Raises:
            Unreadable: a list of markets that is none.
        """
        if isinstance(reply, OkFrame):
            listed = markets_listed(reply)
            if listed is not None:
                ended_at = instant(now_ms * 1000)
                self.watches.append(WatchEnds(ended_at, "not watched any more", kept=listed))
        elif isinstance(reply, UnsubscribedFrame):
            self.end(state, "unsubscribed")
        elif reply.msg.code in _SUBSCRIPTION_ENDED:
            self.end(state, f"code {reply.msg.code}: {reply.msg.msg}")

    def end(self, state: FeedState, ended_by: str) -> None:
        """The books' subscription, if there is one, tells nothing more."""
        if state.book_sid is not None:
            self.watches.append(WatchEnds(state.complete_until(BOOKS), ended_by))
            state.end_books()

    def follow_gap(self, gap: Gap) -> None:
        """Something is missing: of one book, or of all."""
        if gap.market_ticker in self._ended:
            return
        self._ended.add(gap.market_ticker)
        self.watches.append(WatchEnds(gap.starts_at, gap.cause, gap.market_ticker))

    def write(self, connection: psycopg.Connection) -> int:
        """Write everything; the caller has made the partitions and commits.

        Returns:
            How many books turned out to have lost something that no number showed.
        """
        if self.snapshots:
            add_snapshots(connection, self.snapshots)
        if self.deltas:
            add_deltas(connection, self.deltas)
        differ = change_watches(connection, self.watches)
        for market in differ:
            log.error("book_differs", market=market)
        return len(differ)
