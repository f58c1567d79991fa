"""A recording is replayed: its time is not ours, and many of its frames tell none."""

import json

from kalshi_platform_tests.ingest.book_lines import (
    CONNECTION,
    MARKET,
    book_at,
    delta,
    ms,
    snapshot,
    subscribe_line,
    watches,
)
from kalshi_platform_tests.ingest.builders import event_line, line, subscribed
from kalshi_platform_tests.ingest.test_loader import load, rows, write

HALF_A_YEAR_MS = 180 * 86_400_000
YES = [["0.3000", "5.00"]]


def replayed(*frames, connection=CONNECTION, at_ms=0):
    """Lines of frames that do not say when they were sent, received half a year later."""
    for frame in frames:
        frame.pop("sending_ts_ms", None)
    return [line(frame, connection, at_ms + HALF_A_YEAR_MS) for frame in frames]


def begun(connection=CONNECTION, at_ms=0):
    return [
        event_line("open", connection),
        *replayed(subscribed("orderbook_delta", 2), connection=connection, at_ms=at_ms),
    ]


def test_a_snapshot_that_tells_no_time_has_that_of_the_next_message(database, tmp_path):
    write(
        tmp_path,
        begun(),
        replayed(snapshot(1, yes=YES)),
        replayed(delta(2, at_ms=500), at_ms=100),
        # Twice as fast as it was recorded.
        replayed(delta(3, at_ms=700), snapshot(4, yes=[["0.3000", "7.00"]]), at_ms=200),
    )
    load(database, tmp_path)
    assert watches(database) == [(400, None, None)]
    assert book_at(database, 399) is None
    assert book_at(database, 450) == ({300_000: 500}, {})
    assert book_at(database, 699) == ({300_000: 600}, {})
    assert book_at(database, 700) == ({300_000: 700}, {})
    assert rows(database, "SELECT count(*) FROM gaps") == [(0,)]


def test_a_reconnect_within_a_recording_is_a_gap_of_its_time(database, tmp_path):
    later = CONNECTION + HALF_A_YEAR_MS // 1000
    write(
        tmp_path,
        begun(),
        replayed(snapshot(1, yes=YES), delta(2, at_ms=500)),
        [event_line("close", cause="closed by the exchange: 1001")],
        begun(later, at_ms=600),
        [subscribe_line(later, use_yes_price=1)],
        replayed(snapshot(1, yes=YES), connection=later, at_ms=600),
        replayed(delta(2, at_ms=13_000), connection=later, at_ms=650),
    )
    load(database, tmp_path)
    assert watches(database) == [
        (500, 500, "disconnect: closed by the exchange: 1001"),
        (12_950, None, None),
    ]
    [(starts_at, ends_at)] = rows(database, "SELECT starts_at, ends_at FROM gaps")
    assert (ms(starts_at), ms(ends_at)) == (500, 12_950)
    # Asked for after that subscription had begun.
    assert rows(database, "SELECT DISTINCT use_yes_price FROM book_watches") == [(False,)]


def test_what_waits_is_loaded_once_by_a_loader_that_begins_anew(database, tmp_path):
    write(tmp_path, begun(), replayed(snapshot(1, yes=YES)))
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM book_snapshots") == [(0,)]
    write(tmp_path, replayed(delta(2, at_ms=500), at_ms=100))
    load(database, tmp_path)
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM book_snapshots") == [(1,)]
    assert watches(database) == [(400, None, None)]
    assert rows(database, "SELECT position -> 'feed' -> 'clock' -> 'waiting'"
                          " FROM ingestion_checkpoints") == [([],)]  # fmt: skip


def test_nothing_waits_for_a_time_that_is_never_told(database, tmp_path):
    frames = [snapshot(1, yes=YES), *(delta(seq, ts_ms=None) for seq in (2, 3))]
    write(tmp_path, begun(), replayed(*frames[:2]), replayed(frames[2], at_ms=10_001))
    load(database, tmp_path)
    assert book_at(database, HALF_A_YEAR_MS + 10_001) == ({300_000: 700}, {})
    assert watches(database) == [(HALF_A_YEAR_MS, None, None)]


def test_the_end_of_a_connection_ends_the_waiting(database, tmp_path):
    write(tmp_path, begun(), replayed(snapshot(1, yes=YES)), [event_line("close", cause="lost")])
    load(database, tmp_path)
    assert watches(database) == [(HALF_A_YEAR_MS, HALF_A_YEAR_MS, "disconnect: lost")]


def test_a_waiting_line_may_hold_whatever_bytes(database, tmp_path):
    odd = snapshot(1, yes=YES)
    odd["msg"]["market_id"] = "a\0\ud800"
    bad = replayed(snapshot(2, yes=YES))[0].replace(b"00000000-", b"\xff0000000-")
    write(tmp_path, begun(), replayed(odd))
    load(database, tmp_path)
    write(tmp_path, [bad], replayed(delta(3, at_ms=500)))
    load(database, tmp_path)
    kept = rows(database, "SELECT seq FROM book_snapshots ORDER BY seq")
    refused = rows(database, "SELECT reason FROM rejected_messages")
    assert len(kept) + len(refused) == 2
    assert rows(database, "SELECT count(*) FROM book_deltas") == [(1,)]


def test_frames_that_tell_the_time_wait_for_nothing(database, tmp_path):
    write(
        tmp_path,
        [line(subscribed("orderbook_delta", 2))],
        [line(snapshot(1, at_ms=5, yes=YES), at_ms=HALF_A_YEAR_MS)],
    )
    load(database, tmp_path)
    assert watches(database, MARKET) == [(5, None, None)]
    [(position,)] = rows(database, "SELECT position FROM ingestion_checkpoints")
    assert json.dumps(position).count("orderbook_snapshot") == 0
