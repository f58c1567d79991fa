"""Watching books over a socket: what may be asked for, what is refused, what goes wrong."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from kalshi_platform_tests.simulator.talking import Talk, book_at, books_told, levels
from kalshi_simulator.testing import RunningSimulator, running_simulator


@pytest.fixture(scope="module")
def limited() -> Iterator[RunningSimulator]:
    """At most 20 books in a subscription, 5 commands a second about one; an hour a minute."""
    with running_simulator(
        seed=5, speed=60, history_days=0, books_at_most=20, commands_per_second=5, markets=80,
        read_tokens_per_second=100_000,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
async def talk(limited: RunningSimulator) -> AsyncIterator[Talk]:
    async with Talk(limited) as talking:
        yield talking


@pytest.fixture(scope="module")
def games(limited: RunningSimulator) -> list[str]:
    """Markets that stay open for long."""
    tickers = [market["ticker"] for market in limited.ledger("markets")]
    found = [ticker for ticker in tickers if ticker.startswith("KXNFLGAME")]
    assert len(found) >= 30
    return found


async def watch(talk: Talk, tickers: list[str], **more: Any) -> dict[str, Any]:
    return await talk.answer(
        await talk.subscribe("orderbook_delta", market_tickers=tickers, **more)
    )


async def update(talk: Talk, action: str, tickers: list[str]) -> int:
    return await talk.send("update_subscription", sid=1, action=action, market_tickers=tickers)


def numbers(talk: Talk) -> list[int]:
    return [frame["seq"] for frame in talk.frames if frame.get("sid") == 1 and "seq" in frame]


async def test_more_books_than_allowed_are_refused_whole(talk: Talk, games: list[str]):
    refused = await watch(talk, games[:21])
    assert (refused["type"], refused["msg"]) == (
        "error", {"code": 26, "msg": "Subscription market limit exceeded"},
    )  # fmt: skip
    assert "sid" not in refused, "nothing was opened"
    opened = await watch(talk, games[:19])
    assert opened["msg"] == {"channel": "orderbook_delta", "sid": 1}
    await talk.collect("orderbook_snapshot", 19)
    for command in (
        await update(talk, "add_markets", games[19:21]),
        await talk.subscribe("orderbook_delta", market_tickers=games[19:21]),
    ):
        error = await talk.answer(command)
        assert (error["sid"], error["msg"]["code"]) == (1, 26)
        assert error["seq"] == numbers(talk)[-2] + 1, "it uses up a number"
    added = await talk.answer(await update(talk, "add_markets", games[18:20]))
    assert added["msg"]["market_tickers"] == sorted(games[:20]), "not one more than was there"
    await talk.collect("orderbook_snapshot", 20)
    assert all(right == left + 1 for left, right in pairwise(numbers(talk)))


async def test_too_many_commands_are_refused_until_a_second_has_passed(
    talk: Talk, games: list[str]
):
    await watch(talk, games[:2])
    commands = [await update(talk, "get_snapshot", games[:1]) for _ in range(8)]
    replies = [await talk.answer(command) for command in commands]
    assert [reply["type"] for reply in replies] == ["orderbook_snapshot"] * 5 + ["error"] * 3
    assert replies[-1]["msg"] == {"code": 27, "msg": "Too many requests"}
    assert replies[-1]["sid"] == 1
    assert all(right == left + 1 for left, right in pairwise(numbers(talk)))
    assert (await talk.answer(await talk.subscribe("ticker")))["type"] == "subscribed"
    deadline = time.monotonic() + 10
    while (await talk.answer(await update(talk, "get_snapshot", games[:1])))["type"] == "error":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_unknown_markets_are_kept_out_and_settled_ones_have_empty_books(
    talk: Talk, limited: RunningSimulator, games: list[str]
):
    deadline = time.monotonic() + 30
    while not (settled := limited.ledger("settlements")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    delisted = settled[0]["ticker"]
    await watch(talk, ["NOBODY", delisted, games[0]])
    snapshots = await talk.collect("orderbook_snapshot", 2)
    bodies = {frame["msg"]["market_ticker"]: frame["msg"] for frame in snapshots}
    assert bodies.keys() == {delisted, games[0]}
    assert bodies[delisted].keys() == {"market_ticker", "market_id"}
    ok = await talk.answer(await update(talk, "add_markets", ["NEITHER", games[1]]))
    assert ok["msg"] == {"market_tickers": sorted([delisted, games[0], games[1]])}
    ok = await talk.answer(await update(talk, "delete_markets", [delisted, "NEITHER"]))
    assert ok["msg"] == {"market_tickers": sorted(games[:2])}
    assert {f["msg"]["market_ticker"] for f in talk.of("orderbook_delta")} <= set(games[:2])


async def test_a_snapshot_of_a_market_that_is_not_watched_is_not_given(
    talk: Talk, games: list[str]
):
    await watch(talk, games[:1])
    ignored = await update(talk, "get_snapshot", [games[1], "NOBODY"])
    given = await update(talk, "get_snapshot", games[:2])
    answer = await talk.answer(given)
    assert answer["msg"]["market_ticker"] == games[0]
    await talk.collect("orderbook_delta", 20)
    assert [f["msg"]["market_ticker"] for f in talk.frames if f.get("id") == given] == games[:1]
    assert not [frame for frame in talk.frames if frame.get("id") == ignored]


async def test_the_stream_is_the_ledgers_book_at_any_instant(
    talk: Talk, limited: RunningSimulator, games: list[str]
):
    """Fifteen books over six simulated minutes, new ones and closing ones among them."""
    short = [
        market["ticker"]
        for market in limited.ledger("markets")
        if market["status"] in ("active", "initialized")
        and market["ticker"].startswith(("KXQUICK", "KXMVE", "KXBTC"))
    ]
    wanted = games[:5] + short[-10:]
    await watch(talk, wanted)
    await talk.collect("orderbook_snapshot", len(wanted))
    begun = talk.of("orderbook_snapshot")[-1]["sending_ts_ms"]
    await talk.until(
        lambda frame: (
            frame["type"] == "orderbook_delta" and frame["msg"]["ts_ms"] > begun + 360_000
        ),
        seconds=40,
    )
    last = talk.frames[-1]["msg"]["ts_ms"]
    dice, frames = random.Random(1), books_told(talk)
    for _ in range(200):
        ticker, at = dice.choice(wanted), dice.randrange(begun, last)
        instant = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at)
        told = limited.ledger_book(ticker, instant.isoformat())
        assert book_at(frames[ticker], at) == levels(told)


def test_the_future_has_no_book(limited: RunningSimulator, games: list[str]):
    tomorrow = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    for query in ({"ticker": games[0], "at": tomorrow}, {"ticker": games[0]}, {"at": tomorrow}):
        answer = httpx.get(limited.control_url + "/ledger/book", params=query)
        assert answer.status_code == 400
    gone = {"ticker": "NOBODY", "at": "2020-01-01T00:00:00Z"}
    assert httpx.get(limited.control_url + "/ledger/book", params=gone).status_code == 404


async def test_a_snapshot_is_of_the_moment_at_which_it_is_sent(
    talk: Talk, limited: RunningSimulator, games: list[str]
):
    await watch(talk, games[:5])
    for _ in range(4):
        command = await update(talk, "get_snapshot", games[:5])
        while len(given := [f for f in talk.frames if f.get("id") == command]) < 5:
            await talk.receive()
        for frame in given:
            # A step may begin between the telling and the sending: 16 ms are a second here.
            sent = datetime.fromtimestamp(frame["sending_ts_ms"] / 1_000, UTC)
            ticker = frame["msg"]["market_ticker"]
            truths = [
                levels(limited.ledger_book(ticker, (sent - timedelta(seconds=ago)).isoformat()))
                for ago in range(4)
            ]
            assert book_at([frame], frame["sending_ts_ms"]) in truths


async def test_initial_tickers_are_those_of_all_open_markets(talk: Talk, limited: RunningSimulator):
    limited.hold()
    try:
        opened = {
            market["ticker"]
            for market in limited.ledger("markets")
            if market["status"] in ("active", "inactive")
        }
        await talk.subscribe("ticker", send_initial_snapshot=True)
        tickers = await talk.collect("ticker", len(opened))
        assert {frame["msg"]["market_ticker"] for frame in tickers} == opened
    finally:
        limited.go_on(60)


@pytest.mark.parametrize("channel", ["orderbook_delta", "ticker"])
async def test_faults_strike_deltas_and_tickers(
    talk: Talk, limited: RunningSimulator, games: list[str], channel: str
):
    await talk.subscribe("ticker")
    await talk.subscribe("orderbook_delta", market_tickers=games[:20])

    async def struck(kind: str, **details: Any) -> list[dict[str, Any]]:
        """What came from before a fault until a little after it."""
        await talk.collect(channel, len(talk.of(channel)) + 1)
        before = len(talk.frames)
        await asyncio.to_thread(limited.fault, kind, channel=channel, **details)
        while (await asyncio.to_thread(limited.faults))["active"]:
            await talk.receive()
        # Whatever was sent by now comes before the answer.
        await talk.answer(await talk.send("list_subscriptions"))
        await talk.collect(channel, len(talk.of(channel)) + 30)
        return [frame for frame in talk.frames[before:] if frame["type"] == channel]

    def jumps(frames: list[dict[str, Any]]) -> int:
        seqs = [frame["seq"] for frame in frames if "seq" in frame]
        return sum(right != left + 1 for left, right in pairwise(seqs))

    is_numbered = channel == "orderbook_delta"
    assert (jumps(await struck("drop", count=3)) > 0) == is_numbered
    assert jumps(await struck("lose", count=3)) == 0
    repeated = await struck("repeat", count=3)
    texts = [str(frame) for frame in repeated]
    assert len(texts) - len(set(texts)) >= 3
    assert (jumps(await struck("reorder", count=1)) > 0) == is_numbered
    await struck("malformed", count=4)
    assert len(talk.unreadable) == 4
    missing = await struck("missing_field", count=3, field="market_ticker")
    assert sum("market_ticker" not in frame["msg"] for frame in missing) == 3
    bad = await struck("bad_price", count=2, price="1.5000")
    assert [frame["msg"]["price_dollars"] for frame in bad].count("1.5000") == 2


async def test_faults_strike_snapshots(talk: Talk, limited: RunningSimulator, games: list[str]):
    await watch(talk, games[:4])
    await talk.collect("orderbook_snapshot", 4)
    for kind, details in (
        ("malformed", {}), ("missing_field", {"field": "market_ticker"}), ("bad_price", {}),
        ("drop", {}),
    ):  # fmt: skip
        limited.fault(kind, channel="orderbook_snapshot", **details)
        command = await update(talk, "get_snapshot", games[:4])
        while len([frame for frame in talk.frames if frame.get("id") == command]) < 3:
            await talk.receive()
        await talk.collect("orderbook_delta", len(talk.of("orderbook_delta")) + 1)
    given = [frame["msg"] for frame in talk.of("orderbook_snapshot")[4:]]
    assert len(talk.unreadable) == 1
    assert len(given) == 3 + 4 + 4 + 3
    assert sum("market_ticker" not in message for message in given) == 1
    prices = {level[0] for m in given for level in m.get("yes_dollars_fp", [])}
    assert prices & {"1.5000", "0.36.1", "-0.3600", ""}
    limited.clear_faults()
