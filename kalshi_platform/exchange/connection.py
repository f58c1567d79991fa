"""One open connection of the stream: its subscriptions, asked for, followed and watched.

It looks into a frame just far enough to know its type and subscription. Replies are matched by id
and channel, since they may come out of order.

Source: docs.kalshi.com, WebSocket subscriptions and errors (read 2026-10).
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec
import structlog
from msgspec import UNSET, Struct, UnsetType
from websockets.exceptions import ConnectionClosed

from kalshi_platform.exchange.book_frames import BookFrames
from kalshi_platform.exchange.book_subscription import CHANNEL as BOOK_CHANNEL
from kalshi_platform.exchange.book_subscription import (
    NOT_NOW,
    SUBSCRIPTION_ENDED,
    BookSubscription,
)
from kalshi_platform.exchange.books import Books
from kalshi_platform.exchange.messages import ErrorFrame, SubscribedFrame, UnsubscribedFrame
from kalshi_platform.exchange.receiver import Receiver

log = structlog.get_logger()

_ACKNOWLEDGE_SECONDS = 10
# A subscription that ends sooner than this after it was asked for is not asked for at once.
_SHORTEST_SUBSCRIPTION_SECONDS = 2
# The answer to `unsubscribe` is waited for so long: commands may be handled out of order.
_UNSUBSCRIBE_SECONDS = 1
_LONGEST_SILENCE_SECONDS = 900.0
_LONGEST_PAUSE_SECONDS = 60.0
# Each channel's patience, in units of `silence_seconds`: lifecycle channels are quiet by nature.
_PATIENCE = {"trade": 1, "ticker": 1}
_QUIET_PATIENCE = 10
_BOOKS_EACH_SECONDS = 0.1
_LONGEST_ANSWER_SECONDS = 2.0
_AUTHENTICATION_REQUIRED = 9
_UNKNOWN_CHANNEL = 8


class Header(Struct, gc=False):
    """What every frame shows of itself."""

    type: str
    sid: int | UnsetType = UNSET
    seq: int | UnsetType = UNSET


_read_header = msgspec.json.Decoder(Header).decode
_read_subscribed = msgspec.json.Decoder(SubscribedFrame).decode
_read_unsubscribed = msgspec.json.Decoder(UnsubscribedFrame).decode
_read_error = msgspec.json.Decoder(ErrorFrame).decode
_REPLIES = {"subscribed", "unsubscribed", "error"}
# Malformed JSON and bytes that are no UTF-8; nesting without end.
_UNREADABLE = (ValueError, RecursionError)
_encode = msgspec.json.Encoder().encode


class Sink(Protocol):
    """Takes what a stream receives; must not block."""

    def frame(self, connection: int, received_at_ns: int, data: bytes) -> None:
        """A frame that is JSON in UTF-8."""

    def text(self, connection: int, received_at_ns: int, data: bytes) -> None:
        """A frame that is not, or has no type."""

    def event(self, connection: int, event: str, **fields: str | int) -> None:
        """Something the connection did: open, close, subscribe, silence, error."""


@dataclass
class _Channel:
    """What a connection knows of one channel."""

    name: str
    patience_seconds: float
    sid: int | None = None
    asked_at: float = 0.0
    ask_at: float = 0.0
    """When to ask again, as long as there is no `sid`; on the monotonic clock, as all three."""
    cause: str = ""
    """Why it will be asked for again."""
    seen_at: float = 0.0
    began_at: float = 0.0
    """When the subscription was acknowledged."""
    refused: bool = False
    """Not asked for any more."""
    pause_seconds: float = 0.0
    """How long it waits since commands come too fast."""
    limit_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.limit_seconds = self.patience_seconds


class Connection:
    """One open connection: its subscriptions and its watchdog.

    Args:
        number: names the connection to the sink.
        channels, sink, silence_seconds, books: see `exchange.stream.Stream`.
    """

    def __init__(
        self,
        websocket: Receiver,
        number: int,
        channels: Sequence[str],
        sink: Sink,
        silence_seconds: float,
        books: Books | None = None,
    ) -> None:
        self._websocket = websocket
        self._number = number
        self._sink = sink
        self._silence_seconds = silence_seconds
        self._answer_seconds = min(_LONGEST_ANSWER_SECONDS, silence_seconds / 4)
        """So long after a subscription its messages may be its answer: tickers as they stand."""
        self._channels = {
            name: _Channel(name, silence_seconds * _PATIENCE.get(name, _QUIET_PATIENCE))
            for name in channels
        }
        self._by_sid: dict[int, _Channel] = {}
        self._asked: dict[int, _Channel] = {}
        """Channels by the id of the command that asked for them last."""
        self._leaving: dict[int, _Channel] = {}
        """Channels by the sid whose end has been asked for."""
        self._heard_at = time.monotonic()
        """When a frame came that belongs to no subscription."""
        self._told_at = 0.0
        """When a message came that nothing had asked for."""
        self._command_id = 0
        self._close_cause: str | None = None
        self._replies: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._books = BookSubscription(
            books or Books(), self._next_id, partial(sink.event, number), silence_seconds
        )
        tell_error = partial(self._tell_error, channel=BOOK_CHANNEL)
        self._of_books = BookFrames(self._books, tell_error)

    async def follow(self) -> str:
        """Subscribe and receive until the connection ends; returns why it ended."""
        self._sink.event(self._number, "open")
        log.info("connected", connection=self._number)
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._tend_books())]
        try:
            for channel in tuple(self._channels.values()):
                await self._subscribe(channel)
            await self._receive()
        except ConnectionClosed as error:
            return self._close_cause or _closing_words(error)
        except asyncio.CancelledError:
            self._sink.event(self._number, "close", cause="stopped")
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._books.ended()
            await self._websocket.close()
        return self._close_cause or "closed"

    async def _receive(self) -> None:
        """Hand frames over as they come; follow the replies among them in order."""
        self._websocket.take = self._take
        replies = asyncio.create_task(self._follow_replies())
        try:
            while True:
                # Whole text frames go to `_take` directly; what comes this way is the rest
                # (fragments), and the end of the connection.
                data = await self._websocket.recv(decode=False)
                self._take(time.time_ns(), data)
        finally:
            replies.cancel()

    def _take(self, received_at_ns: int, data: bytes) -> None:
        try:
            header = _read_header(data)
            if not data.isascii():
                # Texts that were skipped have not been looked at.
                data.decode()
        except _UNREADABLE:
            self._heard_at = time.monotonic()
            self._sink.text(self._number, received_at_ns, data)
            return
        self._sink.frame(self._number, received_at_ns, data)
        kind = header.type
        if self._of_books.take(kind, header.sid, header.seq, data):
            return
        channel = self._by_sid.get(header.sid)  # type: ignore[arg-type]  # UNSET is no key
        if kind in _REPLIES:
            self._heard_at = time.monotonic()
            self._replies.put_nowait((kind, data))
        elif channel is not None:
            channel.seen_at = now = time.monotonic()
            if now - channel.began_at > self._answer_seconds:
                self._told_at = now
        else:
            self._heard_at = time.monotonic()

    async def _tend_books(self) -> None:
        """Send what the books need, as it falls due."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(_BOOKS_EACH_SECONDS)
                if (command := self._books.next_command(time.monotonic())) is not None:
                    await self._websocket.send(_encode(command).decode())

    async def _follow_replies(self) -> None:
        while True:
            kind, data = await self._replies.get()
            with contextlib.suppress(ConnectionClosed):
                try:
                    await self._reply(kind, data)
                except _UNREADABLE as problem:
                    # On the tape it is; the loader will file it with the rejected messages.
                    log.warning("unreadable_reply", kind=kind, error=str(problem))

    async def _reply(self, kind: str, data: bytes) -> None:
        """Follow the exchange's answer to a command, or its end of a subscription."""
        if kind == "subscribed":
            self._subscribed(_read_subscribed(data))
        elif kind == "unsubscribed":
            ended = _read_unsubscribed(data).sid
            channel = None if ended is UNSET else self._leaving.pop(ended, None)
            if channel is not None and channel.sid is None:
                await self._subscribe(channel)
        else:
            await self._error(_read_error(data))

    def _subscribed(self, frame: SubscribedFrame) -> None:
        if frame.id is not UNSET:
            self._asked.pop(frame.id, None)
        name, sid = frame.msg.channel, frame.msg.sid
        channel = self._channels.get(name)
        if channel is None:
            # Not ours: a recording replayed to us may hold more channels.
            channel = _Channel(name, self._silence_seconds * _QUIET_PATIENCE)
            # Books are not to be had without naming markets.
            channel.refused = name == BOOK_CHANNEL
            self._channels[name] = channel
        channel.sid = sid
        channel.pause_seconds = 0.0
        channel.seen_at = channel.began_at = time.monotonic()
        self._told_at = self._told_at or channel.began_at
        self._by_sid[sid] = channel

    async def _error(self, error: ErrorFrame) -> None:
        code = error.msg.code
        at = self._by_sid.get(error.sid) if error.sid is not UNSET else None
        if error.id is not UNSET:
            at = at or self._asked.get(error.id)
            self._asked.pop(error.id, None)
        self._tell_error(error, at.name if at else "")
        if code == _AUTHENTICATION_REQUIRED:
            await self._close("authentication required")
        elif at is not None and code == _UNKNOWN_CHANNEL:
            at.refused = True
        elif at is not None and code in NOT_NOW:
            at.cause = f"code {code}: {error.msg.msg}"
            at.pause_seconds = min(at.pause_seconds * 2 or 1.0, _LONGEST_PAUSE_SECONDS)
            at.ask_at = time.monotonic() + at.pause_seconds
        elif at is not None and code in SUBSCRIPTION_ENDED:
            self._forget(at)
            at.cause = f"code {code}: {error.msg.msg}"
            if time.monotonic() - at.asked_at > _SHORTEST_SUBSCRIPTION_SECONDS:
                await self._subscribe(at)

    def _tell_error(self, error: ErrorFrame, channel: str) -> None:
        code, words = error.msg.code, error.msg.msg
        self._sink.event(self._number, "error", channel=channel, code=code, cause=words)
        log.warning("exchange_error", code=code, message=words, channel=channel)

    async def _subscribe(self, channel: _Channel) -> None:
        command_id = self._next_id()
        self._asked = {known: other for known, other in self._asked.items() if other is not channel}
        self._asked[command_id] = channel
        self._leaving = {sid: other for sid, other in self._leaving.items() if other is not channel}
        channel.asked_at = channel.seen_at = time.monotonic()
        channel.ask_at = channel.asked_at + _ACKNOWLEDGE_SECONDS
        self._sink.event(self._number, "subscribe", channel=channel.name, cause=channel.cause)
        channel.cause = "not acknowledged"
        params: dict[str, object] = {"channels": [channel.name]}
        if channel.name == "ticker":
            # Where every market stands: the next message of a quiet one may be hours away.
            params["send_initial_snapshot"] = True
        command = {"id": command_id, "cmd": "subscribe", "params": params}
        await self._websocket.send(_encode(command).decode())

    async def _watch(self) -> None:
        """Each second: ask again for what was not acknowledged, wake what has fallen silent."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            try:
                if now - self._alive_at() > self._silence_seconds:
                    await self._close(f"silence on all channels for {self._silence_seconds:g} s")
                    return
                for channel in tuple(self._channels.values()):
                    await self._attend(channel, now)
            except ConnectionClosed:
                return

    def _alive_at(self) -> float:
        """When the exchange last told what it was not asked for.

        A socket whose data has stopped still answers: new subscriptions are acknowledged, books
        and quotes are sent as they stand. Without any subscription, whatever comes counts.
        """
        if any(channel.sid is not None for channel in self._channels.values()):
            return max(self._told_at, self._books.moved_at)
        return self._heard_at

    async def _attend(self, channel: _Channel, now: float) -> None:
        if channel.refused:
            return
        if channel.sid is None:
            if now > channel.ask_at:
                await self._subscribe(channel)
        elif now - channel.seen_at < channel.patience_seconds:
            channel.limit_seconds = channel.patience_seconds
        elif now - channel.seen_at > channel.limit_seconds:
            # A new subscription is the only way to tell a quiet channel from a stopped one. One
            # that stays quiet is asked less and less often.
            channel.cause = f"silence for {channel.limit_seconds:g} s"
            channel.limit_seconds = min(channel.limit_seconds * 2, _LONGEST_SILENCE_SECONDS)
            sid = channel.sid
            self._forget(channel)
            self._leaving[sid] = channel
            channel.ask_at = now + _UNSUBSCRIBE_SECONDS
            command = {"id": self._next_id(), "cmd": "unsubscribe", "params": {"sids": [sid]}}
            await self._websocket.send(_encode(command).decode())

    def _forget(self, channel: _Channel) -> None:
        if channel.sid is not None:
            self._heard_at = max(self._heard_at, channel.seen_at)
            self._by_sid.pop(channel.sid, None)
            channel.sid = None

    async def _close(self, cause: str) -> None:
        self._close_cause = cause
        await self._websocket.close()

    def _next_id(self) -> int:
        self._command_id += 1
        return self._command_id


def _closing_words(error: ConnectionClosed) -> str:
    if error.rcvd is not None:
        return f"closed by the exchange: {error.rcvd.code} {error.rcvd.reason}".strip()
    return "connection lost"
