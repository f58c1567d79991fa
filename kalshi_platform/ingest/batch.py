"""A batch: the lines of some tape blocks, read into the rows of one transaction.

No line stops it: what cannot be read is refused, kept with its bytes, and missed by its number.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import cast, get_args

from msgspec import UNSET, Raw, UnsetType

from kalshi_platform.exchange.lifecycle import read_change
from kalshi_platform.exchange.messages import (
    BookDeltaFrame,
    BookSnapshotFrame,
    ErrorFrame,
    LifecycleFrame,
    OkFrame,
    SubscribedFrame,
    TickerFrame,
    TradeFrame,
    Unreadable,
    UnsubscribedFrame,
    exchange_ms,
    is_time,
    read_lifecycle,
    read_quote,
    read_trade,
    ticker,
)
from kalshi_platform.exchange.trade_columns import read_trade_columns
from kalshi_platform.exchange.unread import Subject, subject_of, subject_within
from kalshi_platform.ingest.clock import time_told
from kalshi_platform.ingest.feed import BOOKS, QUOTES, REJECTED, FeedState
from kalshi_platform.ingest.figures import OTHER, channel_of, channel_of_class, label
from kalshi_platform.ingest.landing import instant
from kalshi_platform.ingest.lines import (
    UNREADABLE,
    BlockLines,
    TapeLine,
    around_frame,
    frame_bytes,
    message_of,
    read_line,
    read_lines,
    split_lines,
    unread_frame,
)
from kalshi_platform.ingest.rows import MICROS_PER_DAY, Rows, Told
from kalshi_platform.ingest.tape import Block, Position
from kalshi_platform.storage.texts import storable
from kalshi_platform.storage.writes.feed import LifecycleRow, encode_quote
from kalshi_platform.storage.writes.gaps import Gap
from kalshi_platform.storage.writes.markets import is_ordinary

# An exchange time this far ahead of the sending time is no evidence of anything.
_LARGEST_LEAD_MS = 10_000
# From so many trades on columns are quicker than rows.
_FEWEST_AT_ONCE = 8
# What says nothing of subscriptions, or of that alone whose sid it bears.
_APART = {
    *(TradeFrame, TickerFrame, BookDeltaFrame, BookSnapshotFrame, *get_args(LifecycleFrame)),
    *(OkFrame, UnsubscribedFrame, ErrorFrame),
}


class Batch(Rows):
    """Rows of one transaction, filled line by line.

    Args:
        state: what is known of the feed; moves on with each line.
        known_markets: tickers that have their row.
    """

    def __init__(self, state: FeedState, known_markets: set[str], landed_at: datetime) -> None:
        super().__init__(landed_at)
        self.state = state
        self.end: Position | None = None
        self.messages: Counter[str] = Counter()
        """Messages read, per channel."""
        self.newest: dict[str, tuple[int, int]] = {}
        """Per channel: receive time (Unix ns) and sending time (Unix ms) of the last message."""
        self.first_received_ns: int | None = None
        """Unix ns of its oldest line."""
        self._known_markets = known_markets
        self._position = Position(0, 0)
        self._refusals: dict[tuple[str, str | None], int] = {}
        """Places in `gaps`, by channel and market, of what could not be read last."""

    def read(self, block: Block) -> None:
        """Read a block of the tape into rows."""
        self._position = block.start
        self.trades.place(self.state.connection, *self._position)
        self.end = block.end
        self.counters["bytes_total", ""] += len(block.data)
        lines = read_lines(block.data)
        if lines is not None:
            self._lines(lines, block.data)
            return
        for raw in split_lines(block.data):
            self._read_alone(raw)

    def _lines(self, lines: list[TapeLine], data: bytes) -> None:
        """Read the lines of a block, `data` being their text.

        By far the most common lines are read here: trades all at once, a delta in its turn without
        a call more than it needs. `_line` reads everything, these too, and answers for whatever is
        unusual.
        """
        if not lines:
            return
        state, known = self.state, self.state.frames
        raws = BlockLines(data)
        kinds = {line.frame.__class__ for line in lines}
        self._count_bytes(lines, data, raws, kinds)
        at_once = TradeFrame in kinds and self._trades_at_once(lines, kinds)
        for number, line in enumerate(lines):
            frame = line.frame
            if at_once:
                state.frames = known + number
                if frame.__class__ is TradeFrame:
                    continue
            if frame.__class__ is BookDeltaFrame and line.connection == state.in_step:
                subscription = state.subscriptions.get(frame.sid)
                if subscription is not None and frame.seq == subscription.seq + 1:
                    received_ns = line.received_at_ns
                    now_ms = exchange_ms(frame.sending_ts_ms, received_ns)
                    try:
                        self._add_delta(frame, received_ns, now_ms, state.frames + 1)
                    except ValueError:
                        self._line(line, partial(raws.at, number))
                        continue
                    subscription.seq = frame.seq
                    state.frames += 1
                    continue
            self._line(line, partial(raws.at, number))
        if at_once:
            state.frames = known + len(lines)

    def _trades_at_once(self, lines: list[TapeLine], kinds: set[type]) -> bool:
        """Read the trades of a block before its other lines, column by column.

        Returns:
            False, and nothing is read: some trade is unusual or not in its turn, there are few, or
            another line may change what they mean.
        """
        state = self.state
        trades = [line for line in lines if line.frame.__class__ is TradeFrame]
        frames = cast("list[TradeFrame]", [line.frame for line in trades])
        subscription = state.subscriptions.get(frames[0].sid)
        if (
            len(trades) < _FEWEST_AT_ONCE
            or not kinds <= _APART
            or subscription is None
            or subscription.channel != "trade"
            # The subscription is of these trades, and of nothing else that the block holds.
            or {frame.sid for frame in frames} != {frames[0].sid}
            or sum(line.frame.sid == frames[0].sid for line in lines) > len(frames)  # type: ignore[union-attr]
            or {line.connection for line in lines} != {state.in_step}
        ):
            return False
        first, last = subscription.seq + 1, subscription.seq + len(frames)
        if [frame.seq for frame in frames] != [*range(first, last + 1)]:
            return False
        received_ns = [line.received_at_ns for line in trades]
        try:
            columns = read_trade_columns([frame.msg for frame in frames])
        except ValueError:
            return False
        self.trades.add_columns(columns, [ns // 1000 for ns in received_ns], first)
        subscription.seq = last
        self.trade_days.update({ms // 86_400_000 for ms in columns.traded_at_ms})
        self.new_markets |= set(columns.market_tickers) - self._known_markets
        now_ms = [*map(exchange_ms, [frame.sending_ts_ms for frame in frames], received_ns)]
        latest = [ms + _LARGEST_LEAD_MS for ms in now_ms]
        state.reached("trade", max(map(min, columns.traded_at_ms, latest)), frames[0].sid)
        self.messages["trade"] += len(trades)
        self.newest["trade"] = (received_ns[-1], now_ms[-1])
        return True

    def _count_bytes(
        self, lines: list[TapeLine], data: bytes, raws: BlockLines, kinds: set[type]
    ) -> None:
        """Add the frames' bytes to their channels'."""
        self.first_received_ns = self.first_received_ns or lines[0].received_at_ns
        if len(kinds) == 1:
            # A burst: no line need be taken out of the block.
            around = around_frame(data[: data.index(b"\n")]) + len(b"\n")
            sizes = {next(iter(kinds)): len(data) - around * len(lines)}
        else:
            around = next((around_frame(raw) for raw in raws.all() if b'"frame":' in raw), 0)
            sizes = dict.fromkeys(kinds, 0)
            for line, raw in zip(lines, raws.all(), strict=False):
                sizes[line.frame.__class__] += len(raw) - around
        for kind, size in sizes.items():
            if kind is not UnsetType:
                self._add_bytes(channel_of_class(kind), size)

    def _add_bytes(self, channel: str, size: int) -> None:
        self.counters["message_bytes_total", label(channel)] += size

    def _read_alone(self, raw: bytes) -> None:
        """Read one line of a block in which some line is not what its type promises."""
        try:
            line = read_line(raw)
        except UNREADABLE as error:
            self._unread_line(raw, str(error))
        else:
            self.first_received_ns = self.first_received_ns or line.received_at_ns
            if line.frame is not UNSET:
                self._add_bytes(channel_of_class(line.frame.__class__), frame_bytes(raw))
            self._line(line, lambda: raw)

    # One line -----------------------------------------------------------------------------------

    def _line(self, line: TapeLine, raw: Callable[[], bytes]) -> None:
        """Read a line once the time is known, and before it those that waited for that."""
        self._enter(line.connection, line.received_at_ns)
        if not self.state.clock.told and self._waits(line, raw):
            return
        self._timed_line(line, raw)

    def _waits(self, line: TapeLine, raw: Callable[[], bytes]) -> bool:
        """Whether a line of a connection that has not told the time must wait for that."""
        clock, frame = self.state.clock, line.frame
        received_ms = line.received_at_ns // 1_000_000
        if frame is UNSET:
            # Events but the last one keep their place among the frames.
            waits = bool(clock.waiting) and line.event is not UNSET and line.event != "close"
            if not waits and clock.waiting:
                self._tell_time(None, received_ms)
        else:
            sent_ms, told_ms = frame.sending_ts_ms, time_told(frame)
            if sent_ms is not UNSET and is_time(sent_ms):
                told_ms = sent_ms
            waits = told_ms is None and clock.must_wait(frame, received_ms)
            if told_ms is not None or (not waits and clock.waiting):
                self._tell_time(told_ms, received_ms)
        if not waits:
            return False
        try:
            clock.wait(raw().decode(), received_ms)
        except UnicodeDecodeError:
            # Bytes where nothing looked at them: no database keeps these for later.
            self._tell_time(None, received_ms)
            return False
        return True

    def _tell_time(self, told_ms: int | None, received_ms: int) -> None:
        for waited in self.state.tell_time(told_ms, received_ms):
            data = waited.encode()
            self._timed_line(read_line(data), partial(bytes, data))

    def _timed_line(self, line: TapeLine, raw: Callable[[], bytes]) -> None:
        state = self.state
        frame = line.frame
        if frame is UNSET:
            self._not_a_frame(line, raw)
            return
        state.frames += 1
        received_ns = line.received_at_ns
        now_ms = state.clock.now_ms(frame.sending_ts_ms, time_told(frame), received_ns)
        try:
            if isinstance(frame, TradeFrame):
                self._trade(frame, received_ns, now_ms)
            elif isinstance(frame, TickerFrame):
                self._quote(frame, received_ns, now_ms)
            elif isinstance(frame, LifecycleFrame):
                self._lifecycle(frame, received_ns, now_ms)
            elif isinstance(frame, BookDeltaFrame):
                self._delta(frame, received_ns, now_ms)
            elif isinstance(frame, BookSnapshotFrame):
                self._snapshot(frame, received_ns, now_ms)
            elif isinstance(frame, SubscribedFrame):
                self._keep(state.subscribed(frame.msg.channel, frame.msg.sid, now_ms))
            elif frame.sid is not UNSET:
                self._reply(frame, frame.sid, now_ms)
        except UNREADABLE as error:
            message = message_of(raw())
            channel = channel_of_class(frame.__class__)
            self._refuse(received_ns, message, str(error), channel)
            if not isinstance(frame, SubscribedFrame) and frame.sid is not UNSET:
                self._unread(frame.sid, now_ms, str(error), subject_of(message))

    def _trade(self, frame: TradeFrame, received_ns: int, now_ms: int) -> None:
        message = frame.msg
        at_ms = min(message.ts_ms, now_ms + _LARGEST_LEAD_MS)
        state = self.state
        if not state.in_order(frame.sid, frame.seq):
            self._keep(state.sequenced(frame.sid, frame.seq, at_ms)[1])
        trade = read_trade(message)
        self.trades.add(trade, received_ns // 1000, frame.seq)
        self.trade_days.add(trade.traded_at_micros // MICROS_PER_DAY)
        if trade.market_ticker not in self._known_markets:
            self.new_markets.add(trade.market_ticker)
        self._seen("trade", received_ns, now_ms)
        state.reached("trade", at_ms, frame.sid)

    def _quote(self, frame: TickerFrame, received_ns: int, now_ms: int) -> None:
        quote = read_quote(frame.msg)
        feed_order = self.state.connection << 32 | self.state.frames
        self.quotes.append(encode_quote(quote, received_ns // 1000, feed_order))
        self.quote_days.add(quote.quoted_at_ms // 86_400_000)
        self.quote_minutes.add((quote.market_ticker, quote.quoted_at_ms // 60_000))
        self._name(quote.market_ticker)
        self._seen("ticker", received_ns, now_ms)
        at_ms = min(quote.quoted_at_ms, now_ms + _LARGEST_LEAD_MS)
        self.state.reached("ticker", at_ms, frame.sid)

    def _delta(self, frame: BookDeltaFrame, received_ns: int, now_ms: int) -> None:
        state = self.state
        if not state.in_order(frame.sid, frame.seq) and not self._is_new(frame, now_ms):
            return
        self._add_delta(frame, received_ns, now_ms, state.frames)

    def _add_delta(self, frame: BookDeltaFrame, received_ns: int, now_ms: int, number: int) -> None:
        state, sid = self.state, frame.sid
        delta, at_ms = self.books.add_delta(
            frame,
            state.connection << 32 | number,
            received_ns,
            now_ms,
            use_yes_price=state.in_yes_terms(sid),
        )
        self._name(delta.market_ticker)
        self._seen(BOOKS, received_ns, now_ms)
        # A watch that ends is known up to here: never later than what was sent can tell of.
        state.reached(BOOKS, min(at_ms, now_ms), sid)

    def _snapshot(self, frame: BookSnapshotFrame, received_ns: int, now_ms: int) -> None:
        if not self._is_new(frame, now_ms):
            return
        left = self.state.book_sid not in (None, frame.sid)
        if left or not self.state.is_newest(frame.sid, frame.seq):
            # What it shows has changed since, and deltas that it lacks are in already; or it comes
            # late from a subscription that was left, and would hide the book of the present one.
            self.counters["overtaken_total", f'channel="{BOOKS}"'] += 1
            return
        self._name(self.books.add_snapshot(frame, self.state, received_ns, now_ms))
        # It does not say how far the channel is complete: a delta that is older than its sending
        # may have been lost just before it.
        self._seen(BOOKS, received_ns, now_ms)

    def _is_new(self, frame: BookDeltaFrame | BookSnapshotFrame, now_ms: int) -> bool:
        """Follow the number of a book's message; the same delta twice would be wrong."""
        is_new, gap = self.state.sequenced(frame.sid, frame.seq, now_ms)
        self._keep(gap)
        if not is_new:
            self.counters["repeated_total", f'channel="{BOOKS}"'] += 1
        return is_new

    def _reply(
        self, frame: OkFrame | UnsubscribedFrame | ErrorFrame, sid: int, now_ms: int
    ) -> None:
        """Replies use up numbers of the subscription that they speak of."""
        if frame.seq is not UNSET:
            is_new, gap = self.state.sequenced(sid, frame.seq, now_ms)
            self._keep(gap)
            in_turn = is_new and self.state.is_newest(sid, frame.seq)
            if isinstance(frame, OkFrame) and not in_turn:
                return  # a list that was overtaken says what was watched before
        if sid == self.state.book_sid:
            self.books.follow_reply(frame, self.state, now_ms)

    def _lifecycle(self, frame: LifecycleFrame, received_ns: int, now_ms: int) -> None:
        is_new, gap = self.state.sequenced(frame.sid, frame.seq, now_ms)
        self._keep(gap)
        if not is_new:
            self.counters["repeated_total", 'channel="lifecycle"'] += 1
            return
        message = bytes(frame.msg).decode()
        if "\\u0000" in message:
            raise Unreadable("a text holds a zero character, which no database text can")
        fields = read_lifecycle(frame.msg)
        kind = str(type(frame).__struct_config__.tag)
        if kind in _OF_ONE_MARKET and UNSET in (fields.market_ticker, fields.event_type):
            raise Unreadable("market_ticker or event_type is missing")
        market_ticker = None if fields.market_ticker is UNSET else ticker(fields.market_ticker)
        subscription = self.state.subscriptions.get(frame.sid)
        channel = subscription.channel if subscription else kind
        row = LifecycleRow(
            instant(received_ns // 1000),
            instant(now_ms * 1000) if frame.sending_ts_ms == now_ms else None,
            self.state.connection,
            frame.sid,
            frame.seq,
            kind,
            _known(fields.event_type),
            market_ticker,
            _known(fields.event_ticker),
            message,
        )
        self._change(row, frame.msg)
        self.lifecycle.append(row)
        self.received_days.add(received_ns // 1000 // MICROS_PER_DAY)
        self._seen(channel, received_ns, now_ms)
        self.state.reached(channel, now_ms, frame.sid)

    def _change(self, row: LifecycleRow, message: Raw) -> None:
        """What a lifecycle message changes."""
        market = row.market_ticker
        if market is not None and not is_ordinary(market) and row.event_type == "created":
            return  # a thousand a second; one that is traded is asked for over REST
        try:
            change = read_change(row.message_type, bytes(message))
        except Unreadable:
            if market is not None and is_ordinary(market):
                self.unread_markets.add(market)
            raise
        if market is not None:
            self._name(market)
        if change is not None:
            self.changes.append(Told(change, row))

    def _not_a_frame(self, line: TapeLine, raw: Callable[[], bytes]) -> None:
        state = self.state
        if line.text is not UNSET:
            state.frames += 1
            reason = "not JSON, or without a type"
            subject = subject_within(line.text)
            channel = channel_of(subject.kind)
            self._add_bytes(channel, len(line.text.encode()))
            self._refuse(line.received_at_ns, line.text.encode(), reason, channel)
            if subject.kind in (None, QUOTES):
                # No number will be missed if it was a quote, and it may have been one.
                now_ms = state.clock.now_ms(UNSET, None, line.received_at_ns)
                self._keep(state.lost(QUOTES, now_ms, reason, subject.market_ticker))
        elif line.event is UNSET:
            self._refuse(line.received_at_ns, raw(), "a line that holds no frame, text or event")
        elif line.event in ("close", "subscribe", "open"):
            if line.event == "subscribe" and line.channel == BOOKS:
                state.use_yes_price = line.use_yes_price is not UNSET and bool(line.use_yes_price)
            if line.cause:
                state.cause = _cause_word(line.event, storable(str(line.cause)))
            if line.event == "close":
                self.books.end(state, state.cause)
            if line.event != "subscribe":
                state.open = line.event == "open"

    def _unread_line(self, raw: bytes, reason: str) -> None:
        """A frame that does not match its type: refused, and its number counted as used."""
        frame = unread_frame(raw)
        if frame is None:
            # No line of ours. What it held is missed by its sequence number, if it had one.
            self.refuse(self.landed_at, self.state.connection, self._position, raw, reason)
            return
        received_ns, numbers = frame.received_at_ns, frame.numbers
        self._enter(frame.connection, received_ns)
        if self.state.clock.waiting:
            self._tell_time(None, received_ns // 1_000_000)
        self.state.frames += 1
        channel = channel_of(frame.subject.kind)
        self._add_bytes(channel, len(frame.message))
        why = reason.replace(" - at `$.frame", " - at `$")
        self._refuse(received_ns, frame.message, why, channel)
        now_ms = self.state.clock.now_ms(numbers.sending_ts_ms, None, received_ns)
        if numbers.sid is not UNSET and numbers.seq is not UNSET:
            self._keep(self.state.sequenced(numbers.sid, numbers.seq, now_ms)[1])
        self._unread(numbers.sid, now_ms, reason, frame.subject)

    def _unread(self, sid: int | UnsetType, now_ms: int, reason: str, subject: Subject) -> None:
        """What a message that cannot be read said is missing, of its market if that is told."""
        if subject.kind == QUOTES:
            self._keep(self.state.lost(QUOTES, now_ms, reason, subject.market_ticker))
        elif sid is not UNSET:
            self._keep(self.state.unread(sid, now_ms, reason, subject.market_ticker))

    def _enter(self, connection: int, received_ns: int) -> None:
        if connection != self.state.connection:
            if self.state.clock.waiting:
                self._tell_time(None, received_ns // 1_000_000)
            if self.state.open:
                # The one before ended without a word.
                self.state.cause = "restart"
            self.books.end(self.state, self.state.cause)
            self.state.enter(connection)
            self.trades.place(connection, *self._position)

    def _refuse(
        self, received_at_ns: int, message: bytes, reason: str, channel: str = OTHER
    ) -> None:
        """Refuse a message of the connection at hand."""
        received_at = instant(received_at_ns // 1000)
        self.refuse(received_at, self.state.connection, self._position, message, reason, channel)

    def _name(self, market: str) -> None:
        """Give an ordinary market its row with any message; a combo gets it with a trade alone."""
        if market not in self._known_markets and is_ordinary(market):
            self.new_markets.add(market)

    def _seen(self, channel: str, received_ns: int, now_ms: int) -> None:
        self.messages[channel] += 1
        # How old a recording is says nothing of how late its frames are.
        elsewhere = self.state.clock.elsewhere
        self.newest[channel] = (received_ns, received_ns // 1_000_000 if elsewhere else now_ms)

    def _keep(self, gap: Gap | None) -> None:
        if gap is None:
            return
        if gap.channel == BOOKS:
            self.books.follow_gap(gap)
        if gap.cause != REJECTED:
            self.gaps.append(gap)
            return
        # Where nothing of a channel can be read any more, that is thousands of messages a second.
        about = gap.channel, gap.market_ticker
        place = self._refusals.get(about)
        joined = None if place is None else _joined(self.gaps[place], gap)
        if place is None or joined is None:
            self._refusals[about] = len(self.gaps)
            self.gaps.append(gap)
        else:
            self.gaps[place] = joined


_OF_ONE_MARKET = {"market_lifecycle_v2", "multivariate_market_lifecycle"}


def _joined(gap: Gap, later: Gap) -> Gap | None:
    """Two gaps of the same cause as one, if nothing lies between them."""
    if later.connection != gap.connection or later.starts_at > gap.ends_at:
        return None
    return replace(
        gap,
        starts_at=min(gap.starts_at, later.starts_at),
        ends_at=max(gap.ends_at, later.ends_at),
    )


def _cause_word(event: str, cause: str) -> str:
    """The cause of the gap that the next subscription closes."""
    return cause if event == "subscribe" else f"disconnect: {cause}"


def _known(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value
