"""What the loader knows of the feed: which subscription carries which channel, and how far.

Pure bookkeeping over frames and connection events, in the order of the tape. It answers one
question: where may something have been lost? Its state is saved with each batch, so a loader that
is killed continues with the same knowledge.
"""

from datetime import UTC, datetime

from msgspec import Struct, field

from kalshi_platform.ingest.clock import Clock
from kalshi_platform.storage.writes.gaps import Gap

BOOKS = "orderbook_delta"
QUOTES = "ticker"
REJECTED = "rejected_message"
"""Cause of a gap: what came could not be read."""
# Channels whose gaps may concern one market alone: each message tells of that market's state.
_BY_MARKET = {BOOKS, QUOTES}

# Numbers that a sid skipped and that may still come (frames can be reordered).
_LONGEST_MISSING = 10_000
# A number that leaps further is believed once the next one follows it: a single wrong one would
# make every frame after it look like a repeated one.
_LARGEST_LEAP = 10_000


class Subscription(Struct):
    """One sid of one connection."""

    channel: str
    seq: int = 0
    missing: list[int] = field(default_factory=list)
    suspect: int | None = None
    """A number that leapt too far, and … """
    suspected_at: int = 0
    """… the `seq` from which it leapt."""
    use_yes_price: bool = False
    """Of books: whether prices of the no side come in terms of yes."""


class Channel(Struct):
    """One channel over all connections."""

    complete_until_ms: int
    """Exchange time of the last message; nothing before it is missing but recorded gaps."""


class FeedState(Struct):
    """Everything the loader must remember between batches."""

    connection: int = 0
    frames: int = 0
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    cause: str = "restart"
    """Why the subscriptions that come next are needed."""
    open: bool = False
    """Whether the connection is open, so that another one means that it ended without a word."""
    clock: Clock = field(default_factory=Clock)
    in_step: int | None = None
    """The connection, once it has told the time and that is the receiver's."""
    use_yes_price: bool = False
    """What the next subscription of books was asked to send."""
    book_sid: int | None = None
    """The subscription that books are watched by; which books is in the database alone."""

    def enter(self, connection: int) -> None:
        """A line of `connection` follows; sids begin anew with each connection."""
        if connection != self.connection:
            self.connection = connection
            self.frames = 0
            self.open = False
            self.subscriptions = {}
            self.book_sid = None
            self.clock.enter()
            self.in_step = None

    def tell_time(self, told_ms: int | None, received_ms: int) -> list[str]:
        """The connection tells the time, or is not waited for (None); returns what waited."""
        waiting = self.clock.tell(told_ms, received_ms)
        if not self.clock.elsewhere:
            self.in_step = self.connection
        elif told_ms is not None:
            # What was subscribed meanwhile is not complete until a time that is not the feed's.
            for subscription in self.subscriptions.values():
                channel = self.channels[subscription.channel]
                channel.complete_until_ms = min(channel.complete_until_ms, told_ms)
        return waiting

    def subscribed(self, channel: str, sid: int, at_ms: int) -> Gap | None:
        """`sid` carries the channel from now on; the time since its last message is a gap."""
        if channel == BOOKS:
            # What the subscription before still sends belongs to no book that is watched.
            self.end_books()
            self.book_sid = sid
        self.subscriptions[sid] = Subscription(channel, use_yes_price=self.use_yes_price)
        known = self.channels.get(channel)
        if known is None:
            self.channels[channel] = Channel(at_ms)
            return None
        gap = self._gap(channel, self.cause, known.complete_until_ms, at_ms)
        known.complete_until_ms = max(known.complete_until_ms, at_ms)
        return gap

    def end_books(self) -> None:
        """No book is watched any more, until the next subscription."""
        if self.book_sid is not None:
            self.subscriptions.pop(self.book_sid, None)
            self.book_sid = None

    def in_yes_terms(self, sid: int) -> bool:
        """Whether this subscription tells prices of the no side in terms of yes."""
        subscription = self.subscriptions.get(sid)
        return self.use_yes_price if subscription is None else subscription.use_yes_price

    def complete_until(self, channel: str) -> datetime | None:
        """Exchange time of the channel's last message; None if there never was one."""
        known = self.channels.get(channel)
        return None if known is None else _instant(known.complete_until_ms)

    def is_newest(self, sid: int, seq: int) -> bool:
        """Whether the frame that was just followed is in its turn: not late, its number believed.

        Where the subscription is not known, no frame is known to be out of it.
        """
        subscription = self.subscriptions.get(sid)
        return subscription is None or seq == subscription.seq

    def in_order(self, sid: int, seq: int) -> bool:
        """Count the frame that was expected next, and say so; otherwise ask `sequenced`."""
        subscription = self.subscriptions.get(sid)
        if subscription is None or seq != subscription.seq + 1:
            return False
        subscription.seq = seq
        return True

    def sequenced(self, sid: int, seq: int, at_ms: int) -> tuple[bool, Gap | None]:
        """A numbered frame arrived.

        Returns:
            Whether it is new (a repeated number is not), and the gap that it reveals.
        """
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            # The tape lost the reply that named the channel: nothing to compare with.
            return True, None
        expected = subscription.seq + 1
        if seq < expected:
            if seq in subscription.missing:
                subscription.missing.remove(seq)
                return True, None
            return False, None
        if seq - expected > _LARGEST_LEAP:
            suspect = subscription.suspect if subscription.suspected_at == expected - 1 else None
            if seq == suspect:
                return False, None
            if suspect is None or not 0 < seq - suspect <= _LARGEST_LEAP:
                # The interval is asked for in any case; only the count goes on as it was.
                subscription.suspect, subscription.suspected_at = seq, subscription.seq
                return True, self._jump(subscription, expected, seq, at_ms)
            # What the suspect leapt over has its gap already.
            expected = suspect + 1
        gap = None
        if seq > expected:
            gap = self._jump(subscription, expected, seq, at_ms)
            subscription.missing.extend(range(max(expected, seq - _LONGEST_MISSING), seq))
            del subscription.missing[:-_LONGEST_MISSING]
        subscription.seq = seq
        return True, gap

    def reached(self, channel: str, at_ms: int, sid: int) -> None:
        """A message of the channel with this exchange time has been read.

        Under a sid whose subscription is not known nothing shows what was lost before or between:
        only the next subscription ends that time, as a gap.
        """
        known = self.channels.get(channel)
        if known is None:
            self.channels[channel] = Channel(at_ms)
        elif at_ms > known.complete_until_ms:
            subscription = self.subscriptions.get(sid)
            if subscription is not None and subscription.channel == channel:
                known.complete_until_ms = at_ms

    def unread(
        self, sid: int, at_ms: int, reason: str, market_ticker: str | None = None
    ) -> Gap | None:
        """A message of this subscription could not be read: what it said is missing.

        Args:
            market_ticker: the one market that it spoke of, if that is known.
        """
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            return None
        return self.lost(subscription.channel, at_ms, reason, market_ticker)

    def lost(
        self, channel: str, at_ms: int, reason: str, market_ticker: str | None = None
    ) -> Gap | None:
        """The same of a channel, under whatever subscription; None if it was never open."""
        known = self.channels.get(channel)
        if known is None:
            return None
        return self._gap(
            channel,
            REJECTED,
            known.complete_until_ms,
            at_ms,
            detail=reason,
            market_ticker=market_ticker if channel in _BY_MARKET else None,
        )

    def _jump(self, subscription: Subscription, expected: int, seq: int, at_ms: int) -> Gap:
        """The numbers from `expected` up to `seq` were skipped."""
        return self._gap(
            subscription.channel,
            "sequence_jump",
            self.channels[subscription.channel].complete_until_ms,
            at_ms,
            first_seq=expected,
            last_seq=seq - 1,
        )

    def _gap(
        self,
        channel: str,
        cause: str,
        start_ms: int,
        end_ms: int,
        *,
        first_seq: int | None = None,
        last_seq: int | None = None,
        detail: str | None = None,
        market_ticker: str | None = None,
    ) -> Gap:
        return Gap(
            channel=channel,
            cause=cause,
            starts_at=_instant(start_ms),
            ends_at=_instant(max(start_ms, end_ms)),
            connection=self.connection,
            first_seq=first_seq,
            last_seq=last_seq,
            detail=detail,
            market_ticker=market_ticker,
        )


def _instant(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms // 1000, UTC).replace(microsecond=unix_ms % 1000 * 1000)
