"""Replay: recorded frames in place of the made-up market.

The frames go to the client in order, from its first subscribe on; its commands get no replies,
since the recorded ones are among the frames. Where the recording began a new connection, the
socket is closed and the rest waits for the client to come back and subscribe.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.protocol import State

from kalshi_simulator.admission import WS_PATH, admission
from kalshi_simulator.clock import wall_us
from kalshi_simulator.figures import stamp
from kalshi_simulator.hub import PING_SECONDS
from kalshi_simulator.recording import Frame, count_frames, frames_of
from kalshi_simulator.rest.answers import json_response, not_found
from kalshi_simulator.rest.exchange import costs, limits, schedule_of, status
from kalshi_simulator.server import REST_PATH, RestServer, bound_socket, run_until_stopped
from kalshi_simulator.signing import Gatekeeper, gatekeeper_of

_FRAMES_AT_ONCE = 200
_READ_TOKENS_PER_SECOND = 200  # as told; nothing counts them here
_CLOSE_WHEN_RECONNECTING = 1001


@dataclass(frozen=True)
class ReplayOptions:
    """The options of `replay`; speed 0 sends as fast as the client takes."""

    recording: Path
    speed: float
    host: str
    rest_port: int
    ws_port: int
    credentials: Path
    public_keys: list[str]


class Replay:
    """One pass over a recording, to one client at a time."""

    def __init__(self, path: Path, speed: float, gatekeeper: Gatekeeper) -> None:
        self.total = count_frames(path)
        self.sent = 0
        self.connections = 0
        self._speed = speed
        self._gatekeeper = gatekeeper
        self._frames = frames_of(path)
        self._next: Frame | None = next(self._frames, None)
        self._turn = asyncio.Lock()

    @property
    def done(self) -> bool:
        return self._next is None

    async def listen(self, sock: Any) -> Server:
        """Accept clients on a bound socket; the caller closes the server."""
        return await serve(
            self._converse,
            sock=sock,
            process_request=lambda connection, request: admission(
                self._gatekeeper, connection, request
            ),
            compression=None,
            extensions=[ServerPerMessageDeflateFactory(compress_settings={"level": 1})],
            ping_interval=None,
            server_header=None,
        )

    async def _converse(self, connection: ServerConnection) -> None:
        self.connections += 1
        pings = asyncio.create_task(_ping(connection))
        sending: asyncio.Task[None] | None = None
        try:
            async for text in connection:
                if sending is None and _is_subscribe(text):
                    sending = asyncio.create_task(self._send(connection))
        except ConnectionClosed:
            pass  # a client may leave as it likes
        finally:
            pings.cancel()
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, connection: ServerConnection) -> None:
        """Send until the recording, its connection or the client ends."""
        async with self._turn:
            begun_ns: int | None = None
            started = time.monotonic()
            for number in itertools.count():
                frame = self._next
                if frame is None:
                    return
                if frame.starts_connection and number:
                    # The rest is for the next connection.
                    await connection.close(_CLOSE_WHEN_RECONNECTING)
                    return
                if begun_ns is None:
                    begun_ns = frame.received_at_ns
                if self._speed > 0:
                    due = (frame.received_at_ns - begun_ns) / 1e9 / self._speed
                    if (wait := started + due - time.monotonic()) > 0:
                        await asyncio.sleep(wait)
                try:
                    await connection.send(frame.data, text=True)
                except ConnectionClosed:
                    return
                self.sent += 1
                self._next = next(self._frames, None)
                if number % _FRAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)


async def _ping(connection: ServerConnection) -> None:
    while connection.protocol.state is State.OPEN:
        connection.protocol.send_ping(b"heartbeat")
        connection.send_data()
        await asyncio.sleep(PING_SECONDS)


def _is_subscribe(text: str | bytes) -> bool:
    try:
        command = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return isinstance(command, dict) and command.get("cmd") == "subscribe"


def _app(replay: Replay) -> Starlette:
    """REST beside a replay: nothing is known but the shapes."""

    def empty(**content: Any) -> Any:
        async def answer(_: Request) -> Response:
            return json_response(content)

        return answer

    async def progress(_: Request) -> Response:
        return json_response(
            {
                "sent": replay.sent,
                "total": replay.total,
                "done": replay.done,
                "connections": replay.connections,
            }
        )

    async def schedule(_: Request) -> Response:
        return json_response(schedule_of(wall_us()))

    async def unknown(_: Request, _error: Exception) -> Response:
        return not_found().response()

    cutoff = dict.fromkeys(
        ("market_settled_ts", "trades_created_ts", "orders_updated_ts",
         "market_positions_last_updated_ts"), "2020-01-01T00:00:00Z",
    )  # fmt: skip
    no_trades = empty(trades=[], cursor="")
    no_markets = empty(markets=[], cursor="")
    app = Starlette(
        routes=[
            Route("/control/replay", progress),
            Route(f"{REST_PATH}/markets/trades", no_trades),
            Route(f"{REST_PATH}/historical/trades", no_trades),
            Route(f"{REST_PATH}/markets", no_markets),
            Route(f"{REST_PATH}/historical/markets", no_markets),
            Route(f"{REST_PATH}/markets/candlesticks", empty(markets=[])),
            Route(f"{REST_PATH}/markets/orderbooks", empty(orderbooks=[])),
            Route(f"{REST_PATH}/events", empty(events=[], cursor="")),
            Route(f"{REST_PATH}/events/multivariate", empty(events=[], cursor="")),
            Route(f"{REST_PATH}/series", empty(series=[])),
            Route(f"{REST_PATH}/historical/cutoff", empty(**cutoff)),
            Route(f"{REST_PATH}/exchange/status", status),
            Route(f"{REST_PATH}/exchange/schedule", schedule),
            Route(f"{REST_PATH}/account/endpoint_costs", costs),
            Route(f"{REST_PATH}/account/limits", limits),
        ],
        exception_handlers={404: unknown},
    )
    app.state.read_tokens_per_second = _READ_TOKENS_PER_SECOND
    return app


async def replay(options: ReplayOptions) -> None:
    """Run until SIGINT or SIGTERM.

    Raises:
        PortTaken: a port is in use.
        RecordingError: the recording cannot be read.
        ValueError: a key cannot be read.
    """
    own, gatekeeper = gatekeeper_of(options.credentials, options.public_keys)
    rest_socket = bound_socket(options.host, options.rest_port, "--rest-port")
    ws_socket = bound_socket(options.host, options.ws_port, "--ws-port")
    running = Replay(options.recording, options.speed, gatekeeper)
    rest = RestServer(_app(running), rest_socket)
    sockets = await running.listen(ws_socket)
    ready = {
        "event": "ready",
        "rest_url": f"http://{options.host}:{rest_socket.getsockname()[1]}{REST_PATH}",
        "ws_url": f"ws://{options.host}:{ws_socket.getsockname()[1]}{WS_PATH}",
        "key_id": own.key_id,
        "private_key_path": str(own.private_key_path),
        "started_at": stamp(wall_us()),
        "frames": running.total,
    }
    await run_until_stopped(rest, sockets, [], ready)
