"""POST /deltas."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.feed_schemas import Delta
from api.schemas import Page
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.feed_rows import delta, heard, snapshot, told, watch
from kalshi_platform_tests.api.rows import TICKER, at, name_market


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """One page, its numbers exact, its bytes held to the documented shape."""
    response = await client.post("/deltas", json={"market_ticker": TICKER} | body)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Page[Delta].model_validate(page)
    assert page["request_id"] == response.headers["x-request-id"]
    assert page["has_more"] is (page["next_cursor"] is not None)
    return page


async def walk(client: httpx.AsyncClient, **body: Any) -> list[int]:
    """The sequence numbers of all pages."""
    numbers: list[int] = []
    cursor = None
    while True:
        page = await ask(client, **body, **({"cursor": cursor} if cursor else {}))
        numbers += [row["seq"] for row in page["data"]]
        if not page["has_more"]:
            return numbers
        assert page["data"], "a page before the last has records"
        cursor = page["next_cursor"]


async def test_a_delta_reads_exactly_as_documented(client, database):
    told(database, delta("10:00:05.123", 7, "no", 610_000, -5_400, sid=2))
    assert (await ask(client))["data"] == [
        {
            "market_ticker": TICKER,
            "ts": "2026-11-20T10:00:05.123000Z",
            "side": "no",
            "price": 61,
            "price_dollars": "0.6100",
            "delta": -54,
            "delta_fp": "-54.00",
            "sid": 2,
            "seq": 7,
        }
    ]


async def test_numbers_are_exact_to_the_last_digit(client, database):
    written = {
        -1: '"delta":-0.01,"delta_fp":"-0.01"',
        -50: '"delta":-0.5,"delta_fp":"-0.50"',
        -100: '"delta":-1,"delta_fp":"-1.00"',
        1: '"delta":0.01,"delta_fp":"0.01"',
        -(10**15) - 1: '"delta":-10000000000000.01,"delta_fp":"-10000000000000.01"',
    }
    told(
        database,
        *[delta("10:00:00", frame, centis=centis) for frame, centis in enumerate(written)],
        delta("10:00:00", 9, price=362_525),
    )
    response = await client.post("/deltas", json={"market_ticker": TICKER})
    for text in (*written.values(), '"price":36.2525,"price_dollars":"0.362525"'):
        assert text in response.text


async def test_windows_are_half_open_and_may_cross_midnight(client, database):
    instants = ["10:00:00", "11:00:00", "2026-11-20T23:59:59.999", "2026-11-21T00:00:00"]
    told(database, *[delta(when, frame) for frame, when in enumerate(instants)])
    hour = {"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T11:00:00Z"}
    assert await walk(client, **hour) == [0]
    assert await walk(client, start_time="2026-11-20T11:00:00Z", limit=1) == [1, 2, 3]
    years = {"start_time": "2025-01-01T00:00:00Z", "end_time": "2027-01-01T00:00:00Z"}
    assert await walk(client, **years, limit=3) == [0, 1, 2, 3]


async def test_other_markets_and_snapshots_stay_out(client, database):
    told(database, snapshot("10:00:00", 1), delta("10:00:01", 2))
    told(database, delta("10:00:01", 3, market=TICKER + "0"))
    assert await walk(client) == [2]


async def test_a_watched_market_without_changes_answers_an_empty_page(client, database):
    told(database, watch("10:00:00"))
    page = await ask(client)
    assert (page["data"], page["has_more"], page["next_cursor"]) == ([], False, None)


@given(
    places=st.lists(
        st.tuples(
            st.sampled_from(["10:00:00", "10:00:00.001", "2026-11-21T00:00:00"]),
            st.integers(1, 2**31),
        ),
        min_size=1,
        max_size=25,
        unique_by=lambda place: place[1],
    ),
    limit=st.integers(1, 7),
)
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_paging_returns_every_delta_once_in_order(client, database, places, limit):
    with connect(database) as connection:
        connection.execute("TRUNCATE book_deltas")
    told(database, *[delta(when, frame) for when, frame in places])
    expected = sorted(places, key=lambda place: (at(place[0]), place[1]))
    assert await walk(client, limit=limit) == [frame for _, frame in expected]


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"limit": True}, "limit"),
        ({"start_time": "2026-11-20T10:00:00"}, "start_time"),
        ({"end_time": "2026-11-20"}, "end_time"),
        ({"start_time": 1_795_197_600_000}, "start_time"),
        ({"start_time": "2026-11-20T11:00:00Z", "end_time": "2026-11-20T10:00:00Z"}, "end_time"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": 5}, "cursor"),
        ({"market_ticker": ""}, "market_ticker"),
        ({"market_ticker": "a\u0000b"}, "market_ticker"),
        ({"market_ticker": None}, "market_ticker"),
        ({"depth": 5}, "depth"),
    ],
)
async def test_a_bad_field_is_named(asker, body, field):
    response = await asker.post("/deltas", json={"market_ticker": TICKER} | body)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_unknown_market_is_404(asker):
    response = await asker.post("/deltas", json={"market_ticker": "KXNOPE"})
    assert (response.status_code, response.json()["field"]) == (404, "market_ticker")
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_market"


async def test_a_book_that_nobody_watched_is_404_and_says_so(client, database):
    with connect(database) as connection:
        name_market(connection, TICKER)
    response = await client.post("/deltas", json={"market_ticker": TICKER})
    assert (response.status_code, response.json()["field"]) == (404, "market_ticker")
    assert response.json()["type"] == "urn:kalshi-platform:problem:book_not_recorded"
    assert "never been recorded" in response.json()["detail"]


async def test_sql_and_json_in_a_ticker_stay_text(client, database):
    tickers = ["'; DROP TABLE book_deltas; --", '","x":"', "%s %(limit)s", "\\", "$1"]
    told(database, *[delta("10:00:00", 1, market=ticker) for ticker in tickers])
    for ticker in tickers:
        [row] = (await ask(client, market_ticker=ticker))["data"]
        assert row["market_ticker"] == ticker


async def test_a_cursor_of_another_query_is_refused(client, database):
    told(database, delta("10:00:00", 1), delta("10:00:00", 2))
    told(database, delta("10:00:00", 3, market="KXOTHER"))
    cursor = (await ask(client, limit=1))["next_cursor"]
    for body in (
        {"market_ticker": "KXOTHER"},
        {"start_time": "2026-11-20T00:00:00Z"},
        {"end_time": "2026-11-21T00:00:00Z"},
    ):
        response = await client.post(
            "/deltas", json={"market_ticker": TICKER, "cursor": cursor} | body
        )
        assert (response.status_code, response.json()["field"]) == (422, "cursor")


# What is known of completeness -------------------------------------------------------------------


async def data_status(client: httpx.AsyncClient, start: str, end: str) -> str:
    body = {"start_time": f"2026-11-20T{start}Z", "end_time": f"2026-11-20T{end}Z"}
    response = await client.post("/deltas", json={"market_ticker": TICKER} | body)
    assert response.status_code == 200, response.text
    return response.headers["x-data-status"]


async def test_a_window_watched_without_a_break_is_complete(client, database):
    told(
        database,
        delta("10:00:01", 2),
        watch("10:00:00", "10:30:00", "not watched any more"),
        watch("10:30:00", "11:00:00", "sequence_jump"),
        watch("11:00:02", market=TICKER),
        watch("09:00:00", market="KXOTHER"),
    )
    heard(database, at("12:00:00"))
    for start, end, status in (
        ("10:00:00", "11:00:00", "complete"),
        ("09:59:59", "10:10:00", "gaps"),
        ("10:00:00", "11:00:01", "gaps"),
        ("11:00:01", "11:10:00", "gaps"),
        ("11:00:02", "12:00:10", "complete"),
        ("11:00:02", "12:00:11", "unverified"),
    ):
        assert await data_status(client, start, end) == status, (start, end)
    whole = await client.post("/deltas", json={"market_ticker": TICKER})
    assert whole.headers["x-data-status"] == "gaps"


async def test_what_has_not_happened_yet_is_not_missing(client, database):
    told(database, watch("10:00:00"))
    heard(database, datetime.now(UTC))
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for body in ({}, {"end_time": later}, {"start_time": later}):
        response = await client.post("/deltas", json={"market_ticker": TICKER} | body)
        assert response.headers["x-data-status"] == "complete", body


async def test_deltas_that_are_held_no_more_are_missing(client, database):
    told(database, watch("2020-01-01T00:00:00"), delta("10:00:00", 1))
    heard(database, datetime.now(UTC))
    body = {"market_ticker": TICKER}
    held = await client.post("/deltas", json=body)
    dropped = await client.post("/deltas", json=body | {"start_time": "2020-01-02T00:00:00Z"})
    assert held.headers["x-data-status"] == "complete"
    assert dropped.headers["x-data-status"] == "gaps"
