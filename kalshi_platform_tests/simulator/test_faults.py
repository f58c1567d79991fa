"""Faults: each does what it says, once per count, and the ledger stays true."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from kalshi_platform_tests.simulator.talking import Talk, headers
from kalshi_simulator.testing import RunningSimulator


@pytest.fixture(autouse=True)
def nothing_left_over(simulator: RunningSimulator) -> Iterator[None]:
    yield
    simulator.clear_faults()


async def trades_with(
    simulator: RunningSimulator, kind: str, count: int = 3, **details: Any
) -> tuple[Talk, set[str]]:
    """Put a fault on trades, listen, and say what the ledger has and the stream had not."""
    async with Talk(simulator) as talk:
        await talk.subscribe("trade")
        await talk.collect("trade", 5)
        first = talk.of("trade")[0]["msg"]["ts_ms"]
        await asyncio.to_thread(simulator.fault, kind, count=count, **details)
        while (await asyncio.to_thread(simulator.faults))["active"]:
            await talk.receive()
        struck_by = time.time_ns() // 1_000_000
        while talk.of("trade")[-1]["msg"]["ts_ms"] <= struck_by:
            await talk.receive()
        await talk.collect("trade", len(talk.of("trade")) + 60)
        last = talk.of("trade")[-1]["msg"]["ts_ms"]
    start, end = (datetime.fromtimestamp(ms / 1_000, UTC) for ms in (first + 1, last))
    due = simulator.ledger_trades(start.isoformat(), end.isoformat())
    heard = {frame["msg"].get("trade_id") for frame in talk.of("trade")}
    assert len(due) > 30
    return talk, {row["trade_id"] for row in due} - heard


def numbers(talk: Talk) -> list[int]:
    return [frame["seq"] for frame in talk.of("trade")]


def jumps(talk: Talk) -> int:
    return sum(right - left - 1 for left, right in pairwise(numbers(talk)))


async def test_dropped_trades_leave_a_jump(simulator: RunningSimulator):
    talk, missing = await trades_with(simulator, "drop")
    assert jumps(talk) == len(missing) == 3


async def test_lost_trades_leave_no_jump(simulator: RunningSimulator):
    talk, missing = await trades_with(simulator, "lose")
    assert jumps(talk) == 0
    assert len(missing) == 3


async def test_repeated_trades_come_twice_under_one_number(simulator: RunningSimulator):
    talk, missing = await trades_with(simulator, "repeat")
    assert not missing
    assert len(numbers(talk)) - len(set(numbers(talk))) == 3
    assert len({json.dumps(f) for f in talk.of("trade")}) == len(set(numbers(talk)))


async def test_reordered_trades_swap_places(simulator: RunningSimulator):
    talk, missing = await trades_with(simulator, "reorder", count=1)
    assert not missing
    assert sorted(numbers(talk)) == list(range(1, len(numbers(talk)) + 1))
    assert sum(right < left for left, right in pairwise(numbers(talk))) == 1


async def test_malformed_frames_use_up_numbers(simulator: RunningSimulator):
    talk, missing = await trades_with(simulator, "malformed", count=4)
    assert len(talk.unreadable) == len(missing) == jumps(talk) == 4


@pytest.mark.parametrize("field", ["yes_price_dollars", "trade_id"])
async def test_a_field_can_be_missing(simulator: RunningSimulator, field: str):
    talk, _ = await trades_with(simulator, "missing_field", field=field)
    assert sum(field not in frame["msg"] for frame in talk.of("trade")) == 3
    assert jumps(talk) == 0


async def test_prices_can_be_bad(simulator: RunningSimulator):
    talk, _ = await trades_with(simulator, "bad_price", price="0.36.1")
    assert [f["msg"]["yes_price_dollars"] for f in talk.of("trade")].count("0.36.1") == 3


async def test_trades_can_come_in_the_old_shape(simulator: RunningSimulator):
    talk, _ = await trades_with(simulator, "old_shape")
    old = [f["msg"] for f in talk.of("trade") if "yes_price_dollars" not in f["msg"]]
    assert len(old) == 3
    assert all(isinstance(trade["yes_price"], int) for trade in old)
    assert all(isinstance(trade["count"], int) for trade in old)


async def test_unknown_types_and_fields_appear(simulator: RunningSimulator):
    simulator.fault("unknown_field", count=2)
    talk, missing = await trades_with(simulator, "unknown_type")
    assert len(talk.of("novelty")) == 3
    assert sum("Clock" in frame["msg"] for frame in talk.of("trade")) == 2
    assert not missing
    assert jumps(talk) == 0


@pytest.mark.parametrize("code", [25, 10])
async def test_an_ended_subscription_is_silent_until_made_anew(
    simulator: RunningSimulator, code: int
):
    async with Talk(simulator) as talk:
        await talk.subscribe("trade", "ticker")
        await talk.collect("trade", 5)
        assert (await asyncio.to_thread(simulator.fault, f"code{code}"))["struck"] >= 1
        error = await talk.until(lambda frame: frame["type"] == "error")
        assert (error["sid"], error["msg"]["code"]) == (1, code)
        assert error["seq"] == talk.of("trade")[-1]["seq"] + 1
        before = len(talk.of("trade"))
        await talk.collect("ticker", len(talk.of("ticker")) + 50)
        assert len(talk.of("trade")) == before
        again = await talk.answer(await talk.subscribe("trade"))
        assert again["msg"] == {"channel": "trade", "sid": 3}
        fresh = await talk.collect("trade", before + 1)
        assert fresh[-1]["seq"] == 1


async def test_a_stall_swallows_data_while_the_socket_lives(simulator: RunningSimulator):
    async with Talk(simulator) as talk:
        await talk.subscribe("trade")
        await talk.collect("trade", 5)
        await asyncio.to_thread(simulator.fault, "stall", seconds=3.0)
        begun = time.monotonic()
        await (await talk.socket.ping())
        listed = await talk.answer(await talk.send("list_subscriptions"))
        assert listed["msg"]
        async with Talk(simulator) as other:
            await other.subscribe("trade")
            await other.collect("trade", 5)
            assert time.monotonic() - begun < 2.8
        seen = len(talk.of("trade"))
        await talk.collect("trade", seen + 30)
        assert time.monotonic() - begun > 2.8
    assert jumps(talk) == 0
    stamps = [frame["msg"]["ts_ms"] for frame in talk.of("trade")]
    assert max(right - left for left, right in pairwise(stamps)) > 500


async def test_connections_close_cleanly_or_break(simulator: RunningSimulator):
    async with Talk(simulator) as talk:
        await talk.subscribe("trade")
        await asyncio.to_thread(simulator.fault, "close", code=1001)
        with pytest.raises(ConnectionClosedOK):
            while True:
                await talk.receive()
        assert talk.socket.close_code == 1001
    async with Talk(simulator) as talk:
        await talk.subscribe("trade")
        await asyncio.to_thread(simulator.fault, "drop_connection")
        with pytest.raises(ConnectionClosedError):
            while True:
                await talk.receive()


@pytest.mark.parametrize(("kind", "status"), [("ws_401", 401), ("refuse_connections", 503)])
async def test_handshakes_can_be_refused(simulator: RunningSimulator, kind: str, status: int):
    simulator.fault(kind, count=1)
    signed = headers(simulator.key_id, simulator.private_key_path)
    with pytest.raises(InvalidStatus) as refused:
        await connect(simulator.ws_url, additional_headers=signed)
    assert refused.value.response.status_code == status
    async with connect(simulator.ws_url, additional_headers=signed):
        pass


async def test_replies_can_come_out_of_order(simulator: RunningSimulator):
    simulator.fault("out_of_order_replies", count=1)
    async with Talk(simulator) as talk:
        await talk.subscribe("market_lifecycle_v2")
        await talk.subscribe("multivariate_market_lifecycle")
        first, second = await talk.receive(), await talk.receive()
    assert first is not None
    assert second is not None
    assert (first["id"], second["id"]) == (2, 1)


@pytest.mark.parametrize("status", [401, 429, 500, 503, 504])
def test_rest_can_fail(simulator: RunningSimulator, rest: httpx.Client, status: int):
    simulator.fault(f"rest_{status}", count=2)
    codes = [rest.get("/markets/trades").status_code for _ in range(3)]
    assert codes == [status, status, 200]
    simulator.fault(f"rest_{status}", seconds=0.4)
    assert rest.get("/exchange/status").status_code == status
    deadline = time.monotonic() + 10
    while rest.get("/exchange/status").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rest_can_lag_behind(simulator: RunningSimulator, rest: httpx.Client):
    def age() -> float:
        [newest] = rest.get("/markets/trades", params={"limit": 1}).json()["trades"]
        instant = datetime.fromisoformat(newest["created_time"])
        return (datetime.now(UTC) - instant).total_seconds()

    simulator.fault("rest_lag", seconds=20)
    assert age() >= 20
    simulator.clear_faults()
    assert age() < 10


def test_rest_can_be_slow(simulator: RunningSimulator, rest: httpx.Client):
    simulator.fault("slow_rest", ms=300, count=1)
    begun = time.monotonic()
    rest.get("/exchange/status")
    assert time.monotonic() - begun >= 0.3


def test_markets_can_be_unknown_after_created_and_without_result_after_determined(
    simulator: RunningSimulator, rest: httpx.Client
):
    newest = rest.get("/markets", params={"limit": 1}).json()["markets"][0]["ticker"]
    settled = rest.get("/markets", params={"limit": 1, "status": "settled"}).json()["markets"][0]
    simulator.fault("not_found_after_created", seconds=7_200)
    assert rest.get(f"/markets/{newest}").status_code == 404
    simulator.fault("empty_result_after_determined", seconds=7_200)
    hidden = rest.get("/markets", params={"tickers": settled["ticker"], "limit": 1})
    assert hidden.json()["markets"] == []
    simulator.clear_faults()
    simulator.fault("empty_result_after_determined", seconds=7_200)
    shown = rest.get(f"/markets/{settled['ticker']}").json()["market"]
    assert shown["result"] == ""
    assert "settlement_value_dollars" not in shown
    simulator.clear_faults()
    assert rest.get(f"/markets/{settled['ticker']}").json()["market"]["result"] != ""


def test_the_cutoff_can_move(simulator: RunningSimulator, rest: httpx.Client):
    before = rest.get("/historical/cutoff").json()["trades_created_ts"]
    to = datetime.fromisoformat(before).replace(hour=13, minute=5).isoformat()
    simulator.fault("move_cutoff", to=to)
    after = rest.get("/historical/cutoff").json()["trades_created_ts"]
    assert datetime.fromisoformat(after) == datetime.fromisoformat(to)
    simulator.fault("move_cutoff", to=before)
    assert rest.get("/historical/cutoff").json()["trades_created_ts"] == before


def test_nonsense_is_refused(simulator: RunningSimulator):
    for body in ({"kind": "earthquake"}, {"kind": "stall"}, {"kind": "drop", "chanel": "trade"}):
        answer = httpx.post(simulator.control_url + "/faults", json=body)
        assert answer.status_code == 400
    assert simulator.faults()["active"] == []


async def test_a_trade_by_hand_is_on_both_sides(
    simulator: RunningSimulator, rest: httpx.Client, long_tickers: list[str]
):
    ticker = long_tickers[0]
    async with Talk(simulator) as talk:
        await talk.answer(await talk.subscribe("trade", market_tickers=[ticker]))
        made = await asyncio.to_thread(
            simulator.trade, ticker, yes_price_dollars="0.3700", count_fp="0.33"
        )
        heard = await talk.until(
            lambda f: f["type"] == "trade" and f["msg"]["trade_id"] == made["trade_id"]
        )
    assert heard["msg"]["yes_price_dollars"] == "0.3700"
    listed = rest.get("/markets/trades", params={"ticker": ticker, "limit": 100}).json()["trades"]
    assert made["trade_id"] in {trade["trade_id"] for trade in listed}


def test_a_late_trade_is_on_rest_only_and_in_the_volume(
    simulator: RunningSimulator, rest: httpx.Client, long_tickers: list[str]
):
    ticker = long_tickers[1]
    then = "2020-01-01T00:00:00+00:00"
    wrong = httpx.post(
        simulator.control_url + "/trades",
        json={
            "ticker": ticker,
            "yes_price_dollars": "0.5000",
            "count_fp": "1.00",
            "created_time": then,
        },
    )
    assert wrong.status_code == 400
    hour_ago = datetime.fromtimestamp(time.time() - 3_600, UTC).replace(second=17).isoformat()
    made = simulator.trade(
        ticker, yes_price_dollars="0.5000", count_fp="5.00", created_time=hour_ago
    )
    second = int(datetime.fromisoformat(made["created_time"]).timestamp())
    page = rest.get(
        "/markets/trades", params={"ticker": ticker, "min_ts": second, "max_ts": second + 1}
    ).json()
    assert made["trade_id"] in {trade["trade_id"] for trade in page["trades"]}
