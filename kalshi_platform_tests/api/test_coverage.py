"""GET /coverage and GET /coverage/{ticker}."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from api.routes.coverage import CoverageDay, MarketCoverageDay
from api.schemas import Page
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import refresh_candles
from kalshi_platform_tests.api.rows import TICKER, at, cover, land, name_market, trade

DAY = date(2026, 11, 20)


def gap(url: str, channel: str, start: str, end: str, **fields: Any) -> None:
    columns = {
        "channel": channel,
        "cause": "restart",
        "status": "explained",
        "starts_at": at(start),
        "ends_at": at(end),
    } | fields
    with connect(url) as connection:
        connection.execute(
            f"INSERT INTO gaps ({', '.join(columns)})"
            f" VALUES ({', '.join(['%s'] * len(columns))})".encode(),
            list(columns.values()),
        )


async def days(client, path="/coverage", **query: Any) -> list[dict[str, Any]]:
    shape = Page[CoverageDay] if path == "/coverage" else Page[MarketCoverageDay]
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        response = await client.get(path, params=query | cursor)
        assert response.status_code == 200, response.text
        page = response.json()
        shape.model_validate(page)
        found += page["data"]
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_a_day_says_how_it_was_compared_and_what_was_lost(client, database):
    land(database, trade("10:00:00"))
    cover(database, DAY, "healed", at("2026-11-21T00:00:00"))
    gap(database, "trade", "09:00:00", "09:01:00", status="healed", trades_missing=3)
    gap(database, "ticker", "2026-11-21T00:30:00", "2026-11-21T00:31:00")
    [day] = await days(client, date="2026-11-20")
    assert (day["date"], day["status"]) == ("2026-11-20", "healed")
    assert day["swept_until"] == "2026-11-21T00:00:00.000000Z"
    assert [(each["channel"], each["status"], each["trades_missing"]) for each in day["gaps"]] == [
        ("trade", "healed", 3)
    ]


async def test_days_come_newest_first_from_the_first_that_is_held(client, database):
    today = datetime.now(UTC).date()
    land(database, trade(f"{today - timedelta(days=5)}T10:00:00"))
    whole = await days(client)
    assert [day["date"] for day in whole] == [
        str(today - timedelta(days=back)) for back in range(6)
    ]
    assert {day["status"] for day in whole} == {"unknown"}
    assert {day["trades_held"] for day in whole} == {None}
    assert await days(client, limit=2) == whole


async def test_nothing_recorded_is_no_day(client, database):
    assert await days(client) == []
    assert await days(client, date="2026-11-20") == []


async def test_a_gap_over_midnight_is_told_with_both_days(client, database):
    land(database, trade("10:00:00"))
    gap(database, "ticker", "23:59:00", "2026-11-21T00:00:30")
    for day in ("2026-11-20", "2026-11-21"):
        [found] = await days(client, date=day)
        assert len(found["gaps"]) == 1


async def test_a_markets_days_hold_its_counts_its_gaps_and_its_book(client, database):
    land(database, trade("10:00:00"), trade("2026-11-21T10:00:00", count_centis=50))
    with connect(database) as connection:
        refresh_candles(connection)
        connection.execute(
            "INSERT INTO book_watches (market_ticker, starts_at, ends_at, start_order, connection,"
            " sid, use_yes_price, ended_by) VALUES (%s, %s, %s, 1, 1, 1, false, 'restart')",
            [TICKER, at("11:00:00"), at("12:00:00")],
        )
    cover(database, DAY, "proven", at("2026-11-21T00:00:00"))
    gap(database, "ticker", "09:00:00", "09:00:01", market_ticker=TICKER)
    gap(database, "ticker", "09:00:00", "09:00:01", market_ticker="KXOTHER-1")
    newest, day = await days(client, f"/coverage/{TICKER}")
    assert (newest["date"], newest["status"], newest["volume_fp"]) == (
        "2026-11-21", "unknown", "0.50",
    )  # fmt: skip
    assert (day["date"], day["status"], day["trade_count"]) == ("2026-11-20", "proven", 1)
    assert [each["market_ticker"] for each in day["gaps"]] == [TICKER]
    assert day["book_watches"] == [
        {
            "starts_at": "2026-11-20T11:00:00.000000Z",
            "ends_at": "2026-11-20T12:00:00.000000Z",
            "ended_by": "restart",
        }
    ]
    assert newest["book_watches"] == []
    assert await days(client, f"/coverage/{TICKER}", limit=1) == [newest, day]
    assert await days(client, f"/coverage/{TICKER}", end_date="2026-11-20") == [day]
    assert await days(client, f"/coverage/{TICKER}", start_date="2026-11-21") == [newest]


async def test_a_market_that_never_traded_has_no_days_and_an_unknown_one_is_not_found(
    client, database
):
    with connect(database) as connection:
        name_market(connection, TICKER)
    assert await days(client, f"/coverage/{TICKER}") == []
    response = await client.get("/coverage/KXNONE-1")
    assert response.status_code == 404
    assert response.json()["field"] == "ticker"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/coverage?date=yesterday", "date"),
        ("/coverage?date=1999-01-01", "date"),
        (f"/coverage/{TICKER}?start_date=2026-11-21&end_date=2026-11-20", "end_date"),
        ("/coverage?cursor=abc", "cursor"),
        ("/coverage?day=2026-11-20", "day"),
    ],
)
async def test_what_cannot_be_a_question_is_refused(client, path, field):
    response = await client.get(path)
    assert (response.status_code, response.json()["field"]) == (422, field)
