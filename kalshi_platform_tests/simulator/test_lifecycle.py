"""Lifecycle: every kind of message comes, in the order of a market's life, as REST has it."""

import json
from collections import defaultdict
from itertools import pairwise

from kalshi_platform_tests.simulator.talking import Talk
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import HOUR_US
from kalshi_simulator.lifecycle import Timeline, moments_of
from kalshi_simulator.testing import running_simulator

ORDER = ["created", "determined", "settled"]


def test_an_hour_has_every_kind_of_message(exchange: Exchange):
    now = exchange.clock.now()
    moments = Timeline(exchange.directory).between(now - 6 * HOUR_US, now)
    assert all(left.us <= right.us for left, right in pairwise(moments))
    kinds = defaultdict(int)
    for moment in moments:
        body = json.loads(moment.message.body)
        kinds[moment.message.channel, body.get("event_type", moment.message.kind)] += 1
    ordinary = {kind for channel, kind in kinds if channel == "market_lifecycle_v2"}
    assert ordinary == {
        "created", "activated", "deactivated", "close_date_updated", "determined", "settled",
        "metadata_updated", "price_level_structure_updated", "event_lifecycle", "event_fee_update",
    }  # fmt: skip
    combos = {kind for channel, kind in kinds if channel == "multivariate_market_lifecycle"}
    assert combos == {
        "created", "activated", "deactivated", "close_date_updated", "determined", "settled",
        "event_lifecycle",
    }  # fmt: skip


def test_pieces_of_time_tell_everything_once(exchange: Exchange):
    now = exchange.clock.now()
    timeline = Timeline(exchange.directory)
    cuts = [now - HOUR_US + part * 97_000_003 for part in range(30)]
    pieces = [m for left, right in pairwise(cuts) for m in timeline.between(left, right)]
    assert pieces == timeline.between(cuts[0], cuts[-1])


def test_messages_and_rest_tell_the_same_outcome(exchange: Exchange):
    now = exchange.clock.now()
    scalars = amended = 0
    for market in exchange.directory.all():
        if market.settled_us > now:
            continue
        told = [json.loads(m.message.body) for m in moments_of(exchange.directory, market)]
        outcomes = [body for body in told if body.get("event_type") == "determined"]
        result, value = exchange.directory.outcome_at(market, now) or ("", -1)
        assert outcomes[-1]["result"] == result
        assert outcomes[-1]["settlement_value"] == f"{value / 10_000:.4f}"
        scalars += result == "scalar"
        amended += len(outcomes) == 2
    assert scalars > 5
    assert amended > 5


async def test_markets_live_and_die_on_the_stream():
    with running_simulator(speed=120, trades_per_second=0.5, history_days=0) as simulator:
        async with Talk(simulator) as talk:
            await talk.subscribe("market_lifecycle_v2", "multivariate_market_lifecycle")
            await talk.until(
                lambda f: (
                    f["type"] == "market_lifecycle_v2"
                    and f["msg"]["event_type"] == "settled"
                    and any(
                        g["type"] == "market_lifecycle_v2"
                        and g["msg"]["event_type"] == "created"
                        and g["msg"]["market_ticker"] == f["msg"]["market_ticker"]
                        for g in talk.frames
                    )
                ),
                seconds=30,
            )
    lives: dict[str, list[str]] = defaultdict(list)
    for frame in talk.frames:
        if frame["type"].endswith(("lifecycle_v2", "market_lifecycle")):
            message = frame["msg"]
            is_combo = message["market_ticker"].startswith("KXMVE")
            assert is_combo == (frame["type"] == "multivariate_market_lifecycle")
            assert ("price_ranges" in message) <= (not is_combo)
            if message["event_type"] in ORDER:
                lives[message["market_ticker"]].append(message["event_type"])
    for life in lives.values():
        assert sorted(life, key=ORDER.index) == life
    for sid in (1, 2):
        seqs = [f["seq"] for f in talk.frames if f.get("sid") == sid]
        assert seqs == list(range(1, len(seqs) + 1))
