"""Markets, events and series over REST: as the ledger has them, late, in number, moving."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kalshi_platform_tests.simulator.talking import Talk
from kalshi_simulator.figures import DAY_US, parse_instant, stamp
from kalshi_simulator.testing import RunningSimulator, running_simulator

COMBOS = "multivariate_market_lifecycle"


@pytest.fixture(scope="module")
def fast() -> Iterator[RunningSimulator]:
    """A minute a second, so that something happens."""
    with running_simulator(
        seed=6, speed=60, trades_per_second=1, history_days=2, read_tokens_per_second=100_000
    ) as running:
        yield running


@pytest.fixture(scope="module")
def large() -> Iterator[RunningSimulator]:
    """As many markets as the exchange lists, and combos born as often as there."""
    with running_simulator(
        history_days=0,
        dormant_markets=120_000,
        combo_births_per_second=400,
        read_tokens_per_second=100_000,
    ) as running:
        yield running


@pytest.fixture
def held(fast: RunningSimulator) -> Iterator[RunningSimulator]:
    """The fast one, its time standing still for the length of a test."""
    fast.hold()
    yield fast
    fast.clear_faults()
    fast.go_on(60)


def asking(simulator: RunningSimulator) -> httpx.Client:
    return httpx.Client(base_url=simulator.rest_url, timeout=30)


def all_of(client: httpx.Client, path: str, key: str = "markets", **query: Any) -> list[Any]:
    """Everything a list holds, page by page."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = client.get(path, params={**query, "cursor": cursor}).json()
        found += page[key]
        cursor = page["cursor"]
        if not cursor:
            return found


def now_of(simulator: RunningSimulator) -> int:
    return parse_instant(simulator.stats()["now"])


def test_held_time_stands_still_and_goes_on_without_a_jump(fast: RunningSimulator):
    at = fast.hold()
    assert parse_instant(at) == now_of(fast) == now_of(fast)
    assert fast.ledger("markets") == fast.ledger("markets")
    resumed = fast.go_on(60)
    assert 0 <= parse_instant(resumed) - parse_instant(at) < 1_000_000
    deadline = time.monotonic() + 10
    while now_of(fast) < parse_instant(at) + 10_000_000:
        assert time.monotonic() < deadline
    answer = httpx.post(fast.control_url + "/clock", json={"speed": -1})
    assert answer.status_code == 400


async def test_all_that_happened_is_told_when_time_is_held(fast: RunningSimulator):
    async with Talk(fast) as talk:
        await talk.answer(await talk.subscribe("market_lifecycle_v2", COMBOS))
        begun = now_of(fast)
        await talk.until(lambda frame: frame["msg"].get("event_type") == "determined", 30)
        end = fast.hold()
        due = {
            (row["ticker"], version["result"])
            for row in fast.ledger("settlements")
            for version in row["versions"]
            if version["status"] == "determined"
            and version["told_by"] == "lifecycle"
            and begun <= parse_instant(version["at"]) <= parse_instant(end)
        }
        heard: set[tuple[str, str]] = set()
        while not due <= heard:
            heard |= {
                (frame["msg"]["market_ticker"], frame["msg"]["result"])
                for frame in talk.frames
                if frame["msg"].get("event_type") == "determined"
            }
            if not due <= heard:
                await talk.receive(10)
        fast.go_on(60)
    assert due


def test_the_ledger_is_what_both_tiers_show(held: RunningSimulator):
    markets = {row["ticker"]: row for row in held.ledger("markets")}
    outcomes = {row["ticker"]: row for row in held.ledger("settlements")}
    with asking(held) as client:
        live = all_of(client, "/markets", limit=1_000)
        old = all_of(client, "/historical/markets", limit=1_000)
        traded = {row["ticker"] for row in all_of(client, "/markets/trades", "trades", limit=1_000)}
        events = all_of(client, "/events", "events")
        events += all_of(client, "/events/multivariate", "events")
        series = client.get("/series").json()["series"]
        absent = client.get("/series/KXGOLD20M").status_code
    assert len(live) + len(old) == len(markets)
    assert {row["ticker"] for row in live if markets[row["ticker"]]["traded"]} >= traded
    assert not {row["ticker"] for row in live if not markets[row["ticker"]]["traded"]} & traded
    for row in (*live, *old):
        truth = {name: value for name, value in markets[row["ticker"]].items() if name != "traded"}
        if "occurrence_datetime" not in row:
            del truth["occurrence_datetime"]
        assert row == truth
        outcome = outcomes.get(row["ticker"])
        assert (outcome is None) == (row["result"] == "")
        if outcome is not None:
            for name in ("status", "result", "settlement_value_dollars", "event_ticker"):
                assert outcome[name] == row[name]
            assert outcome.get("settlement_ts") == row.get("settlement_ts")
    by_ticker = {row["event_ticker"]: row for row in held.ledger("events")}
    assert {row["event_ticker"]: row for row in events} == by_ticker
    assert series == held.ledger("series")
    assert absent == 404
    [one] = held.ledger("markets", live[0]["ticker"])
    assert one == markets[live[0]["ticker"]]


def test_filters_choose_what_a_look_at_everything_would(held: RunningSimulator):
    """Lists are not looked through from end to end: no market may slip away by that."""
    with asking(held) as client:
        everything = all_of(client, "/markets", limit=1_000)
        now = now_of(held) // 1_000_000

        def chosen(**query: Any) -> list[str]:
            return [row["ticker"] for row in all_of(client, "/markets", limit=97, **query)]

        for family, field, also in (
            ("created", "created_time", {}),
            ("close", "close_time", {}),
            ("settled", "settlement_ts", {"status": "settled"}),
            ("updated", "updated_time", {"mve_filter": "exclude"}),
        ):
            for low, high in ((now - 7_200, None), (None, now - 3_600), (now - 9_000, now - 4_000)):
                query: dict[str, Any] = dict(also)
                query |= {} if low is None else {f"min_{family}_ts": low}
                query |= {} if high is None else {f"max_{family}_ts": high}
                wanted = [
                    row["ticker"]
                    for row in everything
                    if field in row
                    and (low is None or parse_instant(row[field]) > low * 1_000_000)
                    and (high is None or parse_instant(row[field]) <= high * 1_000_000)
                    and not (family == "updated" and row["ticker"].startswith("KXMVE"))
                ]
                assert chosen(**query) == wanted, query
                assert wanted
        statuses = {
            "unopened": {"initialized"}, "open": {"active"}, "paused": {"inactive"},
            "closed": {"closed", "determined", "disputed", "amended"}, "settled": {"finalized"},
        }  # fmt: skip
        for status, words in statuses.items():
            wanted = [row["ticker"] for row in everything if row["status"] in words]
            assert chosen(status=status) == wanted
        wanted = [row["ticker"] for row in everything if row["ticker"].startswith("KXETHH-")]
        assert chosen(series_ticker="KXETHH") == wanted
        two = wanted[:2]
        assert chosen(tickers=",".join(two), series_ticker="KXETHH") == two
        assert chosen(tickers=",".join(two), series_ticker="KXNFLGAME") == []


def test_reference_can_lag_as_a_whole(held: RunningSimulator):
    lag = 3_600
    now = now_of(held)
    then = now - lag * 1_000_000
    with asking(held) as client:
        markets = {row["ticker"]: row for row in all_of(client, "/markets", limit=1_000)}
        held.fault("reference_lag", seconds=lag)
        late = {row["ticker"]: row for row in all_of(client, "/markets", limit=1_000)}
        events = {row["event_ticker"] for row in all_of(client, "/events", "events")}
        unborn = [row for row in markets.values() if parse_instant(row["created_time"]) > then]
        assert unborn
        assert set(markets) - set(late) == {row["ticker"] for row in unborn}
        assert client.get(f"/markets/{unborn[0]['ticker']}").status_code == 404
        assert held.faults()["done"]["reference_lag"] == 1
        hidden = {row["event_ticker"] for row in unborn} - {
            row["event_ticker"] for row in late.values()
        }
        assert hidden
        assert not hidden & events
        assert client.get(f"/events/{min(hidden)}").status_code == 404
        assert all(parse_instant(row["updated_time"]) <= then for row in late.values())
        behind = [row for ticker, row in late.items() if row["status"] != markets[ticker]["status"]]
        assert {row["status"] for row in behind} >= {"active", "initialized"}
        for row in late.values():
            if markets[row["ticker"]]["updated_time"] == row["updated_time"]:
                assert row["result"] == markets[row["ticker"]]["result"]
        open_then = {row["ticker"] for row in late.values() if row["status"] == "active"}
        listed = all_of(client, "/markets", limit=1_000, status="open")
        assert {row["ticker"] for row in listed} == open_then
        held.clear_faults()
        assert {r["ticker"]: r for r in all_of(client, "/markets", limit=1_000)} == markets


def test_a_result_not_told_yet_leaves_the_market_as_it_was_before(held: RunningSimulator):
    with asking(held) as client:
        listed = all_of(client, "/markets", limit=1_000, status="settled", mve_filter="exclude")
        settled = listed[0]
        [outcome] = held.ledger("settlements", settled["ticker"])
        held.fault("empty_result_after_determined", seconds=2 * 86_400)
        shown = client.get(f"/markets/{settled['ticker']}").json()["market"]
        again = all_of(client, "/markets", limit=1_000, status="settled")
        closed = all_of(client, "/markets", limit=1_000, status="closed")
    assert (shown["status"], shown["result"]) == ("closed", "")
    assert parse_instant(shown["updated_time"]) < parse_instant(outcome["versions"][0]["at"])
    assert settled["ticker"] not in {row["ticker"] for row in again}
    assert settled["ticker"] in {row["ticker"] for row in closed}


def test_the_cutoff_can_move_between_pages(held: RunningSimulator):
    """Whoever asks the live tier first and the historical one afterwards misses nothing."""
    with asking(held) as client:
        before = client.get("/historical/cutoff").json()["market_settled_ts"]
        whole = {row["ticker"] for row in held.ledger("markets")}
        to = stamp(parse_instant(before) + DAY_US // 2)
        held.fault("move_cutoff", to=to, after_requests=2)
        first = client.get("/markets", params={"limit": 1_000}).json()
        assert held.faults()["active"][0]["requests_left"] == 1
        assert client.get("/historical/cutoff").json()["market_settled_ts"] == before
        second = client.get("/historical/markets", params={"limit": 10}).json()
        moved = client.get("/historical/cutoff").json()["market_settled_ts"]
        assert parse_instant(moved) == parse_instant(to)
        assert held.faults()["active"] == []
        rest = all_of(client, "/markets", limit=1_000)
        old = all_of(client, "/historical/markets", limit=1_000)
        held.fault("move_cutoff", to=before)
    gone = {row["ticker"] for row in first["markets"]} - {row["ticker"] for row in rest}
    assert {row["ticker"] for row in second["markets"]} <= {row["ticker"] for row in old}
    assert {row["ticker"] for row in (*rest, *old)} == whole
    assert len(rest) + len(old) == len(whole)
    assert gone <= {row["ticker"] for row in old}


def test_many_markets_are_listed_and_touched_ones_found(large: RunningSimulator):
    def page_of(client: httpx.Client, **query: Any) -> list[Any]:
        page: list[Any] = client.get("/markets", params={"limit": 1_000, **query}).json()["markets"]
        return page

    with asking(large) as client:
        cursor, seen = "", set()
        for _ in range(15):
            page = client.get("/markets", params={"limit": 1_000, "cursor": cursor}).json()
            seen.update(market["ticker"] for market in page["markets"])
            cursor = page["cursor"]
        assert len(seen) == 15_000
        mark = now_of(large) // 1_000_000 - 1
        query = {"min_updated_ts": mark, "mve_filter": "exclude", "series_ticker": "KXDORMANT000"}
        assert page_of(client, **query) == []
        assert large.touch(1_500) == 1_500
        touched = page_of(client, **query)
        assert len(touched) == 1_000
        for row in touched:
            assert parse_instant(row["updated_time"]) > mark * 1_000_000
            assert row["rules_secondary"] == "Revision 1 of the rules."
        event = client.get(f"/events/{touched[0]['event_ticker']}").json()
        assert len(event["markets"]) == 3
        series = client.get(f"/series/{event['event']['series_ticker']}").json()["series"]
        assert series["ticker"] == "KXDORMANT000"
        ticker = touched[0]["ticker"]
        book = client.get(f"/markets/{ticker}/orderbook").json()["orderbook_fp"]
        assert book == {"yes_dollars": [], "no_dollars": []}
        own = client.get("/markets/trades", params={"ticker": ticker}).json()["trades"]
        assert own == []
        window = {"start_ts": mark - 3_600, "end_ts": mark, "period_interval": 60}
        path = f"/series/KXDORMANT000/markets/{ticker}/candlesticks"
        assert client.get(path, params=window).json()["candlesticks"] == []


async def test_combos_are_born_at_the_rate_asked_for_and_unknown_to_rest(large: RunningSimulator):
    async with Talk(large) as talk:
        await talk.answer(await talk.subscribe(COMBOS))
        await talk.collect(COMBOS, 20)
        await talk.collect(COMBOS, 1_200)
    born = talk.of(COMBOS)
    tickers = [frame["msg"]["market_ticker"] for frame in born]
    assert len(set(tickers)) == len(tickers)
    assert all(ticker.startswith("KXMVE") for ticker in tickers)
    sent = [frame["sending_ts_ms"] for frame in born]
    assert (sent[-1] - sent[0]) / 1_000 > 1_200 / 400 * 0.5, "400 a second are asked for"
    births = [frame["msg"] for frame in born if frame["msg"]["event_type"] == "created"]
    assert "price_ranges" not in births[-1]
    with asking(large) as client:
        answer = client.get(f"/markets/{births[-1]['market_ticker']}")
    assert answer.status_code == 404
    assert json.loads(answer.text)["error"]["code"] == "not_found"


def test_the_tokens_of_the_busiest_second_are_counted():
    with running_simulator(history_days=0, markets=3) as simulator, asking(simulator) as client:
        for _ in range(5):
            assert client.get("/exchange/status").status_code == 200
        stats = simulator.stats()
        assert 10 <= stats["rest_tokens_most_a_second"] <= 50
        while client.get("/exchange/status").status_code == 200:
            pass
        stats = simulator.stats()
        assert stats["rest_tokens_most_a_second"] > 200
        assert (stats["rest_over_budget"], stats["rest_limited"]) == (1, 1)
        simulator.fault("rest_429", count=1)
        assert client.get("/exchange/status").status_code == 429
        stats = simulator.stats()
        assert (stats["rest_over_budget"], stats["rest_limited"]) == (1, 2)
