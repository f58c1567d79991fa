"""Minutes of quotes at high speed, with losses: bid, ask and open interest are the exchange's."""

import time
from datetime import datetime

from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.transform.candles import Interval
from kalshi_platform_tests.drill.quotes_verdict import candles_against_exchange
from kalshi_platform_tests.ingest.truth import client
from kalshi_platform_tests.journeys.recording import recording
from kalshi_platform_tests.waiting import until as wait_until
from kalshi_simulator.testing import running_simulator

SPEED = 60
RECORDED_SECONDS = 12


def test_every_bucket_has_the_exchanges_bid_ask_and_open_interest(database, tmp_path):
    with running_simulator(
        seed=29,
        speed=SPEED,
        begin_hours_ago=3,
        trades_per_second=0.5,
        history_days=0,
        read_tokens_per_second=100_000,
    ) as simulator:
        with recording(database, tmp_path / "tape", simulator, silence_seconds=5) as alive:
            wait_until(lambda: quotes(database) > 0, seconds=30)
            began = datetime.fromisoformat(simulator.stats()["now"])
            for fault in (
                {"kind": "malformed", "channel": "ticker", "count": 2},
                {"kind": "code25", "channel": "ticker"},
                {"kind": "drop_connection"},
            ):
                time.sleep(RECORDED_SECONDS / 4)
                # Candles are refreshed in between, so that late quotes come after them.
                with connect(database) as connection:
                    refresh_candles(connection)
                simulator.fault(**fault)
            time.sleep(RECORDED_SECONDS / 4)
            ended = datetime.fromisoformat(simulator.hold())
            wait_until(lambda: newest(database) == newest(database, seconds=1), seconds=30)
            assert alive()
        rest = client(simulator, tokens_per_second=40_000)
        for day in sorted({began.date(), ended.date()}):
            sweep_day(database, rest, day, now=lambda: ended)
        with connect(database) as connection:
            refresh_candles(connection)
            refreshed = all_rows(connection)
            for day in sorted({began.date(), ended.date()}):
                rebuild_day(connection, day)
            assert all_rows(connection) == refreshed
        [minutes, *_] = candles_against_exchange(database, simulator, began, ended)
        assert minutes.wrong == []
        assert minutes.buckets > 500
        # What was lost may have changed no value of any bucket, but it is known.
        assert minutes.flagged < minutes.buckets / 2
        with connect(database) as connection:
            gaps = connection.execute("SELECT count(*) FROM candles_1m WHERE quote_gap").fetchone()
        assert gaps is not None and gaps[0] > 0


def quotes(database):
    with connect(database) as connection:
        return connection.execute("SELECT count(*) FROM quotes").fetchone()[0]


def newest(database, seconds=0):
    time.sleep(seconds)
    with connect(database) as connection:
        query = "SELECT count(*), max(quoted_at) FROM quotes"
        return connection.execute(query).fetchone()


def all_rows(connection):
    return {
        interval: connection.execute(
            f"SELECT * FROM {interval.table.name} ORDER BY market_ticker, starts_at".encode()
        ).fetchall()
        for interval in Interval
    }
