"""GET /events and GET /events/{event_ticker}."""

import itertools
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.events import NESTED_MARKETS
from kalshi_platform_tests.api.asking import ask_list, ask_one, walk
from kalshi_platform_tests.api.reference_rows import HOUR, NOW, event, market, put, series, settled
from kalshi_platform_tests.api.rows import at


def tickers(records: list[dict[str, Any]]) -> list[str]:
    return [record["event_ticker"] for record in records]


async def test_an_event_reads_exactly_as_documented(client, database):
    put(
        database,
        event(
            first_seen_at=at("07:00:00"),
            fee_type_override="flat",
            fee_multiplier_override=Decimal("0.70"),
        ),
        market(),
    )
    assert (await ask_list(client, "events"))["data"] == [
        {
            "event_ticker": "KXRAIN-26NOV20",
            "series_ticker": "KXRAIN",
            "title": "Rain on Friday?",
            "sub_title": "On Nov 20",
            "category": "Climate and Weather",
            "status": "open",
            "market_count": 1,
            "mutually_exclusive": True,
            "collateral_return_type": "MECNET",
            "strike_date": "2026-11-20T23:00:00.000000Z",
            "strike_period": None,
            "fee_type_override": "flat",
            "fee_multiplier_override": Decimal("0.7"),
            "updated_time": "2026-11-20T08:00:00.000000Z",
            "first_seen_at": "2026-11-20T07:00:00.000000Z",
        }
    ]


def of(event_ticker: str, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    """An event and one market of each kind."""
    fields = {
        "trading": {},
        "to come": {"opens_at": NOW + HOUR},
        "paused": {"is_paused": True},
        "untimed": {"closes_at": None},
        "over": {"closes_at": NOW - HOUR},
        "determined": {"closes_at": NOW - HOUR, "outcome_status": "determined"},
        "early": {"outcome_status": "determined"},
        "final": {"closes_at": NOW - HOUR, "outcome_status": "finalized"},
    }
    return [
        event(event_ticker),
        *[
            market(f"{event_ticker}-{number}", event_ticker=event_ticker, **fields[kind])
            for number, kind in enumerate(kinds)
        ],
    ]


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ((), None),
        (("trading",), "open"),
        (("to come",), "open"),
        (("paused",), "open"),
        (("untimed",), "open"),
        (("final", "trading"), "open"),
        (("determined", "trading"), "open"),
        (("over",), "closed"),
        (("determined",), "closed"),
        (("early",), "closed"),
        (("over", "final"), "closed"),
        (("final", "determined"), "closed"),
        (("final",), "settled"),
        (("final", "final"), "settled"),
    ],
)
async def test_the_status_follows_from_the_markets(client, database, kinds, status):
    put(database, *of("KXE-1", *kinds))
    # Neighbours in the order of tickers, so that a page has to find its way between them.
    put(database, *of("KXE-0", "trading"), *of("KXE-2", "final"), *of("KXE-3", "over"))
    record = await ask_one(client, "events", "KXE-1")
    assert (record["status"], record["market_count"]) == (status, len(kinds))
    for asked in ("open", "closed", "settled"):
        for limit in (1, 10):
            found = await walk(client, "events", status=asked, limit=limit)
            assert ("KXE-1" in tickers(found)) is (asked == status)
            assert {row["status"] for row in found} == {asked}


async def test_every_filter_and_pair_of_filters_finds_what_plain_sql_finds(client, database):
    dice = random.Random(5)
    categories = {"KXRAIN": "World", "KXSNOW": "World", "KXBALL": "Sports", "KXNULL": None}
    put(
        database,
        *[series(series_ticker=name, category=told) for name, told in categories.items()],
    )
    kinds = ("trading", "over", "final", "final", "determined")
    for number in range(60):
        named, *markets = of(f"KXE-{number:02}", *dice.choices(kinds, k=dice.randrange(4)))
        named[1]["series_ticker"] = dice.choice([*categories, "", None])
        named[1]["category"] = dice.choice(["World", "Sports", None, None])
        named[1]["title"] = " ".join(dice.sample(("rain", "snow", "ball"), 2))
        put(database, named, *markets)
    told = {row["event_ticker"]: row for row in await walk(client, "events", limit=7)}
    assert list(told) == [f"KXE-{number:02}" for number in range(60)]
    filters: list[tuple[str, str]] = [
        *[("status", status) for status in ("open", "closed", "settled")],
        *[("series_ticker", name) for name in ("KXRAIN", "KXNONE")],
        *[("category", name) for name in ("World", "Sports", "Nothing")],
        *[("search", text) for text in ("rain", "snow ball", "kxe 07")],
    ]
    for chosen in itertools.chain(
        itertools.combinations(filters, 1), itertools.combinations(filters, 2)
    ):
        query = dict(chosen)
        if len(query) < len(chosen):
            continue  # the same filter twice
        expected = [
            ticker
            for ticker, row in told.items()
            if all(
                set(value.split()) <= set(f"kxe {ticker[4:]} {row['title']} on nov 20".split())
                if name == "search"
                else row[name] == value
                for name, value in chosen
            )
        ]
        assert tickers(await walk(client, "events", **query, limit=5)) == expected, query


async def test_an_event_nests_its_markets_by_ticker(client, database):
    put(database, series(), event(), market("KX-2"), *settled("KX-1", result="no"))
    record = await ask_one(client, "events", "KXRAIN-26NOV20")
    assert [nested["ticker"] for nested in record["markets"]] == ["KX-1", "KX-2"]
    listed = (await ask_list(client, "markets", event_ticker="KXRAIN-26NOV20"))["data"]
    assert record["markets"] == listed
    assert record["metadata"] == {"event_ticker": "KXRAIN-26NOV20"}


async def test_an_event_without_series_or_markets_is_there(client, database):
    put(database, event(series_ticker="", category=None), event("KX-2", series_ticker=None))
    put(database, ("events", {"event_ticker": "KX-3"}))
    for ticker in ("KXRAIN-26NOV20", "KX-2", "KX-3"):
        record = await ask_one(client, "events", ticker)
        assert (record["series_ticker"], record["markets"], record["market_count"]) == (None, [], 0)
    assert len((await ask_list(client, "events"))["data"]) == 3


async def test_an_event_of_any_number_of_markets_shows_the_first(client, database):
    put(database, event())
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO markets (market_ticker, event_ticker)"
            " SELECT 'KX-' || lpad(n::text, 5, '0'), 'KXRAIN-26NOV20'"
            " FROM generate_series(1, %s) AS n",
            [NESTED_MARKETS + 5],
        )
    record = await ask_one(client, "events", "KXRAIN-26NOV20")
    assert record["market_count"] == NESTED_MARKETS + 5
    assert len(record["markets"]) == NESTED_MARKETS
    assert record["markets"][-1]["ticker"] == "KX-01000"


async def test_an_event_opens_and_closes_by_the_clock(client, database):
    put(database, event(), market(closes_at=NOW + timedelta(days=1)))
    assert (await ask_one(client, "events", "KXRAIN-26NOV20"))["status"] == "open"
    with connect(database) as connection:
        connection.execute("UPDATE markets SET closes_at = now() - interval '1 microsecond'")
    assert (await ask_one(client, "events", "KXRAIN-26NOV20"))["status"] == "closed"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "finalized"}, "status"),
        ({"limit": 1001}, "limit"),
        ({"search": "!"}, "search"),
        ({"category": ""}, "category"),
        ({"series_ticker": "a\0"}, "series_ticker"),
        ({"event_ticker": "KX"}, "event_ticker"),
        ({"cursor": "x"}, "cursor"),
    ],
)
async def test_a_bad_field_is_named(asker, query, field):
    response = await asker.get("/events", params=query)
    assert (response.status_code, response.json()["field"]) == (422, field)


async def test_an_unknown_event_is_404(asker):
    response = await asker.get("/events/KXNOPE")
    assert (response.status_code, response.json()["field"]) == (404, "event_ticker")
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_event"
