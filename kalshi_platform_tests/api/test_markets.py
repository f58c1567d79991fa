"""GET /markets and GET /markets/{ticker}."""

import itertools
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform_tests.api.asking import ask_list, ask_one, walk
from kalshi_platform_tests.api.reference_rows import (
    HOUR,
    NOW,
    market,
    outcome,
    put,
    series,
    settled,
    version,
)
from kalshi_platform_tests.api.rows import at, land, name_market, trade


def tickers(records: list[dict[str, Any]]) -> list[str]:
    return [record["ticker"] for record in records]


async def test_a_market_reads_exactly_as_documented(client, database):
    put(
        database,
        market(
            opens_at=at("2026-01-01T00:00:00"),
            closes_at=at("2100-01-01T00:00:00"),
            expected_expires_at=None,
            floor_strike=Decimal("77414.990"),
        ),
    )
    with connect(database) as connection:
        connection.execute("UPDATE markets SET first_seen_at = %s", [at("07:00:00.5")])
    assert (await ask_list(client, "markets"))["data"] == [
        {
            "ticker": "KXRAIN-26NOV20-T1",
            "event_ticker": "KXRAIN-26NOV20",
            "series_ticker": "KXRAIN",
            "market_type": "binary",
            "title": "Will it rain more than 1 mm in Oslo?",
            "yes_sub_title": "More than 1 mm",
            "no_sub_title": "1 mm or less",
            "status": "active",
            "result": None,
            "settlement_value": None,
            "settlement_value_dollars": None,
            "created_time": "2026-11-01T08:00:00.000000Z",
            "open_time": "2026-01-01T00:00:00.000000Z",
            "close_time": "2100-01-01T00:00:00.000000Z",
            "expected_expiration_time": None,
            "can_close_early": True,
            "settlement_timer_seconds": 60,
            "strike_type": "greater",
            "floor_strike": Decimal("77414.99"),
            "cap_strike": None,
            "functional_strike": None,
            "custom_strike": None,
            "price_level_structure": "linear_cent",
            "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
            "is_combo": False,
            "yes_bid": 35,
            "yes_bid_dollars": "0.3500",
            "yes_ask": Decimal("36.25"),
            "yes_ask_dollars": "0.3625",
            "last_price": 36,
            "last_price_dollars": "0.3600",
            "volume": Decimal("1520.5"),
            "volume_fp": "1520.50",
            "open_interest": 803,
            "open_interest_fp": "803.00",
            "quoted_at": "2026-11-20T09:00:00.000000Z",
            "updated_time": "2026-11-20T08:00:00.000000Z",
            "first_seen_at": "2026-11-20T07:00:00.500000Z",
        }
    ]


async def test_of_a_market_only_named_so_far_nothing_is_made_up(client, database):
    with connect(database) as connection:
        name_market(connection, "KXNEW-26NOV20")
    [listed] = (await ask_list(client, "markets"))["data"]
    known = {"ticker": "KXNEW-26NOV20", "is_combo": False}
    assert {key: value for key, value in listed.items() if value is not None} == known | {
        "first_seen_at": listed["first_seen_at"]
    }
    single = await ask_one(client, "markets", "KXNEW-26NOV20")
    assert {key: value for key, value in single.items() if value is not None} == known | {
        "first_seen_at": single["first_seen_at"]
    }


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0.1", "0.1"),
        ("77414.99", "77414.99"),
        ("50.0", "50"),
        ("-3", "-3"),
        ("123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
    ],
)
async def test_strikes_are_numbers_exact_to_the_last_digit(client, database, written, text):
    put(database, market(floor_strike=Decimal(written), cap_strike=Decimal(written)))
    response = await client.get("/markets")
    assert f'"floor_strike":{text},"cap_strike":{text},' in response.text


async def test_volumes_are_exact_to_the_last_digit(client, database):
    put(database, market(volume_centis=10**15 + 1, open_interest_centis=2**63 - 1))
    text = (await client.get("/markets")).text
    assert '"volume":10000000000000.01,"volume_fp":"10000000000000.01"' in text
    assert '"open_interest":92233720368547758.07,' in text


STATUSES = {
    "initialized": {"opens_at": NOW + HOUR},
    "active": {},
    "inactive": {"is_paused": True},
    "closed": {"closes_at": NOW - HOUR, "is_paused": True},
    "determined": {"closes_at": NOW - HOUR, "outcome_status": "determined"},
    # Determined before its closing time: the outcome decides.
    "disputed": {"outcome_status": "disputed"},
    "amended": {"closes_at": NOW - HOUR, "outcome_status": "amended"},
    "finalized": {"closes_at": NOW - HOUR, "outcome_status": "finalized", "is_paused": True},
}


async def test_each_status_is_shown_found_and_the_same_as_in_the_view(client, database):
    put(database, *[market(f"KX-{status}", **fields) for status, fields in STATUSES.items()])
    put(
        database,
        # A time is not known: the status is the one that was told.
        market("KX-untimed-active", closes_at=None, told_status="active"),
        market("KX-untimed-closed", opens_at=None, closes_at=NOW + HOUR, told_status="closed"),
        market("KX-untold", closes_at=None, opens_at=None, told_status=None),
    )
    shown = {row["ticker"]: row["status"] for row in await walk(client, "markets")}
    with connect(database) as connection:
        assert shown == dict(
            connection.execute("SELECT market_ticker, status FROM v_markets").fetchall()
        )
    for status in STATUSES:
        assert shown[f"KX-{status}"] == status
        found = tickers(await walk(client, "markets", status=status))
        assert found == sorted(ticker for ticker, told in shown.items() if told == status)


async def test_a_settled_market_shows_its_result_and_value(client, database):
    put(database, *settled("KX-1", result="scalar", settlement_value_micros=437_500))
    [row] = (await ask_list(client, "markets"))["data"]
    assert (row["status"], row["result"]) == ("finalized", "scalar")
    assert (row["settlement_value"], row["settlement_value_dollars"]) == (
        Decimal("43.75"),
        "0.4375",
    )


# A crowd, and the truth about it -----------------------------------------------------------------

_WORDS = ("rain", "Oslo", "snow", "50°", "Mbappé", "T-shirt")
_CATEGORIES = {
    "KXRAIN": "Climate and Weather",
    "KXSNOW": "World",
    "KXBALL": "Sports",
    "KXNULL": None,
}


def crowd(seed: int, size: int) -> list[tuple[str, dict[str, Any]]]:
    """Markets of any status, series and closing time, some with the same words."""
    dice = random.Random(seed)
    rows = [
        series(series_ticker=name, category=category, categories=category and [category])
        for name, category in _CATEGORIES.items()
    ]
    for number in range(size):
        name = dice.choice(["KXRAIN", "KXRAIN", "KXSNOW", "KXBALL", "KXNULL", "", None])
        combo = dice.random() < 0.15
        fields = dict(STATUSES[dice.choice(list(STATUSES))])
        fields.setdefault("closes_at", NOW + dice.randrange(1, 50) * HOUR)
        prefix = "KXMVE" if combo else dice.choice(["KXA", "KXMV", "KXMVF", "KXZ"])
        rows.append(
            market(
                f"{prefix}-{number:03}",
                series_ticker=name,
                event_ticker=f"KXE-{number % 7}",
                title=" ".join(dice.sample(_WORDS, 3)) + "?",
                yes_sub_title=None,
                **fields,
            )
        )
    return rows


async def test_every_filter_and_pair_of_filters_finds_what_plain_sql_finds(client, database):
    put(database, *crowd(seed=3, size=150))
    filters: list[tuple[str, Any, str]] = [
        ("status", status, f"status = '{status}'") for status in ("active", "closed", "finalized")
    ]
    filters += [
        ("status", "disputed", "status = 'disputed'"),
        ("event_ticker", "KXE-3", "event_ticker = 'KXE-3'"),
        ("series_ticker", "KXRAIN", "series_ticker = 'KXRAIN'"),
        ("category", "Climate and Weather", "series_ticker = 'KXRAIN'"),
        ("category", "Nothing", "false"),
        ("is_combo", "true", "is_combo"),
        ("is_combo", "false", "NOT is_combo"),
        ("search", "OSLO rain", "title ~ 'Oslo' AND title ~ 'rain'"),
        ("search", "mbappé", "title ~ 'Mbappé'"),
        ("min_close_time", int((NOW + 20 * HOUR).timestamp()), "closes_at >= %(from)s"),
        ("max_close_time", int((NOW + 30 * HOUR).timestamp()), "closes_at < %(to)s"),
    ]
    bounds = {"from": NOW + 20 * HOUR, "to": NOW + 30 * HOUR}
    asked = 0
    for chosen in itertools.chain(
        itertools.combinations(filters, 1), itertools.combinations(filters, 2)
    ):
        query = {name: value for name, value, _ in chosen}
        if len(query) < len(chosen):
            continue  # the same filter twice
        where = " AND ".join(f"({condition})" for _, _, condition in chosen)
        with connect(database) as connection:
            truth = connection.execute(
                f"SELECT market_ticker FROM v_markets WHERE {where} ORDER BY 1".encode(),
                bounds,
            ).fetchall()
        assert tickers(await walk(client, "markets", **query, limit=40)) == [
            ticker for (ticker,) in truth
        ], query
        asked += 1
    assert asked > 80


@given(
    names=st.lists(
        st.text(st.sampled_from("AKMVEXYZ-.ß%_'\\ "), min_size=1, max_size=8),
        unique=True,
        min_size=1,
        max_size=25,
    ),
    limit=st.integers(1, 6),
    is_combo=st.sampled_from([None, True, False]),
)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_paging_returns_every_market_once_in_order(client, database, names, limit, is_combo):
    with connect(database) as connection:
        connection.execute("TRUNCATE markets")
        for name in names:
            name_market(connection, name)
    expected = sorted(names, key=str.encode)
    if is_combo is not None:
        expected = [name for name in expected if name.startswith("KXMVE") is is_combo]
    query = {} if is_combo is None else {"is_combo": str(is_combo).lower()}
    assert tickers(await walk(client, "markets", **query, limit=limit)) == expected


async def test_a_walk_meets_every_market_once_while_others_are_added(client, database):
    known = [f"KX-{number:02}" for number in range(20)]
    put(database, *[market(ticker) for ticker in known])
    met: list[str] = []
    cursor: dict[str, str] = {}
    for new in range(100):
        page = await ask_list(client, "markets", limit=3, **cursor)
        met += tickers(page["data"])
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
        put(database, market(f"KX-{random.Random(new).randrange(20):02}-new{new}"))
    assert len(met) == len(set(met))
    assert set(known) <= set(met)
    assert met == sorted(met)


async def test_a_search_asks_for_whole_words_in_titles_and_tickers(client, database):
    put(
        database,
        market(
            "KXRAIN-26NOV20-T1.5", title="Rain in São Paulo above 50°?", yes_sub_title="A/B test"
        ),
        market("KXSNOW-26DEC01", title="Snow – much of it", yes_sub_title=None),
    )
    for text, expected in {
        "rain": ["KXRAIN-26NOV20-T1.5"],
        "RAIN são": ["KXRAIN-26NOV20-T1.5"],
        "SÃO": ["KXRAIN-26NOV20-T1.5"],
        "50": ["KXRAIN-26NOV20-T1.5"],
        "b": ["KXRAIN-26NOV20-T1.5"],
        "kxrain-26nov20": ["KXRAIN-26NOV20-T1.5"],
        "T1.5": ["KXRAIN-26NOV20-T1.5"],
        "much, of; it!": ["KXSNOW-26DEC01"],
        "rai": [],
        "rain snow": [],
        "title": [],
    }.items():
        assert tickers(await walk(client, "markets", search=text)) == expected, text


async def test_sql_in_a_search_stays_text(client, database):
    put(database, market("KX-1", title="x' OR '1'='1 100% DROP TABLE"))
    for text, found in {
        "' OR '1'='1": ["KX-1"],
        "x'); DROP TABLE markets; --": [],
        "100%": ["KX-1"],
        "%(limit)s": [],
        "$1": ["KX-1"],
        "1 & !2 | <-> :*": [],
        "{x,1}": ["KX-1"],
        '"x"': ["KX-1"],
        "\\x": ["KX-1"],
        "x\\'": ["KX-1"],
        "_": None,
        "%": None,
        "–°": None,
    }.items():
        response = await client.get("/markets", params={"search": text})
        if found is None:
            assert (response.status_code, response.json()["field"]) == (422, "search"), text
        else:
            assert response.status_code == 200, text
            assert tickers(response.json()["data"]) == found, text
    assert len(await walk(client, "markets")) == 1


async def test_sql_in_other_filters_stays_text(client, database):
    put(database, market())
    for name in ("event_ticker", "series_ticker", "category"):
        for text in ("' OR '1'='1", "%s %(limit)s", "KX%", "\\", "'; DROP TABLE markets; --"):
            assert (await ask_list(client, "markets", **{name: text}))["data"] == []


async def test_titles_of_any_length_and_letters_can_be_stored_and_found(client, database):
    titles = ["a " * 2_000, "\U0001f600 " * 2_000, "\U00010400" * 3_000, "ab" * 3_000, "İ" * 900]
    put(
        database,
        *[market(f"KX-{number}", title=title) for number, title in enumerate(titles)],
    )
    assert tickers(await walk(client, "markets", search="a")) == ["KX-0"]
    assert len(await walk(client, "markets")) == len(titles)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "open"}, "status"),
        ({"status": ""}, "status"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"is_combo": "maybe"}, "is_combo"),
        ({"search": ""}, "search"),
        ({"search": "?!"}, "search"),
        ({"search": "x" * 201}, "search"),
        ({"search": "a\0b"}, "search"),
        ({"event_ticker": ""}, "event_ticker"),
        ({"series_ticker": "a\nb"}, "series_ticker"),
        ({"category": "\x00"}, "category"),
        ({"min_close_time": "2026-11-20"}, "min_close_time"),
        ({"max_close_time": "soon"}, "max_close_time"),
        ({"min_close_time": 1795197600, "max_close_time": 1795197600}, "max_close_time"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "a" * 5000}, "cursor"),
        ({"ticker": "KX"}, "ticker"),
    ],
)
async def test_a_bad_field_is_named(asker, query, field):
    response = await asker.get("/markets", params=query)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == field


async def test_an_unknown_market_is_404(asker):
    response = await asker.get("/markets/KXNOPE")
    assert (response.status_code, response.json()["field"]) == (404, "ticker")
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_market"


# One market --------------------------------------------------------------------------------------


async def test_a_single_market_has_its_outcome_rules_and_trades_held(client, database):
    put(database, *settled("KX-1", status="amended", result="no", settlement_value_micros=0))
    put(database, version(1, market_ticker="KX-1"))
    land(
        database,
        trade("2026-11-18T23:59:59.999999", market_ticker="KX-1"),
        trade("2026-11-20T10:00:00.5", market_ticker="KX-1"),
        trade("2026-11-21T10:00:00", market_ticker="KX-2"),
    )
    record = await ask_one(client, "markets", "KX-1")
    assert (record["status"], record["result"]) == ("amended", "no")
    settlement = record["settlement"]
    assert (settlement["market_ticker"], settlement["event_ticker"]) == ("KX-1", "KXRAIN-26NOV20")
    assert (settlement["settlement_value"], settlement["source"]) == (0, "rest")
    assert record["first_trade_at"] == "2026-11-18T23:59:59.999999Z"
    assert record["last_trade_at"] == "2026-11-20T10:00:00.500000Z"
    assert record["metadata"]["rules_primary"] == "If it rains, yes."


async def test_the_newest_quote_wins_wherever_it_came_from(client, database):
    put(database, market("KX-1", read_at=at("09:00:00")))
    quotes = [
        ("2026-11-19T10:00:00", "2026-11-19T10:00:00.1", 1, 200_000),
        # Told after the answer of REST by our clock, whatever the exchange's says.
        ("2026-11-20T08:59:59", "2026-11-20T09:00:01", 2, 400_000),
        ("2026-11-20T08:59:59", "2026-11-20T09:00:01", 3, 410_000),
    ]

    def quote(quoted: str, received: str, order: int, bid: int) -> None:
        put(
            database,
            (
                "quotes",
                {
                    "quoted_at": at(quoted),
                    "received_at": at(received),
                    "feed_order": order,
                    "yes_bid_size_centis": 1,
                    "yes_ask_size_centis": 1,
                    "last_trade_size_centis": 1,
                    "volume_centis": 200_000 + order,
                    "open_interest_centis": 1,
                    "dollar_volume": 1,
                    "dollar_open_interest": 1,
                    "price_micros": bid + 5_000,
                    "yes_bid_micros": bid,
                    "yes_ask_micros": bid + 10_000,
                    "market_ticker": "KX-1",
                },
            ),
        )

    with connect(database) as connection:
        ensure_partitions(connection, [at(quoted).date() for quoted, *_ in quotes])
    quote(*quotes[0])
    record = await ask_one(client, "markets", "KX-1")
    assert (record["yes_bid"], record["quote_source"]) == (35, "rest")
    assert record["quoted_at"] == "2026-11-20T09:00:00.000000Z"
    quote(*quotes[1])
    quote(*quotes[2])
    record = await ask_one(client, "markets", "KX-1")
    assert (record["yes_bid"], record["last_price"], record["volume_fp"]) == (
        41,
        Decimal("41.5"),
        "2000.03",
    )
    assert (record["quote_source"], record["quoted_at"]) == ("feed", "2026-11-20T08:59:59.000000Z")


async def test_a_market_without_an_outcome_has_none(client, database):
    put(database, market(closes_at=NOW - timedelta(days=30)))
    record = await ask_one(client, "markets", "KXRAIN-26NOV20-T1")
    assert (record["status"], record["settlement"], record["result"]) == ("closed", None, None)
    put(database, outcome())
    with connect(database) as connection:
        connection.execute("UPDATE markets SET outcome_status = 'finalized'")
    assert (await ask_one(client, "markets", "KXRAIN-26NOV20-T1"))["settlement"] is not None
