"""GET /settlements and GET /settlements/{ticker}."""

import itertools
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.cursors import encode_cursor
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.settlements import SettlementFilters
from kalshi_platform_tests.api.asking import ask_list, ask_one, walk
from kalshi_platform_tests.api.reference_rows import HOUR, NOW, market, outcome, put, version
from kalshi_platform_tests.api.rows import at, name_market


def tickers(records: list[dict[str, Any]]) -> list[str]:
    return [record["market_ticker"] for record in records]


RECORD = {
    "market_ticker": "KXRAIN-26NOV20-T1",
    "event_ticker": "KXRAIN-26NOV20",
    "series_ticker": "KXRAIN",
    "status": "finalized",
    "result": "yes",
    "settlement_value": 100,
    "settlement_value_dollars": "1.0000",
    "effective_at": "2026-11-20T12:01:02.345678Z",
    "determined_at": "2026-11-20T12:00:00.000000Z",
    "settled_at": "2026-11-20T12:01:02.345678Z",
    "source": "rest",
    "recorded_at": "2026-11-20T12:01:03.000000Z",
    "confirmed_at": "2026-11-20T12:01:30.000000Z",
}


async def test_an_outcome_reads_exactly_as_documented(client, database):
    put(database, market(), outcome())
    assert (await ask_list(client, "settlements"))["data"] == [RECORD]


async def test_what_is_not_known_of_an_outcome_is_null(client, database):
    put(
        database,
        outcome(
            settlement_value_micros=None, determined_at=None, settled_at=None, confirmed_at=None
        ),
    )
    [record] = (await ask_list(client, "settlements"))["data"]
    assert record == RECORD | dict.fromkeys(
        (
            "event_ticker",
            "series_ticker",
            "settlement_value",
            "settlement_value_dollars",
            "determined_at",
            "settled_at",
            "confirmed_at",
        )
    )


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, '"settlement_value":0,"settlement_value_dollars":"0.0000"'),
        (1, '"settlement_value":0.0001,"settlement_value_dollars":"0.000001"'),
        (437_500, '"settlement_value":43.75,"settlement_value_dollars":"0.4375"'),
        (500_000, '"settlement_value":50,"settlement_value_dollars":"0.5000"'),
        (333_333, '"settlement_value":33.3333,"settlement_value_dollars":"0.333333"'),
        (1_000_000, '"settlement_value":100,"settlement_value_dollars":"1.0000"'),
    ],
)
async def test_values_are_exact_to_the_last_digit(client, database, micros, text):
    put(database, market(), outcome(settlement_value_micros=micros), version(1))
    assert text in (await client.get("/settlements")).text
    assert text in (await client.get("/settlements/KXRAIN-26NOV20-T1")).text


async def test_an_amended_outcome_shows_both_versions_and_the_valid_one(client, database):
    put(
        database,
        market(),
        outcome(status="amended", result="no", settlement_value_micros=0, settled_at=None),
        version(
            1, status="determined", source="lifecycle", effective_at=at("12:00:00"),
            confirmed_at=None,
        ),
        version(2, status="amended", result="no", settlement_value_micros=0),
    )  # fmt: skip
    record = await ask_one(client, "settlements", "KXRAIN-26NOV20-T1")
    assert (record["status"], record["result"], record["settled_at"]) == ("amended", "no", None)
    assert record["history"] == [
        {
            "version": 1,
            "status": "determined",
            "result": "yes",
            "settlement_value": 100,
            "settlement_value_dollars": "1.0000",
            "effective_at": "2026-11-20T12:00:00.000000Z",
            "source": "lifecycle",
            "recorded_at": "2026-11-20T12:01:03.000000Z",
            "confirmed_at": None,
            "in_force": False,
        },
        {
            "version": 2,
            "status": "amended",
            "result": "no",
            "settlement_value": 0,
            "settlement_value_dollars": "0.0000",
            "effective_at": "2026-11-20T12:01:02.345678Z",
            "source": "rest",
            "recorded_at": "2026-11-20T12:01:03.000000Z",
            "confirmed_at": "2026-11-20T12:01:30.000000Z",
            "in_force": True,
        },
    ]


async def test_a_market_without_outcome_is_pending_since_it_closed(client, database):
    put(database, market("KX-closed", closes_at=at("2026-02-03T10:00:00")), market("KX-open"))
    with connect(database) as connection:
        name_market(connection, "KX-named")
    answers = {
        ticker: (await client.get(f"/settlements/{ticker}"))
        for ticker in ("KX-closed", "KX-open", "KX-named")
    }
    for answer in answers.values():
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:kalshi-platform:problem:outcome_pending"
    closed = answers["KX-closed"].json()
    assert closed["closed_at"] == "2026-02-03T10:00:00.000000Z"
    assert "closed since 2026-02-03T10:00:00.000000Z" in closed["detail"]
    for ticker in ("KX-open", "KX-named"):
        assert "closed_at" not in answers[ticker].json()
        assert "not known to be closed" in answers[ticker].json()["detail"]


async def test_an_unknown_market_is_another_404(asker):
    response = await asker.get("/settlements/KXNOPE")
    assert response.status_code == 404
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_market"


async def test_every_filter_and_pair_of_filters_finds_what_plain_sql_finds(client, database):
    dice = random.Random(7)
    for number in range(80):
        ticker = f"KX-{number:02}"
        rows = [
            outcome(
                ticker,
                result=dice.choice(["yes", "yes", "no", "scalar"]),
                status=dice.choice(["finalized", "finalized", "determined", "amended"]),
                effective_at=at("12:00:00") + timedelta(seconds=dice.randrange(20)),
            )
        ]
        if dice.random() < 0.9:  # an outcome may come before its market
            names = {
                "event_ticker": f"KXE-{dice.randrange(4)}",
                "series_ticker": dice.choice(["KXRAIN", "KXSNOW", "", None]),
            }
            rows.append(market(ticker, **names))
        put(database, *rows)
    window = {"start_time": at("12:00:04"), "end_time": at("12:00:15")}
    filters: list[tuple[str, str, str]] = [
        *[("result", name, f"s.result = '{name}'") for name in ("yes", "scalar", "void")],
        *[("status", name, f"s.status = '{name}'") for name in ("finalized", "amended")],
        ("event_ticker", "KXE-1", "m.event_ticker = 'KXE-1'"),
        ("series_ticker", "KXRAIN", "m.series_ticker = 'KXRAIN'"),
        ("start_time", window["start_time"].isoformat(), "s.effective_at >= %(start_time)s"),
        ("end_time", window["end_time"].isoformat(), "s.effective_at < %(end_time)s"),
    ]
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(filters, count) for count in range(3)
    ):
        query = {name: value for name, value, _ in chosen}
        if len(query) < len(chosen):
            continue  # the same filter twice
        where = " AND ".join(condition for *_, condition in chosen) or "true"
        with connect(database) as connection:
            truth = connection.execute(
                "SELECT s.market_ticker FROM settlements AS s LEFT JOIN markets AS m"
                f" USING (market_ticker) WHERE {where} ORDER BY s.effective_at, 1".encode(),
                window,
            ).fetchall()
        assert tickers(await walk(client, "settlements", **query, limit=7)) == [
            ticker for (ticker,) in truth
        ], query


@given(
    places=st.lists(
        st.tuples(st.integers(0, 3), st.text(st.sampled_from("AZ-.é' "), min_size=1, max_size=5)),
        unique_by=lambda place: place[1],
        min_size=1,
        max_size=25,
    ),
    limit=st.integers(1, 6),
)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_paging_returns_every_outcome_once_in_order(client, database, places, limit):
    with connect(database) as connection:
        connection.execute("TRUNCATE settlements")
    instants = [at("12:00:00"), at("12:00:00.000001"), at("12:00:01"), at("2026-11-21T00:00:00")]
    put(database, *[outcome(name, effective_at=instants[instant]) for instant, name in places])
    expected = sorted(places, key=lambda place: (place[0], place[1].encode()))
    assert tickers(await walk(client, "settlements", limit=limit)) == [name for _, name in expected]


async def test_a_walk_misses_no_outcome_though_they_change_and_come_meanwhile(client, database):
    known = [f"KX-{number:02}" for number in range(20)]
    put(
        database,
        *[
            outcome(ticker, effective_at=at("12:00:00") + timedelta(minutes=number))
            for number, ticker in enumerate(known)
        ],
    )
    met: list[str] = []
    cursor: dict[str, str] = {}
    dice = random.Random(1)
    for number in itertools.count():
        page = await ask_list(client, "settlements", limit=3, **cursor)
        met += tickers(page["data"])
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
        if number < 10:
            later = NOW + number * HOUR
            put(database, outcome(f"KX-new{number}", effective_at=later))
            with connect(database) as connection:
                connection.execute(
                    "UPDATE settlements SET effective_at = %s WHERE market_ticker = %s",
                    [later, dice.choice(known)],
                )
    assert set(met) == {*known, *[f"KX-new{number}" for number in range(10)]} & set(met)
    assert set(known) <= set(met)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "closed"}, "status"),
        ({"result": ""}, "result"),
        ({"result": "a\0"}, "result"),
        ({"limit": "1.5"}, "limit"),
        ({"start_time": "today"}, "start_time"),
        ({"start_time": 1795197600, "end_time": 1795197600}, "end_time"),
        ({"market_ticker": "KX"}, "market_ticker"),
        ({"cursor": "a"}, "cursor"),
    ],
)
async def test_a_bad_field_is_named(asker, query, field):
    response = await asker.get("/settlements", params=query)
    assert (response.status_code, response.json()["field"]) == (422, field)


async def test_a_cursor_of_another_query_or_list_is_refused(client, database):
    put(database, *[outcome(f"KX-{number}") for number in range(3)])
    put(database, *[market(f"KX-{number}") for number in range(3)])
    cursor = (await ask_list(client, "settlements", limit=1))["next_cursor"]
    assert len((await ask_list(client, "settlements", limit=9, cursor=cursor))["data"]) == 2
    for query in ({"result": "yes"}, {"status": "finalized"}, {"end_time": 1900000000}):
        answer = await client.get("/settlements", params=query | {"cursor": cursor})
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor")
    for name in ("markets", "events", "series"):
        answer = await client.get(f"/{name}", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor")


@pytest.mark.parametrize(
    "position",
    [
        [0, "a\0"],
        [2**63, "a"],
        [-(2**62), "a"],
        ["0", "a"],
        [0],
        [0, ""],
        "a",
        None,
        [Decimal(1), "a"],
    ],
)
async def test_a_cursor_that_somebody_made_up_is_refused(asker, position):
    cursor = encode_cursor(("settlements", SettlementFilters()), position)
    answer = await asker.get("/settlements", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["field"]) == (422, "cursor")
