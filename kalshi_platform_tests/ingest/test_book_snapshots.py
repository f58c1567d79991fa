"""Own snapshots: taken of what is known, at the last delta, and of nothing below zero."""

import threading

from kalshi_platform.ingest.book_snapshots import BookSnapshots, keep_snapshots
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.ingest.book_lines import (
    MARKET,
    OTHER,
    book_at,
    delta,
    lines,
    ms,
    opening,
    snapshot,
    watches,
)
from kalshi_platform_tests.ingest.test_loader import load, rows, write
from kalshi_platform_tests.waiting import until

YES = [["0.3000", "5.00"]]


def due(database, most_deltas=3, longest_seconds=1e9):
    snapshots = BookSnapshots(database, most_deltas=most_deltas, longest_seconds=longest_seconds)
    with connect(database) as connection:
        first = snapshots.due(connection)
        # What was counted before is remembered, and nothing is counted twice.
        assert snapshots.due(connection) == first
    return first


def take(database, most_deltas=3):
    snapshots = BookSnapshots(database, most_deltas=most_deltas, longest_seconds=1e9)
    return snapshots.take_due(threading.Event())


def own(database):
    return rows(
        database,
        "SELECT market_ticker, at, feed_order & 65535, seq, sid, yes_micros, yes_centis,"
        " no_micros, no_centis FROM book_snapshots WHERE source = 'own' ORDER BY at",
    )


def test_a_book_is_due_after_many_deltas_and_taken_at_the_last(database, tmp_path):
    write(
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), snapshot(2, market=OTHER), delta(3, at_ms=10)),
        # One came late: the latest time and the last place in the feed are not of one message.
        lines(delta(4, at_ms=30), delta(5, at_ms=20, price_dollars="0.2900")),
        lines(delta(6, at_ms=40, market=OTHER)),
    )
    load(database, tmp_path)
    assert due(database) == [MARKET]
    assert due(database, most_deltas=4) == []
    assert take(database) == 1
    [(market, at, frame, seq, sid, *sides)] = own(database)
    assert (market, ms(at), frame, seq, sid) == (MARKET, 30, 6, 1, 2)
    assert sides == [[290_000, 300_000], [100, 700], [], []]
    assert due(database, most_deltas=1) == [OTHER]
    assert take(database) == 0


def test_a_book_is_the_same_before_and_after(database, tmp_path):
    write(
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), *(delta(seq, at_ms=seq * 10) for seq in range(2, 9))),
    )
    load(database, tmp_path)
    moments = range(-5, 100, 5)
    before = [book_at(database, at_ms) for at_ms in moments]
    assert take(database) == 1
    write(tmp_path, lines(delta(9, at_ms=75), delta(10, at_ms=95)))
    load(database, tmp_path)
    after = [book_at(database, at_ms) for at_ms in moments]
    assert after[:16] == before[:16]
    assert [book[0][300_000] for book in after[16:]] == [1200, 1300, 1300, 1300, 1400]


def test_an_old_book_is_due_with_its_first_delta(database, tmp_path):
    # What these lines tell is of another day: long ago, whatever the clock says.
    write(tmp_path, opening(), lines(snapshot(1, yes=YES), snapshot(2, market=OTHER)))
    load(database, tmp_path)
    assert due(database, most_deltas=9, longest_seconds=-1e9) == []
    write(tmp_path, lines(delta(3, at_ms=10)))
    load(database, tmp_path)
    assert due(database, most_deltas=9, longest_seconds=-1e9) == [MARKET]
    assert due(database, most_deltas=9, longest_seconds=1e9) == []


def test_deltas_are_counted_on_from_where_they_were_counted(database, tmp_path):
    snapshots = BookSnapshots(database, most_deltas=4, longest_seconds=1e9)
    write(tmp_path, opening(), lines(snapshot(1, yes=YES), delta(2, at_ms=10), delta(3, at_ms=20)))
    load(database, tmp_path)
    with connect(database, autocommit=True) as connection:
        assert snapshots.due(connection) == []
        write(tmp_path, lines(delta(4, at_ms=30), delta(5, at_ms=40)))
        load(database, tmp_path)
        assert snapshots.due(connection) == [MARKET]
        assert snapshots.take_due(threading.Event()) == 1
        assert snapshots.due(connection) == []
        write(tmp_path, lines(*(delta(seq, at_ms=seq * 10) for seq in range(6, 10))))
        load(database, tmp_path)
        assert snapshots.due(connection) == [MARKET]


def test_a_book_is_taken_on_from_the_snapshot_that_was_told_last(database, tmp_path):
    # The delta's clock is ahead of those of the frames.
    ahead = delta(2, at_ms=10) | {"msg": delta(2, at_ms=300)["msg"]}
    write(tmp_path, opening(), lines(snapshot(1, yes=YES), ahead))
    load(database, tmp_path)
    assert take(database, most_deltas=1) == 1
    write(tmp_path, lines(delta(4, at_ms=120, market=OTHER), snapshot(5, at_ms=150)))
    write(tmp_path, lines(delta(6, at_ms=200)))
    load(database, tmp_path)
    assert watches(database) == [(0, 10, "sequence_jump"), (150, None, None)]
    assert due(database, most_deltas=1) == [MARKET]
    assert take(database, most_deltas=1) == 1
    assert book_at(database, 1_000) == ({300_000: 100}, {})


def test_the_age_of_a_snapshot_is_by_the_clock_that_it_came_by(database, tmp_path):
    # A recording is replayed: all that it tells of is long ago, and has come just now.
    write(tmp_path, opening(), lines(snapshot(1, yes=YES), delta(2, at_ms=10)))
    load(database, tmp_path)
    assert due(database, most_deltas=9, longest_seconds=900) == [MARKET]
    with connect(database) as connection:
        connection.execute("UPDATE book_snapshots SET received_at = now()")
    assert due(database, most_deltas=9, longest_seconds=900) == []


def test_nothing_is_taken_of_a_book_that_is_not_known(database, tmp_path):
    write(
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), *(delta(seq, at_ms=seq) for seq in range(2, 6))),
        lines(delta(7, at_ms=7)),
    )
    load(database, tmp_path)
    assert watches(database) == [(0, 5, "sequence_jump")]
    assert take(database, most_deltas=1) == 0
    # Nor does what came before its new snapshot count.
    write(tmp_path, lines(snapshot(8, at_ms=8, yes=YES)))
    load(database, tmp_path)
    assert take(database, most_deltas=1) == 0


def test_a_level_below_zero_ends_the_watch_where_the_book_was_last_told_whole(database, tmp_path):
    write(
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), snapshot(2, market=OTHER, yes=YES), delta(3, at_ms=10)),
        lines(delta(4, at_ms=20, market=OTHER), snapshot(5, at_ms=30, yes=[["0.3000", "6.00"]])),
        lines(delta(6, at_ms=40, delta_fp="-6.01"), delta(7, at_ms=50, price_dollars="0.2000")),
    )
    load(database, tmp_path)
    assert take(database, most_deltas=1) == 1
    assert [row[0] for row in own(database)] == [OTHER]
    assert watches(database) == [(0, 30, "a level below zero")]
    assert watches(database, OTHER) == [(0, None, None)]
    [(channel, cause, status, market, starts_at, ends_at)] = rows(
        database, "SELECT channel, cause, status, market_ticker, starts_at, ends_at FROM gaps"
    )
    assert (channel, cause, status) == ("orderbook_delta", "a level below zero", "explained")
    assert (market, ms(starts_at), ms(ends_at)) == (MARKET, 30, 50)
    counted = (
        "SELECT name, value FROM ingestion_metrics WHERE name LIKE '%book%' OR name LIKE 'own%'"
    )
    assert dict(rows(database, counted)) == {"own_snapshots_total": 1, "books_below_zero_total": 1}
    assert take(database, most_deltas=1) == 0


def test_snapshots_are_kept_up_beside_the_loader(database, tmp_path, monkeypatch):
    monkeypatch.setattr("kalshi_platform.ingest.book_snapshots._LOOK_SECONDS", 0.05)
    stop = threading.Event()
    keeper = threading.Thread(target=keep_snapshots, args=(database, stop))
    keeper.start()
    try:
        many = [delta(seq, at_ms=seq) for seq in range(2, 2003)]
        write(tmp_path, opening(), lines(snapshot(1, yes=YES), *many))
        load(database, tmp_path)
        until(lambda: len(own(database)) == 1)
    finally:
        stop.set()
        keeper.join()
    assert book_at(database, 3000) == ({300_000: 500 + 100 * 2001}, {})


def test_a_failure_is_counted_and_tried_again(database, monkeypatch):
    module = "kalshi_platform.ingest.book_snapshots"
    monkeypatch.setattr(f"{module}._LOOK_SECONDS", 0.01)
    monkeypatch.setattr(f"{module}._AGAIN_SECONDS", 0.01)
    with connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE book_watches RENAME TO hidden")
        stop = threading.Event()
        keeper = threading.Thread(target=keep_snapshots, args=(database, stop))
        keeper.start()
        counted = "SELECT value FROM ingestion_metrics WHERE name = 'book_snapshot_failures_total'"
        try:
            until(lambda: rows(database, counted) > [(1,)])
        finally:
            stop.set()
            keeper.join()
