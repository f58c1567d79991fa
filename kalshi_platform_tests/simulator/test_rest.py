"""REST: pages, tiers, filters, candlesticks and limits, compared with the ledger."""

import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any

import httpx
import pytest

from kalshi_platform_tests.simulator.talking import headers
from kalshi_simulator.figures import parse_instant
from kalshi_simulator.testing import RunningSimulator, running_simulator

MINUTE = 60


def trades_of(rest: httpx.Client, path: str = "/markets/trades", **query: Any) -> list[Any]:
    """All pages of a question about trades."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = rest.get(path, params={"limit": 1_000, **query, "cursor": cursor}).json()
        found += page["trades"]
        cursor = page["cursor"]
        if not cursor:
            return found


def cutoff_of(rest: httpx.Client) -> datetime:
    return datetime.fromisoformat(rest.get("/historical/cutoff").json()["trades_created_ts"])


def test_pages_hold_what_the_ledger_holds(simulator: RunningSimulator, rest: httpx.Client):
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    start = end - timedelta(hours=3)
    listed = trades_of(rest, min_ts=int(start.timestamp()), max_ts=int(end.timestamp()), limit=997)
    truth = simulator.ledger_trades(start.isoformat(), end.isoformat())
    assert len(truth) > 5_000
    assert [row["n"] for row in truth] == list(range(truth[0]["n"], truth[0]["n"] + len(truth)))
    by_id = {trade["trade_id"]: trade for trade in listed}
    assert len(by_id) == len(listed)
    assert set(by_id) >= {row["trade_id"] for row in truth}
    assert len(by_id) - len(truth) <= 1, "only a trade at the very end, which counts as inside"
    for row in truth:
        trade = by_id[row["trade_id"]]
        for name in ("ticker", "yes_price_dollars", "count_fp", "taker_outcome_side"):
            assert trade[name] == row[name]
        assert parse_instant(trade["created_time"]) == parse_instant(row["created_time"])


def test_trades_come_newest_first_and_by_id_within_an_instant(rest: httpx.Client):
    now = int(time.time())
    listed = trades_of(rest, min_ts=now - 3_600, max_ts=now)
    places = [(parse_instant(trade["created_time"]), trade["trade_id"]) for trade in listed]
    assert places == sorted(places, reverse=True)
    ties = [list(same) for _, same in groupby(places, key=lambda place: place[0])]
    assert max(len(same) for same in ties) > 5


def test_the_order_of_rest_is_not_the_order_of_execution(
    simulator: RunningSimulator, rest: httpx.Client
):
    end = datetime.now(UTC) - timedelta(seconds=1)
    start = end - timedelta(hours=1)
    truth = simulator.ledger_trades(start.isoformat(), end.isoformat())
    places = [(row["created_time"], row["trade_id"]) for row in truth]
    assert [place[0] for place in places] == sorted(place[0] for place in places)
    assert places != sorted(places)


def test_times_drop_zeros_at_the_end(rest: httpx.Client):
    stamps = [trade["created_time"] for trade in trades_of(rest, min_ts=int(time.time()) - 7_200)]
    assert not any(stamp.endswith("0Z") and "." in stamp for stamp in stamps)
    assert any(len(stamp) < len("2026-01-01T00:00:00.000000Z") for stamp in stamps)


def test_one_market_and_block_trades_can_be_asked_for(rest: httpx.Client, open_tickers: list[str]):
    ticker = open_tickers[0]
    own = trades_of(rest, ticker=ticker)
    assert own
    assert {trade["ticker"] for trade in own} == {ticker}
    start = int(time.time()) - 6 * 3_600
    end = int(time.time()) - 1
    everything = trades_of(rest, min_ts=start, max_ts=end)
    blocks = trades_of(rest, min_ts=start, max_ts=end, is_block_trade="true")
    assert blocks == [trade for trade in everything if trade["is_block_trade"]] != []
    assert trades_of(rest, ticker="NOBODY-KNOWS") == []


def test_the_tiers_meet_at_the_cutoff_and_do_not_overlap(rest: httpx.Client):
    cutoff = cutoff_of(rest)
    window = {
        "min_ts": int(cutoff.timestamp()) - 600,
        "max_ts": int(cutoff.timestamp()) + 600,
    }
    live = trades_of(rest, **window)
    past = trades_of(rest, "/historical/trades", **window)
    assert live
    assert past
    assert min(parse_instant(t["created_time"]) for t in live) >= parse_instant(str(cutoff))
    assert max(parse_instant(t["created_time"]) for t in past) < parse_instant(str(cutoff))


def test_markets_page_without_loss_and_filters_follow_the_rules(rest: httpx.Client):
    cursor, tickers = "", []
    while True:
        page = rest.get(
            "/markets", params={"limit": 300, "mve_filter": "exclude", "cursor": cursor}
        ).json()
        tickers += [market["ticker"] for market in page["markets"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert len(tickers) == len(set(tickers)) > 600
    assert not any(ticker.startswith("KXMVE") for ticker in tickers)
    now = int(time.time())
    for good in (
        {"status": "open"}, {"status": "settled", "min_settled_ts": now - 3_600},
        {"status": "closed", "max_close_ts": now}, {"min_created_ts": now - 600},
        {"min_updated_ts": now - 3_600, "mve_filter": "exclude", "series_ticker": "KXBTC15M"},
        {"tickers": f"{tickers[0]},{tickers[1]},NOBODY"}, {"mve_filter": "only"},
    ):  # fmt: skip
        answer = rest.get("/markets", params=good)
        assert answer.status_code == 200, good
        assert answer.json()["markets"] or good.get("status") == "closed", good
    for bad in (
        {"status": "finalized"}, {"status": "open", "min_close_ts": now},
        {"status": "open", "min_updated_ts": now}, {"min_close_ts": 1, "min_created_ts": 1},
        {"min_updated_ts": now, "series_ticker": "KXBTC15M"}, {"event_ticker": "A,B"},
        {"limit": 1_001}, {"limit": "many"}, {"cursor": "broken"}, {"mve_filter": "some"},
    ):  # fmt: skip
        answer = rest.get("/markets", params=bad)
        assert answer.status_code == 400, bad
        assert answer.json()["error"]["code"] == "bad_request"
    assert rest.get("/markets", params={"status": "finalized"}).json() == {
        "error": {
            "code": "bad_request",
            "message": "bad request",
            "details": "invalid status filter",
        }
    }


def test_a_settled_market_shows_its_outcome_and_an_empty_book(rest: httpx.Client):
    settled = rest.get("/markets", params={"status": "settled", "limit": 1_000}).json()["markets"]
    results = {market["result"] for market in settled}
    assert {"yes", "no", "scalar"} <= results <= {"yes", "no", "scalar", "void"}
    assert "0.5000" in {market["settlement_value_dollars"] for market in settled}
    for market in settled:
        assert (market["yes_bid_dollars"], market["yes_ask_dollars"]) == ("0.0000", "1.0000")
        assert parse_instant(market["settlement_ts"]) > parse_instant(market["close_time"])
    combo = next(market for market in settled if market["ticker"].startswith("KXMVE"))
    assert len(combo["mve_selected_legs"]) >= 2
    for leg in combo["mve_selected_legs"]:
        assert rest.get(f"/markets/{leg['market_ticker']}").status_code == 200


def test_markets_settled_before_the_cutoff_are_in_the_historical_tier_only(rest: httpx.Client):
    [old] = rest.get(
        "/historical/markets", params={"series_ticker": "KXBTC15M", "limit": 1}
    ).json()["markets"]
    assert rest.get(f"/markets/{old['ticker']}").status_code == 404
    assert rest.get(f"/historical/markets/{old['ticker']}").status_code == 200
    assert "occurrence_datetime" not in old
    two = {"series_ticker": "KXBTC15M", "mve_filter": "exclude"}
    assert rest.get("/historical/markets", params=two).status_code == 400


def test_volume_is_the_sum_of_the_trades(rest: httpx.Client):
    settled = rest.get(
        "/markets", params={"status": "settled", "series_ticker": "KXETHH", "limit": 5}
    ).json()["markets"]
    for market in settled:
        own = trades_of(rest, ticker=market["ticker"])
        assert sum(Decimal(t["count_fp"]) for t in own) == Decimal(market["volume_fp"])
        assert own[0]["yes_price_dollars"] in {
            trade["yes_price_dollars"]
            for trade in own
            if trade["created_time"] == own[0]["created_time"]
        }
        assert market["volume_fp"] != "0.00"


def test_events_and_series_hang_together(rest: httpx.Client):
    events = rest.get("/events", params={"with_nested_markets": "true"}).json()
    assert events["cursor"]
    series = {entry["ticker"] for entry in rest.get("/series").json()["series"]}
    for event in events["events"]:
        assert event["series_ticker"] in {*series, "", "KXGOLD20M"}
        assert {m["event_ticker"] for m in event["markets"]} <= {event["event_ticker"]}
    ticker = events["events"][0]["event_ticker"]
    beside = rest.get(f"/events/{ticker}").json()
    assert "markets" not in beside["event"]
    assert beside["markets"]
    combos = rest.get("/events/multivariate").json()["events"]
    assert combos
    assert all(event["event_ticker"].startswith("KXMVE") for event in combos)
    alone = rest.get(f"/events/{combos[0]['event_ticker']}").json()
    assert alone["event"] == combos[0]
    assert {leg["side"] for m in alone["markets"] for leg in m["mve_selected_legs"]} <= {
        "yes",
        "no",
    }
    assert rest.get("/series/KXBTC15M").json()["series"]["categories"] == ["Crypto"]
    assert rest.get("/series/NOPE").status_code == rest.get("/events/NOPE").status_code == 404


def rebuilt(truth: list[Any], period: int) -> dict[int, dict[str, str]]:
    """Candlesticks of one market out of trades in order of execution, written anew."""
    buckets: dict[int, list[Any]] = defaultdict(list)
    for row in truth:
        second = parse_instant(row["created_time"]) // 1_000_000
        buckets[second // period * period + period].append(row)
    candles = {}
    for end, rows in buckets.items():
        prices = [Decimal(row["yes_price_dollars"]) for row in rows]
        candles[end] = {
            "open_dollars": f"{prices[0]:.4f}",
            "high_dollars": f"{max(prices):.4f}",
            "low_dollars": f"{min(prices):.4f}",
            "close_dollars": f"{prices[-1]:.4f}",
            "volume_fp": f"{sum(Decimal(row['count_fp']) for row in rows):.2f}",
        }
    return candles


@pytest.mark.parametrize("minutes", [1, 60, 1_440])
def test_candlesticks_are_the_trades_in_order_of_execution(
    simulator: RunningSimulator, rest: httpx.Client, long_tickers: list[str], minutes: int
):
    period = minutes * MINUTE
    end = int(time.time()) // 60 * 60
    start = end - min(4_000 * 60, 36 * 3_600)
    start -= start % period
    compared = 0
    for ticker in long_tickers[:2]:
        answer = rest.get(
            f"/series/{ticker.partition('-')[0]}/markets/{ticker}/candlesticks",
            params={
                "start_ts": start + period,
                "end_ts": end - end % period,
                "period_interval": minutes,
            },
        )
        candles = answer.json()["candlesticks"]
        stop = datetime.fromtimestamp(end - end % period, UTC).isoformat()
        begin = datetime.fromtimestamp(start, UTC).isoformat()
        truth = rebuilt(simulator.ledger_trades(begin, stop, ticker), period)
        traded = {}
        for candle in candles:
            assert candle["end_period_ts"] % period == 0
            if "open_dollars" not in candle["price"]:
                assert candle["volume_fp"] == "0.00"
                assert set(candle["price"]) <= {"previous_dollars"}
                continue
            price = {name: candle["price"][name] for name in candle["price"] if name in OHLC}
            traded[candle["end_period_ts"]] = {**price, "volume_fp": candle["volume_fp"]}
        assert traded == truth
        compared += len(truth)
        ends = [candle["end_period_ts"] for candle in candles]
        assert all(left < right for left, right in pairwise(ends))
    assert compared > 0


OHLC = ("open_dollars", "high_dollars", "low_dollars", "close_dollars")


def test_the_historical_tier_names_candlesticks_otherwise(rest: httpx.Client):
    [old] = rest.get("/historical/markets", params={"series_ticker": "KXETHH", "limit": 1}).json()[
        "markets"
    ]
    opened = parse_instant(old["open_time"]) // 1_000_000
    candles = rest.get(
        f"/historical/markets/{old['ticker']}/candlesticks",
        params={"start_ts": opened, "end_ts": opened + 7_200, "period_interval": 1},
    ).json()["candlesticks"]
    own = trades_of(rest, "/historical/trades", ticker=old["ticker"])
    assert sum(Decimal(c["volume"]) for c in candles) == sum(Decimal(t["count_fp"]) for t in own)
    for candle in candles:
        assert set(candle["price"]) == {"open", "high", "low", "close", "mean", "previous"}
        assert (candle["price"]["open"] is None) == (candle["volume"] == "0.00")
    closed = parse_instant(old["close_time"]) // 1_000_000
    assert candles[-1]["end_period_ts"] == closed // 60 * 60 + 60
    assert candles[-1]["yes_ask"]["close"] == "1.0000"


def test_windows_that_are_too_wide_are_refused(rest: httpx.Client, long_tickers: list[str]):
    now = int(time.time())
    ticker = long_tickers[0]
    one = rest.get(
        f"/series/{ticker.partition('-')[0]}/markets/{ticker}/candlesticks",
        params={"start_ts": now - 5_001 * 60, "end_ts": now, "period_interval": 1},
    )
    assert one.status_code == 400
    assert one.json()["error"]["details"] == (
        "requested time range with candlesticks: 5001.000000, max candlesticks: 5000"
    )
    batch = {"start_ts": now - 5_100 * 60, "end_ts": now, "period_interval": 1}
    several = rest.get(
        "/markets/candlesticks", params={**batch, "market_tickers": ",".join(long_tickers[:2])}
    )
    assert several.json()["error"]["details"] == (
        "requested candlesticks across all markets: 10200, max candlesticks: 10000"
    )
    batch["start_ts"] = now - 600
    named = ",".join([*long_tickers[:2], "NOBODY"])
    fine = rest.get("/markets/candlesticks", params={**batch, "market_tickers": named}).json()
    assert [entry["market_ticker"] for entry in fine["markets"]] == long_tickers[:2]


def test_a_wrongly_signed_request_is_refused_and_an_unsigned_one_is_not(
    simulator: RunningSimulator, rest: httpx.Client
):
    path = "/trade-api/v2/account/limits"
    right = headers(simulator.key_id, simulator.private_key_path, "GET", path)
    limits = rest.get("/account/limits", headers=right).json()
    assert limits["read"] == {"refill_rate": 100_000, "bucket_capacity": 300_000}
    wrong = headers(simulator.key_id, simulator.private_key_path, "GET", "/account/limits")
    assert rest.get("/account/limits", headers=wrong).status_code == 401
    assert rest.get("/account/limits").status_code == 401
    assert rest.get("/exchange/status").json()["trading_active"] is True


def test_the_budget_runs_out_and_comes_back():
    with (
        running_simulator(read_tokens_per_second=20, history_days=0, markets=3) as simulator,
        httpx.Client(base_url=simulator.rest_url) as rest,
    ):
        answers = [rest.get("/exchange/status") for _ in range(12)]
        codes = [answer.status_code for answer in answers]
        assert codes[:6] == [200] * 6
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json() == {"error": "too many requests"}
        assert not {"retry-after", "x-ratelimit-limit"} & set(refused.headers)
        deadline = time.monotonic() + 10
        while rest.get("/exchange/status").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        signed = headers(
            simulator.key_id, simulator.private_key_path, path="/trade-api/v2/exchange/status"
        )
        assert rest.get("/exchange/status", headers=signed).status_code == 200, "its own budget"
