"""A book at an instant: its last snapshot, and the deltas since."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.transform.books import levels_at
from kalshi_platform_tests.transform.book_rows import (
    MARKET,
    Delta,
    Snapshot,
    book,
    books,
    land,
    second,
)


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that is rolled back."""
    with connect(shared_database) as opened:
        yield opened
        opened.rollback()


START = Snapshot(second(0), 1, yes={300_000: 500, 350_000: 100}, no={600_000: 700})


def test_a_book_is_its_snapshot_and_the_deltas_since(connection):
    land(
        connection,
        START,
        Delta(second(1), 2, "yes", 350_000, -100),
        Delta(second(2), 3, "no", 610_000, 40),
        Delta(second(3), 4, "yes", 300_000, 1),
    )
    assert book(connection, second(-1)) is None
    assert book(connection, second(0)) == ({300_000: 500, 350_000: 100}, {600_000: 700})
    assert book(connection, second(1)) == ({300_000: 500}, {600_000: 700})
    assert book(connection, second(2.5)) == ({300_000: 500}, {600_000: 700, 610_000: 40})
    assert book(connection, second(9)) == ({300_000: 501}, {600_000: 700, 610_000: 40})


def test_a_level_whose_contracts_are_gone_is_none_and_an_empty_book_is_one(connection):
    land(
        connection,
        Snapshot(second(0), 1, yes={300_000: 500}),
        Delta(second(1), 2, "yes", 300_000, -500),
    )
    [row] = books(connection, [(MARKET, second(1))]).values()
    assert (row.yes_micros, row.yes_centis, row.no_micros, row.no_centis) == ([], [], [], [])
    assert (row.deltas, row.lowest_centis) == (1, 0)
    land(connection, Snapshot(second(2), 3))
    [row] = books(connection, [(MARKET, second(2))]).values()
    assert (row.yes_micros, row.deltas, row.lowest_centis) == ([], 0, None)


def test_a_later_snapshot_takes_the_place_of_all_before(connection):
    land(
        connection,
        START,
        Delta(second(1), 2, "yes", 300_000, 50),
        Snapshot(second(2), 3, no={100_000: 1}),
        Delta(second(3), 4, "no", 100_000, 1),
    )
    assert book(connection, second(3)) == ({}, {100_000: 2})
    [row] = books(connection, [(MARKET, second(3))]).values()
    assert (row.base_at, row.base_order, row.base_source) == (
        second(2),
        START.connection << 32 | 3,
        "exchange",
    )
    assert (row.last_at, row.last_order & 0xFFFF, row.deltas) == (second(3), 4, 1)


def test_among_snapshots_of_one_instant_the_last_in_the_feed_counts(connection):
    land(connection, Snapshot(second(0), 2, yes={1: 2}), Snapshot(second(0), 1, yes={1: 1}))
    assert book(connection, second(0)) == ({1: 2}, {})


def test_the_snapshot_that_was_told_last_counts_though_another_bears_a_later_time(connection):
    # Our own bears the time of a delta, by another of the exchange's clocks than the next one's.
    land(
        connection,
        Snapshot(second(1), 5, yes={1: 1}, source="own", seq=1),
        Snapshot(second(0.4), 9, yes={1: 2}),
        Delta(second(0.5), 10, "yes", 1, 3),
    )
    assert book(connection, second(0.3)) is None
    assert book(connection, second(0.4)) == ({1: 2}, {})
    assert book(connection, second(2)) == ({1: 5}, {})


def test_so_does_the_first_one_of_a_new_connection(connection):
    land(
        connection,
        Snapshot(second(1), 5, yes={1: 1}, source="own", seq=1),
        Snapshot(second(0.4), 2, yes={1: 2}, connection=START.connection + 9),
    )
    assert book(connection, second(2)) == ({1: 2}, {})


def test_a_delta_that_follows_a_snapshot_counts_though_it_is_older(connection):
    # The snapshot was on its way for a while; the delta is the exchange's own time.
    land(connection, Delta(second(-1), 2, "yes", 300_000, 7), START)
    assert book(connection, second(0))[0][300_000] == 507


def test_a_delta_that_the_snapshot_holds_already_does_not_count_again(connection):
    land(connection, Snapshot(second(0), 5, yes={1: 7}), Delta(second(1), 4, "yes", 1, 7))
    assert book(connection, second(2)) == ({1: 7}, {})


def test_what_another_subscription_told_is_no_part_of_the_book(connection):
    land(
        connection,
        START,
        Delta(second(1), 2, "yes", 300_000, 1, sid=2),
        Delta(second(1), 2, "yes", 300_000, 2, connection=START.connection + 9),
        Delta(second(1), 2, "yes", 300_000, 4, market="KXOTHER-1"),
    )
    assert book(connection, second(2)) == (START.yes, START.no)


def test_many_moments_are_answered_at_once(connection):
    other = "KXOTHER-1"
    land(
        connection,
        START,
        Delta(second(1), 2, "yes", 300_000, 1),
        Snapshot(second(0), 3, yes={9: 9}, market=other),
    )
    moments = [(MARKET, second(0)), (MARKET, second(1)), (other, second(1)), ("KXNONE", second(1))]
    found = books(connection, moments)
    assert set(found) == set(moments[:3])
    assert [row.yes_centis[0] for row in found.values()] == [500, 501, 9]


def test_levels_are_the_same_book_row_by_row(connection):
    land(connection, START, Delta(second(1), 2, "no", 600_000, -700))
    rows = connection.execute(
        f"SELECT side, price_micros, size_centis FROM ({levels_at()}) AS l ORDER BY 1, 2".encode(),
        {"market_tickers": [MARKET], "instants": [second(1)]},
    ).fetchall()
    assert rows == [("yes", 300_000, 500), ("yes", 350_000, 100)]


def test_a_size_below_zero_is_told_and_not_listed(connection):
    land(connection, START, Delta(second(1), 2, "yes", 300_000, -501))
    [row] = books(connection, [(MARKET, second(1))]).values()
    assert row.lowest_centis == -1
    assert row.yes_micros == [350_000]


def test_a_delta_that_its_snapshot_overtook_does_not_count_again(connection):
    late = Delta(second(1), 9, "yes", 300_000, 7, seq=4)
    land(connection, Snapshot(second(0), 5, yes={300_000: 7}, seq=5), late)
    assert book(connection, second(2)) == ({300_000: 7}, {})
