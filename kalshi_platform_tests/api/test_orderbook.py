"""POST /orderbook."""

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.feed_schemas import OrderBook
from api.schemas import Record
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.feed_rows import Side, delta, heard, snapshot, told, watch
from kalshi_platform_tests.api.rows import TICKER, at, name_market


@pytest.fixture
def database(database: str) -> str:
    """Received up to noon."""
    heard(database, at("12:00:00"))
    return database


def stamp(when: str) -> str:
    return f"{at(when).replace(tzinfo=None).isoformat()}Z"


async def answer(client: httpx.AsyncClient, when: str, **body: Any) -> httpx.Response:
    response = await client.post(
        "/orderbook", json={"market_ticker": TICKER, "timestamp": stamp(when)} | body
    )
    assert response.status_code == 200, response.text
    return response


async def ask(client: httpx.AsyncClient, when: str, **body: Any) -> dict[str, Any]:
    """The book at an instant, its numbers exact, its bytes held to the documented shape."""
    response = await answer(client, when, **body)
    whole: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Record[OrderBook].model_validate(whole)
    assert whole["request_id"] == response.headers["x-request-id"]
    book: dict[str, Any] = whole["data"]
    assert response.headers["x-data-status"] == ("gaps" if book["gap"] else "complete")
    assert (book["gap_reason"] is None) is not book["gap"]
    return book


async def gap_reason(client: httpx.AsyncClient, when: str) -> str | None:
    reason: str | None = (await ask(client, when))["gap_reason"]
    return reason


YES: Side = {350_000: 4_000, 360_000: 12_000}
NO: Side = {610_000: 1_000, 622_500: 7_550}


async def test_a_book_reads_exactly_as_documented(client, database):
    told(
        database,
        snapshot("10:00:00.100", 1, yes=YES, no=NO),
        delta("10:00:02.5", 2, "yes", 360_000, -50),
        watch("10:00:00.1"),
    )
    assert await ask(client, "10:00:05") == {
        "market_ticker": TICKER,
        "timestamp": "2026-11-20T10:00:05.000000Z",
        "gap": False,
        "gap_reason": None,
        "as_of": "2026-11-20T10:00:02.500000Z",
        "age_seconds": Decimal("2.5"),
        "yes_bids": [["0.3600", "119.50"], ["0.3500", "40.00"]],
        "no_bids": [["0.6225", "75.50"], ["0.6100", "10.00"]],
        "yes_asks": [["0.3775", "75.50"], ["0.3900", "10.00"]],
        "best_yes_bid_dollars": "0.3600",
        "best_yes_ask_dollars": "0.3775",
        "spread_dollars": "0.0175",
        "yes_levels": 2,
        "no_levels": 2,
        "yes_depth_fp": "159.50",
        "no_depth_fp": "85.50",
        "snapshot_at": "2026-11-20T10:00:00.100000Z",
        "snapshot_source": "exchange",
    }


async def test_the_book_holds_every_change_up_to_and_including_the_instant(client, database):
    told(
        database,
        snapshot("10:00:00", 1, yes={360_000: 100}),
        delta("10:00:01", 2, "yes", 360_000, -100),
        delta("10:00:02", 3, "no", 600_000, 25),
        watch("10:00:00"),
    )
    for when, yes, no in (
        ("10:00:00", [["0.3600", "1.00"]], []),
        ("10:00:00.999999", [["0.3600", "1.00"]], []),
        ("10:00:01", [], []),
        ("10:00:02", [], [["0.6000", "0.25"]]),
    ):
        book = await ask(client, when)
        assert (book["yes_bids"], book["no_bids"]) == (yes, no), when


async def test_an_empty_book_has_no_best_prices(client, database):
    told(database, snapshot("10:00:00", 1), watch("10:00:00"))
    book = await ask(client, "10:00:00")
    assert (book["gap"], book["age_seconds"]) == (False, 0)
    assert (book["yes_bids"], book["no_bids"], book["yes_asks"]) == ([], [], [])
    assert (book["yes_levels"], book["yes_depth_fp"], book["no_depth_fp"]) == (0, "0.00", "0.00")
    best = ("best_yes_bid_dollars", "best_yes_ask_dollars", "spread_dollars")
    assert [book[name] for name in best] == [None, None, None]


async def test_an_empty_side_leaves_the_other_as_it_is(client, database):
    told(database, snapshot("10:00:00", 1, no=NO), watch("10:00:00"))
    book = await ask(client, "10:00:00")
    assert (book["best_yes_bid_dollars"], book["best_yes_ask_dollars"]) == (None, "0.3775")
    assert book["spread_dollars"] is None


async def test_depth_cuts_the_levels_and_not_the_totals(client, database):
    told(database, snapshot("10:00:00", 1, yes=YES, no=NO), watch("10:00:00"))
    book = await ask(client, "10:00:00", depth=1)
    assert book["yes_bids"] == [["0.3600", "120.00"]]
    assert book["no_bids"] == [["0.6225", "75.50"]]
    assert book["yes_asks"] == [["0.3775", "75.50"]]
    assert (book["yes_levels"], book["yes_depth_fp"], book["no_depth_fp"]) == (2, "160.00", "85.50")
    assert len((await ask(client, "10:00:00", depth=1000))["yes_bids"]) == 2


async def test_numbers_are_exact_to_the_last_digit(client, database):
    told(
        database,
        snapshot("10:00:00", 1, yes={1: 10**15 + 1, 362_525: 1}, no={100: 1}),
        watch("10:00:00"),
    )
    text = (await answer(client, "10:00:00")).text
    for part in (
        '"yes_bids":[["0.362525","0.01"],["0.000001","10000000000000.01"]]',
        '"no_bids":[["0.0001","0.01"]],"yes_asks":[["0.9999","0.01"]]',
        '"spread_dollars":"0.637375"',
        '"yes_depth_fp":"10000000000000.02"',
    ):
        assert part in text


async def test_our_own_snapshots_are_told_apart(client, database):
    told(database, snapshot("10:00:00", 1, yes=YES), watch("10:00:00"))
    told(database, snapshot("10:05:00", 9, yes=YES, source="own"))
    assert (await ask(client, "10:04:00"))["snapshot_source"] == "exchange"
    assert (await ask(client, "10:06:00"))["snapshot_source"] == "own"


async def test_without_an_instant_the_book_is_of_now(client, database):
    now = datetime.now(UTC)
    earlier = (now - timedelta(minutes=1)).replace(tzinfo=None).isoformat()
    told(database, snapshot(earlier, 1, yes=YES), watch(earlier))
    heard(database, now)
    response = await client.post("/orderbook", json={"market_ticker": TICKER})
    book = response.json()["data"]
    assert now <= datetime.fromisoformat(book["timestamp"]) <= datetime.now(UTC)
    assert (book["gap"], response.headers["x-data-status"]) == (False, "complete")
    assert 60 <= book["age_seconds"] < 120


async def test_other_markets_stay_out(client, database):
    told(
        database,
        snapshot("10:00:00", 1, yes={100_000: 100}),
        snapshot("10:00:01", 2, yes=YES, market=TICKER + "0"),
        delta("10:00:02", 3, market="KX"),
        watch("10:00:00"),
    )
    assert (await ask(client, "10:01:00"))["yes_bids"] == [["0.1000", "1.00"]]


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.sampled_from(["yes", "no"]),
        st.sampled_from([10_000, 360_000, 362_500, 990_000]),
        st.integers(-300, 500),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


@given(changes=CHANGES, asked=st.integers(0, 70))
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_a_book_equals_one_that_was_kept_by_hand(client, database, changes, asked):
    with connect(database) as connection:
        connection.execute("TRUNCATE book_snapshots, book_deltas, book_watches")
    books: dict[str, Side] = {"yes": {}, "no": {}}
    expected: dict[str, list[list[str]]] = {"yes": [], "no": []}
    rows: list[Any] = [snapshot("10:00:00", 1), watch("10:00:00")]
    for frame, (second, side, price, centis, shown) in enumerate(sorted(changes), start=2):
        level = books[side].get(price, 0)
        change = max(centis, -level)
        books[side][price] = level + change
        when = f"10:{second // 60:02}:{second % 60:02}"
        rows.append(delta(when, 2 * frame, side, price, change))
        if shown:
            left = {
                side: {price: size for price, size in book.items() if size}
                for side, book in books.items()
            }
            rows.append(snapshot(when, 2 * frame + 1, **left, source="own"))
        if second <= asked:
            expected = {side: _listed(book) for side, book in books.items()}
    told(database, *rows)
    book = await ask(client, f"10:{asked // 60:02}:{asked % 60:02}")
    assert {"yes": book["yes_bids"], "no": book["no_bids"]} == expected
    assert book["gap"] is False


def _listed(book: Side) -> list[list[str]]:
    return [
        [
            f"{Decimal(price) / 1_000_000:.6f}".removesuffix("00"),
            f"{Decimal(book[price]) / 100:.2f}",
        ]
        for price in sorted(book, reverse=True)
        if book[price]
    ]


async def test_the_documented_replay_ends_with_the_book_of_that_instant(client, database):
    """The Python of docs/api.md, run as it stands there."""
    dice = random.Random(3)
    rows: list[Any] = [snapshot("10:00:00", 1, yes=YES, no=NO), watch("10:00:00")]
    for frame in range(2, 2_200):
        price = 10_000 * dice.randint(1, 30)
        rows.append(delta(f"10:00:{frame // 50:02}.{frame % 50 * 20:03}", frame, price=price))
    rows.append(delta("10:00:50", 3_000, "yes", 360_000, -12_000))
    told(database, *rows)
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    [code] = [block for block in page.split("```python\n")[1:] if block.startswith("def replay")]
    names: dict[str, Any] = {
        "Decimal": Decimal,
        "Iterator": Iterator,
        "datetime": datetime,
        "httpx": httpx,
        "timedelta": timedelta,
    }
    exec(code.partition("```")[0], names)
    loop = asyncio.get_running_loop()

    def answered(request: httpx.Request) -> httpx.Response:
        asked = client.post(request.url.path, json=json.loads(request.content))
        response = asyncio.run_coroutine_threadsafe(asked, loop).result(30)
        # The content is no longer compressed here, whatever the header says.
        status = {"X-Data-Status": response.headers["X-Data-Status"]}
        return httpx.Response(response.status_code, headers=status, json=response.json())

    def replayed() -> list[dict[str, dict[str, Decimal]]]:
        transport = httpx.MockTransport(answered)
        with httpx.Client(transport=transport, base_url="http://api") as plain:
            window = (at("10:00:10.02"), at("10:01:00"))
            return [sides for _, sides in names["replay"](plain, TICKER, *window)]

    steps = await asyncio.to_thread(replayed)
    book = await ask(client, "10:01:00")
    assert len(steps) > 1_000, "more than a page"
    for side in ("yes", "no"):
        assert steps[-1][side] == {price: Decimal(size) for price, size in book[f"{side}_bids"]}


# Where the book cannot be trusted ----------------------------------------------------------------


async def test_a_book_is_in_a_gap_where_nobody_watched_it(client, database):
    told(
        database,
        snapshot("10:00:00", 1, yes=YES),
        watch("10:00:00", "10:30:00", "sequence_jump"),
        delta("10:30:30", 5, "no", 600_000, 100),
        snapshot("10:31:00", 9, yes=YES),
        watch("10:31:00", "11:00:00", 'code 25: "too slow"'),
    )
    assert await gap_reason(client, "10:29:59.999") is None
    lost = "known until 2026-11-20T10:30:00.000000Z: sequence_jump"
    assert await gap_reason(client, "10:30:00") == lost
    assert await gap_reason(client, "10:30:59.999") == lost
    assert await gap_reason(client, "10:31:00") is None
    assert await gap_reason(client, "11:30:00") == (
        'known until 2026-11-20T11:00:00.000000Z: code 25: "too slow"'
    )
    book = await ask(client, "10:30:45")
    assert book["no_bids"] == [["0.6000", "1.00"]], "what came since is the best that is known"
    assert (book["as_of"], book["age_seconds"]) == ("2026-11-20T10:30:30.000000Z", 15)


async def test_a_watch_of_another_market_or_subscription_proves_nothing(client, database):
    told(
        database,
        snapshot("10:00:00", 1, yes=YES),
        watch("10:00:00", market="KXOTHER"),
        watch("10:00:00", sid=2),
        watch("10:00:00", connection=5),
    )
    assert await gap_reason(client, "10:00:01") == "not watched"


async def test_a_book_is_in_a_gap_once_nothing_at_all_is_received(client, database):
    told(database, snapshot("10:00:00", 1, yes=YES), watch("10:00:00"))
    assert await gap_reason(client, "12:00:10") is None
    silent = "nothing received since 2026-11-20T12:00:00.000000Z"
    assert await gap_reason(client, "12:00:10.001") == silent
    with connect(database) as connection:
        connection.execute("DELETE FROM ingestion_metrics")
    assert "not known when" in str(await gap_reason(client, "10:00:01"))


async def test_a_book_that_lacks_a_message_is_in_a_gap(client, database):
    told(
        database,
        snapshot("10:00:00", 1, yes={360_000: 100}, no={700_000: 100}),
        delta("10:00:01", 2, "yes", 360_000, -150),
        watch("10:00:00"),
    )
    assert await gap_reason(client, "10:00:00.5") is None
    assert "less than no contracts" in str(await gap_reason(client, "10:00:01"))
    assert (await ask(client, "10:00:01"))["yes_bids"] == []


async def test_a_crossed_book_has_a_negative_spread(client, database):
    told(database, snapshot("10:00:00", 1, yes={360_000: 100}, no={700_000: 100}))
    assert (await ask(client, "10:00:00"))["spread_dollars"] == "-0.0600"


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 1001}, "depth"),
        ({"depth": "10"}, "depth"),
        ({"depth": True}, "depth"),
        ({"depth": 2.5}, "depth"),
        ({"timestamp": "2026-11-20T10:00:00"}, "timestamp"),
        ({"timestamp": "2026-11-20"}, "timestamp"),
        ({"timestamp": "now"}, "timestamp"),
        ({"timestamp": 1_795_168_800_000}, "timestamp"),
        ({"timestamp": "2099-01-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"market_ticker": ""}, "market_ticker"),
        ({"market_ticker": "a\u0000b"}, "market_ticker"),
        ({"market_ticker": None}, "market_ticker"),
        ({"limit": 5}, "limit"),
        ({"start_time": "2026-11-20T10:00:00Z"}, "start_time"),
    ],
)
async def test_a_bad_field_is_named(asker, body, field):
    response = await asker.post("/orderbook", json={"market_ticker": TICKER} | body)
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_future_is_refused_with_the_remedy(asker):
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    response = await asker.post("/orderbook", json={"market_ticker": TICKER, "timestamp": soon})
    assert (response.status_code, response.json()["field"]) == (422, "timestamp")
    assert "leave it out" in response.json()["detail"]


async def test_an_unknown_market_is_404(asker):
    response = await asker.post("/orderbook", json={"market_ticker": "KXNOPE"})
    assert (response.status_code, response.json()["field"]) == (404, "market_ticker")
    assert response.json()["type"] == "urn:kalshi-platform:problem:unknown_market"


async def refusal(client: httpx.AsyncClient, when: str) -> dict[str, Any]:
    body = {"market_ticker": TICKER, "timestamp": stamp(when)}
    response = await client.post("/orderbook", json=body)
    assert response.status_code == 404, response.text
    problem: dict[str, Any] = response.json()
    assert problem["type"] == "urn:kalshi-platform:problem:book_not_recorded"
    return problem


async def test_a_book_that_is_not_held_says_why(client, database):
    with connect(database) as connection:
        name_market(connection, TICKER)
    never = await refusal(client, "10:00:00")
    assert never["field"] == "market_ticker"
    assert "never been recorded" in never["detail"]
    told(database, watch("2026-11-01T10:00:00", "2026-11-01T11:00:00"))
    dropped = await refusal(client, "10:00:00")
    assert dropped["field"] == "timestamp"
    assert "held no more" in dropped["detail"]
    told(database, snapshot("10:00:00", 1, yes=YES), watch("10:00:00"))
    early = await refusal(client, "09:59:59.999")
    assert early["field"] == "timestamp"
    assert early["held_since"] == "2026-11-20T10:00:00.000000Z"
    assert (await ask(client, "10:00:00"))["gap"] is False


async def test_sql_and_json_in_a_ticker_stay_text(client, database):
    tickers = ["'; DROP TABLE book_deltas; --", '","x":"', "%s %(depth)s", "\\", "$1"]
    for ticker in tickers:
        told(database, snapshot("10:00:00", 1, market=ticker), watch("10:00:00", market=ticker))
        assert (await ask(client, "10:00:00", market_ticker=ticker))["market_ticker"] == ticker
