"""GET /series and GET /series/{ticker}."""

from decimal import Decimal
from typing import Any

import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.asking import ask_list, ask_one, walk
from kalshi_platform_tests.api.reference_rows import put, series
from kalshi_platform_tests.api.rows import at


def tickers(records: list[dict[str, Any]]) -> list[str]:
    return [record["ticker"] for record in records]


async def test_a_series_reads_exactly_as_documented(client, database):
    put(database, series(first_seen_at=at("07:00:00")))
    record = {
        "ticker": "KXRAIN",
        "title": "Rain in Oslo",
        "frequency": "daily",
        "category": "Climate and Weather",
        "categories": ["Climate and Weather", "World"],
        "tags": ["Rain"],
        "settlement_sources": [{"name": "Met", "url": "https://met.example"}],
        "fee_type": "quadratic",
        "fee_multiplier": Decimal("0.5"),
        "updated_time": "2026-11-20T08:00:00.000000Z",
        "first_seen_at": "2026-11-20T07:00:00.000000Z",
    }
    assert (await ask_list(client, "series"))["data"] == [record]
    single = await ask_one(client, "series", "KXRAIN")
    assert single == record | {"metadata": {"ticker": "KXRAIN"}}


async def test_filters_find_any_category_any_tag_and_words(client, database):
    put(
        database,
        series(),
        series(series_ticker="KXSNOW", title="Snow in Oslo", categories=None, tags=None),
        series(
            series_ticker="KXBALL",
            title="Ball",
            category="Sports",
            categories=["Sports"],
            tags=["Rain", "Ball"],
        ),
    )
    for query, expected in (
        ({}, ["KXBALL", "KXRAIN", "KXSNOW"]),
        ({"category": "Climate and Weather"}, ["KXRAIN", "KXSNOW"]),
        ({"category": "World"}, ["KXRAIN"]),
        ({"tag": "Rain"}, ["KXBALL", "KXRAIN"]),
        ({"search": "OSLO"}, ["KXRAIN", "KXSNOW"]),
        ({"search": "kxball"}, ["KXBALL"]),
        ({"search": "oslo", "tag": "Rain"}, ["KXRAIN"]),
        ({"category": "' OR true --"}, []),
    ):
        assert tickers(await walk(client, "series", **query, limit=1)) == expected, query


async def test_a_series_that_the_exchange_does_not_know_is_a_404_that_says_so(client, database):
    put(database, ("series", {"series_ticker": "KXGHOST", "not_found_at": at("10:00:00")}))
    response = await client.get("/series/KXGHOST")
    problem = response.json()
    assert response.status_code == 404
    assert problem["type"] == "urn:kalshi-platform:problem:unknown_series"
    assert "the exchange has no such series" in problem["detail"]
    assert problem["asked_at"] == "2026-11-20T10:00:00.000000Z"
    assert (await ask_list(client, "series"))["data"] == []
    # One that it has told of and forgotten since is still worth showing.
    with connect(database) as connection:
        connection.execute("UPDATE series SET metadata = '{}', title = 'Was there'")
    assert (await ask_one(client, "series", "KXGHOST"))["title"] == "Was there"


async def test_a_series_only_named_so_far_is_there_without_facts(client, database):
    put(database, ("series", {"series_ticker": "KXNEW"}))
    record = await ask_one(client, "series", "KXNEW")
    assert {key for key, value in record.items() if value is not None} == {
        "ticker",
        "first_seen_at",
    }
    assert tickers(await walk(client, "series")) == ["KXNEW"]


async def test_a_series_that_nobody_named_is_404(asker):
    response = await asker.get("/series/KXNOPE")
    assert (response.status_code, response.json()["field"]) == (404, "ticker")
    assert "no event has named" in response.json()["detail"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"tag": ""}, "tag"),
        ({"search": "-"}, "search"),
        ({"category": "x" * 201}, "category"),
        ({"title": "x"}, "title"),
        ({"cursor": "é"}, "cursor"),
    ],
)
async def test_a_bad_field_is_named(asker, query, field):
    response = await asker.get("/series", params=query)
    assert (response.status_code, response.json()["field"]) == (422, field)
