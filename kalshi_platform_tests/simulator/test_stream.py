"""The WebSocket: handshakes, numbering, commands and their answers."""

import asyncio
import json
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from kalshi_platform_tests.simulator.talking import EVERYTHING, Talk, headers
from kalshi_simulator.signing import ensure_credentials
from kalshi_simulator.testing import RunningSimulator, running_simulator


async def refusal(simulator: RunningSimulator, signed: dict[str, str]) -> dict[str, str]:
    with pytest.raises(InvalidStatus) as refused:
        await connect(simulator.ws_url, additional_headers=signed)
    assert refused.value.response.status_code == 401
    error: dict[str, str] = json.loads(refused.value.response.body)["error"]
    return error


async def test_a_handshake_needs_a_right_signature(simulator: RunningSimulator, tmp_path: Path):
    pem = simulator.private_key_path
    stranger = ensure_credentials(tmp_path)
    await refusal(simulator, {})
    await refusal(simulator, headers("nobody", pem))
    await refusal(simulator, headers(simulator.key_id, stranger.private_key_path))
    await refusal(simulator, headers(simulator.key_id, pem, path="/ws/v2"))
    late = await refusal(simulator, headers(simulator.key_id, pem, skew_ms=-60_000))
    assert late["code"] == "header_timestamp_expired"
    async with connect(
        simulator.ws_url, additional_headers=headers(simulator.key_id, pem, skew_ms=9_000)
    ):
        pass


async def test_rsa_keys_are_accepted(tmp_path: Path):
    ensure_credentials(tmp_path, "rsa")
    with running_simulator(credentials=tmp_path, history_days=0, markets=5) as simulator:
        async with Talk(simulator) as talk:
            await talk.answer(await talk.subscribe("trade"))


async def test_sids_count_from_one_and_subscribed_comes_first(simulator: RunningSimulator):
    async with Talk(simulator) as talk:
        command = await talk.subscribe(*EVERYTHING)
        await talk.collect("trade", 30)
    assert [frame["msg"] for frame in talk.frames[:4]] == [
        {"channel": channel, "sid": sid} for sid, channel in enumerate(EVERYTHING, 1)
    ]
    for frame in talk.frames[:4]:
        assert frame["type"] == "subscribed"
        assert frame["id"] == command
        assert "seq" not in frame
        assert "sid" not in frame


async def test_trades_are_numbered_without_a_gap_and_tickers_not_at_all(
    simulator: RunningSimulator,
):
    async with Talk(simulator) as talk:
        await talk.subscribe("trade", "ticker")
        trades = await talk.collect("trade", 100)
    assert [trade["seq"] for trade in trades] == list(range(1, len(trades) + 1))
    assert all("seq" not in ticker for ticker in talk.of("ticker"))
    assert all("sending_ts_ms" in frame for frame in talk.frames)


async def test_a_trade_has_every_field_and_they_agree(simulator: RunningSimulator):
    async with Talk(simulator) as talk:
        await talk.subscribe("trade")
        trades = await talk.collect("trade", 50)
    for trade in (frame["msg"] for frame in trades):
        assert Decimal(trade["yes_price_dollars"]) + Decimal(trade["no_price_dollars"]) == 1
        assert trade["taker_side"] == trade["taker_outcome_side"] in ("yes", "no")
        assert trade["taker_book_side"] == {"yes": "bid", "no": "ask"}[trade["taker_side"]]
        assert trade["ts"] == trade["ts_ms"] // 1_000
        assert isinstance(trade["is_block_trade"], bool)
        assert len(trade["count_fp"].partition(".")[2]) == 2


async def test_the_odometer_grows_by_exactly_what_was_traded(simulator: RunningSimulator):
    async with Talk(simulator) as talk:
        await talk.subscribe("trade", "ticker")
        await talk.collect("trade", 300)
    traded: dict[str, Decimal] = defaultdict(Decimal)
    first: dict[str, tuple[Decimal, Decimal]] = {}
    compared = 0
    for frame in talk.frames:
        message = frame["msg"]
        ticker = message.get("market_ticker")
        if frame["type"] == "trade":
            traded[ticker] += Decimal(message["count_fp"])
        elif frame["type"] == "ticker":
            volume = Decimal(message["volume_fp"])
            start, before = first.setdefault(ticker, (volume, traded[ticker]))
            assert volume - start == traded[ticker] - before
            compared += 1
            assert Decimal(message["yes_bid_dollars"]) < Decimal(message["yes_ask_dollars"])
    assert compared > 100


async def test_every_wrong_command_has_its_error(simulator: RunningSimulator):
    async with Talk(simulator) as talk:

        async def code(cmd: str, **params: object) -> int:
            reply = await talk.answer(await talk.send(cmd, **params))
            assert reply["type"] == "error"
            assert reply["msg"]["msg"]
            return int(reply["msg"]["code"])

        assert await code("subscribe") == 3
        assert await code("subscribe", channels=["ticker_v2"]) == 8
        assert await code("subscribe", channels=["orderbook_delta"]) == 14
        assert await code("dance") == 5
        assert await code("unsubscribe") == 4
        assert await code("unsubscribe", sids=[77]) == 7
        assert await code("update_subscription", action="add_markets") == 12
        assert await code("update_subscription", sids=[1, 2], action="add_markets") == 12
        assert await code("update_subscription", sid=77, action="add_markets") == 7
        await talk.socket.send("{")
        assert (await talk.until(lambda frame: "id" not in frame))["msg"]["code"] == 1
        await talk.socket.send(json.dumps({"id": 900, "cmd": "subscribe"}))
        assert (await talk.answer(900))["msg"]["code"] == 2


async def test_one_unknown_channel_does_not_spoil_the_others(simulator: RunningSimulator):
    async with Talk(simulator) as talk:
        command = await talk.subscribe("trade", "nonsense")
        replies = [await talk.answer(command), await talk.answer(command)]
    assert sorted(reply["type"] for reply in replies) == ["error", "subscribed"]


async def test_scoped_replies_use_up_numbers(simulator: RunningSimulator, open_tickers: list[str]):
    first, second = sorted(open_tickers[:2])
    async with Talk(simulator) as talk:
        await talk.answer(await talk.subscribe("trade", market_tickers=[first]))
        ok = await talk.answer(await talk.subscribe("trade", market_tickers=[second]))
        assert ok["type"] == "ok"
        assert ok["msg"] == {"market_tickers": [first, second]}
        wrong = await talk.answer(
            await talk.send("update_subscription", sid=1, action="get_snapshot")
        )
        assert wrong["msg"]["code"] == 13
        listed = await talk.answer(await talk.send("list_subscriptions"))
        assert listed["msg"] == [{"channel": "trade", "sid": 1}]
        assert "seq" not in listed
        left = await talk.answer(
            await talk.send(
                "update_subscription", sids=[1], market_tickers=[first], action="delete_markets"
            )
        )
        assert left["msg"] == {"market_tickers": [second]}
        gone = await talk.answer(await talk.send("unsubscribe", sids=[1]))
        assert gone["type"] == "unsubscribed"
    numbers = [frame["seq"] for frame in talk.frames if "seq" in frame]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {f["msg"]["market_ticker"] for f in talk.of("trade")} <= {first, second}


async def test_an_initial_ticker_comes_when_asked_for(
    simulator: RunningSimulator, open_tickers: list[str]
):
    async with Talk(simulator) as talk:
        wanted = sorted(open_tickers[:3])
        await talk.subscribe("ticker", market_tickers=wanted, send_initial_snapshot=True)
        tickers = await talk.collect("ticker", 3, seconds=2)
    assert [frame["msg"]["market_ticker"] for frame in tickers[:3]] == wanted


async def test_deltas_lead_from_snapshot_to_snapshot(
    simulator: RunningSimulator, long_tickers: list[str]
):
    wanted = sorted(long_tickers[:5])
    async with Talk(simulator) as talk:
        await talk.answer(
            await talk.subscribe("orderbook_delta", market_tickers=wanted, use_yes_price=False)
        )
        await talk.collect("orderbook_delta", 60)
        command = await talk.send(
            "update_subscription", sids=[1], market_tickers=wanted, action="get_snapshot"
        )
        while len([f for f in talk.frames if f.get("id") == command]) < 5:
            await talk.receive()
    books: dict[tuple[str, str], dict[str, Decimal]] = {}
    checked = 0
    for frame in (f for f in talk.frames if f["type"].startswith("orderbook")):
        message = frame["msg"]
        ticker = message["market_ticker"]
        if frame["type"] == "orderbook_delta":
            book = books[ticker, message["side"]]
            price = message["price_dollars"]
            book[price] = book.get(price, Decimal(0)) + Decimal(message["delta_fp"])
            assert book[price] >= 0
            if not book[price]:
                del book[price]
            continue
        for side in ("yes", "no"):
            levels = {p: Decimal(c) for p, c in message.get(f"{side}_dollars_fp", [])}
            if "id" in frame:
                assert books[ticker, side] == levels
                checked += 1
            books[ticker, side] = levels
    assert checked == 10
    numbers = [frame["seq"] for frame in talk.frames if "seq" in frame]
    assert all(right == left + 1 for left, right in pairwise(numbers))


async def test_no_side_prices_come_in_yes_terms_when_asked_for(
    simulator: RunningSimulator, long_tickers: list[str]
):
    async with Talk(simulator) as plain, Talk(simulator) as yes:
        for talk, flag in ((plain, False), (yes, True)):
            await talk.subscribe(
                "orderbook_delta", market_tickers=long_tickers[:1], use_yes_price=flag
            )
        [one] = await plain.collect("orderbook_snapshot", 1)
        [other] = await yes.collect("orderbook_snapshot", 1)
    flipped = sorted(1 - Decimal(price) for price, _ in one["msg"]["no_dollars_fp"])
    assert [Decimal(price) for price, _ in other["msg"]["no_dollars_fp"]] == flipped


async def test_the_server_pings_and_compresses(simulator: RunningSimulator):
    async with Talk(simulator, compression="deflate", ping_interval=None) as talk:
        assert "permessage-deflate" in talk.socket.response.headers["Sec-WebSocket-Extensions"]
        await talk.subscribe("trade")
        await talk.collect("trade", 20)


async def test_a_client_that_leaves_without_a_word_is_forgotten(simulator: RunningSimulator):
    talk = Talk(simulator)
    await talk.__aenter__()
    await talk.subscribe("trade")
    await talk.collect("trade", 1)
    talk.socket.transport.abort()
    for _ in range(200):
        if not simulator.stats()["connections"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the connection is still counted")
