"""The WebSocket stream: one connection at a time, subscribed, watched, and opened again.

What it receives goes to a sink at once, as bytes. It looks into a frame just far enough to know
its type and subscription. Replies are matched by id and channel, since they may come out of order.

Source: docs.kalshi.com, WebSocket connection, keep-alive, subscriptions and errors (read 2026-10).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import structlog
from msgspec import UNSET, Struct, UnsetType
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from kalshi_platform.exchange import errors
from kalshi_platform.exchange.messages import ErrorFrame, SubscribedFrame
from kalshi_platform.exchange.signing import Signer

log = structlog.get_logger()

_LARGEST_FRAME = 64 << 20  # the exchange's own limit
_OPEN_SECONDS = 10
_ACKNOWLEDGE_SECONDS = 10
_LONGEST_PAUSE_SECONDS = 30.0
# First byte of a text frame that is not fragmented; second byte of longer frames.
_WHOLE_TEXT = 0x81
_LENGTH_OF_2_BYTES = 126
_FIRST_CONTACT_SECONDS = 60  # an exchange never reached for so long is a wrong address
_LONGEST_SILENCE_SECONDS = 900.0
# Each channel's patience, in units of `silence_seconds`: lifecycle channels are quiet by nature.
_PATIENCE = {"trade": 1, "ticker": 1}
_QUIET_PATIENCE = 10
# These end the subscription that they name: subscribe again.
_SUBSCRIPTION_ENDED = {10, 25}
_AUTHENTICATION_REQUIRED = 9
_UNKNOWN_CHANNEL = 8


class Header(Struct, gc=False):
    """What every frame shows of itself."""

    type: str
    sid: int | UnsetType = UNSET


_read_header = msgspec.json.Decoder(Header).decode
_read_subscribed = msgspec.json.Decoder(SubscribedFrame).decode
_read_error = msgspec.json.Decoder(ErrorFrame).decode
_encode = msgspec.json.Encoder().encode


class _Receiver(ClientConnection):
    """A connection that hands whole text frames over as they lie in what the socket gave.

    The library parses a frame in six steps of generators and passes it through a queue that slows
    the sender down when its reader is late: 4 µs a frame, and the exchange cuts slow readers off.
    Here its framing is read in place (RFC 6455, section 5.2), and every frame that is not a whole
    text message (pings, closes, fragments) goes to the library, one at a time.
    """

    take: Callable[[int, bytes], None] | None = None
    _rest = b""

    def data_received(self, data: bytes) -> None:
        take = self.take
        if take is None:
            super().data_received(data)
            return
        received_at_ns = time.time_ns()
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 2:
            size, body = data[start + 1], start + 2
            if size >= _LENGTH_OF_2_BYTES:
                body += 2 if size == _LENGTH_OF_2_BYTES else 8
                size = int.from_bytes(data[start + 2 : body], "big")
            stop = body + size
            if stop > end and size <= _LARGEST_FRAME:
                break
            if data[start] == _WHOLE_TEXT:
                take(received_at_ns, data[body:stop])
            else:
                super().data_received(data[start:stop])
            start = stop
        self._rest = data[start:]


class Sink(Protocol):
    """Takes what a stream receives; must not block."""

    def frame(self, connection: int, received_at_ns: int, data: bytes) -> None:
        """A frame that is JSON."""

    def text(self, connection: int, received_at_ns: int, data: bytes) -> None:
        """A frame that is not JSON, or has no type."""

    def event(self, connection: int, event: str, **fields: str | int) -> None:
        """Something the connection did: open, close, subscribe, silence, error."""


@dataclass
class _Channel:
    """What a connection knows of one channel."""

    name: str
    patience_seconds: float
    sid: int | None = None
    asked_at: float = 0.0
    seen_at: float = 0.0
    refused: bool = False
    limit_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.limit_seconds = self.patience_seconds


class Stream:
    """Keeps one signed connection open and its channels subscribed.

    Args:
        url: WebSocket URL.
        signer: signs each handshake afresh, since the signature carries the time.
        channels: public channels, subscribed without a filter.
        sink: takes the frames.
        silence_seconds: a channel quieter than this is subscribed again; a socket on which all
            are quiet is opened again (a socket can answer pings while its data has stopped).
    """

    def __init__(
        self, url: str, signer: Signer, channels: Sequence[str], sink: Sink, silence_seconds: float
    ) -> None:
        self._url = url
        self._signer = signer
        self._channel_names = tuple(channels)
        self._sink = sink
        self._silence_seconds = silence_seconds
        self._accepted = False
        self._started_at = 0.0
        self._last_connection = 0

    async def run(self) -> None:
        """Stream until cancelled, through every interruption that may pass.

        Raises:
            errors.ExchangeError: what will not pass by itself: a refused key, a wrong clock, an
                exchange never reached. A key that was accepted before may be refused for a while
                without ending the stream.
        """
        pause = 0.0
        self._started_at = time.monotonic()
        while True:
            connection = max(int(time.time()), self._last_connection + 1)
            self._last_connection = connection
            started = time.monotonic()
            try:
                websocket = await self._open()
            except (OSError, TimeoutError, InvalidHandshake, errors.ExchangeError) as error:
                cause = self._why_not_opened(error)
                self._sink.event(connection, "connect_failed", cause=str(cause))
                log.warning("connect_failed", error=str(cause), retry_seconds=round(pause, 1))
            else:
                self._accepted = True
                cause_text = await _Connection(self, websocket, connection).follow()
                self._sink.event(connection, "close", cause=cause_text)
                log.warning("disconnected", cause=cause_text, connection=connection)
            lasted = time.monotonic() - started
            # A connection that worked for a while earns an immediate new one.
            pause = 0.1 if lasted > 10 else min(_LONGEST_PAUSE_SECONDS, max(0.2, pause * 2))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _open(self) -> _Receiver:
        path = urlsplit(self._url).path
        websocket = await connect(
            self._url,
            create_connection=_Receiver,
            additional_headers=self._signer.headers("GET", path),
            max_size=_LARGEST_FRAME,
            # Inflating would cost the reader more than loopback or a data centre's link saves.
            compression=None,
            open_timeout=_OPEN_SECONDS,
            close_timeout=2,
            ping_interval=10,
            ping_timeout=20,
        )
        assert isinstance(websocket, _Receiver), "connect makes what it is told to"
        return websocket

    def _why_not_opened(self, error: Exception) -> errors.ExchangeError:
        """The error in the exchange's terms; raised where trying again cannot help."""
        if isinstance(error, InvalidStatus):
            response = error.response
            error = errors.from_response(
                response.status_code,
                bytes(response.body or b""),
                date=response.headers.get("Date"),
                retry_after=response.headers.get("Retry-After"),
            )
        elif not isinstance(error, errors.ExchangeError):
            error = errors.Unreachable(
                f"The exchange cannot be reached at {self._url} ({error}). "
                "Check KALSHI_WS_URL and the network."
            )
        if not self._accepted:
            lasted = time.monotonic() - self._started_at
            if not errors.is_transient(error) or lasted > _FIRST_CONTACT_SECONDS:
                raise error
        return error


class _Connection:
    """One open connection: its subscriptions and its watchdog."""

    def __init__(self, stream: Stream, websocket: _Receiver, number: int) -> None:
        self._websocket = websocket
        self._number = number
        self._sink = stream._sink
        self._silence_seconds = stream._silence_seconds
        self._channels = {
            name: _Channel(name, stream._silence_seconds * _PATIENCE.get(name, _QUIET_PATIENCE))
            for name in stream._channel_names
        }
        self._by_sid: dict[int, _Channel] = {}
        self._asked: dict[int, _Channel] = {}
        self._command_id = 0
        self._close_cause: str | None = None
        self._replies: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def follow(self) -> str:
        """Subscribe and receive until the connection ends; returns why it ended."""
        self._sink.event(self._number, "open")
        log.info("connected", connection=self._number)
        watchdog = asyncio.create_task(self._watch())
        try:
            for channel in self._channels.values():
                await self._subscribe(channel)
            await self._receive()
        except ConnectionClosed as error:
            return self._close_cause or _closing_words(error)
        except asyncio.CancelledError:
            self._sink.event(self._number, "close", cause="stopped")
            raise
        finally:
            watchdog.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watchdog
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
        except msgspec.DecodeError:
            self._sink.text(self._number, received_at_ns, data)
            return
        self._sink.frame(self._number, received_at_ns, data)
        kind = header.type
        if kind == "subscribed" or kind == "error":
            self._replies.put_nowait((kind, data))
            return
        channel = self._by_sid.get(header.sid)  # type: ignore[arg-type]  # UNSET is no key
        if channel is not None:
            channel.seen_at = time.monotonic()

    async def _follow_replies(self) -> None:
        while True:
            kind, data = await self._replies.get()
            with contextlib.suppress(ConnectionClosed):
                await self._reply(kind, data)

    async def _reply(self, kind: str, data: bytes) -> None:
        """Follow the exchange's answer to a command, or its end of a subscription."""
        try:
            if kind == "subscribed":
                subscribed = _read_subscribed(data).msg
                channel = self._channels.get(subscribed.channel)
                if channel is None:
                    # Not ours: a recording replayed to us may hold more channels.
                    channel = _Channel(subscribed.channel, self._silence_seconds * _QUIET_PATIENCE)
                    self._channels[subscribed.channel] = channel
                channel.sid = subscribed.sid
                channel.seen_at = time.monotonic()
                self._by_sid[subscribed.sid] = channel
                return
            error = _read_error(data)
        except msgspec.DecodeError as problem:
            # On the tape it is; the loader will file it with the rejected messages.
            log.warning("unreadable_reply", kind=kind, error=str(problem))
            return
        code = error.msg.code
        at = self._by_sid.get(error.sid) if error.sid is not UNSET else None
        if at is None and error.id is not UNSET:
            at = self._asked.get(error.id)
        name = at.name if at else ""
        self._sink.event(self._number, "error", channel=name, code=code, cause=error.msg.msg)
        log.warning("exchange_error", code=code, message=error.msg.msg, channel=name)
        if code == _AUTHENTICATION_REQUIRED:
            await self._close("authentication required")
        elif at is not None and code == _UNKNOWN_CHANNEL:
            at.refused = True
        elif at is not None and code in _SUBSCRIPTION_ENDED:
            self._forget(at)
            await self._subscribe(at, cause=f"code {code}: {error.msg.msg}")

    async def _subscribe(self, channel: _Channel, cause: str = "") -> None:
        command_id = self._next_id()
        self._asked[command_id] = channel
        channel.asked_at = channel.seen_at = time.monotonic()
        self._sink.event(self._number, "subscribe", channel=channel.name, cause=cause)
        command = {"id": command_id, "cmd": "subscribe", "params": {"channels": [channel.name]}}
        await self._websocket.send(_encode(command).decode())

    async def _watch(self) -> None:
        """Each second: ask again for what was not acknowledged, wake what has fallen silent."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            subscribed = [c for c in self._channels.values() if c.sid is not None]
            try:
                if subscribed and all(now - c.seen_at > self._silence_seconds for c in subscribed):
                    await self._close(f"silence on all channels for {self._silence_seconds:g} s")
                    return
                for channel in self._channels.values():
                    await self._attend(channel, now)
            except ConnectionClosed:
                return

    async def _attend(self, channel: _Channel, now: float) -> None:
        if channel.refused:
            return
        if channel.sid is None:
            if now - channel.asked_at > _ACKNOWLEDGE_SECONDS:
                await self._subscribe(channel, cause="not acknowledged")
        elif now - channel.seen_at < channel.patience_seconds:
            channel.limit_seconds = channel.patience_seconds
        elif now - channel.seen_at > channel.limit_seconds:
            # A new subscription is the only way to tell a quiet channel from a stopped one. One
            # that stays quiet is asked less and less often.
            cause = f"silence for {channel.limit_seconds:g} s"
            channel.limit_seconds = min(channel.limit_seconds * 2, _LONGEST_SILENCE_SECONDS)
            sid = channel.sid
            self._forget(channel)
            command = {"id": self._next_id(), "cmd": "unsubscribe", "params": {"sids": [sid]}}
            await self._websocket.send(_encode(command).decode())
            await self._subscribe(channel, cause=cause)

    def _forget(self, channel: _Channel) -> None:
        if channel.sid is not None:
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
