"""POST /trades."""

import json
import uuid
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.schemas import Page, Trade
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.rows import (
    TICKER,
    Row,
    at,
    cover,
    land,
    name_market,
    open_gap,
    trade,
)


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """One page, its numbers exact, its bytes held to the documented shape."""
    response = await client.post("/trades", json={"market_ticker": TICKER} | body)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Page[Trade].model_validate(page)
    return page


async def walk(client: httpx.AsyncClient, **body: Any) -> list[str]:
    """The trade ids of all pages."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await ask(client, **body, **({"cursor": cursor} if cursor else {}))
        ids += [row["trade_id"] for row in page["data"]]
        assert len(ids) == len(set(ids)), "a trade came twice"
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            return ids
        assert page["data"], "a page before the last has rows"
        cursor = page["next_cursor"]


async def test_a_trade_reads_exactly_as_documented(client, database):
    trade_id = uuid.UUID(int=7)
    land(database, trade("10:00:05.12", trade_id=trade_id, taker_side="no", is_block_trade=True))
    assert (await ask(client))["data"] == [
        {
            "trade_id": str(trade_id),
            "market_ticker": TICKER,
            "yes_price": 36,
            "no_price": 64,
            "yes_price_dollars": "0.3600",
            "no_price_dollars": "0.6400",
            "count": 12,
            "count_fp": "12.00",
            "taker_side": "no",
            "is_block_trade": True,
            "ts": "2026-11-20T10:00:05.120000Z",
        }
    ]


async def test_prices_are_exact_to_the_last_digit(client, database):
    written = {
        362_500: '"yes_price":36.25,"no_price":63.75,'
        '"yes_price_dollars":"0.3625","no_price_dollars":"0.6375"',
        100: '"yes_price":0.01,"no_price":99.99,'
        '"yes_price_dollars":"0.0001","no_price_dollars":"0.9999"',
        1_000_000: '"yes_price":100,"no_price":0,'
        '"yes_price_dollars":"1.0000","no_price_dollars":"0.0000"',
        999_999: '"yes_price":99.9999,"no_price":0.0001,'
        '"yes_price_dollars":"0.999999","no_price_dollars":"0.000001"',
        50_000: '"yes_price":5,"no_price":95,'
        '"yes_price_dollars":"0.0500","no_price_dollars":"0.9500"',
        505_000: '"yes_price":50.5,"no_price":49.5,'
        '"yes_price_dollars":"0.5050","no_price_dollars":"0.4950"',
    }
    land(database, *[trade(yes_price_micros=micros) for micros in written])
    response = await client.post("/trades", json={"market_ticker": TICKER})
    for text in written.values():
        assert text in response.text


async def test_counts_are_exact_to_the_last_digit(client, database):
    written = {
        1: '"count":0.01,"count_fp":"0.01"',
        50: '"count":0.5,"count_fp":"0.50"',
        100: '"count":1,"count_fp":"1.00"',
        10**15 + 1: '"count":10000000000000.01,"count_fp":"10000000000000.01"',
    }
    land(database, *[trade(count_centis=centis) for centis in written])
    response = await client.post("/trades", json={"market_ticker": TICKER})
    for text in written.values():
        assert text in response.text


async def test_an_unsaid_block_flag_is_null(client, database):
    land(database, trade(is_block_trade=None))
    [row] = (await ask(client))["data"]
    assert row["is_block_trade"] is None


async def test_the_envelope_carries_the_requests_id_and_time(client, database):
    land(database, trade())
    response = await client.post("/trades", json={"market_ticker": TICKER})
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    assert 0 < body["response_time"] < 60
    assert body["next_cursor"] is None
    assert body["has_more"] is False


async def test_windows_are_half_open(client, database):
    rows = [trade("10:00:00"), trade("10:30:00"), trade("11:00:00")]
    land(database, *rows)
    page = await ask(client, start_time="2026-11-20T10:00:00Z", end_time="2026-11-20T11:00:00Z")
    assert [row["trade_id"] for row in page["data"]] == [str(row.trade_id) for row in rows[:2]]


async def test_windows_may_be_unix_seconds_or_carry_any_offset(client, database):
    land(database, trade("09:59:59"), trade("10:00:00"))
    seconds = int(at("10:00:00").timestamp())
    for start in (seconds, str(seconds), "2026-11-20T11:00:00+01:00", "2026-11-20T05:00:00-05:00"):
        assert len((await ask(client, start_time=start))["data"]) == 1


async def test_a_window_may_cross_midnight_and_reach_days_without_partitions(client, database):
    rows = [trade("2026-11-20T23:59:59.999999"), trade("2026-11-21T00:00:00")]
    land(database, *rows)
    ids = await walk(
        client, start_time="2025-01-01T00:00:00Z", end_time="2027-01-01T00:00:00Z", limit=1
    )
    assert ids == [str(row.trade_id) for row in rows]


async def test_a_known_market_without_trades_answers_an_empty_page(client, database):
    with connect(database) as connection:
        name_market(connection, TICKER)
    page = await ask(client)
    assert (page["data"], page["has_more"], page["next_cursor"]) == ([], False, None)


async def test_other_markets_stay_out(client, database):
    land(database, trade(), trade(market_ticker=TICKER + "0"), trade(market_ticker="KX"))
    assert len((await ask(client))["data"]) == 1


async def test_the_last_full_page_says_that_nothing_follows(client, database):
    land(database, *[trade(f"10:00:0{second}") for second in range(4)])
    assert (await ask(client, limit=4))["has_more"] is False
    assert (await ask(client, limit=3))["has_more"] is True


async def test_the_limit_may_change_between_pages(client, database):
    rows = [trade(f"10:00:0{second}") for second in range(6)]
    land(database, *rows)
    first = await ask(client, limit=2)
    rest = await ask(client, limit=1000, cursor=first["next_cursor"])
    assert len(rest["data"]) == 4


async def test_a_trade_that_arrives_behind_the_cursor_does_not_shift_the_pages(client, database):
    rows = [trade(f"10:00:0{second}") for second in range(4)]
    land(database, *rows)
    first = await ask(client, limit=2)
    land(database, trade("09:00:00"))
    rest = await ask(client, cursor=first["next_cursor"])
    assert [row["trade_id"] for row in rest["data"]] == [str(row.trade_id) for row in rows[2:]]


ROWS = st.lists(
    st.builds(
        Row,
        # Few instants and few orders: ties at every level.
        traded_at=st.sampled_from(
            [at("10:00:00"), at("10:00:00.000001"), at("23:59:59"), at("2026-11-21T00:00:00")]
        ),
        feed_order=st.none() | st.integers(0, 3) | st.just(1_795_000_000 << 32),
        trade_id=st.uuids(),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda row: row.trade_id,
)


@given(rows=ROWS, limit=st.integers(1, 7))
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_paging_returns_every_trade_once_in_order(client, database, rows, limit):
    with connect(database) as connection:
        connection.execute("TRUNCATE trades, stale_candles")
    land(database, *rows)
    expected = sorted(
        rows,
        key=lambda row: (
            row.traded_at,
            row.feed_order is None,
            row.feed_order or 0,
            row.trade_id.bytes,
        ),
    )
    assert await walk(client, limit=limit) == [str(row.trade_id) for row in expected]


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"limit": 2.5}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": None}, "limit"),
        ({"start_time": "2026-11-20T10:00:00"}, "start_time"),
        ({"end_time": "2026-11-20"}, "end_time"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": 1_795_197_600_000}, "start_time"),
        ({"start_time": 2**80}, "start_time"),
        ({"start_time": -(2**80)}, "start_time"),
        ({"start_time": 1795197600.5}, "start_time"),
        ({"start_time": True}, "start_time"),
        ({"start_time": "0001-01-01T00:00:00+23:00"}, "start_time"),
        ({"start_time": "2026-11-20T11:00:00Z", "end_time": "2026-11-20T10:00:00Z"}, "end_time"),
        ({"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:00:00Z"}, "end_time"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "é" * 20}, "cursor"),
        ({"cursor": "a" * 5000}, "cursor"),
        ({"cursor": 5}, "cursor"),
        ({"market_ticker": ""}, "market_ticker"),
        ({"market_ticker": "a\u0000b"}, "market_ticker"),
        ({"market_ticker": "X" * 201}, "market_ticker"),
        ({"market_ticker": 5}, "market_ticker"),
        ({"market_ticker": None}, "market_ticker"),
        ({"ticker": "KX"}, "ticker"),
        ({"limits": 5}, "limits"),
    ],
)
async def test_a_bad_field_is_named(asker, body, field):
    response = await asker.post("/trades", json={"market_ticker": TICKER} | body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["field"] == field
    assert problem["status"] == 422
    assert problem["request_id"] == response.headers["x-request-id"]


async def test_a_missing_ticker_is_named(asker):
    response = await asker.post("/trades", json={})
    assert (response.status_code, response.json()["field"]) == (422, "market_ticker")


async def test_several_faults_are_all_told(asker):
    response = await asker.post("/trades", json={"limit": 0, "colour": "red"})
    fields = {error["field"] for error in response.json()["errors"]}
    assert fields == {"market_ticker", "limit", "colour"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"market_ticker": ', b"\xff\xfe", b"[]", b"5", b"null", b'"text"']
)
async def test_a_body_that_is_no_json_object_is_refused(asker, content):
    response = await asker.post(
        "/trades", content=content, headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["field"]) == (422, "body")


async def test_a_lone_surrogate_is_refused(asker):
    response = await asker.post(
        "/trades",
        content=b'{"market_ticker": "\\ud800"}',
        headers={"Content-Type": "application/json"},
    )
    assert (response.status_code, response.json()["field"]) == (422, "market_ticker")


async def test_an_unknown_market_is_404(asker):
    response = await asker.post("/trades", json={"market_ticker": "KXNOPE"})
    assert response.status_code == 404
    assert response.json()["field"] == "market_ticker"
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_market"


async def test_sql_and_json_in_a_ticker_stay_text(client, database):
    tickers = ["'; DROP TABLE trades; --", "' OR '1'='1", '","x":"', "%s %(limit)s", "\\", "$1"]
    for ticker in tickers:
        assert (await client.post("/trades", json={"market_ticker": ticker})).status_code == 404
    land(database, *[trade(market_ticker=ticker) for ticker in tickers])
    for ticker in tickers:
        [row] = (await ask(client, market_ticker=ticker))["data"]
        assert row["market_ticker"] == ticker


async def test_a_cursor_of_another_query_is_refused(client, database):
    land(database, trade("10:00:00"), trade("10:00:01"), trade(market_ticker="KXOTHER"))
    cursor = (await ask(client, limit=1))["next_cursor"]
    for body in (
        {"market_ticker": "KXOTHER"},
        {"start_time": "2026-11-20T00:00:00Z"},
        {"end_time": "2026-11-21T00:00:00Z"},
    ):
        response = await client.post(
            "/trades", json={"market_ticker": TICKER, "cursor": cursor} | body
        )
        assert (response.status_code, response.json()["field"]) == (422, "cursor")
        assert "another query" in response.json()["detail"]


async def test_a_changed_cursor_is_refused(asker):
    cursor = (await ask(asker, limit=1))["next_cursor"]
    for place in range(len(cursor) - 1):  # the very last character has spare bits
        changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        response = await asker.post("/trades", json={"market_ticker": TICKER, "cursor": changed})
        assert (response.status_code, response.json()["field"]) == (422, "cursor"), place
    for cut in (cursor[:-1], cursor[:-7], cursor[:10], cursor + "AAAA"):
        response = await asker.post("/trades", json={"market_ticker": TICKER, "cursor": cut})
        assert (response.status_code, response.json()["field"]) == (422, "cursor"), cut


# What is known of completeness -------------------------------------------------------------------


async def data_status(client: httpx.AsyncClient, app: Any, **body: Any) -> str:
    app.state.completeness.forget()
    response = await client.post("/trades", json={"market_ticker": TICKER} | body)
    assert response.status_code == 200
    return response.headers["x-data-status"]


DAY = {"start_time": "2026-11-19T00:00:00Z", "end_time": "2026-11-20T00:00:00Z"}


async def test_a_day_that_nobody_compared_is_unverified(client, app, database):
    land(database, trade("2026-11-19T10:00:00"))
    assert await data_status(client, app, **DAY) == "unverified"


@pytest.mark.parametrize("status", ["proven", "healed"])
async def test_a_day_compared_to_its_end_is_complete(client, app, database, status):
    land(database, trade("2026-11-19T10:00:00"))
    cover(database, date(2026, 11, 19), status, at("2026-11-20T00:00:00"))
    assert await data_status(client, app, **DAY) == "complete"
    two_days = DAY | {"start_time": "2026-11-18T23:00:00Z"}
    assert await data_status(client, app, **two_days) == "unverified"


async def test_a_day_compared_in_part_is_complete_up_to_there(client, app, database):
    land(database, trade("2026-11-19T10:00:00"))
    cover(database, date(2026, 11, 19), "proven", at("2026-11-19T12:00:00"))
    assert await data_status(client, app, **DAY) == "unverified"
    morning = DAY | {"end_time": "2026-11-19T12:00:00Z"}
    assert await data_status(client, app, **morning) == "complete"


async def test_an_open_gap_in_the_window_is_told_until_it_is_healed(client, app, database):
    land(database, trade("2026-11-19T10:00:00"))
    cover(database, date(2026, 11, 19), "proven", at("2026-11-20T00:00:00"))
    with open_gap(database, at("2026-11-19T11:00:00"), at("2026-11-19T11:01:00")):
        assert await data_status(client, app, **DAY) == "gaps"
        before = DAY | {"end_time": "2026-11-19T11:00:00Z"}
        assert await data_status(client, app, **before) == "complete"
        after = DAY | {"start_time": "2026-11-19T11:02:00Z"}
        assert await data_status(client, app, **after) == "complete"
    assert await data_status(client, app, **DAY) == "complete"


async def test_a_gap_of_another_channel_says_nothing_about_trades(client, app, database):
    land(database, trade("2026-11-19T10:00:00"))
    with open_gap(database, at("2026-11-19T11:00:00"), at("2026-11-19T11:01:00"), "ticker"):
        assert await data_status(client, app, **DAY) == "unverified"


async def test_a_degraded_day_has_gaps(client, app, database):
    land(database, trade("2026-11-19T10:00:00"))
    cover(database, date(2026, 11, 19), "degraded", at("2026-11-20T00:00:00"))
    assert await data_status(client, app, **DAY) == "gaps"


async def test_the_whole_history_is_judged_from_the_first_day_held(client, app, database):
    land(database, trade("2026-11-19T10:00:00"))
    assert await data_status(client, app) == "unverified"
    cover(database, date(2026, 11, 19), "proven", at("2026-11-20T00:00:00"))
    assert await data_status(client, app, end_time=DAY["end_time"]) == "complete"
