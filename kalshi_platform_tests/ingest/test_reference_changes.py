"""The watermark: it never passes the exchange's clock, and never stands still for want of news."""

import json
import threading
from datetime import UTC, datetime, timedelta

from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_changes import OVERLAP, SLICE, Changes, save_watermark
from kalshi_platform.ingest.reference_pages import Pages
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.exchange.scripted import Answer, ScriptedServer, scripted
from kalshi_platform_tests.ingest.reference_truth import position
from kalshi_platform_tests.ingest.test_reference_queue import listed, market

SINCE = datetime(2026, 10, 1, 12, tzinfo=UTC)
NOTHING_ELSE = [listed("events"), listed("series")]


def traded(at: datetime) -> Answer:
    trade = {
        "trade_id": "00000000-0000-4000-8000-000000000001",
        "ticker": "KXTEST-1",
        "count_fp": "1.00",
        "yes_price_dollars": "0.4000",
        "no_price_dollars": "0.6000",
        "taker_outcome_side": "yes",
        "taker_book_side": "bid",
        "created_time": at.isoformat(),
        "is_block_trade": False,
    }
    return Answer(body=json.dumps({"trades": [trade], "cursor": ""}).encode())


def changed(*times: datetime) -> Answer:
    return listed(
        "markets",
        *(market(f"KX{n}", updated_time=at.isoformat()) for n, at in enumerate(times)),
    )


def take(database: str, server: ScriptedServer, is_over: bool = False) -> bool:
    with connect(database) as connection:
        rest = RestClient(server.url, None, LocalBudget(10_000))
        return Changes(Pages(connection), rest, threading.Event(), lambda: is_over).take()


def begin_at(database: str, at: datetime) -> None:
    with connect(database) as connection:
        for kind in ("markets", "events", "series"):
            save_watermark(connection, kind, at)


def reached(database: str, kind: str = "markets") -> datetime:
    saved = position(database, f"watermark:{kind}")
    assert saved is not None
    return datetime.fromisoformat(saved["at"])


def windows(server: ScriptedServer) -> list[tuple[int, int | None]]:
    asked = [one.query for one in server.asked if "min_updated_ts" in one.query]
    ends = [query.get("max_updated_ts") for query in asked]
    return [
        (int(query["min_updated_ts"]), None if end is None else int(end))
        for query, end in zip(asked, ends, strict=True)
    ]


def test_a_change_that_the_exchanges_clock_has_not_reached_moves_no_watermark(database):
    begin_at(database, SINCE)
    now = SINCE + timedelta(minutes=1)
    ahead = SINCE + timedelta(days=90)
    answers = [traded(now), changed(now, ahead), traded(now), *NOTHING_ELSE]
    with scripted(*answers) as server:
        assert take(database, server)
    assert reached(database) == reached(database, "events") == reached(database, "series") == now


def test_an_outage_is_made_up_for_in_slices_up_to_the_exchanges_present(database):
    begin_at(database, SINCE)
    now = SINCE + 2 * SLICE
    answers = [
        *(traded(now), changed(SINCE)),
        *(traded(now), changed()),
        *(traded(now), changed(now)),
        *NOTHING_ELSE,
    ]
    with scripted(*answers) as server:
        assert take(database, server)
    first = SINCE - OVERLAP
    times = [int((first + n * SLICE).timestamp()) for n in range(3)]
    assert windows(server)[:3] == [(times[0], times[1]), (times[1], times[2]), (times[2], None)]
    assert reached(database) == now


def test_a_slice_in_which_nothing_changed_is_not_asked_for_again(database):
    begin_at(database, SINCE)
    now = SINCE + 10 * SLICE
    with scripted(traded(now), changed()) as server:
        assert not take(database, server, is_over=True)
    assert reached(database) == SINCE - OVERLAP + SLICE


def test_an_exchange_whose_clock_is_far_behind_ours_is_asked_once(database):
    then = SINCE - timedelta(days=3_000)
    begin_at(database, then)
    with scripted(traded(then), changed(then), *NOTHING_ELSE) as server:
        assert take(database, server)
    assert windows(server)[0][1] is None
    assert reached(database) == then
