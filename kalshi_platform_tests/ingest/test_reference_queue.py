"""The queue and its pages: one bad name or object never keeps the others waiting."""

import json
import random
import string
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kalshi_platform.exchange.answers import Page
from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.reference import MarketFacts, read_market
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.reference_pages import Pages, names_in
from kalshi_platform.ingest.reference_queue import Queue, batches
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.events import name_events
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform.storage.writes.reference import postpone_reads
from kalshi_platform_tests.exchange.scripted import Answer, ScriptedServer, scripted
from kalshi_platform_tests.ingest.reference_truth import row_of, rows_of

REFUSED = Answer(400, b'{"error":{"code":"bad_request","message":"bad request"}}')
NOT_FOUND = Answer(404, b'{"error":{"code":"not_found","message":"not found"}}')


def market(ticker: str, **changes: object) -> dict[str, Any]:
    return {
        "ticker": ticker,
        "event_ticker": "KXTEST-1",
        "market_type": "binary",
        "title": "Will it?",
        "yes_sub_title": "Yes",
        "no_sub_title": "No",
        "created_time": "2026-10-01T00:00:00Z",
        "updated_time": "2026-10-02T00:00:00Z",
        "open_time": "2026-10-01T00:00:00Z",
        "close_time": "2026-12-01T00:00:00Z",
        "settlement_timer_seconds": 60,
        "status": "active",
        "result": "",
        "can_close_early": True,
        "yes_bid_dollars": "0.3000",
        "yes_ask_dollars": "0.3200",
        "last_price_dollars": "0.3100",
        "volume_fp": "10.00",
        "open_interest_fp": "5.00",
        "price_level_structure": "linear_cent",
        "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
        **changes,
    }


def event(ticker: str) -> dict[str, Any]:
    return {
        "event_ticker": ticker,
        "series_ticker": "",
        "title": "What?",
        "sub_title": "",
        "mutually_exclusive": False,
        "collateral_return_type": "",
    }


def listed(envelope: str, *objects: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps({envelope: objects, "cursor": ""}).encode())


def facts(ticker: str) -> MarketFacts:
    return read_market(json.dumps(market(ticker)).encode())


def page(*items: MarketFacts, rejected: tuple[tuple[bytes, str], ...] = ()) -> Page[MarketFacts]:
    return Page(list(items), list(rejected), None, datetime.now(UTC))


def asked(server: ScriptedServer) -> list[tuple[str, str | None]]:
    path = "/trade-api/v2"
    return [(one.path.removeprefix(path), one.query.get("tickers")) for one in server.asked]


def test_a_name_that_is_refused_does_not_keep_the_others_waiting(database):
    answers = [
        REFUSED,
        REFUSED,
        listed("markets", market("KXB")),
    ]
    with scripted(*answers) as server, connect(database) as connection:
        name_markets(connection, ["KXA", "KXB"])
        connection.commit()
        Queue(
            Pages(connection),
            RestClient(server.url, None, LocalBudget(10_000)),
            threading.Event(),
        ).take_markets()
    assert asked(server) == [
        ("/markets", "KXA,KXB"),
        ("/markets", "KXA"),
        ("/markets", "KXB"),
    ]
    refused = row_of(database, "markets", "KXA")
    assert refused["read_attempts"] == 1
    assert refused["not_found_at"] is None
    assert row_of(database, "markets", "KXB")["title"] == "Will it?"


def test_what_the_live_tier_has_not_is_looked_for_in_the_archive(database):
    answers = [listed("markets", market("KXA")), listed("markets", market("KXB"))]
    with scripted(*answers) as server, connect(database) as connection:
        name_markets(connection, ["KXA", "KXB", "KXC"])
        connection.commit()
        pages = Pages(connection)
        Queue(
            pages, RestClient(server.url, None, LocalBudget(10_000)), threading.Event()
        ).take_markets()
    assert asked(server) == [("/markets", "KXA,KXB,KXC"), ("/historical/markets", "KXB,KXC")]
    sources = {row["market_ticker"]: row["metadata_source"] for row in rows_of(database, "markets")}
    assert sources == {"KXA": "rest", "KXB": "historical", "KXC": None}
    assert row_of(database, "markets", "KXC")["not_found_at"] is not None
    assert pages.tally.missing == 1


def test_an_unreadable_market_is_kept_with_its_bytes_and_is_not_called_missing(database):
    broken = market("KXA", yes_bid_dollars="one")
    with (
        scripted(listed("markets", broken, market("KXB"))) as server,
        connect(database) as connection,
    ):
        name_markets(connection, ["KXA", "KXB"])
        connection.commit()
        pages = Pages(connection)
        queue = Queue(pages, RestClient(server.url, None, LocalBudget(10_000)), threading.Event())
        queue.take_markets()
    row = row_of(database, "markets", "KXA")
    assert (row["not_found_at"], row["read_attempts"], row["metadata"]) == (None, 1, None)
    [rejected] = rows_of(database, "rejected_messages")
    assert json.loads(bytes(rejected["message"])) == broken
    assert rejected["reason"].startswith("markets: ")
    assert "one" in rejected["reason"]
    assert pages.tally.rejected == 1
    assert row_of(database, "markets", "KXB")["metadata"] is not None


def test_events_of_combos_and_those_the_list_leaves_out_are_asked_for_one_by_one(database):
    answers = [
        listed("events", event("KXA-1")),
        Answer(body=json.dumps({"event": event("KXB-1"), "markets": []}).encode()),
        NOT_FOUND,
    ]
    with scripted(*answers) as server, connect(database) as connection:
        name_events(connection, ["KXMVEX-1", "KXA-1", "KXB-1"])
        connection.commit()
        Queue(
            Pages(connection), RestClient(server.url, None, LocalBudget(10_000)), threading.Event()
        ).take_events()
    assert asked(server) == [
        ("/events", "KXA-1,KXB-1"),
        ("/events/KXB-1", None),
        ("/events/KXMVEX-1", None),
    ]
    found = {row["event_ticker"]: row["title"] for row in rows_of(database, "events")}
    assert found == {"KXA-1": "What?", "KXB-1": "What?", "KXMVEX-1": None}
    assert row_of(database, "events", "KXMVEX-1")["not_found_at"] is not None


def test_what_the_database_cannot_hold_is_not_asked_for_without_end(database):
    letters = random.Random(1)
    # No index takes so long a word, and none that cannot be compressed.
    word = "".join(letters.choices(string.ascii_letters + string.digits, k=9_000))
    bad = {**event("KXA-1"), "category": word}
    with scripted(listed("events", bad)) as server, connect(database) as connection:
        name_events(connection, ["KXA-1"])
        connection.commit()
        queue = Queue(
            Pages(connection), RestClient(server.url, None, LocalBudget(10_000)), threading.Event()
        )
        queue.take_events()
        queue.take_events()
    assert len(server.asked) == 1
    row = row_of(database, "events", "KXA-1")
    assert (row["read_attempts"], row["metadata"], row["not_found_at"]) == (1, None, None)
    [rejected] = rows_of(database, "rejected_messages")
    assert "the database cannot hold it" in rejected["reason"]


def test_what_moved_on_while_it_was_asked_for_stays_in_its_place(database):
    with connect(database) as connection:
        name_markets(connection, ["KXA"])
        connection.execute("UPDATE markets SET next_read_at = now() + interval '5 s'")
        postpone_reads(connection, "markets", {"KXA"})
    row = row_of(database, "markets", "KXA")
    assert row["read_attempts"] == 0


def test_outcomes_need_not_wait_for_the_events_of_many_combos(database):
    combos = [f"KXMVE{number:03}" for number in range(150)]
    answers = [listed("events", event("KXA-1")), *[NOT_FOUND] * 60]
    with scripted(*answers) as server, connect(database) as connection:
        name_events(connection, [*combos, "KXA-1"])
        connection.commit()
        queue = Queue(
            Pages(connection), RestClient(server.url, None, LocalBudget(10_000)), threading.Event()
        )
        assert queue.take_events(), "there is more"
    assert [path for path, _ in asked(server)] == [
        "/events",
        *(f"/events/{combo}" for combo in combos[:60]),
    ]


def test_a_turn_ends_when_its_time_is_over_and_when_asked_to_stop(database):
    stop = threading.Event()
    with scripted() as server, connect(database) as connection:
        name_markets(connection, ["KXA"])
        connection.commit()
        rest = RestClient(server.url, None, LocalBudget(10_000))
        Queue(Pages(connection), rest, stop, is_over=lambda: True).take_markets()
        stop.set()
        with pytest.raises(Interrupted):
            Queue(Pages(connection), rest, stop).take_markets()
    assert server.asked == []


def test_an_object_that_the_database_cannot_hold_does_not_spoil_its_page(database):
    good = [facts(f"KX{number}") for number in range(9)]
    bad = msgspec.structs.replace(facts("KXBAD"), volume_centis=1 << 70)
    with connect(database) as connection:
        pages = Pages(connection)
        changes = pages.land_markets(page(*good[:4], bad, *good[4:]))
    assert changes == (9, 0, 0)
    assert {row["market_ticker"] for row in rows_of(database, "markets")} == {
        one.market_ticker for one in good
    }
    [rejected] = rows_of(database, "rejected_messages")
    assert b"KXBAD" in bytes(rejected["message"])
    assert "the database cannot hold it" in rejected["reason"]


def test_what_is_written_with_a_page_stands_or_falls_with_it(database):
    class Broken(Exception):
        pass

    def fail(_: object) -> None:
        raise Broken

    with connect(database) as connection:
        pages = Pages(connection)
        with pytest.raises(Broken):
            pages.land_markets(page(facts("KXA")), also=fail)
    assert rows_of(database, "markets") == []


def test_names_are_asked_for_a_hundred_at_a_time_and_never_in_too_long_an_address():
    names = [f"KX{number:03}" for number in range(250)]
    assert [len(batch) for batch in batches(names)] == [100, 100, 50]
    assert [name for batch in batches(names) for name in batch] == names
    long = [f"KXMVE{number:03}" + "X" * 192 for number in range(70)]
    sizes = [len("%2C".join(batch)) for batch in batches(long)]
    assert max(sizes) <= 6000
    assert [name for batch in batches(long) for name in batch] == long
    assert list(batches([])) == []


@pytest.mark.parametrize("raw", [b"{}", b"[]", b"nothing", b'{"ticker": 3}', b'{"ticker": null}'])
def test_an_object_without_a_name_has_none(raw):
    assert names_in([(raw, ""), (b'{"ticker": "KXA"}', "")], "ticker") == {"KXA"}
