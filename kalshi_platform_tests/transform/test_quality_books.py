"""Each check of order books passes on a right day and names what is wrong on another."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.transform import quality_books
from kalshi_platform_tests.transform.asking import ask
from kalshi_platform_tests.transform.book_rows import (
    CONNECTION,
    DAY,
    MARKET,
    Delta,
    Snapshot,
    land,
    second,
)

NOON = second(0)


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A watched book of DAY with an own snapshot, in a transaction that is rolled back."""
    with connect(shared_database) as opened:
        watch(opened, 1)
        land(
            opened,
            Snapshot(second(0), 1, yes={300_000: 500, 350_000: 100}, no={600_000: 700}),
            Delta(second(1), 2, "yes", 350_000, -100),
            Delta(second(2), 3, "no", 610_000, 40),
            Snapshot(second(2), 3, {300_000: 500}, {600_000: 700, 610_000: 40}, source="own"),
        )
        yield opened
        opened.rollback()


def watch(
    connection: psycopg.Connection[Any],
    frame: int,
    starts_at: datetime = NOON,
    ends_at: datetime | None = None,
    ended_by: str | None = None,
    market: str = MARKET,
) -> None:
    connection.execute(
        "INSERT INTO book_watches (market_ticker, starts_at, ends_at, start_order, connection, sid,"
        " use_yes_price, ended_by) VALUES (%s, %s, %s, %s, %s, 1, false, %s)",
        [market, starts_at, ends_at, CONNECTION << 32 | frame, CONNECTION, ended_by],
    )


@pytest.mark.parametrize("check", quality_books.CHECKS, ids=lambda check: check.name)
def test_a_right_day_and_an_empty_day_pass(connection, check):
    assert ask(connection, check.query)["passed"] is True
    assert ask(connection, check.query, DAY - timedelta(days=9))["passed"] is True


def test_a_snapshot_that_its_deltas_make_is_compared(connection):
    land(
        connection,
        Delta(second(3), 4, "yes", 300_000, 5),
        Snapshot(second(3), 5, {300_000: 505}, {600_000: 700, 610_000: 40}),
    )
    found = ask(connection, quality_books.books_equal_their_deltas)
    assert (found["passed"], found["snapshots_compared"], found["snapshots"]) == (True, 2, 3)


def test_a_delta_that_a_snapshot_overtook_is_part_of_it(connection):
    land(connection, Snapshot(second(3), 6, {300_000: 507}, {600_000: 700, 610_000: 40}))
    late = Delta(second(3), 7, "yes", 300_000, 7)
    land(connection, late, Snapshot(second(5), 9, {300_000: 507}, {600_000: 700, 610_000: 40}))
    connection.execute("UPDATE book_deltas SET seq = 5 WHERE feed_order = %s", [late.feed_order])
    found = ask(connection, quality_books.books_equal_their_deltas)
    assert (found["passed"], found["snapshots_compared"]) == (True, 3)


def test_a_snapshot_that_is_not_what_its_deltas_make_is_named_level_by_level(connection):
    land(
        connection,
        Delta(second(3), 4, "yes", 300_000, 5),
        Snapshot(second(4), 5, {300_000: 500}, {600_000: 700, 620_000: 40}),
    )
    found = ask(connection, quality_books.books_equal_their_deltas)
    assert (found["passed"], found["snapshots_that_differ"]) == (False, 1)
    assert [
        (e["side"], e["price_micros"], e["snapshot_centis"], e["rebuilt_centis"])
        for e in found["examples"]
    ] == [("no", 610_000, 0, 40), ("no", 620_000, 40, 0), ("yes", 300_000, 500, 505)]


def test_a_level_below_zero_on_the_way_is_wrong_though_it_rises_again(connection):
    land(
        connection,
        Delta(second(3), 4, "yes", 300_000, -501),
        Delta(second(3), 5, "yes", 300_000, 501),
        Snapshot(second(4), 6, {300_000: 500}, {600_000: 700, 610_000: 40}),
    )
    found = ask(connection, quality_books.books_equal_their_deltas)
    assert (found["passed"], found["levels_below_zero"]) == (False, 1)
    assert (found["snapshots_that_differ"], found["examples"][0]["lowest_centis"]) == (0, -1)


def test_a_snapshot_that_begins_a_watch_is_not_held_to_what_was_before(connection):
    watch(connection, 5, second(4))
    land(connection, Snapshot(second(4), 5, {1_000: 1}))
    land(connection, Snapshot(second(6), 1, {2_000: 2}, connection=CONNECTION + 7))
    found = ask(connection, quality_books.books_equal_their_deltas)
    assert (found["passed"], found["snapshots_compared"], found["snapshots"]) == (True, 1, 4)


def test_a_book_whose_bid_meets_its_ask_as_its_watch_ends_is_named(connection):
    watch(connection, 9, second(0), second(5), "disconnect: 1006", "KXOTHER")
    land(
        connection,
        Snapshot(second(0), 9, {300_000: 1}, {690_000: 1}, market="KXOTHER"),
        Delta(second(5), 10, "yes", 310_000, 4, market="KXOTHER"),
    )
    # The last delta came when the watch had ended.
    assert ask(connection, quality_books.books_not_crossed)["passed"] is True
    land(connection, Delta(second(4), 11, "yes", 310_000, 4, market="KXOTHER"))
    found = ask(connection, quality_books.books_not_crossed)
    assert (found["passed"], found["books_crossed"], found["books_compared"]) == (False, 1, 2)
    assert found["examples"][0]["yes_bid_micros"] == found["examples"][0]["yes_ask_micros"]


def test_a_book_with_an_empty_side_is_not_crossed(connection):
    land(connection, Snapshot(second(5), 9, {990_000: 1}))
    assert ask(connection, quality_books.books_not_crossed)["passed"] is True


@pytest.mark.parametrize(
    ("ends_at", "ended_by", "question"),
    [
        (second(9), None, "ended without a cause"),
        (second(9), "", "ended without a cause"),
        (second(-9), "disconnect", "ends before it starts"),
        (None, "disconnect", "goes on, and has a cause of its end"),
    ],
)
def test_a_watch_that_raises_a_question_is_named(connection, ends_at, ended_by, question):
    watch(connection, 2, second(5), ends_at, ended_by, market="KXOTHER")
    found = ask(connection, quality_books.watches_explained)
    assert (found["passed"], found["watches_in_question"]) == (False, 1)
    [example] = found["examples"]
    assert (example["market_ticker"], example["question"]) == ("KXOTHER", question)


def test_two_watches_of_one_book_at_a_time_are_named(connection):
    watch(connection, 2, second(5))
    found = ask(connection, quality_books.watches_explained)
    assert [e["question"] for e in found["examples"]] == ["began while another went on"]


def test_watches_that_follow_each_other_are_in_order(connection):
    watch(connection, 2, second(5), second(6), "sequence_jump", "KXOTHER")
    watch(connection, 3, second(6), None, None, "KXOTHER")
    found = ask(connection, quality_books.watches_explained)
    assert (found["passed"], found["watches"], found["watches_going_on"]) == (True, 3, 2)
    assert found["ended_by_sequence_jump"] == 1
