"""A world whose time the test moves by hand, and an ear in place of the sockets."""

import json
from collections.abc import Sequence
from typing import Any

from kalshi_simulator.clock import SimulatedClock
from kalshi_simulator.commands import answers
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.faults import Faults
from kalshi_simulator.feed import Feed
from kalshi_simulator.figures import parse_instant
from kalshi_simulator.hub import Hub, Message
from kalshi_simulator.layout import NEWEST_PLAN
from kalshi_simulator.signing import Gatekeeper
from kalshi_simulator.state import EpochState, WorldState
from kalshi_simulator.subscriptions import Client

# A morning on which an hour of 60 markets has every temper; the same on whatever day tests run.
MORNING = "2026-10-06T09:00:00+00:00"


def still_world(
    begins: str = MORNING, markets: int = 60, seed: int = 31, rate: float = 3.0
) -> Exchange:
    """An exchange that begins at an instant, where its clock stands."""
    start = parse_instant(begins)
    state = WorldState(
        seed=seed,
        markets=markets,
        begins_us=start,
        started_us=start,
        cutoff_us=start,
        wall_anchor_us=0,
        simulated_anchor_us=start,
        speed_milli=0,
        epochs=[EpochState(start, rate)],
        plan=NEWEST_PLAN,
    )
    return Exchange(state, None)


class Ear(Hub):
    """Keeps what is published; its one client is subscribed to whatever it asked for."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(clock, Gatekeeper({}), Faults())
        self.client = Client(1, "ear", None)  # type: ignore[arg-type]
        self.clients[1] = self.client
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            subscription = self.client.subscribed_to(message.channel)
            if subscription is not None and subscription.hears(message.ticker):
                self.heard.append((message.kind, json.loads(message.body)))


class Listener:
    """A feed moved by hand, and all that its one client heard: (type, msg), in order."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.ear = Ear(exchange.clock)
        self.feed = Feed(exchange, self.ear)

    @property
    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        return self.ear.heard

    def command(self, cmd: str, **params: Any) -> list[dict[str, Any]]:
        """Replies to a command; data among them counts as heard."""
        text = json.dumps({"id": 1, "cmd": cmd, "params": params})
        frames = [json.loads(frame) for frame, _ in answers(self.ear.client, text, self.feed)]
        data = ("ticker", "orderbook_snapshot")
        for frame in frames:
            if frame["type"] in data:
                message = frame["msg"]
                # What the envelope would say of the instant.
                message.setdefault("ts_ms", self.feed.at_us // 1_000)
                self.heard.append((frame["type"], message))
        return [frame for frame in frames if frame["type"] not in data]

    def advance(self, us: int) -> None:
        self.feed.advance(us)
