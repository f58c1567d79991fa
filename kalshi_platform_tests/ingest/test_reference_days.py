"""Past days: every market of theirs from both tiers, though the cutoff moves, once and for all."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from kalshi_platform.ingest.landing import land_rest_trades
from kalshi_platform.ingest.reference_days import backfill_days
from kalshi_platform.ingest.window import count_calls
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import REFERENCE_DAYS, Lease
from kalshi_platform_tests.ingest.reference_truth import (
    facts_alone,
    held_events,
    held_markets,
    held_outcomes,
    is_combo,
    ledger_events,
    ledger_markets,
    ledger_outcomes,
    position,
    row_of,
    rows_of,
)
from kalshi_platform_tests.ingest.truth import client
from kalshi_platform_tests.waiting import until
from kalshi_simulator.testing import RunningSimulator, running_simulator

TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=back) for back in (4, 3, 2)]
# Half of the days lie behind it.
CUTOFF = datetime.combine(DAYS[1], time(9, 30), UTC)


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=5,
        trades_per_second=1,
        history_trades_per_second=0.01,
        markets=12,
        history_days=5,
        live_days=5,
        read_tokens_per_second=50_000,
    ) as simulator:
        simulator.hold()
        yield simulator


@pytest.fixture
def simulator(exchange: RunningSimulator) -> Iterator[RunningSimulator]:
    exchange.fault("move_cutoff", to=CUTOFF.isoformat())
    yield exchange
    exchange.clear_faults()


class Truth(NamedTuple):
    """The ledger, read once: the exchange's clock stands still."""

    settled_on: dict[str, date | None]
    markets: dict[str, dict]
    outcomes: dict[str, tuple[str, str, int | None]]
    events: dict[str, dict]

    def markets_of(self, days: list[date]) -> dict[str, dict]:
        """Facts of the markets that were created, changed or settled on one of the days."""
        return {
            ticker: facts
            for ticker, facts in self.markets.items()
            if facts["created_at"].date() in days
            or facts["exchange_updated_at"].date() in days
            or self.settled_on[ticker] in days
        }


@pytest.fixture(scope="module")
def truth(exchange: RunningSimulator) -> Truth:
    settled_at = {row["ticker"]: row.get("settlement_ts") for row in exchange.ledger("markets")}
    return Truth(
        {
            ticker: None if at is None else datetime.fromisoformat(at).date()
            for ticker, at in settled_at.items()
        },
        ledger_markets(exchange),
        ledger_outcomes(exchange),
        ledger_events(exchange),
    )


def assert_complete(database: str, truth: Truth, days: list[date]) -> None:
    expected = truth.markets_of(days)
    assert len(expected) > 400
    held = held_markets(database)
    assert {ticker: held.get(ticker) for ticker in expected} == expected
    assert held_outcomes(database) == {
        ticker: truth.outcomes[ticker] for ticker in held if ticker in truth.outcomes
    }
    events = {facts["event_ticker"] for facts in held.values()}
    assert held_events(database) == {ticker: truth.events[ticker] for ticker in events}


def backfill(database: str, simulator: RunningSimulator, days: list[date] = DAYS, **options):
    stop = options.pop("stop", threading.Event())
    told = options.pop("on_progress", None)
    return backfill_days(database, client(simulator, stop=stop, **options), days, told, stop)


def test_days_on_both_sides_of_the_cutoff_are_complete_and_a_second_run_changes_no_row(
    database, simulator, truth
):
    fractions: list[float] = []
    reports = backfill(database, simulator, on_progress=fractions.append)
    assert [report.day for report in reports] == DAYS
    assert all(report.complete for report in reports)
    assert all(report.added > 100 and report.settlements > 100 for report in reports)
    assert_complete(database, truth, DAYS)
    sources = {row["metadata_source"] for row in rows_of(database, "markets")}
    assert sources == {"rest", "historical"}
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert position(database, f"days:{DAYS[0]}..{DAYS[-1]}") is None
    before = facts_alone(database)
    again = backfill(database, simulator)
    found = [(report.added, report.changed, report.beside) for report in again]
    assert found == [(0, 0, 0)] * len(DAYS)
    assert [report.told for report in again] == [report.told for report in reports]
    assert facts_alone(database) == before


@pytest.mark.parametrize("after_requests", [1, 4, 7, 8])
def test_nothing_is_missed_though_the_cutoff_moves_meanwhile(
    database, simulator, truth, after_requests
):
    days = DAYS[1:]
    moved = CUTOFF + timedelta(hours=20)
    simulator.fault("move_cutoff", to=moved.isoformat(), after_requests=after_requests)
    reports = backfill(database, simulator, days)
    assert all(report.complete for report in reports)
    assert client(simulator).cutoff().market_settled_ts == moved
    assert_complete(database, truth, days)


def test_a_market_that_has_moved_to_the_archive_keeps_what_the_live_tier_told(database, simulator):
    days = DAYS[1:]
    backfill(database, simulator, days)
    before = facts_alone(database)
    told_live = [row for row in before["markets"] if row["metadata_source"] == "rest"]
    assert any("occurrence_datetime" in row["metadata"] for row in told_live)
    simulator.fault("move_cutoff", to=(CUTOFF + timedelta(hours=20)).isoformat())
    again = backfill(database, simulator, days)
    assert [(report.added, report.changed) for report in again] == [(0, 0)] * len(days)
    assert facts_alone(database) == before


def test_days_after_the_cutoff_do_not_walk_the_archive(database, simulator, truth):
    days = [DAYS[-1]]
    backfill(database, simulator, days)
    assert_complete(database, truth, days)
    with connect(database) as connection:
        count_calls(connection, client(simulator))
        asked = connection.execute(
            "SELECT labels FROM ingestion_metrics WHERE name = 'rest_requests_total'"
        ).fetchall()
    endpoints = {labels for (labels,) in asked}
    assert any("/markets" in labels for labels in endpoints)
    assert not any("/historical/markets" in labels for labels in endpoints)


@pytest.mark.parametrize("fraction", [0.1, 0.35])
def test_stopped_it_goes_on_where_it_was(database, simulator, truth, fraction):
    stop = threading.Event()

    def stop_at(done: float) -> None:
        if done >= fraction:
            stop.set()

    stopped = backfill(database, simulator, stop=stop, on_progress=stop_at)
    assert not any(report.complete for report in stopped)
    fractions: list[float] = []
    reports = backfill(database, simulator, on_progress=fractions.append)
    assert all(report.complete for report in reports)
    assert fractions[0] > fraction
    assert_complete(database, truth, DAYS)
    assert [report.told for report in reports] == [
        report.told for report in backfill(database, simulator)
    ], "no market was told twice"


def test_a_cursor_that_has_died_begins_its_walk_again(database, simulator, truth):
    stop = threading.Event()
    backfill(
        database, simulator, stop=stop, on_progress=lambda done: stop.set() if done > 0.35 else None
    )
    scope = f"days:{DAYS[0]}..{DAYS[-1]}"
    with connect(database) as connection:
        connection.execute(
            'UPDATE ingestion_checkpoints SET position = position || \'{"cursor": "long gone"}\''
            " WHERE scope = %s",
            [scope],
        )
    assert all(report.complete for report in backfill(database, simulator))
    assert_complete(database, truth, DAYS)


def test_combos_that_traded_on_the_days_are_read_and_others_are_not(database, simulator):
    day = DAYS[-1]
    start = datetime.combine(day, time(), UTC)
    rest = client(simulator)
    combo_trades = [
        trade
        for page in rest.trade_pages(
            "live", int(start.timestamp()), int(start.timestamp()) + 86_000
        )
        for trade in page.trades
        if is_combo(trade.market_ticker)
    ]
    traded = {trade.market_ticker for trade in combo_trades}
    assert traded
    with connect(database) as connection:
        land_rest_trades(connection, combo_trades, source="rest", received_at=datetime.now(UTC))
    reports = backfill(database, simulator, [day])
    assert all(report.complete for report in reports)
    combos = {row["market_ticker"]: row for row in rows_of(database, "markets") if row["is_combo"]}
    assert combos.keys() == traded
    assert all(row["metadata"] is not None for row in combos.values())
    events = {row["event_ticker"] for row in combos.values()}
    assert all(row_of(database, "events", event)["metadata"] is not None for event in events)
    before = facts_alone(database)
    with connect(database) as connection:  # as had they been read before their end
        connection.execute(
            "UPDATE markets SET outcome_status = NULL, told_status = 'active', next_read_at = NULL,"
            " exchange_updated_at = created_at WHERE is_combo"
        )
        connection.execute(
            "DELETE FROM settlements WHERE market_ticker = ANY(%s)", [sorted(combos)]
        )
        connection.execute(
            "DELETE FROM settlement_history WHERE market_ticker = ANY(%s)", [sorted(combos)]
        )
    backfill(database, simulator, [day])
    assert told(facts_alone(database)) == told(before)


def told(tables: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """What the exchange said, without when we heard it."""
    ours = {"updated_at", "recorded_at", "confirmed_at"}
    return {
        table: sorted(({k: v for k, v in row.items() if k not in ours} for row in rows), key=str)
        for table, rows in tables.items()
    }


def test_other_days_between_the_same_ends_are_another_backfill(database, simulator, truth):
    stop = threading.Event()
    backfill(
        database, simulator, stop=stop, on_progress=lambda done: stop.set() if done > 0.3 else None
    )
    ends = [DAYS[0], DAYS[-1]]
    reports = backfill(database, simulator, ends)
    assert [report.day for report in reports] == ends
    assert_complete(database, truth, ends)


def test_another_backfill_is_waited_for_aloud(database, simulator):
    other = Lease(database, REFERENCE_DAYS)
    assert other.acquire()
    stop = threading.Event()
    with capture_logs() as logs, ThreadPoolExecutor() as threads:
        waiting = threads.submit(backfill, database, simulator, stop=stop)
        try:
            until(lambda: any(line["event"] == "reference_backfill_waits" for line in logs), 10)
            assert not waiting.done()
        finally:
            stop.set()
            other.release()
        assert not any(report.complete for report in waiting.result(20))
    assert held_markets(database) == {}


def test_no_days_are_no_work(database, simulator):
    assert backfill(database, simulator, []) == []
