"""Sweeping a day: equal to the exchange's ledger after any fault, and again without a change."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import psycopg
import pytest

from kalshi_platform.exchange.errors import Unauthorized, Unavailable
from kalshi_platform.exchange.messages import Trade
from kalshi_platform.ingest.landing import land_rest_trades, unix_micros
from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.ingest.truth import (
    add_gap,
    client,
    everything,
    expected,
    gap_row,
    held,
    land_from_feed,
    ledger,
    made_at,
)
from kalshi_simulator.testing import RunningSimulator, running_simulator

TODAY = datetime.now(UTC).date()
# Both whole: the second last day stays whole should midnight pass while the tests run.
DAY = TODAY - timedelta(days=2)
START = datetime.combine(DAY, time(), UTC)
END = START + timedelta(days=1)

SWEEPER = """
import sys
from datetime import date
from pathlib import Path
from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.sweep import sweep_day
url, rest_url, key_id, key_path, day = sys.argv[1:]
rest = RestClient(rest_url, Signer.from_pem(key_id, Path(key_path)), LocalBudget(300))
sweep_day(url, rest, date.fromisoformat(day), on_progress=lambda done: print(done, flush=True))
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=11,
        trades_per_second=20,
        history_trades_per_second=0.05,
        history_days=4,
        live_days=10,
        read_tokens_per_second=50_000,
    ) as simulator:
        yield simulator


@pytest.fixture
def simulator(exchange: RunningSimulator) -> Iterator[RunningSimulator]:
    """The exchange without a fault, all of its history in the live tier."""
    yield exchange
    exchange.clear_faults()
    exchange.fault("move_cutoff", to=(START - timedelta(days=30)).isoformat())


@pytest.fixture(scope="module")
def truth(exchange: RunningSimulator) -> list[dict]:
    trades = ledger(exchange, START, END)
    assert len(trades) > 2_000
    return trades


def coverage(database: str, day: date = DAY) -> dict:
    with connect(database) as connection:
        row = connection.execute(
            "SELECT status, trades_held, trades_swept, trades_added, trades_unconfirmed,"
            " swept_until FROM coverage WHERE traded_on = %s AND market_ticker = '*'",
            [day],
        ).fetchone()
    assert row is not None
    names = ("status", "held", "swept", "added", "unconfirmed", "swept_until")
    return dict(zip(names, row, strict=True))


def test_a_day_never_recorded_becomes_the_ledger_and_a_second_sweep_changes_no_row(
    database, simulator, truth
):
    fractions: list[float] = []
    report = sweep_day(database, client(simulator), DAY, on_progress=fractions.append)
    assert held(database, START, END) == expected(truth)
    assert (report.complete, report.status, report.swept_until) == (True, "healed", END)
    assert report.added == report.swept == report.held == report.rest_alone == len(truth)
    assert (report.unconfirmed, report.contradicted, report.rejected) == (0, 0, 0)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) >= 24
    before = everything(database)
    again = sweep_day(database, client(simulator), DAY)
    assert (again.added, again.changed, again.status) == (0, 0, "healed")
    assert everything(database) == before


def test_trades_lost_in_silence_are_found_and_named_by_market(database, simulator, truth):
    lost = truth[::97]
    land_from_feed(database, [trade for trade in truth if trade not in lost])
    report = sweep_day(database, client(simulator), DAY)
    assert held(database, START, END) == expected(truth)
    assert (report.added, report.rest_alone, report.status) == (len(lost), len(lost), "healed")
    assert report.changed == len(truth) - len(lost)
    assert len(report.differences) <= 20
    assert {one.market_ticker for one in report.differences} <= {one["ticker"] for one in lost}
    assert coverage(database) == {
        "status": "healed",
        "held": len(truth),
        "swept": len(truth),
        "added": len(lost),
        "unconfirmed": 0,
        "swept_until": END,
    }


def test_a_day_of_which_nothing_was_lost_is_proven(database, simulator, truth):
    land_from_feed(database, truth)
    report = sweep_day(database, client(simulator), DAY)
    assert (report.status, report.added, report.differences) == ("proven", 0, [])
    assert held(database, START, END) == expected(truth)


def test_what_rest_does_not_confirm_and_what_it_contradicts_is_told(database, simulator, truth):
    invented = {**truth[0], "trade_id": "00000000-0000-4000-8000-000000000001"}
    other = {**truth[1], "count_fp": "99999.00"}
    land_from_feed(database, [invented, other, *truth[2:]])
    report = sweep_day(database, client(simulator), DAY)
    assert (report.unconfirmed, report.contradicted) == (1, 1)
    assert report.status == "degraded"
    assert report.differences[0].market_ticker == truth[0]["ticker"]


def test_a_day_across_the_cutoff_comes_from_both_tiers(database, simulator, truth):
    noon = START + timedelta(hours=12, minutes=20)
    simulator.fault("move_cutoff", to=noon.isoformat())
    sweep_day(database, client(simulator), DAY)
    assert held(database, START, END) == expected(truth)
    with connect(database) as connection:
        sources = dict(
            connection.execute("SELECT source, count(*) FROM raw_trades GROUP BY source").fetchall()
        )
    old = sum(made_at(trade) < noon for trade in truth)
    assert sources == {"historical": old, "rest": len(truth) - old}


@pytest.mark.parametrize("hours", [3, 13, 23])
def test_a_cutoff_that_moves_while_the_day_is_swept_loses_nothing(
    database, simulator, truth, hours
):
    moved = START + timedelta(hours=hours, minutes=31)
    reached = START + timedelta(hours=13)

    def move(fraction: float) -> None:
        if START + fraction * (END - START) >= reached and not done:
            simulator.fault("move_cutoff", to=moved.isoformat())
            done.append(fraction)

    done: list[float] = []
    report = sweep_day(database, client(simulator), DAY, on_progress=move)
    assert done
    assert report.complete
    assert held(database, START, END) == expected(truth)


def test_refusals_that_pass_are_waited_out(database, simulator, truth):
    simulator.fault("rest_429", count=2)
    simulator.fault("rest_503", count=1)
    simulator.fault("slow_rest", count=2, ms=300)
    sweep_day(database, client(simulator), DAY)
    assert held(database, START, END) == expected(truth)
    with connect(database) as connection:
        counters = dict(
            connection.execute(
                "SELECT name || '{' || labels || '}', value FROM ingestion_metrics"
            ).fetchall()
        )
    assert sum(v for name, v in counters.items() if name.startswith("rest_retries_total")) == 3
    assert counters['events_ingested_total{source="rest"}'] == len(truth)
    assert counters['trades_added_total{source="rest"}'] == len(truth)
    refused = [v for name, v in counters.items() if 'outcome="429"' in name]
    assert sum(refused) == 2


def test_a_refused_key_is_raised_and_leaves_the_day_unknown(database, simulator):
    simulator.fault("rest_401", count=1)
    with pytest.raises(Unauthorized):
        sweep_day(database, client(simulator), DAY)
    assert coverage(database)["status"] == "unknown"
    assert coverage(database)["swept_until"] is None


def test_a_failed_sweep_does_not_take_back_what_an_earlier_one_has_shown(
    database, simulator, truth
):
    sweep_day(database, client(simulator), DAY)
    shown = coverage(database)
    simulator.fault("rest_503", seconds=60)
    with pytest.raises(Unavailable):
        sweep_day(database, client(simulator, retry_seconds=0.5), DAY)
    assert coverage(database) == shown


def test_an_interrupted_sweep_continues_where_it_was(database, simulator, truth):
    stop = threading.Event()

    def interrupt(fraction: float) -> None:
        if fraction > 0.6:
            stop.set()

    first = sweep_day(database, client(simulator), DAY, on_progress=interrupt, stop=stop)
    assert not first.complete
    assert first.status == coverage(database)["status"] == "unknown"
    assert START + timedelta(hours=12) < first.swept_until < END
    fractions: list[float] = []
    second = sweep_day(database, client(simulator), DAY, on_progress=fractions.append)
    assert fractions[0] > 0.5
    assert second.complete
    assert second.added == len(truth)
    assert held(database, START, END) == expected(truth)
    third: list[float] = []
    sweep_day(database, client(simulator), DAY, on_progress=third.append)
    assert third[0] < 0.1


def test_force_begins_anew(database, simulator):
    stop = threading.Event()
    sweep_day(database, client(simulator), DAY, on_progress=lambda _: stop.set(), stop=stop)
    fractions: list[float] = []
    sweep_day(database, client(simulator), DAY, on_progress=fractions.append, force=True)
    assert fractions[0] < 0.1
    assert fractions[-1] == 1.0


def test_a_sweep_killed_in_the_middle_continues_where_it_was(database, simulator, truth):
    arguments = [simulator.rest_url, simulator.key_id, str(simulator.private_key_path), str(DAY)]
    sweeper = subprocess.Popen(
        [sys.executable, "-c", SWEEPER, database, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert sweeper.stdout is not None
    for line in sweeper.stdout:
        if float(line) > 0.4:
            os.kill(sweeper.pid, signal.SIGKILL)
            break
    assert sweeper.wait(20) == -signal.SIGKILL
    sweeper.stdout.close()
    assert 0 < len(held(database, START, END)) < len(truth)
    fractions: list[float] = []
    sweep_day(database, client(simulator), DAY, on_progress=fractions.append)
    assert fractions[0] > 0.4
    assert held(database, START, END) == expected(truth)


def test_a_sweep_whose_database_goes_away_continues_where_it_was(database, simulator, truth):
    def cut(fraction: float) -> None:
        if fraction > 0.4:
            with connect(database, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    with pytest.raises(psycopg.OperationalError):
        sweep_day(database, client(simulator), DAY, on_progress=cut)
    fractions: list[float] = []
    report = sweep_day(database, client(simulator), DAY, on_progress=fractions.append)
    assert fractions[0] > 0.4
    assert report.added == len(truth)
    assert held(database, START, END) == expected(truth)


def test_two_sweeps_of_one_day_at_once_take_turns(database, simulator, truth):
    reports = []
    sweeps = [
        threading.Thread(target=lambda: reports.append(sweep_day(database, client(simulator), DAY)))
        for _ in range(2)
    ]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join()
    assert sorted(report.added for report in reports) == [0, len(truth)]
    assert held(database, START, END) == expected(truth)


def test_open_gaps_inside_the_day_are_closed_and_one_that_reaches_out_degrades_it(
    database, simulator, truth
):
    noon = START + timedelta(hours=12)
    inside = add_gap(database, noon, noon + timedelta(hours=1))
    across = add_gap(database, END - timedelta(minutes=5), END + timedelta(minutes=5))
    lost = [t for t in truth if noon <= made_at(t) <= noon + timedelta(hours=1)]
    land_from_feed(database, [trade for trade in truth if trade not in lost])
    report = sweep_day(database, client(simulator), DAY)
    closed = gap_row(database, inside)
    assert (closed["status"], closed["healed_by"]) == ("healed", "rest")
    assert (closed["trades_found"], closed["trades_missing"]) == (len(lost), len(lost))
    assert closed["healed_at"] is not None
    assert gap_row(database, across)["status"] == "open"
    assert (report.gaps_closed, report.open_gaps, report.status) == (1, 1, "degraded")


def test_today_is_swept_up_to_a_fence(database, simulator):
    midnight = datetime.combine(datetime.now(UTC).date(), time(), UTC)
    now = datetime.now(UTC)
    if now - midnight < timedelta(minutes=2):
        pytest.skip("the day has hardly begun")
    report = sweep_day(database, client(simulator), now.date(), now=lambda: now)
    assert now - timedelta(seconds=32) < report.swept_until <= now - timedelta(seconds=30)
    assert held(database, midnight, report.swept_until) == expected(
        ledger(simulator, midnight, report.swept_until)
    )


def test_what_the_stream_has_and_rest_has_not_yet_moves_the_fence_back(database, simulator):
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date(), time(), UTC)
    if now - midnight < timedelta(minutes=10):
        pytest.skip("the day has hardly begun")
    early = now - timedelta(minutes=5)
    trades = ledger(simulator, now - timedelta(hours=3), now)
    invented = {
        **trades[0],
        "trade_id": "00000000-0000-4000-8000-000000000001",
        "created_time": early.isoformat(),
    }
    land_from_feed(database, [invented])
    report = sweep_day(database, client(simulator), now.date(), now=lambda: now)
    assert abs(report.swept_until - early) < timedelta(milliseconds=1)
    assert report.unconfirmed == 0


def test_a_day_that_has_not_begun_is_refused(database, simulator):
    with pytest.raises(ValueError, match="has not begun"):
        sweep_day(database, client(simulator), TODAY + timedelta(days=2))


def test_however_old_the_day_its_end_is_not_proven_while_rest_stands_before_it(
    database, simulator, truth
):
    noon = START + timedelta(hours=12)
    lost = next(t for t in truth if made_at(t) > noon + timedelta(hours=1))
    gap = add_gap(database, made_at(lost), made_at(lost) + timedelta(seconds=1))
    land_from_feed(database, [trade for trade in truth if trade is not lost])
    simulator.fault("rest_lag", seconds=(datetime.now(UTC) - noon).total_seconds())
    report = sweep_day(database, client(simulator), DAY)
    first_behind = min(made_at(trade) for trade in truth if made_at(trade) > noon)
    assert noon - timedelta(minutes=5) < report.swept_until <= first_behind
    assert gap_row(database, gap)["status"] == "open"
    simulator.clear_faults()
    report = sweep_day(database, client(simulator), DAY)
    assert (report.swept_until, report.status) == (END, "healed")
    assert gap_row(database, gap)["status"] == "healed"


def test_what_rest_has_passed_over_for_good_degrades_the_day(database, simulator, truth):
    noon = START + timedelta(hours=12)
    land_from_feed(database, truth)
    simulator.fault("rest_lag", seconds=(datetime.now(UTC) - noon).total_seconds())
    report = sweep_day(database, client(simulator), DAY)
    assert (report.status, report.unconfirmed) == ("proven", 0)
    assert report.swept_until < END
    # REST has reported of the day after: what it has not said of this one it leaves out.
    later = Trade(
        "00000000-0000-4000-8000-000000000001",
        truth[0]["ticker"],
        500_000,
        100,
        "yes",
        False,
        unix_micros(END) + 1,
        exact_time=True,
    )
    with connect(database) as connection:
        land_rest_trades(connection, [later], source="rest", received_at=END)
    report = sweep_day(database, client(simulator), DAY)
    assert (report.swept_until, report.status) == (END, "degraded")
    assert report.unconfirmed == sum(made_at(trade) > noon for trade in truth)


def test_a_position_that_cannot_be_continued_is_begun_anew(database, simulator, truth):
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position)"
            " VALUES ('rest', %s, '{\"start\": \"once\"}')",
            [f"day:{DAY}"],
        )
    assert sweep_day(database, client(simulator), DAY).added == len(truth)
