"""A bare client for tests: signs, subscribes, collects frames with a deadline."""

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from websockets.asyncio.client import ClientConnection, connect

from kalshi_simulator.testing import RunningSimulator

WS_PATH = "/trade-api/ws/v2"
EVERYTHING = ["trade", "ticker", "market_lifecycle_v2", "multivariate_market_lifecycle"]


def headers(
    key_id: str, pem: Path, method: str = "GET", path: str = WS_PATH, skew_ms: int = 0
) -> dict[str, str]:
    """Signed headers for a request now (or `skew_ms` off)."""
    key = serialization.load_pem_private_key(pem.read_bytes(), None)
    timestamp = str(time.time_ns() // 1_000_000 + skew_ms)
    text = (timestamp + method + path).encode()
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        signature = key.sign(text, pss, hashes.SHA256())
    else:
        signature = key.sign(text)
    return {
        "KALSHI-ACCESS-KEY": key_id,
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
    }


class Talk:
    """One connection; every frame received is kept."""

    def __init__(self, simulator: RunningSimulator, **options: Any) -> None:
        signed = headers(simulator.key_id, simulator.private_key_path)
        self._connecting = connect(
            simulator.ws_url, additional_headers=signed, close_timeout=1, **options
        )
        self.frames: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.unreadable: list[str] = []
        self._commands = 0

    async def __aenter__(self) -> "Talk":
        self.socket: ClientConnection = await self._connecting
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def send(self, cmd: str, **params: Any) -> int:
        """Send a command; its id."""
        self._commands += 1
        await self.socket.send(json.dumps({"id": self._commands, "cmd": cmd, "params": params}))
        return self._commands

    async def subscribe(self, *channels: str, **params: Any) -> int:
        return await self.send("subscribe", channels=list(channels), **params)

    async def receive(self, seconds: float = 20) -> dict[str, Any] | None:
        """The next frame; None when it was not JSON."""
        text = str(await asyncio.wait_for(self.socket.recv(), seconds))
        self.texts.append(text)
        try:
            frame: dict[str, Any] = json.loads(text)
        except ValueError:
            self.unreadable.append(text)
            return None
        self.frames.append(frame)
        return frame

    async def until(
        self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 20
    ) -> dict[str, Any]:
        """Receive until a frame is wanted; that frame."""
        deadline = time.monotonic() + seconds
        while True:
            frame = await self.receive(max(0.01, deadline - time.monotonic()))
            if frame is not None and wanted(frame):
                return frame

    async def answer(self, command: int, seconds: float = 20) -> dict[str, Any]:
        """The next reply to a command."""
        return await self.until(lambda frame: frame.get("id") == command, seconds)

    async def collect(self, kind: str, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        """Receive until `count` frames of a type have come; those frames, from the first ever."""
        while len(self.of(kind)) < count:
            await self.until(lambda frame: frame.get("type") == kind, seconds)
        return self.of(kind)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame.get("type") == kind]


Levels = dict[tuple[str, str], Decimal]


def levels(sides: dict[str, list[list[str]]]) -> Levels:
    """A book as the ledger tells it, by side and price."""
    return {(side, price): Decimal(count) for side in ("yes", "no") for price, count in sides[side]}


def books_told(talk: Talk) -> dict[str, list[dict[str, Any]]]:
    """Frames about books by market, in the order in which they came."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for frame in talk.frames:
        if frame["type"] in ("orderbook_snapshot", "orderbook_delta"):
            found[frame["msg"]["market_ticker"]].append(frame)
    return found


def book_at(frames: list[dict[str, Any]], at_ms: int) -> Levels:
    """The book of a market out of its one snapshot and its deltas."""
    found: Levels = {}
    for message in (frame["msg"] for frame in frames):
        if "side" not in message:
            found = levels({s: message.get(f"{s}_dollars_fp", []) for s in ("yes", "no")})
        elif message["ts_ms"] <= at_ms:
            key = message["side"], message["price_dollars"]
            found[key] = found.get(key, Decimal(0)) + Decimal(message["delta_fp"])
    return {key: count for key, count in found.items() if count}
