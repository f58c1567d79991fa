"""GET /quotes/{ticker}."""

import json
import urllib.parse
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.feed_schemas import Quote
from api.schemas import Page
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.feed_rows import lost, quote, told
from kalshi_platform_tests.api.rows import TICKER, name_market

PATH = f"/quotes/{TICKER}"


async def ask(client: httpx.AsyncClient, path: str = PATH, **query: Any) -> dict[str, Any]:
    """One page, its numbers exact, its bytes held to the documented shape."""
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Page[Quote].model_validate(page)
    assert page["request_id"] == response.headers["x-request-id"]
    assert page["has_more"] is (page["next_cursor"] is not None)
    return page


async def walk(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """The records of all pages."""
    records: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await ask(client, **query, **({"cursor": cursor} if cursor else {}))
        records += page["data"]
        if not page["has_more"]:
            return records
        assert page["data"], "a page before the last has records"
        cursor = page["next_cursor"]


async def test_a_quote_reads_exactly_as_documented(client, database):
    told(database, quote("10:00:05.123"))
    assert (await ask(client))["data"] == [
        {
            "market_ticker": TICKER,
            "ts": "2026-11-20T10:00:05.123000Z",
            "yes_bid": 36,
            "yes_bid_dollars": "0.3600",
            "yes_ask": 38,
            "yes_ask_dollars": "0.3800",
            "yes_bid_size": 120,
            "yes_bid_size_fp": "120.00",
            "yes_ask_size": Decimal("75.5"),
            "yes_ask_size_fp": "75.50",
            "last_price": 37,
            "last_price_dollars": "0.3700",
            "last_trade_size": 10,
            "last_trade_size_fp": "10.00",
            "volume": Decimal("51234.25"),
            "volume_fp": "51234.25",
            "open_interest": 20100,
            "open_interest_fp": "20100.00",
            "dollar_volume": 19012,
            "dollar_open_interest": 10050,
        }
    ]


async def test_numbers_are_exact_to_the_last_digit(client, database):
    told(
        database,
        quote(
            yes_bid_micros=0,
            yes_ask_micros=1_000_000,
            price_micros=362_525,
            yes_bid_size_centis=0,
            last_trade_size_centis=1,
            volume_centis=10**15 + 1,
            dollar_open_interest=-3,
        ),
    )
    text = (await client.get(PATH)).text
    for part in (
        '"yes_bid":0,"yes_bid_dollars":"0.0000"',
        '"yes_ask":100,"yes_ask_dollars":"1.0000"',
        '"last_price":36.2525,"last_price_dollars":"0.362525"',
        '"yes_bid_size":0,"yes_bid_size_fp":"0.00"',
        '"last_trade_size":0.01,"last_trade_size_fp":"0.01"',
        '"volume":10000000000000.01,"volume_fp":"10000000000000.01"',
        '"dollar_open_interest":-3',
    ):
        assert part in text


async def test_windows_are_half_open_and_may_cross_midnight(client, database):
    instants = ["10:00:00", "11:00:00", "2026-11-20T23:59:59.999", "2026-11-21T00:00:00"]
    told(database, *[quote(when, frame) for frame, when in enumerate(instants)])
    page = await ask(client, start_time="2026-11-20T10:00:00Z", end_time="2026-11-20T11:00:00Z")
    assert [row["ts"] for row in page["data"]] == ["2026-11-20T10:00:00.000000Z"]
    rows = await walk(client, start_time="2026-11-20T11:00:00Z", limit=1)
    assert [row["ts"][11:19] for row in rows] == ["11:00:00", "23:59:59", "00:00:00"]
    days = {"start_time": "2025-01-01T00:00:00Z", "end_time": "2027-01-01T00:00:00Z"}
    assert len(await walk(client, **days, limit=3)) == 4


async def test_windows_may_be_unix_seconds(client, database):
    told(database, quote("10:00:00"), quote("10:00:01", 2))
    assert len((await ask(client, start_time="1795168801"))["data"]) == 1


async def test_quotes_of_one_instant_come_in_the_order_of_arrival(client, database):
    told(
        database,
        quote(frame=3, volume_centis=300),
        quote(frame=1, volume_centis=100),
        quote(frame=2, volume_centis=200),
    )
    assert [row["volume"] for row in await walk(client, limit=1)] == [1, 2, 3]


async def test_other_markets_stay_out(client, database):
    told(database, quote(), quote(market_ticker=TICKER + "0"), quote(market_ticker="KX"))
    assert len((await ask(client))["data"]) == 1


async def test_a_known_market_without_quotes_answers_an_empty_page(client, database):
    with connect(database) as connection:
        name_market(connection, TICKER)
    page = await ask(client)
    assert (page["data"], page["has_more"], page["next_cursor"]) == ([], False, None)


async def test_the_last_full_page_says_that_nothing_follows(client, database):
    told(database, *[quote(f"10:00:0{second}") for second in range(4)])
    assert (await ask(client, limit=4))["has_more"] is False
    first = await ask(client, limit=3)
    assert first["has_more"] is True
    assert len((await ask(client, limit=1000, cursor=first["next_cursor"]))["data"]) == 1


@given(
    places=st.lists(
        st.tuples(
            st.sampled_from(["10:00:00", "10:00:00.001", "2026-11-21T00:00:00"]),
            st.integers(1, 2**33),
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
async def test_paging_returns_every_quote_once_in_order(client, database, places, limit):
    with connect(database) as connection:
        connection.execute("TRUNCATE quotes")
    rows = [quote(when, frame, volume_centis=100 * frame) for when, frame in places]
    told(database, *rows)
    expected = sorted(rows, key=lambda row: (row["quoted_at"], row["feed_order"]))
    found = await walk(client, limit=limit)
    assert [row["volume"] for row in found] == [row["volume_centis"] // 100 for row in expected]


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"start_time": "2026-11-20T10:00:00"}, "start_time"),
        ({"end_time": "2026-11-20"}, "end_time"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": 1_795_197_600_000}, "start_time"),
        ({"start_time": "2026-11-20T11:00:00Z", "end_time": "2026-11-20T10:00:00Z"}, "end_time"),
        ({"start_time": "2026-11-20T10:00:00Z", "end_time": "2026-11-20T10:00:00Z"}, "end_time"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "é" * 20}, "cursor"),
        ({"depth": 5}, "depth"),
    ],
)
async def test_a_bad_field_is_named(asker, query, field):
    response = await asker.get(PATH, params=query)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_unknown_market_is_404(asker):
    response = await asker.get("/quotes/KXNOPE")
    assert (response.status_code, response.json()["field"]) == (404, "ticker")
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_market"


async def test_sql_and_json_in_a_ticker_stay_text(client, database):
    tickers = ["'; DROP TABLE quotes; --", '","x":"', "%s %(limit)s", "$1"]
    told(database, *[quote(market_ticker=ticker) for ticker in tickers])
    for ticker in tickers:
        [row] = (await ask(client, f"/quotes/{urllib.parse.quote(ticker)}"))["data"]
        assert row["market_ticker"] == ticker


async def test_a_cursor_of_another_query_is_refused(client, database):
    told(database, quote(), quote(frame=2), quote(market_ticker="KXOTHER"))
    cursor = (await ask(client, limit=1))["next_cursor"]
    for path, query in (
        ("/quotes/KXOTHER", {}),
        (PATH, {"start_time": "2026-11-20T00:00:00Z"}),
        (PATH, {"end_time": "2026-11-21T00:00:00Z"}),
        (f"/candles/{TICKER}", {}),
    ):
        response = await client.get(path, params=query | {"cursor": cursor})
        assert (response.status_code, response.json()["field"]) == (422, "cursor")


# What is known of completeness -------------------------------------------------------------------


async def data_status(client: httpx.AsyncClient, start: str, end: str) -> str:
    query = {"start_time": f"2026-11-20T{start}Z", "end_time": f"2026-11-20T{end}Z"}
    response = await client.get(PATH, params=query)
    assert response.status_code == 200, response.text
    return response.headers["x-data-status"]


async def test_quotes_are_unverified_where_no_gap_is_known(client, database):
    told(database, quote())
    assert await data_status(client, "09:00:00", "11:00:00") == "unverified"


async def test_a_gap_of_the_channel_or_of_the_market_is_told_for_good(client, database):
    told(database, quote())
    lost(database, "ticker", "10:10:00", "10:11:00")
    lost(database, "ticker", "10:30:00", "10:31:00", TICKER)
    lost(database, "ticker", "10:50:00", "10:51:00", "KXOTHER")
    lost(database, "trade", "10:50:00", "10:51:00")
    for start, end, status in (
        ("10:00:00", "10:10:00", "unverified"),
        ("10:00:00", "10:10:01", "gaps"),
        ("10:11:00", "10:12:00", "gaps"),
        ("10:12:00", "10:20:00", "unverified"),
        ("10:20:00", "10:40:00", "gaps"),
        ("10:40:00", "11:00:00", "unverified"),
    ):
        assert await data_status(client, start, end) == status, (start, end)
    response = await client.get(PATH)
    assert response.headers["x-data-status"] == "gaps"


async def test_quotes_that_are_held_no_more_are_missing(client, database):
    told(database, quote("2026-11-20T10:00:00"))
    with connect(database) as connection:
        [(day,)] = connection.execute(
            "SELECT to_date(min(right(relname, 8)), 'YYYYMMDD') FROM pg_inherits"
            " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'quotes'::regclass"
        ).fetchall()
    query = {"end_time": "2026-11-20T23:00:00Z"}
    for start, status in ((f"{day}T00:00:00Z", "unverified"), ("2020-01-01T00:00:00Z", "gaps")):
        response = await client.get(PATH, params=query | {"start_time": start})
        assert response.headers["x-data-status"] == status
    assert (await client.get(PATH, params=query)).headers["x-data-status"] == "unverified"
