"""One client's connection: its subscriptions, their numbering, and the frames sent to it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

TRADE = "trade"
TICKER = "ticker"
BOOK = "orderbook_delta"
SNAPSHOT = "orderbook_snapshot"  # a type of message on the channel of books
LIFECYCLE = "market_lifecycle_v2"
COMBO_LIFECYCLE = "multivariate_market_lifecycle"
CHANNELS = (TRADE, TICKER, BOOK, LIFECYCLE, COMBO_LIFECYCLE)
UNFILTERED = (LIFECYCLE, COMBO_LIFECYCLE)

ERRORS = {
    1: "Unable to process message", 2: "Params required", 3: "Channels required",
    4: "Subscription IDs required", 5: "Unknown command", 7: "Unknown subscription ID",
    8: "Unknown channel name", 10: "Channel error", 11: "Invalid parameter",
    12: "Exactly one subscription ID is required", 13: "Unsupported action",
    14: "Market ticker required", 15: "Action required", 25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded", 27: "Too many requests",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a subscription may ask for; None is without end.

    Attributes:
        books: markets in one subscription of books (code 26).
        commands: commands a second of the wall clock about one subscription (code 27).
    """

    books: int | None = None
    commands: int | None = None


NO_LIMITS = Limits()


@dataclass
class Subscription:
    """One channel on one connection. `tickers` None means every market.

    `commanded` holds when, by the monotonic clock, the last commands about it came.
    """

    sid: int
    channel: str
    tickers: set[str] | None
    use_yes_price: bool = False
    skip_ack: bool = False
    seq: int = 0
    held: bytes | None = None
    commanded: deque[float] = field(default_factory=deque)

    @property
    def numbers_data(self) -> bool:
        """The ticker channel does not number its messages; its replies still are numbered."""
        return self.channel != TICKER

    def hears(self, ticker: str) -> bool:
        return self.tickers is None or self.channel in UNFILTERED or ticker in self.tickers


@dataclass
class Client:
    """A connected client. Frames are queued by `put` and leave together at `flush`."""

    number: int
    key_id: str
    connection: ServerConnection
    limits: Limits = NO_LIMITS
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    ever_subscribed: bool = False
    _sids: int = 0

    def is_open(self) -> bool:
        return self.connection.protocol.state is State.OPEN

    def subscribed_to(self, channel: str) -> Subscription | None:
        for subscription in self.subscriptions.values():
            if subscription.channel == channel:
                return subscription
        return None

    def open_subscription(self, channel: str, tickers: set[str] | None) -> Subscription:
        """A new subscription with the next sid of this connection."""
        self._sids += 1
        opened = Subscription(self._sids, channel, tickers)
        self.subscriptions[opened.sid] = opened
        self.ever_subscribed = True
        return opened

    def may_command(self, subscription: Subscription) -> bool:
        """Count a command about a subscription; whether it is not one too many in a second."""
        if self.limits.commands is None:
            return True
        now = time.monotonic()
        commanded = subscription.commanded
        while commanded and commanded[0] <= now - 1:
            commanded.popleft()
        if len(commanded) >= self.limits.commands:
            return False
        commanded.append(now)
        return True

    def put(self, frame: bytes, kind: str) -> None:
        """Queue one text frame; does nothing on a connection that is closing."""
        if self.connection.protocol.state is State.OPEN:
            self.connection.protocol.send_text(frame)
            self.sent[kind] = self.sent.get(kind, 0) + 1

    def flush(self) -> None:
        """Hand queued frames to the socket in one piece."""
        if self.connection.protocol.state is not State.OPEN:
            return
        queued = self.connection.protocol.data_to_send()
        if queued:
            self.connection.transport.write(b"".join(queued))

    def heartbeat(self) -> None:
        """Send the exchange's Ping."""
        if self.connection.protocol.state is State.OPEN:
            self.connection.protocol.send_ping(b"heartbeat")
            self.flush()

    def backlog(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.connection.transport.get_write_buffer_size()


def data_frame(
    subscription: Subscription, kind: str, body: bytes, now_ms: int, reply_to: int | None = None
) -> bytes:
    """Frame a message and use up a number where the channel numbers its messages."""
    answered = b'"id":%d,' % reply_to if reply_to else b""
    if subscription.numbers_data:
        subscription.seq += 1
        return b'{"type":"%s",%s"sid":%d,"seq":%d,"msg":%s,"sending_ts_ms":%d}' % (
            kind.encode(), answered, subscription.sid, subscription.seq, body, now_ms,
        )  # fmt: skip
    return b'{"type":"%s",%s"sid":%d,"msg":%s,"sending_ts_ms":%d}' % (
        kind.encode(), answered, subscription.sid, body, now_ms,
    )  # fmt: skip


def reply_frame(
    kind: str,
    now_ms: int,
    *,
    command: int | None,
    subscription: Subscription | None = None,
    msg: Any = msgspec.UNSET,
) -> bytes:
    """Frame a reply; one scoped to a subscription uses up a number of it."""
    envelope: dict[str, Any] = {}
    if command:
        envelope["id"] = command
    if subscription is not None:
        subscription.seq += 1
        envelope["sid"] = subscription.sid
        envelope["seq"] = subscription.seq
    envelope["type"] = kind
    if msg is not msgspec.UNSET:
        envelope["msg"] = msg
    envelope["sending_ts_ms"] = now_ms
    return msgspec.json.encode(envelope)


def error_frame(
    code: int, now_ms: int, *, command: int | None, subscription: Subscription | None = None
) -> bytes:
    """An error reply with the exchange's words for the code."""
    return reply_frame(
        "error",
        now_ms,
        command=command,
        subscription=subscription,
        msg={"code": code, "msg": ERRORS[code]},
    )
