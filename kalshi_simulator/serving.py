"""Putting the made-up exchange together and running it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from kalshi_simulator.admission import WS_PATH
from kalshi_simulator.exchange import open_exchange
from kalshi_simulator.faults import Faults
from kalshi_simulator.feed import Feed
from kalshi_simulator.figures import stamp
from kalshi_simulator.hub import Hub
from kalshi_simulator.load import Rates
from kalshi_simulator.rest.app import create_app
from kalshi_simulator.rest.context import Context, Counters
from kalshi_simulator.server import REST_PATH, RestServer, bound_socket, run_until_stopped
from kalshi_simulator.signing import gatekeeper_of
from kalshi_simulator.subscriptions import Limits


@dataclass(frozen=True)
class ServeOptions:
    """The options of `serve`; None leaves the choice to the state or the default."""

    host: str
    rest_port: int
    ws_port: int
    seed: int | None
    speed_milli: int
    trades_per_second: float
    messages_per_second: int
    history_days: int
    history_trades_per_second: float
    live_days: int | None
    markets: int | None
    credentials: Path
    public_keys: list[str]
    state: Path | None
    read_tokens_per_second: int
    dormant_markets: int
    begin_hours_ago: float
    combo_births_per_second: int
    deltas_per_second: int
    books_at_most: int | None
    commands_per_second: int | None


async def serve(options: ServeOptions) -> None:
    """Run until SIGINT or SIGTERM.

    Raises:
        PortTaken: a port is in use.
        StateError: the state folder cannot be used.
        ValueError: a key cannot be read.
    """
    own, gatekeeper = gatekeeper_of(options.credentials, options.public_keys)
    rest_socket = bound_socket(options.host, options.rest_port, "--rest-port")
    ws_socket = bound_socket(options.host, options.ws_port, "--ws-port")
    exchange = open_exchange(
        options.state,
        seed=options.seed,
        markets=options.markets,
        speed_milli=options.speed_milli,
        trades_per_second=options.trades_per_second,
        history_trades_per_second=options.history_trades_per_second,
        history_days=options.history_days,
        live_days=options.live_days,
        dormant_markets=options.dormant_markets,
        begin_hours_ago=options.begin_hours_ago,
    )
    faults = Faults()
    limits = Limits(options.books_at_most, options.commands_per_second)
    hub = Hub(gatekeeper, faults, limits)
    rates = Rates(
        options.messages_per_second, options.deltas_per_second, options.combo_births_per_second
    )
    feed = Feed(exchange, hub, rates)
    hub.source = feed
    context = Context(exchange, hub, feed, faults, gatekeeper, Counters())
    rest = RestServer(create_app(context, options.read_tokens_per_second), rest_socket)
    sockets = await hub.listen(ws_socket)
    ready = {
        "event": "ready",
        "rest_url": f"http://{options.host}:{rest_socket.getsockname()[1]}{REST_PATH}",
        "ws_url": f"ws://{options.host}:{ws_socket.getsockname()[1]}{WS_PATH}",
        "key_id": own.key_id,
        "private_key_path": str(own.private_key_path),
        "started_at": stamp(exchange.state.started_us),
    }
    await run_until_stopped(rest, sockets, [asyncio.create_task(feed.run())], ready)
