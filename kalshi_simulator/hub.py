"""The WebSocket side: handshakes, clients, and the sending of what the feed makes up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response

from kalshi_simulator.admission import admission, problem
from kalshi_simulator.commands import Source, answers
from kalshi_simulator.faults import Faults
from kalshi_simulator.signing import Gatekeeper
from kalshi_simulator.spoiling import spoiled_body, spoiled_frame, spoiled_reply
from kalshi_simulator.subscriptions import (
    NO_LIMITS,
    SNAPSHOT,
    Client,
    Limits,
    Subscription,
    data_frame,
    error_frame,
)

PING_SECONDS = 10
_BACKLOG_BYTES = 64 << 20
_REPLY_PATIENCE_SECONDS = 0.5


@dataclass(slots=True)
class Message:
    """One thing to tell: on which channel, as which type, about which market."""

    channel: str
    kind: str
    ticker: str
    body: bytes
    # The body for clients that asked for no-side prices in yes terms, where it differs.
    yes_body: bytes | None = None


@dataclass
class Hub:
    """All connected clients."""

    gatekeeper: Gatekeeper
    faults: Faults
    limits: Limits = NO_LIMITS
    clients: dict[int, Client] = field(default_factory=dict)
    connections_ever: int = 0
    refused: int = 0
    swallowed: int = 0
    sent_before: dict[str, int] = field(default_factory=dict)
    source: Source | None = None
    _turn: int = 0
    _stalled: set[int] = field(default_factory=set)

    async def listen(self, sock: socket.socket) -> Server:
        """Accept clients on a bound socket; the caller closes the server."""
        deflate = ServerPerMessageDeflateFactory(compress_settings={"level": 1, "memLevel": 5})
        return await serve(
            self._converse, sock=sock,
            process_request=self._admit,
            compression=None, extensions=[deflate],
            ping_interval=None, max_size=64 << 20, server_header=None,
        )  # fmt: skip

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.faults.use("refuse_connections"):
            self.refused += 1
            return problem(503, "unavailable", "service unavailable", None)
        if self.faults.use("ws_401"):
            self.refused += 1
            return problem(401, "unauthorized", "unauthorized", "refused on command")
        refusal = admission(self.gatekeeper, connection, request)
        self.refused += refusal is not None
        return refusal

    async def _converse(self, connection: ServerConnection) -> None:
        self.connections_ever += 1
        client = Client(self.connections_ever, connection.username or "", connection, self.limits)
        self.clients[client.number] = client
        pings = asyncio.create_task(_ping(client))
        held: list[tuple[bytes, str]] = []
        release: asyncio.TimerHandle | None = None

        def let_go() -> None:
            for frame, kind in held:
                client.put(frame, kind)
            held.clear()
            client.flush()

        try:
            async for text in connection:
                assert self.source is not None
                self.source.catch_up()
                replies = answers(client, text, self.source)
                if not held and self.faults.use("out_of_order_replies"):
                    # Held back until the answers to the next command have gone out.
                    held += replies
                    loop = asyncio.get_running_loop()
                    release = loop.call_later(_REPLY_PATIENCE_SECONDS, let_go)
                    continue
                for frame, kind in replies:
                    self._reply(client, frame, kind)
                let_go()
        except ConnectionClosed:
            pass  # a client may leave as it likes
        finally:
            if release is not None:
                release.cancel()
            pings.cancel()
            self.clients.pop(client.number, None)
            for kind, count in client.sent.items():
                self.sent_before[kind] = self.sent_before.get(kind, 0) + count

    def _reply(self, client: Client, frame: bytes, kind: str) -> None:
        """Send what a command is answered with; faults may strike the snapshots among it."""
        is_struck = kind == SNAPSHOT and bool(self.faults.active)
        fault = self.faults.use_on_message(SNAPSHOT) if is_struck else None
        if fault is None:
            client.put(frame, kind)
        elif fault.kind not in ("drop", "lose"):
            self._turn += 1
            client.put(spoiled_reply(fault, frame, self._turn), kind)
            if fault.kind == "repeat":
                client.put(frame, kind)

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages, in order, to whoever has subscribed to them; faults strike here."""
        if not self.clients:
            return
        stall = self.faults.standing("stall")
        now_ms = self._now_ms()
        hearers = {
            channel: [
                (client, subscription)
                for client in self.clients.values()
                for subscription in client.subscriptions.values()
                if subscription.channel == channel
            ]
            for channel in {message.channel for message in messages}
        }
        for message in messages:
            heard = [(c, s) for c, s in hearers[message.channel] if s.hears(message.ticker)]
            if not heard:
                continue
            if stall is not None:
                heard = self._past_the_stall(heard, numbered=stall.numbered)
                if not heard:
                    continue
            self._send(message, heard, now_ms)
        for client in list(self.clients.values()):
            client.flush()
            if client.backlog() > _BACKLOG_BYTES:
                self.overflow(client)

    def _send(
        self, message: Message, heard: list[tuple[Client, Subscription]], now_ms: int
    ) -> None:
        fault = self.faults.use_on_message(message.channel) if self.faults.active else None
        if fault is None:
            for client, subscription in heard:
                body = message.body
                if message.yes_body is not None and subscription.use_yes_price:
                    body = message.yes_body
                client.put(data_frame(subscription, message.kind, body, now_ms), message.kind)
                if subscription.held is not None:
                    client.put(subscription.held, message.kind)
                    subscription.held = None
            return
        if fault.kind == "lose":
            return
        self._turn += 1
        for client, subscription in heard:
            if fault.kind == "unknown_type":
                novelty = b'{"type":"novelty","sid":%d,"msg":{"turn":%d},"sending_ts_ms":%d}'
                client.put(novelty % (subscription.sid, self._turn, now_ms), "novelty")
            body = spoiled_body(fault, message.body, self._turn)
            frame = data_frame(subscription, message.kind, body, now_ms)
            if fault.kind == "drop":
                continue
            if fault.kind == "reorder" and subscription.held is None:
                subscription.held = frame
                continue
            client.put(spoiled_frame(fault, frame, self._turn), message.kind)
            if fault.kind == "repeat":
                client.put(frame, message.kind)
            if subscription.held is not None:
                client.put(subscription.held, message.kind)
                subscription.held = None

    def stall(self) -> int:
        """Stall the connections there are, not those opened later; how many there are."""
        self._stalled = set(self.clients)
        return len(self._stalled)

    def _past_the_stall(
        self, heard: list[tuple[Client, Subscription]], *, numbered: bool
    ) -> list[tuple[Client, Subscription]]:
        """Who hears a message while some connections are stalled."""
        hit = [one for one in heard if one[0].number in self._stalled]
        self.swallowed += len(hit)
        if numbered:
            for _, subscription in hit:
                subscription.seq += subscription.numbers_data
        return [one for one in heard if one[0].number not in self._stalled]

    def end_subscriptions(self, code: int, channel: str | None) -> int:
        """Send error 25 or 10 on subscriptions and end them; how many there were."""
        ended = 0
        for client in self.clients.values():
            for subscription in list(client.subscriptions.values()):
                if channel in (None, subscription.channel):
                    self._end(client, subscription, code)
                    ended += 1
            client.flush()
        return ended

    def overflow(self, client: Client) -> None:
        """A client that does not read loses its subscriptions (code 25)."""
        for subscription in list(client.subscriptions.values()):
            self._end(client, subscription, 25)
        client.flush()

    def _end(self, client: Client, subscription: Subscription, code: int) -> None:
        now_ms = self._now_ms()
        client.put(error_frame(code, now_ms, command=None, subscription=subscription), "error")
        del client.subscriptions[subscription.sid]

    def _now_ms(self) -> int:
        assert self.source is not None, "whoever publishes has been made a source"
        return self.source.now_ms()

    async def close_clients(self, code: int) -> int:
        """Close all connections cleanly; how many there were."""
        clients = list(self.clients.values())
        await asyncio.gather(*(client.connection.close(code) for client in clients))
        return len(clients)

    def drop_clients(self) -> int:
        """Cut all connections without a word; how many there were."""
        clients = list(self.clients.values())
        for client in clients:
            client.connection.transport.abort()
        return len(clients)

    def sent(self) -> dict[str, int]:
        """Frames sent by type, over all connections ever."""
        total = dict(self.sent_before)
        for client in self.clients.values():
            for kind, count in client.sent.items():
                total[kind] = total.get(kind, 0) + count
        return total


async def _ping(client: Client) -> None:
    """Ping on and on, answered or not, as the exchange does."""
    while client.is_open():
        await asyncio.sleep(PING_SECONDS)
        client.heartbeat()
