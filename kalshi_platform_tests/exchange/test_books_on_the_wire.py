"""Order books over a socket: from the simulator, and from servers that do what it does not."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from kalshi_platform.exchange import book_subscription
from kalshi_platform.exchange import connection as module
from kalshi_platform.exchange.books import Books
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.exchange.stream import Stream
from kalshi_platform_tests.exchange.test_stream import (
    Heard,
    commands,
    streaming,
    subscribed,
    until,
)
from kalshi_simulator.testing import RunningSimulator, running_simulator


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator(seed=5, trades_per_second=50) as running:
        yield running


@pytest.fixture
def tickers(simulator: RunningSimulator) -> Iterator[list[str]]:
    """Markets that stay open for long; faults of the test are ended afterwards."""
    yield open_for_long(simulator)
    simulator.clear_faults()


def open_for_long(simulator: RunningSimulator) -> list[str]:
    markets = httpx.get(
        f"{simulator.rest_url}/markets", params={"status": "open", "limit": 1_000}
    ).json()["markets"]
    return [one["ticker"] for one in markets if one["ticker"].startswith(("KXNFLGAME", "KXFED"))]


@asynccontextmanager
async def watching(
    simulator: RunningSimulator, *wanted: str, channels=("trade", "ticker")
) -> AsyncIterator[tuple[Heard, Books]]:
    heard, books = Heard(), Books()
    books.wanted = wanted
    signer = Signer.from_pem(simulator.key_id, simulator.private_key_path)
    stream = Stream(simulator.ws_url, signer, channels, heard, 60, books)
    task = asyncio.create_task(stream.run())
    try:
        yield heard, books
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def of(heard: Heard, kind: str) -> list[dict]:
    return [frame for frame in heard.frames if frame["type"] == kind]


def events(heard: Heard, name: str) -> list[dict]:
    return [one for one in heard.events if one["event"] == name]


async def test_books_are_watched_added_and_removed_on_the_open_connection(simulator, tickers):
    a, b, c, d = tickers[:4]
    async with watching(simulator, a, b) as (heard, books):
        await until(lambda: books.report.watched == {a, b})
        books.wanted = (b, c, d)
        await until(lambda: books.report.watched == {b, c, d})
        await until(lambda: len(of(heard, "orderbook_delta")) > 20)
    assert {one["msg"]["market_ticker"] for one in of(heard, "orderbook_snapshot")} == {a, b, c, d}
    assert [one["msg"]["market_tickers"] for one in of(heard, "ok")] == [[b], sorted([b, c, d])]
    assert len(events(heard, "open")) == 1
    [_, _, ask] = events(heard, "subscribe")
    assert (ask["channel"], ask["use_yes_price"]) == ("orderbook_delta", 0)
    seqs = [one["seq"] for one in heard.frames if one.get("sid") == of(heard, "ok")[0]["sid"]]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_nothing_wanted_is_no_subscription(simulator):
    async with watching(simulator) as (heard, books):
        await until(lambda: len(of(heard, "trade")) > 20)
        assert books.report.connected
        await asyncio.sleep(1)
    assert [one["channel"] for one in events(heard, "subscribe")] == ["trade", "ticker"]


async def test_the_ticker_subscription_begins_with_where_every_market_stands(simulator, tickers):
    async with watching(simulator, channels=("ticker",)) as (heard, _):
        await until(
            lambda: {one["msg"]["market_ticker"] for one in of(heard, "ticker")} >= set(tickers)
        )


async def test_after_a_lost_frame_all_snapshots_are_asked_for_within_a_second(simulator, tickers):
    wanted = tickers[:5]
    async with watching(simulator, *wanted) as (heard, books):
        await until(lambda: books.report.watched == set(wanted))
        simulator.fault("drop", channel="orderbook_delta", count=1)
        await until(lambda: events(heard, "snapshots_asked"))
        asked = heard.frames[:]
        await until(lambda: len(of(heard, "orderbook_snapshot")) == 10)
        await until(lambda: books.report.watched == set(wanted))
    [event] = events(heard, "snapshots_asked")
    assert (event["cause"], event["markets"]) == ("sequence_jump", 5)
    answers = of(heard, "orderbook_snapshot")[5:]
    assert {one["msg"]["market_ticker"] for one in answers} == set(wanted)
    assert len({one["id"] for one in answers}) == 1
    sid = answers[0]["sid"]
    late = [one for one in asked if one.get("sid") == sid]
    jump = next(b for a, b in itertools.pairwise(late) if b["seq"] != a["seq"] + 1)
    assert answers[0]["sending_ts_ms"] - jump["sending_ts_ms"] < 1_000


async def test_after_code_25_the_same_books_are_subscribed_again(simulator, tickers, monkeypatch):
    # One that ends sooner is asked for ten seconds later.
    monkeypatch.setattr(book_subscription, "_SHORTEST_SUBSCRIPTION_SECONDS", 0)
    wanted = tickers[:3]
    async with watching(simulator, *wanted) as (heard, books):
        await until(lambda: books.report.watched == set(wanted))
        simulator.fault("code25", channel="orderbook_delta")
        await until(lambda: len(of(heard, "orderbook_snapshot")) == 6)
        await until(lambda: books.report.watched == set(wanted))
    assert [one["cause"] for one in events(heard, "subscribe") if "use_yes_price" in one] == [
        "", "code 25: Subscription buffer overflow",
    ]  # fmt: skip
    assert len(events(heard, "open")) == 1


async def test_a_new_connection_watches_the_same_books(simulator, tickers):
    wanted = tickers[:3]
    async with watching(simulator, *wanted) as (heard, books):
        await until(lambda: books.report.watched == set(wanted))
        simulator.fault("drop_connection")
        await until(lambda: len(events(heard, "open")) == 2)
        await until(lambda: len(of(heard, "orderbook_snapshot")) == 6)
        await until(lambda: books.report.watched == set(wanted))
    assert books.report.connected is False


async def test_an_exchange_that_allows_few_books_and_few_commands_is_taken_as_it_is():
    with running_simulator(seed=5, books_at_most=3, commands_per_second=2) as simulator:
        wanted = open_for_long(simulator)[:6]
        async with watching(simulator, *wanted[:2], "KXNOSUCH-1", *wanted[2:]) as (heard, books):
            await until(lambda: books.report.watched == set(wanted[:3]))
            await until(lambda: len(books.report.refused) == 4)
            refused = books.report.refused
            trades = len(of(heard, "trade"))
            await until(lambda: len(of(heard, "trade")) > trades)
        assert len(events(heard, "open")) == 1
    assert {one["code"] for one in events(heard, "error")} == {26, 27}
    assert "KXNOSUCH-1" in refused
    assert {refused[one] for one in wanted[3:]} == {
        one["cause"] for one in events(heard, "books_refused")
    }


async def test_snapshots_that_follow_their_subscription_in_one_piece_are_seen():
    async def all_at_once(websocket):
        async for command in commands(websocket):
            frames = [subscribed(command, sid=4)]
            frames += [
                json.dumps({"type": "orderbook_snapshot", "sid": 4, "seq": seq,
                            "msg": {"market_ticker": ticker}})
                for seq, ticker in enumerate(command["params"]["market_tickers"], 1)
            ]  # fmt: skip
            for frame in frames:
                websocket.protocol.send_text(frame.encode())
            websocket.transport.write(b"".join(websocket.protocol.data_to_send()))

    books = Books()
    books.wanted = ("A", "B", "C")
    async with streaming(all_at_once, (), books=books) as heard:
        await until(lambda: books.report.watched == {"A", "B", "C"})
    assert events(heard, "snapshots_asked") == []


class Counting:
    """Answers one command a second (code 27), and remembers when which came."""

    def __init__(self, *, every: float) -> None:
        self.every = every
        self.last = 0.0
        self.asked: list[tuple[float, dict]] = []
        self.sids: dict[str, int] = {}

    async def __call__(self, websocket) -> None:
        async for command in commands(websocket):
            now = time.monotonic()
            self.asked.append((now, command))
            if now - self.last < self.every:
                error = {"code": 27, "msg": "Too many requests"}
                reply = {"type": "error", "id": command["id"], "msg": error}
                await websocket.send(json.dumps(reply))
                continue
            self.last = now
            await websocket.send(subscribed(command, sid=len(self.asked)))


async def test_every_channel_waits_where_commands_come_too_fast():
    exchange, books = Counting(every=0.9), Books()
    books.wanted = ("A",)
    async with streaming(exchange, ("trade", "ticker"), books=books) as heard:
        await until(lambda: len(of(heard, "subscribed")) == 3)
    channels = {one["msg"]["channel"] for one in of(heard, "subscribed")}
    assert channels == {"trade", "ticker", "orderbook_delta"}
    assert len(exchange.asked) < 12
    assert {one["code"] for one in events(heard, "error")} == {27}


async def test_a_channel_of_books_that_nobody_asked_for_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "_QUIET_PATIENCE", 1)

    async def replayed(websocket):
        async for command in commands(websocket):
            assert command["params"]["channels"] == ["trade"]
            await websocket.send(subscribed(command))
            message = {"channel": "orderbook_delta", "sid": 2}
            await websocket.send(json.dumps({"type": "subscribed", "id": 1, "msg": message}))
            for _ in range(40):
                await websocket.send('{"type":"trade","sid":1,"seq":1,"msg":{}}')
                await asyncio.sleep(0.1)

    async with streaming(replayed, silence_seconds=1) as heard:
        await until(lambda: len(of(heard, "trade")) == 40)
    assert [one["channel"] for one in events(heard, "subscribe")] == ["trade"]
