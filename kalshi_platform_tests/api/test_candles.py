"""GET /candles/{ticker}."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from api.cursors import encode_cursor
from api.inputs import unix_micros
from api.routes import candles
from api.schemas import Candle, Page
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import refresh_candles
from kalshi_platform_tests.api.rows import TICKER, at, cover, land, open_gap, trade
from kalshi_platform_tests.transform.reference import lose, quote, tell

DAY = {"start_time": "2026-11-20T00:00:00Z", "end_time": "2026-11-21T00:00:00Z"}


async def ask(client: httpx.AsyncClient, ticker: str = TICKER, **query: Any) -> dict[str, Any]:
    """One page, its numbers exact, its bytes held to the documented shape."""
    response = await client.get(f"/candles/{ticker}", params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Page[Candle].model_validate(page)
    return page


async def walk(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """The candles of all pages."""
    candles: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await ask(client, **query, **({"cursor": cursor} if cursor else {}))
        candles += page["data"]
        if not page["has_more"]:
            return candles
        cursor = page["next_cursor"]


async def test_a_candle_reads_exactly_as_documented(client, database):
    land(
        database,
        trade("10:00:05", yes_price_micros=360_000, count_centis=150),
        trade("10:00:30", yes_price_micros=382_500, count_centis=50),
        trade("10:00:59.999999", yes_price_micros=370_000, count_centis=100),
    )
    assert (await ask(client, **DAY))["data"] == [
        {
            "bucket": "2026-11-20T10:00:00Z",
            "market_ticker": TICKER,
            "open": 36,
            "high": Decimal("38.25"),
            "low": 36,
            "close": 37,
            "open_dollars": "0.3600",
            "high_dollars": "0.3825",
            "low_dollars": "0.3600",
            "close_dollars": "0.3700",
            "volume": 3,
            "volume_fp": "3.00",
            "trade_count": 3,
            "vwap_dollars": "0.367083",
            "previous_dollars": None,
            "filled": False,
            "yes_bid": None,
            "yes_ask": None,
            "open_interest": None,
            "open_interest_fp": None,
            "quoted_at": None,
            "quote_count": 0,
            "quote_gap": False,
        }
    ]


async def test_bid_ask_and_open_interest_read_exactly_as_documented(client, database):
    land(database, trade("09:59:00", yes_price_micros=350_000))
    with connect(database) as connection:
        tell(
            connection,
            quote(at("10:00:00"), 340_000, 1_000_000, 5_000, market=TICKER),
            quote(at("10:00:30.250"), 355_000, 361_200, 5_025, feed_order=2, market=TICKER),
            quote(at("10:00:40"), 0, 360_000, 5_050, feed_order=3, market=TICKER),
        )
    candle = (await ask(client, **DAY))["data"][-1]
    assert {name: value for name, value in candle.items() if value is not None} == {
        "bucket": "2026-11-20T10:00:00Z",
        "market_ticker": TICKER,
        "volume": 0,
        "volume_fp": "0.00",
        "trade_count": 0,
        "previous_dollars": "0.3500",
        "filled": False,
        "yes_bid": {
            "open": 34,
            "high": Decimal("35.5"),
            "low": 0,
            "close": 0,
            "open_dollars": "0.3400",
            "high_dollars": "0.3550",
            "low_dollars": "0.0000",
            "close_dollars": "0.0000",
        },
        "yes_ask": {
            "open": 100,
            "high": 100,
            "low": 36,
            "close": 36,
            "open_dollars": "1.0000",
            "high_dollars": "1.0000",
            "low_dollars": "0.3600",
            "close_dollars": "0.3600",
        },
        "open_interest": Decimal("50.5"),
        "open_interest_fp": "50.50",
        "quoted_at": "2026-11-20T10:00:40.000000Z",
        "quote_count": 3,
        "quote_gap": False,
    }


async def test_what_stood_is_carried_and_a_gap_since_then_is_told(client, database):
    land(database, trade("09:58:00", yes_price_micros=350_000))
    with connect(database) as connection:
        tell(connection, quote(at("09:59:10"), 340_000, 360_000, 700, market=TICKER))
        lose(connection, at("10:01:10"), at("10:01:20"))
    window = {"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:03:00Z"}
    assert (await ask(client, **window))["data"] == []
    nulls = (await ask(client, **window, fill="null"))["data"]
    assert [each["quote_gap"] for each in nulls] == [None, None, None]
    carried = (await ask(client, **window, fill="carry"))["data"]
    assert [each["quote_gap"] for each in carried] == [False, True, True]
    for each in carried:
        assert (each["close"], each["yes_bid"]["low"], each["yes_ask"]["high"]) == (35, 34, 36)
        assert (each["open_interest_fp"], each["quote_count"]) == ("7.00", 0)
        assert each["filled"]


async def test_a_gap_is_told_of_what_was_never_quoted_with_and_without_a_trade(client, database):
    land(database, trade("10:00:30"), trade("10:03:30"))
    with connect(database) as connection:
        lose(connection, at("10:00:00"), at("10:02:30"))
    window = {"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:05:00Z"}
    carried = (await ask(client, **window, fill="carry"))["data"]
    assert {each["yes_bid"] for each in carried} == {None}
    assert [each["filled"] for each in carried] == [False, True, True, False, True]
    assert [each["quote_gap"] for each in carried] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("interval", "buckets"),
    [("1m", ["10:00", "10:01", "11:00"]), ("1h", ["10:00", "11:00"]), ("1d", ["00:00"])],
)
async def test_stored_and_fresh_candles_read_alike(client, database, interval, buckets):
    land(database, trade("10:00:05"), trade("10:01:05"), trade("11:00:05"))
    fresh = await ask(client, **DAY, interval=interval)
    assert [row["bucket"][11:16] for row in fresh["data"]] == buckets
    with connect(database) as connection:
        refresh_candles(connection)
        connection.commit()
    stored = await ask(client, **DAY, interval=interval)
    assert stored["data"] == fresh["data"]


async def test_a_trade_since_the_last_refresh_is_there_at_once(client, database):
    land(database, trade("10:00:05"))
    with connect(database) as connection:
        refresh_candles(connection)
        connection.commit()
    land(database, trade("10:00:06", yes_price_micros=500_000))
    for interval in ("1m", "1h", "1d"):
        [candle] = (await ask(client, **DAY, interval=interval))["data"]
        assert (candle["trade_count"], candle["close"]) == (2, 50)


async def test_the_default_window_ends_with_the_running_minute(client, database):
    now = datetime.now(UTC)
    old = now - timedelta(minutes=1_500)
    land(
        database, trade(now.isoformat()[:26]), trade(old.isoformat()[:26], yes_price_micros=990_000)
    )
    [candle] = (await ask(client))["data"]
    assert candle["close"] == 36
    assert datetime.fromisoformat(candle["bucket"]) <= now


async def test_windows_hold_the_candles_that_start_in_them(client, database):
    land(database, trade("10:00:05"), trade("10:01:05"), trade("10:02:05"))
    page = await ask(client, start_time="2026-11-20T10:00:30Z", end_time="2026-11-20T10:02:00Z")
    assert [row["bucket"][11:16] for row in page["data"]] == ["10:01"]


@pytest.mark.parametrize("fill", ["none", "null", "carry"])
async def test_pages_join_without_seam(client, database, fill):
    land(database, *[trade(f"10:{minute:02}:05") for minute in (1, 2, 3, 5, 8, 13, 21)])
    query = DAY | {"end_time": "2026-11-20T10:30:00Z", "start_time": "2026-11-20T10:00:00Z"}
    whole = (await ask(client, **query, fill=fill))["data"]
    assert len(whole) == (7 if fill == "none" else 30)
    assert await walk(client, **query, fill=fill, limit=2) == whole


async def test_nothing_is_made_up_unless_asked(client, database):
    land(database, trade("10:00:05"), trade("10:02:05", yes_price_micros=400_000))
    query = {"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:03:00Z"}
    assert len((await ask(client, **query))["data"]) == 2
    nulls = (await ask(client, **query, fill="null"))["data"]
    assert [row["close"] for row in nulls] == [36, None, 40]
    carried = (await ask(client, **query, fill="carry"))["data"]
    assert [row["close"] for row in carried] == [36, 36, 40]
    assert [row["filled"] for row in carried] == [False, True, False]


@pytest.mark.parametrize("fill", ["none", "null", "carry"])
async def test_a_window_that_begins_within_a_minute_knows_what_happened_in_it(
    client, database, fill
):
    land(
        database,
        trade("10:00:10", yes_price_micros=350_000),
        trade("10:00:40", yes_price_micros=380_000),
        trade("10:02:00", yes_price_micros=360_000),
    )
    with connect(database) as connection:
        tell(
            connection,
            quote(at("10:00:20"), 340_000, 360_000, 700, market=TICKER),
            quote(at("10:00:50"), 370_000, 390_000, 900, feed_order=2, market=TICKER),
        )
    window = {"start_time": "2026-11-20T10:00:30Z", "end_time": "2026-11-20T10:02:30Z"}
    found = (await ask(client, **window, fill=fill))["data"]
    assert found[-1]["bucket"] == "2026-11-20T10:02:00Z"
    assert {each["previous_dollars"] for each in found} == {"0.3800"}
    if fill == "carry":
        assert [each["close"] for each in found] == [38, 36]
        assert [each["yes_bid"]["close"] for each in found] == [37, 37]
        assert [each["open_interest_fp"] for each in found] == ["9.00", "9.00"]


@pytest.mark.parametrize("fill", ["none", "null", "carry"])
async def test_a_window_in_which_no_candle_can_start_has_none(client, database, fill):
    land(database, trade("10:00:10"))
    window = {"start_time": "2026-11-20T10:00:05Z", "end_time": "2026-11-20T10:00:20Z"}
    assert await ask(client, **window, fill=fill) | {"request_id": 0, "response_time": 0} == {
        "data": [],
        "next_cursor": None,
        "has_more": False,
        "request_id": 0,
        "response_time": 0,
    }


async def test_a_window_kept_open_does_not_move_between_pages(client, database):
    now = datetime.now(UTC)
    moments = [now - timedelta(minutes=minutes) for minutes in (30, 20, 10)]
    land(database, *[trade(moment.isoformat()[:26]) for moment in moments])
    assert len(await walk(client, limit=1)) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"interval": "5m"}, "interval"),
        ({"interval": ""}, "interval"),
        ({"fill": "zero"}, "fill"),
        ({"limit": 0}, "limit"),
        ({"limit": 5001}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"start_time": "2026-11-20T10:00:00"}, "start_time"),
        ({"end_time": "noon"}, "end_time"),
        ({"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:00:00Z"}, "end_time"),
        ({"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-19T10:00:00Z"}, "end_time"),
        ({"start_time": "2026-10-01T00:00:00Z", "end_time": "2026-11-20T00:00:00Z"}, "start_time"),
        ({"start_time": "2020-01-01T00:00:00Z"}, "start_time"),
        ({"start_time": "2099-01-01T00:00:00Z"}, "start_time"),
        ({"cursor": "x"}, "cursor"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_bad_parameter_is_named(asker, query, field):
    response = await asker.get(f"/candles/{TICKER}", params=query)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == field


@pytest.mark.parametrize("fill", ["none", "null", "carry"])
async def test_an_unknown_market_is_404(asker, fill):
    response = await asker.get("/candles/KXNOPE", params=DAY | {"fill": fill})
    assert (response.status_code, response.json()["field"]) == (404, "ticker")


async def test_a_cursor_belongs_to_its_query(asker):
    query = {"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:30:00Z"}
    page = await ask(asker, **query, fill="null", limit=1)
    cursor = page["next_cursor"]
    assert cursor
    for changed in ({"fill": "carry"}, {"interval": "1h"}, {"end_time": "2026-11-20T10:31:00Z"}):
        response = await asker.get(
            f"/candles/{TICKER}", params={**query, "fill": "null", "cursor": cursor, **changed}
        )
        assert (response.status_code, response.json()["field"]) == (422, "cursor"), changed
    trades = await asker.post("/trades", json={"market_ticker": TICKER, "cursor": cursor})
    assert (trades.status_code, trades.json()["field"]) == (422, "cursor")


async def test_an_open_gap_is_told(client, app, database):
    land(database, trade("10:00:05"))
    with open_gap(database, at("11:00:00"), at("11:01:00")):
        app.state.completeness.forget()
        response = await client.get(f"/candles/{TICKER}", params=DAY)
        assert response.headers["x-data-status"] == "gaps"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)),
        (at("00:00:00") - timedelta(days=1), at("10:00:00")),
        (at("10:00:00"), at("10:00:00")),
        (at("10:00:00"), at("10:00:00") + timedelta(days=36)),
    ],
    ids=["all of time", "before the window", "nothing", "too wide"],
)
async def test_a_cursor_that_somebody_made_cannot_widen_the_window(asker, start, end):
    query = {"start_time": "2026-11-20T00:00:00Z", "interval": "1m", "fill": "null"}
    bound = ("candles", TICKER, "1m", "null", at("00:00:00"), None)
    place = {"next_start_micros": unix_micros(start), "end_micros": unix_micros(end)}
    cursor = encode_cursor(bound, list(place.values()))
    response = await asker.get(f"/candles/{TICKER}", params={**query, "cursor": cursor})
    assert (response.status_code, response.json()["field"]) == (422, "cursor")


async def test_the_widest_window_up_to_now_can_be_paged_a_minute_later(
    client, database, monkeypatch
):
    land(database, trade("00:00:10"), trade("00:05:10"))
    now = at("00:00:00") + timedelta(minutes=candles.WIDEST_INTERVALS - 1)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return now

    monkeypatch.setattr(candles, "datetime", Clock)
    first = await ask(client, start_time="2026-11-20T00:00:00Z", limit=1)
    now += timedelta(minutes=1)
    second = await ask(
        client, start_time="2026-11-20T00:00:00Z", limit=1, cursor=first["next_cursor"]
    )
    assert [page["data"][0]["bucket"][11:16] for page in (first, second)] == ["00:00", "00:05"]


async def test_a_window_from_before_anything_was_held_is_unverified(client, database):
    land(database, trade())
    cover(database, at("10:00:00").date(), "proven", at("00:00:00") + timedelta(days=1))
    held = await client.get(f"/candles/{TICKER}", params={**DAY, "interval": "1h"})
    assert held.headers["x-data-status"] == "complete"
    earlier = {"start_time": "2020-01-01T00:00:00Z", "end_time": DAY["end_time"], "interval": "1d"}
    longer = await client.get(f"/candles/{TICKER}", params=earlier)
    assert longer.headers["x-data-status"] == "unverified"
