"""What time it is at the exchange, frame by frame.

A frame says when it was sent; until October 2026 none did. Then the receiver's clock stands for the
exchange's, unless a recording is replayed: what its messages tell of is of another day. So where a
connection has not told the time yet, a frame that needs it and does not tell it waits for one that
does. What waits is kept with the state of the feed: a handful of frames, for a moment.
"""

from msgspec import UNSET, Struct, UnsetType, field

from kalshi_platform.exchange.messages import (
    BookDeltaFrame,
    BookSnapshotFrame,
    Frame,
    TickerFrame,
    TradeFrame,
    is_time,
)

# Clocks of exchange and receiver are seconds apart, or the handshake is refused.
_ELSEWHERE_MS = 3_600_000
_LONGEST_WAIT_MS = 10_000
_MOST_WAITING = 100


class Clock(Struct):
    """The clock of the connection at hand."""

    told: bool = False
    """Whether this connection has told the time, or is not waited for any more."""
    elsewhere: bool = False
    """Whether the time told is not the receiver's: a recording is replayed."""
    ahead_ms: int = 0
    """By how much it was ahead of the receiver's, when it was last told."""
    waiting: list[str] = field(default_factory=list)
    """Lines of the tape that wait for it, in their order."""
    waiting_since_ms: int = 0

    def enter(self) -> None:
        """Another connection has begun."""
        self.told = False
        self.waiting = []

    def now_ms(
        self, sending_ts_ms: int | UnsetType, told_ms: int | None, received_at_ns: int
    ) -> int:
        """The exchange's time of a frame, in Unix ms.

        Args:
            sending_ts_ms: when it was sent, by itself; not believed where it is no time.
            told_ms: when what it tells of happened.
        """
        if sending_ts_ms is not UNSET and is_time(sending_ts_ms):
            return sending_ts_ms
        received_ms = received_at_ns // 1_000_000
        if not self.elsewhere:
            return received_ms
        if told_ms is None:
            return received_ms + self.ahead_ms
        # Replayed faster than it was recorded, its clock runs faster.
        self.ahead_ms = told_ms - received_ms
        return told_ms

    def must_wait(self, frame: Frame, received_ms: int) -> bool:
        """Whether a frame that tells no time waits: nothing is overtaken by it."""
        if self.waiting:
            late = received_ms - self.waiting_since_ms > _LONGEST_WAIT_MS
            return not late and len(self.waiting) < _MOST_WAITING
        return self.elsewhere or isinstance(frame, BookSnapshotFrame)

    def wait(self, line: str, received_ms: int) -> None:
        """Keep a line until the time is told."""
        if not self.waiting:
            self.waiting_since_ms = received_ms
        self.waiting.append(line)

    def tell(self, told_ms: int | None, received_ms: int) -> list[str]:
        """The time is told, or not waited for any more (None); returns what waited."""
        self.told = True
        if told_ms is not None:
            self.ahead_ms = told_ms - received_ms
            self.elsewhere = abs(self.ahead_ms) > _ELSEWHERE_MS
        waiting, self.waiting = self.waiting, []
        return waiting


def time_told(frame: Frame) -> int | None:
    """When what a frame tells of happened, in Unix ms; None where it does not say."""
    if not isinstance(frame, TradeFrame | TickerFrame | BookDeltaFrame):
        return None
    told = frame.msg.ts_ms
    return told if told is not UNSET and is_time(told) else None
