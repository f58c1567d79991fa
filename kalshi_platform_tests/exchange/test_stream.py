"""The stream against an exchange that misbehaves in ways the simulator does not."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

from kalshi_platform.exchange import connection as module
from kalshi_platform.exchange.books import Books
from kalshi_platform.exchange.stream import Stream

Handler = Callable[[ServerConnection], Awaitable[None]]


class NoSignature:
    def headers(self, method: str, path: str) -> dict[str, str]:
        return {}


class Heard:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.frames: list[dict] = []
        self.texts: list[bytes] = []
        self.events: list[dict] = []

    def frame(self, connection, received_at_ns, data):
        self.frames.append(json.loads(data))

    def text(self, connection, received_at_ns, data):
        self.texts.append(data)

    def event(self, connection, event, **fields):
        self.events.append({"event": event, "connection": connection, **fields})

    def causes(self, event: str) -> list[str]:
        return [one["cause"] for one in self.events if one["event"] == event]


@asynccontextmanager
async def streaming(
    handler: Handler,
    channels=("trade",),
    silence_seconds: float = 60,
    books: Books | None = None,
) -> AsyncIterator[Heard]:
    """A stream connected to a server that does what `handler` does."""
    heard = Heard()
    async with serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stream = Stream(
            f"ws://127.0.0.1:{port}/ws", NoSignature(), channels, heard, silence_seconds, books
        )
        task = asyncio.create_task(stream.run())
        try:
            yield heard
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true within {seconds:g} s"
        await asyncio.sleep(0.02)


async def commands(websocket: ServerConnection) -> AsyncIterator[dict]:
    async for text in websocket:
        yield json.loads(text)


def subscribed(command: dict, sid: int = 1) -> str:
    [channel] = command["params"]["channels"]
    return json.dumps(
        {"type": "subscribed", "id": command["id"], "msg": {"channel": channel, "sid": sid}}
    )


async def test_a_connection_on_which_nothing_is_ever_answered_is_opened_again():
    opened = []

    async def say_nothing(websocket):
        opened.append(websocket)
        await websocket.wait_closed()

    async with streaming(say_nothing, silence_seconds=1) as heard:
        await until(lambda: len(opened) > 1)
    assert "silence on all channels for 1 s" in heard.causes("close")


async def test_a_socket_that_tells_only_what_it_is_asked_for_is_opened_again():
    opened = []

    async def answer_alone(websocket):
        opened.append(websocket)
        sids = itertools.count(1)
        async for text in websocket:
            command = json.loads(text)
            if command["cmd"] == "subscribe":
                sid = next(sids)
                await websocket.send(subscribed(command, sid=sid))
                await websocket.send(json.dumps({"type": "ticker", "sid": sid, "msg": {}}))
            else:
                [sid] = command["params"]["sids"]
                reply = {"type": "unsubscribed", "id": command["id"], "sid": sid}
                await websocket.send(json.dumps(reply))

    async with streaming(answer_alone, ("trade", "ticker"), silence_seconds=1) as heard:
        await until(lambda: len(opened) > 1)
    assert "silence on all channels for 1 s" in heard.causes("close")


async def test_a_subscription_refused_at_once_is_not_asked_for_at_once(monkeypatch):
    monkeypatch.setattr(module, "_ACKNOWLEDGE_SECONDS", 1.5)
    asked_at = []

    async def end_it(websocket):
        async for command in commands(websocket):
            asked_at.append(time.monotonic())
            error = {"type": "error", "id": command["id"], "msg": {"code": 10, "msg": "no"}}
            await websocket.send(json.dumps(error))

    async with streaming(end_it) as heard:
        await until(lambda: len(asked_at) == 3)
    assert asked_at[1] - asked_at[0] > 1.4
    assert heard.causes("subscribe") == ["", "code 10: no", "code 10: no"]


async def test_a_subscription_that_has_lasted_is_asked_for_again_at_once(monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_SUBSCRIPTION_SECONDS", 0.2)
    asked_at = []

    async def end_it_later(websocket):
        async for command in commands(websocket):
            asked_at.append(time.monotonic())
            await websocket.send(subscribed(command))
            await asyncio.sleep(0.4)
            error = {"type": "error", "sid": 1, "seq": 1, "msg": {"code": 25, "msg": "slow"}}
            await websocket.send(json.dumps(error))

    async with streaming(end_it_later) as heard:
        await until(lambda: len(asked_at) == 2)
    assert asked_at[1] - asked_at[0] < 1
    assert heard.causes("subscribe")[1] == "code 25: slow"


class HalfSilent:
    """Sends tickers, and no trades; answers `unsubscribe` after a while, or not at all."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.left: list[float] = []
        self.answered: list[float] = []
        self.asked: list[float] = []

    async def __call__(self, websocket: ServerConnection) -> None:
        talking = asyncio.create_task(self.talk(websocket))
        try:
            async for command in commands(websocket):
                if command["cmd"] == "unsubscribe":
                    self.left.append(time.monotonic())
                    if self.answers:
                        await asyncio.sleep(0.3)
                        self.answered.append(time.monotonic())
                        [sid] = command["params"]["sids"]
                        reply = {"type": "unsubscribed", "id": command["id"], "sid": sid}
                        await websocket.send(json.dumps(reply))
                    continue
                if command["params"]["channels"] == ["trade"]:
                    self.asked.append(time.monotonic())
                    await websocket.send(subscribed(command, sid=len(self.asked) + 10))
                else:
                    await websocket.send(subscribed(command, sid=2))
        finally:
            talking.cancel()

    async def talk(self, websocket: ServerConnection) -> None:
        while True:
            await asyncio.sleep(0.05)
            await websocket.send('{"type":"ticker","sid":2,"msg":{}}')


async def test_a_silent_channel_is_asked_for_once_it_has_been_left():
    exchange = HalfSilent(answers=True)
    async with streaming(exchange, ("trade", "ticker"), silence_seconds=1) as heard:
        await until(lambda: len(exchange.asked) == 2)
    assert exchange.answered[0] < exchange.asked[1] < exchange.answered[0] + 0.5
    assert heard.causes("subscribe")[2] == "silence for 1 s"


async def test_a_silent_channel_is_asked_for_even_if_leaving_it_is_not_answered():
    exchange = HalfSilent(answers=False)
    async with streaming(exchange, ("trade", "ticker"), silence_seconds=1) as heard:
        await until(lambda: len(exchange.asked) == 2)
    assert exchange.asked[1] - exchange.left[0] > 0.9
    assert heard.causes("subscribe")[2] == "silence for 1 s"


async def test_odd_bytes_are_handed_over_and_end_nothing():
    odd = [
        b'{"type":"tr\xffde"}',
        b'{"type":"trade","sid":1,"seq":1,"msg":{"market_ticker":"\xff"}}',
        b'{"type":"error","msg":{"code":1,"msg":"\xff"}}',
        b'{"type":"error","msg":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ]

    async def send_odd_bytes(websocket):
        async for command in commands(websocket):
            for data in odd:
                await websocket.send(data, text=True)
            await websocket.send('{"type":"error","msg":{"code":99999999999999999999}}')
            await websocket.send(subscribed(command))

    async with streaming(send_odd_bytes) as heard:
        await until(lambda: heard.frames and heard.frames[-1]["type"] == "subscribed")
    assert heard.texts == odd
    assert heard.causes("close") == ["stopped"]


async def test_a_frame_larger_than_allowed_ends_the_connection_and_is_not_taken():
    async def send_too_much(websocket):
        async for _ in commands(websocket):
            header = b"\x81\x7f" + (65 << 20).to_bytes(8, "big")
            websocket.transport.write(header + b'{"type":"trade"}' * 10)

    async with streaming(send_too_much) as heard:
        await until(lambda: heard.causes("close"))
    assert heard.frames == heard.texts == []
