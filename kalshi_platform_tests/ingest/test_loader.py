"""The loader: each line once, whatever happens between two commits."""

import random
import threading

import pytest

from kalshi_platform.ingest.loader import Loader
from kalshi_platform.ingest.tape import TapeWriter
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import LOADER, held
from kalshi_platform.storage.migrate import SchemaMismatch
from kalshi_platform_tests.ingest.builders import (
    event_line,
    lifecycle,
    line,
    subscribed,
    text_line,
    trade,
    trade_id,
)
from kalshi_platform_tests.waiting import until


def load(database, folder):
    """Load the tape to its end."""
    stop = threading.Event()
    stop.set()
    Loader(database, folder)
    loader = Loader(database, folder)
    with connect(database, autocommit=True) as connection:
        # The server may notice a little later that a killed loader's session has ended.
        until(lambda: not held(connection, LOADER))
        loader._follow(connection, stop)
    return loader


def write(folder, *blocks, segment_seconds=300):
    writer = TapeWriter(folder, segment_seconds)
    for block in blocks:
        writer.write(b"".join(block))
    writer.close()


def rows(database, query):
    with connect(database) as connection:
        return connection.execute(query).fetchall()


def test_trades_land_once_and_their_minutes_are_stale(database, tmp_path):
    write(tmp_path, [line(subscribed()), line(trade(1)), line(trade(2))], [line(trade(3))])
    load(database, tmp_path)
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM trades") == [(3,)]
    assert rows(database, "SELECT count(*) FROM raw_trades") == [(3,)]
    assert rows(database, "SELECT DISTINCT market_ticker FROM stale_candles") == [
        ("KXTEST-26OCT01-T1",)
    ]
    [(order, price, count)] = rows(
        database,
        f"SELECT feed_order, yes_price_micros, count_centis FROM trades"
        f" WHERE trade_id = '{trade_id(2)}'",
    )
    assert (order & 0xFFFFFFFF, price, count) == (2, 360_000, 150)


def test_a_repeated_frame_is_provenance_not_a_second_trade(database, tmp_path):
    write(tmp_path, [line(subscribed()), line(trade(1)), line(trade(1))])
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM trades") == [(1,)]
    assert rows(database, "SELECT count(*) FROM raw_trades") == [(2,)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"yes_price_dollars": "1.5000"}, "within"),
        ({"yes_price_dollars": "0.36.1"}, "decimal"),
        ({"trade_id": "not-a-uuid"}, "UUID"),
        ({"count_fp": 5}, "str"),
    ],
)
def test_a_bad_trade_is_kept_with_its_bytes_and_its_gap_while_the_rest_lands(
    database, tmp_path, changes, reason
):
    bad = trade(2, **changes)
    write(tmp_path, [line(subscribed()), line(trade(1)), line(bad), line(trade(3))])
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM trades") == [(2,)]
    [(said, message)] = rows(database, "SELECT reason, message FROM rejected_messages")
    assert reason in said
    import json

    assert json.loads(message) == bad
    assert rows(database, "SELECT channel, cause, status FROM gaps") == [
        ("trade", "rejected_message", "open")
    ]


def test_what_is_not_json_is_kept_and_missed_by_its_number(database, tmp_path):
    write(
        tmp_path,
        [line(subscribed()), line(trade(1)), text_line('{"type":"trade","si'), line(trade(3))],
    )
    load(database, tmp_path)
    [(message,)] = rows(database, "SELECT message FROM rejected_messages")
    assert message == b'{"type":"trade","si'
    assert rows(database, "SELECT cause, first_seq, last_seq FROM gaps") == [
        ("sequence_jump", 2, 2)
    ]


def test_an_unknown_type_is_rejected_and_disturbs_nothing(database, tmp_path):
    write(tmp_path, [line({"type": "novelty", "msg": {}}), line(subscribed()), line(trade(1))])
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM trades") == [(1,)]
    [(reason,)] = rows(database, "SELECT reason FROM rejected_messages")
    assert "novelty" in reason


def test_replies_use_up_numbers(database, tmp_path):
    ok = {"type": "ok", "id": 4, "sid": 1, "seq": 2, "msg": {"market_tickers": []}}
    error = {"type": "error", "sid": 1, "seq": 3, "msg": {"code": 13, "msg": "Unsupported"}}
    write(
        tmp_path,
        [line(subscribed()), line(trade(1)), line(ok), line(error), line(trade(4))],
    )
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM gaps") == [(0,)]


def test_a_reconnect_opens_a_gap_for_trades_and_explains_the_rest(database, tmp_path):
    write(
        tmp_path,
        [line(subscribed()), line(subscribed("ticker", 2)), line(trade(1))],
        [event_line("close", cause="connection lost")],
        [
            line(subscribed(), connection=1_790_000_100, at_ms=100_000),
            line(subscribed("ticker", 2), connection=1_790_000_100, at_ms=100_000),
        ],
    )
    load(database, tmp_path)
    assert rows(database, "SELECT channel, status, cause FROM gaps ORDER BY channel") == [
        ("ticker", "explained", "disconnect: connection lost"),
        ("trade", "open", "disconnect: connection lost"),
    ]


def test_a_lifecycle_text_that_no_database_can_hold_is_rejected_alone(database, tmp_path):
    write(
        tmp_path,
        [
            line(subscribed("market_lifecycle_v2", 3)),
            line(lifecycle(1)),
            line(lifecycle(2, title="zero \u0000 character")),
            line(lifecycle(3, title="half a pair \ud800")),
            line(lifecycle(4)),
            line(lifecycle(4)),
        ],
    )
    load(database, tmp_path)
    assert rows(database, "SELECT seq FROM lifecycle_events ORDER BY seq") == [(1,), (4,)]
    assert rows(database, "SELECT count(*) FROM rejected_messages") == [(2,)]


def test_a_loader_killed_at_any_batch_loses_and_repeats_nothing(database, tmp_path, monkeypatch):
    rng = random.Random(7)
    blocks = [[line(subscribed())]]
    blocks += [[line(trade(seq)) for seq in range(n, n + 10)] for n in range(1, 400, 10)]
    write(tmp_path, *blocks, segment_seconds=0)

    class Killed(Exception):
        pass

    original = Loader._save

    def dying(self, connection, checkpoint):
        if rng.random() < 0.3:
            raise Killed
        original(self, connection, checkpoint)

    monkeypatch.setattr(Loader, "_save", dying)
    monkeypatch.setattr("kalshi_platform.ingest.loader._BATCH_BYTES", 5000)
    deaths = 0
    while True:
        try:
            load(database, tmp_path)
            break
        except Killed:
            deaths += 1
    assert deaths > 3
    assert rows(database, "SELECT count(*), count(DISTINCT trade_id) FROM raw_trades") == [
        (400, 400)
    ]
    assert rows(database, "SELECT count(*) FROM gaps") == [(0,)]
    [(messages,)] = rows(
        database, "SELECT value FROM ingestion_metrics WHERE name = 'messages_total'"
    )
    assert messages == 400


def test_a_loader_refuses_a_database_without_our_schema(empty_database, tmp_path):
    with pytest.raises(SchemaMismatch, match="kalshi-platform migrate"):
        Loader(empty_database, tmp_path).run(threading.Event())


def test_two_loaders_never_load_at_once(database, tmp_path):
    write(tmp_path, [line(subscribed()), line(trade(1))])
    with connect(database, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOADER])
        stop = threading.Event()
        loader = threading.Thread(target=Loader(database, tmp_path).run, args=[stop])
        loader.start()
        loader.join(0.7)
        assert rows(database, "SELECT count(*) FROM trades") == [(0,)]
    stop.set()
    loader.join()
