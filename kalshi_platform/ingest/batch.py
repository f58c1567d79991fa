"""A batch: the lines of some tape blocks, read into rows, and written in one transaction."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from importlib.metadata import version

import msgspec
import psycopg
from msgspec import UNSET, Raw, Struct, UnsetType

from kalshi_platform.exchange.messages import (
    ErrorFrame,
    Frame,
    LifecycleFrame,
    OkFrame,
    SubscribedFrame,
    TickerFrame,
    TradeFrame,
    Unreadable,
    UnsubscribedFrame,
    read_lifecycle,
    read_quote,
    read_trade,
    ticker,
)
from kalshi_platform.ingest.feed import FeedState
from kalshi_platform.ingest.landing import unix_micros
from kalshi_platform.ingest.tape import Block, Position
from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes import feed as feed_writes
from kalshi_platform.storage.writes.gaps import Gap, open_gap
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform.storage.writes.trades import TradeRows, merge_trades

_CODE_VERSION = version("kalshi-platform")
_MICROS_PER_DAY = 86_400_000_000
# An exchange time this far ahead of the sending time is no evidence of anything.
_LARGEST_LEAD_MS = 10_000


class TapeLine(Struct, gc=False):
    """One line of the tape, its frame read as the message that it is."""

    received_at_ns: int
    connection: int
    frame: Frame | UnsetType = UNSET
    text: str | UnsetType = UNSET
    event: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET


class _Untyped(Struct):
    """A line whose frame could not be read."""

    received_at_ns: int
    connection: int
    frame: Raw


class _Numbered(Struct):
    """What may still be known of such a frame."""

    sid: int | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    sending_ts_ms: int | UnsetType = UNSET


_decoder = msgspec.json.Decoder(TapeLine)
_decode_untyped = msgspec.json.Decoder(_Untyped).decode
_decode_numbered = msgspec.json.Decoder(_Numbered).decode


class Batch:
    """Rows of one transaction, filled line by line.

    Args:
        state: what is known of the feed; moves on with each line.
        known_markets: tickers that have their row.
    """

    def __init__(self, state: FeedState, known_markets: set[str], landed_at: datetime) -> None:
        self.state = state
        self.landed_at = landed_at
        self.end: Position | None = None
        self.trades = TradeRows("ws", unix_micros(landed_at))
        self.quotes: list[bytes] = []
        self.lifecycle: list[feed_writes.LifecycleRow] = []
        self.rejected: list[feed_writes.RejectedRow] = []
        self.gaps: list[Gap] = []
        self.new_markets: set[str] = set()
        self.messages: Counter[str] = Counter()
        """Messages read, per channel."""
        self.counters: Counter[tuple[str, str]] = Counter()
        self.newest: dict[str, tuple[int, int]] = {}
        """Per channel: receive time (Unix ns) and sending time (Unix ms) of the last message."""
        self._known_markets = known_markets
        self._trade_days: set[int] = set()
        self._quote_days: set[int] = set()
        self._received_days: set[int] = set()
        self._position = Position(0, 0)

    def read(self, block: Block) -> None:
        """Read a block of the tape into rows."""
        self._position = block.start
        self.trades.place(self.state.connection, *self._position)
        self.end = block.end
        self.counters["bytes_total", ""] += len(block.data)
        try:
            lines: list[TapeLine] = _decoder.decode_lines(block.data)
        except msgspec.DecodeError:
            for raw in block.data.splitlines():
                self._read_alone(raw)
            return
        self._lines(lines, block.data)

    def _lines(self, lines: list[TapeLine], data: bytes) -> None:
        """Read the lines of a block, `data` being their text.

        By far the most common line, a trade in its turn, is read here without a call more than it
        needs; `_line` reads everything, that trade too, and answers for whatever is unusual.
        """
        state, known_markets, add = self.state, self._known_markets, self.trades.add
        day = None
        for number, line in enumerate(lines):
            frame = line.frame
            if frame.__class__ is TradeFrame and line.connection == state.connection:
                subscription = state.subscriptions.get(frame.sid)
                if subscription is not None and frame.seq == subscription.seq + 1:
                    message, received_ns = frame.msg, line.received_at_ns
                    try:
                        trade = read_trade(message)
                        add(trade, received_ns // 1000, frame.seq)
                    except ValueError:
                        self._line(line, partial(_line_of, data, number))
                        continue
                    subscription.seq = frame.seq
                    state.frames += 1
                    self.messages["trade"] += 1
                    if trade.market_ticker not in known_markets:
                        self.new_markets.add(trade.market_ticker)
                    if day != (day := trade.traded_at_micros // _MICROS_PER_DAY):
                        self._trade_days.add(day)
                    sent_ms = frame.sending_ts_ms
                    now_ms = received_ns // 1_000_000 if sent_ms is UNSET else sent_ms
                    state.reached("trade", min(message.ts_ms, now_ms + _LARGEST_LEAD_MS))
                    self.newest["trade"] = (received_ns, now_ms)
                    continue
            self._line(line, partial(_line_of, data, number))

    def _read_alone(self, raw: bytes) -> None:
        """Read one line of a block in which some line is not what its type promises."""
        try:
            line = _decoder.decode(raw)
        except msgspec.DecodeError as error:
            self._unread_line(raw, str(error))
        else:
            self._line(line, lambda: raw)

    def write(self, connection: psycopg.Connection) -> int:
        """Write everything; the caller owns the transaction. Returns how many trades were new."""
        ensure_partitions(connection, map(_date, sorted(self._trade_days)), [tables.trades])
        ensure_partitions(connection, map(_date, sorted(self._quote_days)), [tables.quotes])
        ensure_partitions(
            connection,
            {_date(day) for day in self._received_days},
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
        """Write the rows; where the database refuses a text, find its row and land the rest."""
        try:
            with connection.transaction():
                feed_writes.add_lifecycle_events(connection, rows)
        except psycopg.DataError as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write_lifecycle(connection, rows[:middle])
                self._write_lifecycle(connection, rows[middle:])
                return
            [row] = rows
            self.rejected.append(
                feed_writes.RejectedRow(
                    row.received_at,
                    "ws",
                    row.connection,
                    None,
                    None,
                    str(error).strip(),
                    _CODE_VERSION,
                    row.message.encode(),
                )
            )

    # One line -----------------------------------------------------------------------------------

    def _line(self, line: TapeLine, raw: Callable[[], bytes]) -> None:
        state = self.state
        if line.connection != state.connection:
            state.enter(line.connection)
            self.trades.place(line.connection, *self._position)
        frame = line.frame
        if frame is UNSET:
            self._not_a_frame(line)
            return
        state.frames += 1
        received_ns = line.received_at_ns
        sent_ms = frame.sending_ts_ms
        now_ms = received_ns // 1_000_000 if sent_ms is UNSET else sent_ms
        try:
            if isinstance(frame, TradeFrame):
                self._trade(frame, received_ns, now_ms)
            elif isinstance(frame, TickerFrame):
                self._quote(frame, received_ns, now_ms)
            elif isinstance(frame, LifecycleFrame):
                self._lifecycle(frame, received_ns, now_ms)
            elif isinstance(frame, SubscribedFrame):
                self._keep(state.subscribed(frame.msg.channel, frame.msg.sid, now_ms))
            elif (
                isinstance(frame, OkFrame | UnsubscribedFrame | ErrorFrame)
                and frame.sid is not UNSET
                and frame.seq is not UNSET
            ):
                # Replies use up numbers of the subscription that they speak of.
                self._keep(state.sequenced(frame.sid, frame.seq, now_ms)[1])
        except ValueError as error:
            self._refuse(line, bytes(_decode_untyped(raw()).frame), str(error))
            if isinstance(frame, TradeFrame | LifecycleFrame):
                self._keep(state.unread(frame.sid, now_ms, str(error)))

    def _trade(self, frame: TradeFrame, received_ns: int, now_ms: int) -> None:
        message = frame.msg
        at_ms = min(message.ts_ms, now_ms + _LARGEST_LEAD_MS)
        state = self.state
        if not state.in_order(frame.sid, frame.seq):
            self._keep(state.sequenced(frame.sid, frame.seq, at_ms)[1])
        trade = read_trade(message)
        self.trades.add(trade, received_ns // 1000, frame.seq)
        self._trade_days.add(trade.traded_at_micros // _MICROS_PER_DAY)
        self._seen("trade", trade.market_ticker, received_ns, now_ms)
        state.reached("trade", at_ms)

    def _quote(self, frame: TickerFrame, received_ns: int, now_ms: int) -> None:
        quote = read_quote(frame.msg)
        feed_order = self.state.connection << 32 | self.state.frames
        self.quotes.append(feed_writes.encode_quote(quote, received_ns // 1000, feed_order))
        self._quote_days.add(quote.quoted_at_ms // 86_400_000)
        self._seen("ticker", quote.market_ticker, received_ns, now_ms)
        self.state.reached("ticker", min(quote.quoted_at_ms, now_ms + _LARGEST_LEAD_MS))

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
        self.lifecycle.append(
            feed_writes.LifecycleRow(
                _instant(received_ns // 1000),
                None if frame.sending_ts_ms is UNSET else _instant(frame.sending_ts_ms * 1000),
                self.state.connection,
                frame.sid,
                frame.seq,
                kind,
                _known(fields.event_type),
                market_ticker,
                _known(fields.event_ticker),
                message,
            )
        )
        self._received_days.add(received_ns // 1000 // _MICROS_PER_DAY)
        self._seen(channel, market_ticker, received_ns, now_ms)
        self.state.reached(channel, now_ms)

    def _not_a_frame(self, line: TapeLine) -> None:
        if line.text is not UNSET:
            self.state.frames += 1
            self._refuse(line, line.text.encode(), "not JSON, or without a type")
        elif line.event in ("close", "subscribe", "open") and line.cause:
            self.state.cause = _cause_word(line.event, str(line.cause))

    def _unread_line(self, raw: bytes, reason: str) -> None:
        """A frame that does not match its type: refused, and its number counted as used."""
        try:
            line = _decode_untyped(raw)
        except msgspec.DecodeError:
            # No line of ours. What it held is missed by its sequence number, if it had one.
            landed_at_ns = unix_micros(self.landed_at) * 1000
            self._refuse(_Untyped(landed_at_ns, self.state.connection, Raw(raw)), raw, reason)
            return
        if line.connection != self.state.connection:
            self.state.enter(line.connection)
            self.trades.place(line.connection, *self._position)
        self.state.frames += 1
        self._refuse(line, bytes(line.frame), reason.replace(" - at `$.frame", " - at `$"))
        try:
            numbered = _decode_numbered(line.frame)
        except msgspec.DecodeError:
            return
        if numbered.sid is UNSET:
            return
        sent_ms = numbered.sending_ts_ms
        now_ms = line.received_at_ns // 1_000_000 if sent_ms is UNSET else sent_ms
        if numbered.seq is not UNSET:
            self._keep(self.state.sequenced(numbered.sid, numbered.seq, now_ms)[1])
        self._keep(self.state.unread(numbered.sid, now_ms, reason))

    def _refuse(self, line: TapeLine | _Untyped, message: bytes, reason: str) -> None:
        self.rejected.append(
            feed_writes.RejectedRow(
                _instant(line.received_at_ns // 1000),
                "ws",
                line.connection,
                *self._position,
                reason,
                _CODE_VERSION,
                message,
            )
        )
        self._received_days.add(line.received_at_ns // 1000 // _MICROS_PER_DAY)
        self.counters["rejected_total", 'source="ws"'] += 1

    def _seen(self, channel: str, market: str | None, received_ns: int, now_ms: int) -> None:
        if market not in self._known_markets and market is not None:
            self.new_markets.add(market)
        self.messages[channel] += 1
        self.newest[channel] = (received_ns, now_ms)

    def _keep(self, gap: Gap | None) -> None:
        if gap is not None:
            self.gaps.append(gap)


_OF_ONE_MARKET = {"market_lifecycle_v2", "multivariate_market_lifecycle"}


def _line_of(data: bytes, number: int) -> bytes:
    return data.splitlines()[number]


def _cause_word(event: str, cause: str) -> str:
    """The cause of the gap that the next subscription closes."""
    return cause if event == "subscribe" else f"disconnect: {cause}"


def _known(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value


def _instant(unix_micros: int) -> datetime:
    seconds, micros = divmod(unix_micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def _date(unix_day: int) -> date:
    return datetime.fromtimestamp(unix_day * 86_400, UTC).date()
