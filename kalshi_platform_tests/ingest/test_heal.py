"""Healing: closed only when REST can be trusted, by one healer alone, and equal to the ledger."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest import heal, service
from kalshi_platform.ingest.heal import doubt_of, heal_open_gaps
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.sweeps import DueGap, Evidence, due_gaps
from kalshi_platform_tests.exchange.scripted import Answer, scripted
from kalshi_platform_tests.ingest.truth import (
    add_gap,
    client,
    expected,
    gap_row,
    held,
    land_from_feed,
    ledger,
    made_at,
    make_due,
)
from kalshi_platform_tests.waiting import until
from kalshi_simulator.testing import RunningSimulator, running_simulator

SECOND = timedelta(seconds=1)
# Old enough to be trusted as it is, young enough to be on the live tier.
PAST = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=30)

HEALER = """
import sys, threading
from pathlib import Path
from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.heal import heal_open_gaps
url, rest_url, key_id, key_path = sys.argv[1:]
rest = RestClient(rest_url, Signer.from_pem(key_id, Path(key_path)), LocalBudget(150))
heal_open_gaps(url, rest, threading.Event())
"""


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=12,
        trades_per_second=60,
        history_trades_per_second=0.2,
        history_days=3,
        live_days=10,
        read_tokens_per_second=50_000,
    ) as simulator:
        yield simulator


@pytest.fixture
def simulator(exchange: RunningSimulator) -> Iterator[RunningSimulator]:
    yield exchange
    exchange.clear_faults()
    exchange.fault("move_cutoff", to=(PAST - timedelta(days=30)).isoformat())


@pytest.fixture(scope="module")
def recent(exchange: RunningSimulator) -> datetime:
    """An instant from which on six seconds of busy trading have passed."""
    start = datetime.now(UTC).replace(microsecond=0)

    def traded() -> bool:
        return len(ledger(exchange, start + 5 * SECOND, start + 6 * SECOND)) > 5

    until(traded, every=0.3)
    return start


def heal_now(database: str, simulator: RunningSimulator, **options) -> int:
    make_due(database)
    options = {"retry_seconds": 0.5, **options}
    return heal_open_gaps(database, client(simulator, **options), threading.Event())


def record_with_a_hole(
    database: str, simulator: RunningSimulator, start: datetime, seconds: float = 6
) -> tuple[int, list[dict], list[dict]]:
    """The stream brought `seconds` from `start` on, but for the third second."""
    trades = ledger(simulator, start, start + seconds * SECOND)
    lost = [t for t in trades if start + 2 * SECOND <= made_at(t) < start + 3 * SECOND]
    assert lost
    land_from_feed(database, [trade for trade in trades if trade not in lost])
    return add_gap(database, start + 2 * SECOND, start + 3 * SECOND), trades, lost


def test_a_hole_in_the_stream_is_filled_to_the_trade(database, simulator, recent):
    gap, trades, lost = record_with_a_hole(database, simulator, recent)
    assert heal_now(database, simulator) == 1
    row = gap_row(database, gap)
    assert (row["status"], row["healed_by"], row["attempts"]) == ("healed", "rest", 1)
    assert (row["trades_found"], row["trades_missing"]) == (len(lost), len(lost))
    assert row["healed_at"] is not None
    got = held(database, recent + SECOND, recent + 4 * SECOND)
    assert got == expected(t for t in trades if recent + SECOND <= made_at(t) < recent + 4 * SECOND)
    with connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM ingestion_checkpoints").fetchone() == (0,)
        stale = connection.execute("SELECT DISTINCT market_ticker FROM stale_candles").fetchall()
    assert {ticker for (ticker,) in stale} >= {trade["ticker"] for trade in lost}


def test_while_rest_lags_the_gap_stays_open_and_says_why(database, simulator, recent):
    simulator.fault("rest_lag", seconds=3600)
    gap, _, lost = record_with_a_hole(database, simulator, recent)
    assert heal_now(database, simulator) == 0
    row = gap_row(database, gap)
    assert (row["status"], row["attempts"]) == ("open", 1)
    assert "REST has not reported" in row["detail"]
    assert row["next_attempt_at"] > datetime.now(UTC)
    simulator.clear_faults()
    assert heal_now(database, simulator) == 1
    assert gap_row(database, gap)["trades_missing"] == len(lost)
    assert gap_row(database, gap)["attempts"] == 2


def test_rest_that_shows_half_of_the_gap_is_not_believed(database, simulator, recent):
    gap, _, lost = record_with_a_hole(database, simulator, recent)
    middle = recent + 2.5 * SECOND
    simulator.fault("rest_lag", seconds=(datetime.now(UTC) - middle).total_seconds())
    assert heal_now(database, simulator) == 0
    assert gap_row(database, gap)["status"] == "open"
    simulator.clear_faults()
    assert heal_now(database, simulator) == 1
    assert gap_row(database, gap)["trades_missing"] == len(lost)


def test_the_pause_to_the_next_attempt_grows(database, simulator, recent):
    simulator.fault("rest_lag", seconds=3600)
    gap, *_ = record_with_a_hole(database, simulator, recent)
    pauses = []
    for _ in range(3):
        heal_now(database, simulator)
        row = gap_row(database, gap)
        pauses.append((row["next_attempt_at"] - datetime.now(UTC)).total_seconds())
    assert 0 < pauses[0] <= 1
    assert 0.5 < pauses[1] <= 2
    assert 2.5 < pauses[2] <= 4
    with connect(database) as connection:
        connection.execute("UPDATE gaps SET attempts = 1000")
    heal_now(database, simulator)
    assert gap_row(database, gap)["next_attempt_at"] < datetime.now(UTC) + 31 * SECOND


def test_a_gap_is_not_asked_for_before_its_turn(database, simulator):
    gap = add_gap(database, PAST, PAST + SECOND)
    with connect(database) as connection:
        connection.execute("UPDATE gaps SET next_attempt_at = now() + interval '1 hour'")
    rest = client(simulator)
    assert heal_open_gaps(database, rest, threading.Event()) == 0
    assert rest.drain_counts() == ({}, {})
    assert gap_row(database, gap)["attempts"] == 0


def test_gaps_of_other_channels_are_left_alone(database, simulator):
    gap = add_gap(database, PAST, PAST + SECOND, channel="ticker")
    assert heal_now(database, simulator) == 0
    assert gap_row(database, gap)["status"] == "explained"


def test_an_old_gap_across_the_cutoff_is_healed_from_both_tiers(database, simulator):
    start, end = PAST, PAST + timedelta(minutes=20)
    simulator.fault("move_cutoff", to=(PAST + timedelta(minutes=9)).isoformat())
    gap = add_gap(database, start, end)
    assert heal_now(database, simulator) == 1
    assert held(database, start, end) == expected(ledger(simulator, start, end))
    assert gap_row(database, gap)["healed_by"] == "historical"


def test_what_rest_never_confirms_stays_and_the_gap_closes_with_a_remark(database, simulator):
    trades = ledger(simulator, PAST, PAST + timedelta(minutes=2))
    invented = {**trades[0], "trade_id": "00000000-0000-4000-8000-000000000001"}
    land_from_feed(database, [invented, *trades])
    gap = add_gap(database, PAST, PAST + timedelta(minutes=1))
    assert heal_now(database, simulator) == 1
    assert "never reported 1 trades" in gap_row(database, gap)["detail"]
    assert len(held(database, PAST, PAST + timedelta(minutes=2))) == len(trades) + 1


def test_an_exchange_that_is_down_leaves_the_gap_open_until_it_is_back(database, simulator):
    gap = add_gap(database, PAST, PAST + SECOND)
    simulator.fault("rest_503", seconds=60)
    assert heal_now(database, simulator) == 0
    assert "503" in gap_row(database, gap)["detail"]
    simulator.clear_faults()
    assert heal_now(database, simulator) == 1


def test_a_refused_key_leaves_the_gap_open_and_says_so(database, simulator):
    gap = add_gap(database, PAST, PAST + SECOND)
    simulator.fault("rest_401", count=1)
    assert heal_now(database, simulator) == 0
    assert "KALSHI_API_KEY_ID" in gap_row(database, gap)["detail"]
    assert heal_now(database, simulator) == 1


def test_limits_are_waited_out(database, simulator):
    simulator.fault("rest_429", count=2)
    add_gap(database, PAST, PAST + SECOND)
    assert heal_now(database, simulator, retry_seconds=20) == 1


def test_without_a_database_there_is_nothing_to_heal(simulator):
    url = "postgresql://nobody@127.0.0.1:1/none"
    assert heal_open_gaps(url, client(simulator), threading.Event()) == 0


def test_a_trade_that_rest_reports_unreadably_keeps_the_gap_open(database):
    def listed(number: int, **changes) -> dict:
        return {
            "trade_id": f"00000000-0000-4000-8000-{number:012}",
            "ticker": "KXTEST-T1",
            "count_fp": "1.00",
            "yes_price_dollars": "0.3600",
            "no_price_dollars": "0.6400",
            "taker_outcome_side": "yes",
            "created_time": (PAST + SECOND / 2).isoformat(),
            **changes,
        }

    bad_price, bad_id = listed(2, yes_price_dollars="0.36.1"), listed(3, trade_id="three")
    body = json.dumps({"trades": [listed(1), bad_price, bad_id], "cursor": ""}).encode()
    cutoff = Answer(
        body=b'{"market_settled_ts":"2026-08-01T00:00:00Z",'
        b'"trades_created_ts":"2026-08-01T00:00:00Z"}'
    )
    gap = add_gap(database, PAST, PAST + SECOND)
    with scripted(*[cutoff, Answer(body=body), cutoff] * 2) as server:
        rest = RestClient(server.url, None, LocalBudget(10_000))
        for _ in range(2):
            make_due(database)
            assert heal_open_gaps(database, rest, threading.Event()) == 0
    row = gap_row(database, gap)
    assert (row["status"], row["attempts"]) == ("open", 2)
    assert "2 trades that cannot be read" in row["detail"]
    assert len(held(database, PAST, PAST + SECOND)) == 1
    with connect(database) as connection:
        rejected = connection.execute(
            "SELECT source, message, reason FROM rejected_messages ORDER BY reason"
        ).fetchall()
    assert [(source, reason) for source, _, reason in rejected] == [
        ("rest", "'0.36.1' is not a decimal number"),
        ("rest", "trade_id is not a UUID"),
    ]
    assert json.loads(rejected[0][1]) == bad_price


def test_neighbouring_gaps_are_asked_for_together(database, simulator):
    gaps = [add_gap(database, PAST + n * SECOND, PAST + (n + 1) * SECOND) for n in range(40)]
    make_due(database)
    rest = client(simulator)
    assert heal_open_gaps(database, rest, threading.Event()) == len(gaps)
    with connect(database) as connection:
        [(calls,)] = connection.execute(
            "SELECT sum(value) FROM ingestion_metrics WHERE name = 'rest_requests_total'"
        ).fetchall()
    assert calls <= 4
    end = PAST + 40 * SECOND
    assert held(database, PAST, end) == expected(ledger(simulator, PAST, end))


def test_two_healers_never_heal_the_same_gap(database, simulator):
    gaps = [
        add_gap(database, PAST + n * timedelta(minutes=3), PAST + n * timedelta(minutes=3) + SECOND)
        for n in range(12)
    ]
    closed = []
    healers = [
        threading.Thread(
            target=lambda: closed.append(
                heal_open_gaps(database, client(simulator), threading.Event())
            )
        )
        for _ in range(3)
    ]
    for healer in healers:
        healer.start()
    for healer in healers:
        healer.join()
    assert sum(closed) == len(gaps)
    assert {gap_row(database, gap)["attempts"] for gap in gaps} == {1}


def test_a_healer_killed_in_a_long_gap_continues_where_it_was(database, simulator):
    end = PAST + timedelta(hours=20)
    gap = add_gap(database, PAST, end)
    arguments = [simulator.rest_url, simulator.key_id, str(simulator.private_key_path)]
    healer = subprocess.Popen([sys.executable, "-c", HEALER, database, *arguments])

    def hours_done() -> int:
        with connect(database) as connection:
            row = connection.execute(
                "SELECT ((position->>'chunk_start')::bigint - (position->>'start')::bigint) / 3600"
                " FROM ingestion_checkpoints WHERE source = 'rest' AND scope = %s",
                [f"gap:{gap}"],
            ).fetchone()
        return 0 if row is None else row[0]

    try:
        until(lambda: hours_done() >= 5)
    finally:
        healer.kill()
        healer.wait()
    assert held(database, PAST, end)
    assert gap_row(database, gap)["status"] == "open"
    done = hours_done()
    assert done < 20
    rest = client(simulator)
    make_due(database)
    with connect(database, autocommit=True) as connection:
        # The server needs a moment to see that the killed healer's session is gone.
        until(lambda: due_gaps(connection))
        assert until(lambda: heal_open_gaps(database, rest, threading.Event())) == 1
        [(calls,)] = connection.execute(
            "SELECT sum(value) FROM ingestion_metrics"
            " WHERE name = 'rest_requests_total' AND labels LIKE '%trades%'"
        ).fetchall()
    assert calls <= 22 - done
    assert held(database, PAST, end) == expected(ledger(simulator, PAST, end))
    assert gap_row(database, gap)["trades_found"] == len(ledger(simulator, PAST, end))


@pytest.mark.parametrize(
    ("evidence", "age", "believed"),
    [
        (Evidence(5, 5, 0, later=True, later_confirmed=True), 2, True),
        (Evidence(5, 5, 1, later=True, later_confirmed=True), 2, False),
        (Evidence(5, 5, 0, later=True, later_confirmed=False), 120, False),
        (Evidence(0, 0, 0, later=False, later_confirmed=False), 59, False),
        (Evidence(0, 0, 0, later=False, later_confirmed=False), 60, True),
        (Evidence(5, 5, 3, later=True, later_confirmed=False), 599, False),
        (Evidence(5, 5, 3, later=True, later_confirmed=False), 600, False),
        (Evidence(5, 5, 0, later=True, later_confirmed=False), 86_400, False),
        (Evidence(5, 5, 3, later=True, later_confirmed=True), 599, False),
        (Evidence(5, 5, 3, later=True, later_confirmed=True), 600, True),
    ],
)
def test_rest_is_believed_once_it_shows_what_the_stream_has(evidence, age, believed):
    assert (doubt_of(evidence, age) is None) is believed


@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.sampled_from([0, 1, 3, 60, 590, 610, 5000])), max_size=30
    )
)
def test_grouping_keeps_every_gap_once_and_no_long_one_with_others(spans):
    gaps = sorted(
        (
            DueGap(number, PAST + start * SECOND, PAST + (start + length) * SECOND, 1.0)
            for number, (start, length) in enumerate(spans)
        ),
        key=lambda gap: gap.starts_at,
    )
    groups = heal._groups(gaps)
    assert sorted(gap.gap_id for group in groups for gap in group) == list(range(len(spans)))
    for group in groups:
        if len(group) > 1:
            assert max(gap.ends_at for gap in group) - group[0].starts_at < timedelta(minutes=10)
        for first, second in pairwise(group):
            assert first.starts_at <= second.starts_at


@pytest.mark.parametrize(
    "body",
    [
        b'{"trades":[],"cursor":"\xff"}',
        b'{"trades":[],"cursor":"a\\u0000"}',
        b'{"trades":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"trades":[{"trade_id":"\xff"}],"cursor":""}',
        b'{"trades":[' + b"[" * 900 + b"]" * 900 + b'],"cursor":""}',
    ],
)
def test_an_odd_answer_leaves_the_gap_open_and_ends_nothing(database, body):
    gap = add_gap(database, PAST, PAST + SECOND)
    cutoff = Answer(
        body=b'{"market_settled_ts":"2026-08-01T00:00:00Z",'
        b'"trades_created_ts":"2026-08-01T00:00:00Z"}'
    )
    with scripted(cutoff, Answer(body=body), cutoff) as server:
        rest = RestClient(server.url, None, LocalBudget(10_000))
        assert heal_open_gaps(database, rest, threading.Event()) == 0
    row = gap_row(database, gap)
    assert (row["status"], row["attempts"]) == ("open", 1)
    assert "cannot be read" in row["detail"] or "not a page of trades" in row["detail"]


def failures(database: str) -> float:
    with connect(database) as connection:
        [(count,)] = connection.execute(
            "SELECT coalesce(sum(value), 0) FROM ingestion_metrics"
            " WHERE name = 'healing_failures_total'"
        ).fetchall()
    return count


def test_a_gap_that_cannot_be_handled_leaves_the_others_their_turn(
    database, simulator, monkeypatch
):
    bad = add_gap(database, PAST, PAST + SECOND)
    good = add_gap(database, PAST + timedelta(minutes=30), PAST + timedelta(minutes=30) + SECOND)
    sweep = heal.sweep_window

    def failing(connection, rest, progress, scope, stop):
        if scope == f"gap:{bad}":
            connection.execute("SELECT 'a'::jsonb")
        sweep(connection, rest, progress, scope, stop)

    monkeypatch.setattr(heal, "sweep_window", failing)
    assert heal_now(database, simulator) == 1
    assert gap_row(database, good)["status"] == "healed"
    row = gap_row(database, bad)
    assert (row["status"], row["attempts"]) == ("open", 1)
    assert "InvalidTextRepresentation" in row["detail"]
    assert row["next_attempt_at"] > datetime.now(UTC) + 25 * SECOND
    assert failures(database) == 1


def test_a_position_that_cannot_be_continued_is_begun_anew(database, simulator):
    gap = add_gap(database, PAST, PAST + SECOND)
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position) VALUES ('rest', %s, '[]')",
            [f"gap:{gap}"],
        )
    assert heal_now(database, simulator) == 1


def test_whatever_goes_wrong_with_healing_it_is_counted_and_tried_again(
    database, simulator, monkeypatch, tmp_path
):
    stop = threading.Event()
    tries = []

    def fail(url, rest, stop):
        tries.append(url)
        if len(tries) == 3:
            stop.set()
        raise ZeroDivisionError

    monkeypatch.setattr(service, "heal_open_gaps", fail)
    monkeypatch.setattr(service, "_HEAL_SECONDS", 0.01)
    monkeypatch.setattr(service, "_HEAL_AGAIN_SECONDS", 0.01)
    options = service.RecordingOptions(
        database, tmp_path, "", simulator.rest_url, simulator.key_id, simulator.private_key_path
    )
    signer = Signer.from_pem(simulator.key_id, simulator.private_key_path)
    service._heal(options, signer, stop)
    assert len(tries) == 3
    assert failures(database) == 3
