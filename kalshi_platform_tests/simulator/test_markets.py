"""Markets and events: what befalls them, told the same by messages, REST and the ledger."""

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform_tests.simulator.conftest import world
from kalshi_simulator import schedule
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import DAY_US, HOUR_US, SECOND_US, parse_instant, stamp
from kalshi_simulator.layout import QUIET
from kalshi_simulator.lifecycle import Timeline, moments_of
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.truth import settlement_view
from kalshi_simulator.rest.views import event_view, market_views
from kalshi_simulator.state import load

TRADING = {
    "yes_bid_dollars", "yes_ask_dollars", "no_bid_dollars", "no_ask_dollars", "yes_bid_size_fp",
    "yes_ask_size_fp", "last_price_dollars", "previous_price_dollars", "previous_yes_bid_dollars",
    "previous_yes_ask_dollars", "volume_fp", "volume_24h_fp", "open_interest_fp",
}  # fmt: skip
TEMPERS = [*range(schedule.VOID + 1), QUIET]
BY_CLOCK = {("initialized", "active"), ("active", "closed")}


def facts(exchange: Exchange, market: Market, us: int) -> dict[str, Any]:
    [view] = market_views(exchange, [market], [us])
    return {name: value for name, value in view.items() if name not in TRADING}


def over(exchange: Exchange) -> list[Market]:
    now = exchange.clock.now()
    return [market for market in exchange.directory.all() if market.finalized_us <= now]


def of_temper(exchange: Exchange, temper: int, most: int = 6) -> list[Market]:
    found = [market for market in over(exchange) if market.temper == temper]
    # Some of each series: what befalls a combo must befall it alike.
    by_series: dict[str, list[Market]] = defaultdict(list)
    for market in found:
        by_series[market.ticker.partition("-")[0]].append(market)
    return [market for some in by_series.values() for market in some[:most]]


@pytest.mark.parametrize("temper", TEMPERS)
def test_updated_time_moves_with_every_change_and_with_nothing_else(
    exchange: Exchange, temper: int
):
    markets = of_temper(exchange, temper, most=2)
    assert markets
    for market in markets:
        for begin, end in pairwise((*market.changes_us, market.finalized_us + HOUR_US)):
            first, last = facts(exchange, market, begin), facts(exchange, market, end - 1)
            assert first["updated_time"] == stamp(begin)
            if first["status"] != last["status"]:
                assert (first["status"], last["status"]) in BY_CLOCK | {("initialized", "closed")}
                first["status"] = last["status"]
            assert first == last
        for moment in market.changes_us[1:]:
            before = facts(exchange, market, moment - 1)
            after = facts(exchange, market, moment)
            changed = {name for name in before | after if before.get(name) != after.get(name)}
            assert changed > {"updated_time"}, (market.ticker, moment - market.open_us)


@pytest.mark.parametrize("temper", TEMPERS)
def test_messages_and_rest_tell_the_same_life(exchange: Exchange, temper: int):
    """Whoever applies the messages knows what REST shows, but for disputes."""
    for market in of_temper(exchange, temper):
        known: dict[str, Any] = {}
        for moment in moments_of(exchange.directory, market):
            body = json.loads(moment.message.body)
            if moment.message.kind not in ("market_lifecycle_v2", "multivariate_market_lifecycle"):
                continue
            kind = body.pop("event_type")
            shown = facts(exchange, market, moment.us)
            if kind == "created":
                assert body["close_ts"] == parse_instant(shown["close_time"]) // SECOND_US
                known |= body["additional_metadata"] | body
            known |= body
            assert parse_instant(shown["updated_time"]) == moment.us
            assert parse_instant(shown["close_time"]) == known["close_ts"] * SECOND_US
            assert shown["yes_sub_title"] == known["yes_sub_title"]
            assert shown["price_level_structure"] == known["price_level_structure"]
            assert shown.get("floor_strike") == known.get("floor_strike")
            assert shown["result"] == known.get("result", "")
            assert shown.get("settlement_value_dollars") == known.get("settlement_value")
            assert (shown["status"] == "inactive") == (kind == "deactivated")
            assert (shown["status"] == "finalized") == (kind == "settled")
        assert known["settled_ts"] == parse_instant(shown["settlement_ts"]) // SECOND_US


def test_a_closed_market_is_reopened_and_nothing_trades_in_between(exchange: Exchange):
    markets = of_temper(exchange, schedule.REOPENED)
    assert len(markets) > 5
    volume = 0
    for market in markets:
        told = [json.loads(m.message.body) for m in moments_of(exchange.directory, market)]
        kinds = [body["event_type"] for body in told if "event_type" in body]
        assert kinds == [
            "created", "close_date_updated", "close_date_updated", "activated", "determined",
            "settled",
        ]  # fmt: skip
        early, late = (b["close_ts"] for b in told if b.get("event_type") == "close_date_updated")
        begin, end, _ = market.recess or (0, 0, "")
        assert (early * SECOND_US, late * SECOND_US) == (begin, market.planned_close_us)
        assert [market.status_at(us) for us in (begin - 1, begin, end - 1, end)] == [
            "active", "closed", "closed", "active",
        ]  # fmt: skip
        gone = exchange.ledger.rows_of_slot(market.slot, begin, end)
        assert len(gone) == 0
        volume += exchange.volume(market, market.close_us) - exchange.volume(market, end)
    assert volume > 0, "trading goes on afterwards"


def test_a_dispute_sends_no_message_and_is_upheld_or_ends_in_an_amendment(exchange: Exchange):
    seen: Counter[tuple[str, ...]] = Counter()
    for market in of_temper(exchange, schedule.DISPUTED, most=40):
        view = settlement_view(exchange, market, exchange.clock.now())
        versions = view["versions"]
        life = tuple(version["status"] for version in versions)
        seen[life] += 1
        told = [json.loads(m.message.body) for m in moments_of(exchange.directory, market)]
        determined = [body for body in told if body.get("event_type") == "determined"]
        upheld = life[2] == "determined"
        assert len(determined) == (1 if upheld else 2)
        assert [version["told_by"] for version in versions] == [
            "lifecycle", "rest", "rest" if upheld else "lifecycle", "lifecycle",
        ]  # fmt: skip
        results = [version["result"] for version in versions]
        assert results[0] == results[1]
        assert (results[1] == results[2]) == upheld
        assert results[2] == results[3] == view["result"]
        for version in versions[:-1]:
            shown = facts(exchange, market, parse_instant(version["at"]))
            assert shown["status"] == version["status"]
            assert shown["result"] == version["result"]
            assert shown["settlement_value_dollars"] == version["settlement_value_dollars"]
            assert shown["updated_time"] == version["at"]
    assert set(seen) == {
        ("determined", "disputed", "determined", "finalized"),
        ("determined", "disputed", "amended", "finalized"),
    }


def test_results_are_more_than_yes_and_no(exchange: Exchange):
    found = Counter(
        (exchange.directory.outcome_at(market, market.finalized_us) or ("", 0))[0]
        for market in over(exchange)
    )
    assert set(found) == {"yes", "no", "scalar", "void"}
    assert 0.5 < found["yes"] / found["no"] < 2
    assert min(found.values()) > 10


def test_an_event_is_told_before_its_markets_and_changes_with_its_fee_only(exchange: Exchange):
    repriced = 0
    for event in exchange.directory.events():
        first = event.markets[0]
        assert event.created_us < min(market.created_us for market in event.markets)
        assert event.updated_at(first.created_us) == event.created_us
        if event.repriced is None:
            continue
        repriced += 1
        begin, end = event.repriced
        shown = [event_view(exchange, event, us) for us in (begin - 1, begin, end - 1, end)]
        overrides = [view.get("fee_type_override") for view in shown]
        assert overrides == [None, *["quadratic_with_maker_fees"] * 2, None]
        assert [view["last_updated_ts"] for view in shown] == [
            stamp(us) for us in (event.created_us, begin, begin, end)
        ]
    assert repriced > 10
    now = exchange.clock.now()
    born: set[str] = set()
    for moment in Timeline(exchange.directory).between(now - 6 * HOUR_US, now):
        body = json.loads(moment.message.body)
        if moment.message.kind == "event_lifecycle":
            born.add(body["event_ticker"])
        elif body.get("event_type") == "created":
            assert body["additional_metadata"]["event_ticker"] in born or moment.us < (
                now - 6 * HOUR_US + SECOND_US
            )


def test_some_events_have_no_series_and_some_name_one_that_is_not_listed(exchange: Exchange):
    listed = {plan.ticker for plan in exchange.directory.series}
    named = Counter(
        event_view(exchange, event, exchange.clock.now())["series_ticker"]
        for event in exchange.directory.events()
    )
    assert named[""] > 10
    assert named["KXGOLD20M"] > 10
    assert set(named) - listed == {"", "KXGOLD20M"}
    told = [
        json.loads(moment.message.body)
        for market in exchange.directory.of_series("KXONEOFF")[:4]
        for moment in moments_of(exchange.directory, market)
        if moment.message.kind == "event_lifecycle"
    ]
    assert {body["series_ticker"] for body in told} == {""}


def test_what_a_market_traded_in_all_is_the_sum_of_its_trades(tmp_path: Path):
    exchange = world(tmp_path, history_days=1)
    markets = over(exchange)[:: len(over(exchange)) // 60]
    assert len(markets) >= 60
    for market in markets:
        rows = exchange.ledger.rows_of_slot(market.slot, market.open_us, market.close_us)
        traded = exchange.traded(market, exchange.clock.now())
        assert traded.volume == int(rows.centis.sum())
        last = exchange.last_trade(market, exchange.clock.now()) or (0, 0)
        assert (traded.last_e4, traded.last_centis) == last
        # Half way there, nothing is summed up yet.
        middle = (market.open_us + market.close_us) // 2
        before = exchange.ledger.rows_of_slot(market.slot, market.open_us, middle)
        assert exchange.traded(market, middle).volume == int(before.centis.sum())


def test_a_world_begun_earlier_keeps_its_layout(tmp_path: Path):
    first = world(tmp_path, history_days=1)
    assert {slot.series.ticker for slot in first.layout.slots} >= {"KXONEOFF", "KXGOLD20M"}
    path = tmp_path / "simulator.json"
    kept = json.loads(path.read_text())
    del kept["plan"]
    path.write_text(json.dumps(kept))
    earlier = world(tmp_path)
    assert not {slot.series.ticker for slot in earlier.layout.slots} & {"KXONEOFF", "KXGOLD20M"}
    tempers = {market.temper for market in earlier.directory.all()}
    assert not tempers & {schedule.REOPENED, schedule.DISPUTED, schedule.VOID}
    assert tempers >= {schedule.EARLY, schedule.AMENDED, schedule.TIED}


def test_touches_and_a_clock_that_is_held_survive_a_restart(tmp_path: Path):
    first = world(tmp_path, history_days=0, dormant_markets=12)
    assert first.touch(5) == 5
    assert first.touch(9) == 9
    first.set_speed(0)
    held = first.clock.now()
    kept = load(tmp_path)
    assert kept is not None
    assert kept.speed_milli == 0
    second = world(tmp_path, speed_milli=0, dormant_markets=12)
    assert second.clock.now() == held
    touches = [len(market.changes_us) - 1 for market in second.directory.all()[:12]]
    assert touches == [2, 2, *[1] * 10], "round and round"
    view = facts(second, second.directory.all()[0], held)
    assert view["rules_secondary"] == "Revision 2 of the rules."
    assert parse_instant(view["updated_time"]) == second.directory.all()[0].changes_us[-1]


def test_a_month_of_history_is_there_and_shown():
    exchange = world(markets=60, history_days=30, live_days=15, history_trades_per_second=1.0)
    markets = exchange.directory.all()
    assert len(markets) > 60_000
    before = [market for market in markets if market.settled_us < exchange.cutoff_us]
    assert len(before) > 30_000
    some = before[len(before) // 2 :][:1_000]
    views = market_views(exchange, some, [exchange.clock.now()] * 1_000, is_historical=True)
    assert sum(view["volume_fp"] != "0.00" for view in views) > 900


def test_dormant_markets_are_older_than_all_others_and_of_every_status():
    dormant = world(history_days=0, dormant_markets=1_200)
    markets = dormant.directory.all()
    now = dormant.clock.now()
    assert [market.is_dormant for market in markets[:1_200]] == [True] * 1_200
    assert not any(market.is_dormant for market in markets[1_200:])
    places = [market.place for market in markets]
    assert places == sorted(set(places))
    assert Counter(market.status_at(now) for market in markets[:1_200]) == {
        "active": 1_170, "initialized": 12, "inactive": 12, "closed": 6,
    }  # fmt: skip
    sizes = Counter(len(event.markets) for event in dormant.directory.events()[:400])
    assert sizes == {3: 400}
    assert markets[0].created_us < dormant.state.begins_us - 30 * DAY_US
