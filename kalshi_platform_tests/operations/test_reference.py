"""`census`, `reference` and `backfill` as the operator runs them, and what the status says."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from kalshi_platform.ingest.census import CensusReport
from kalshi_platform.ingest.reference_pages import Tally
from kalshi_platform.operations.backfill import (
    ALL_PARTS,
    Part,
    backfill,
    day_line,
    markets_line,
    parts_named,
)
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.reference import census_lines, keep_reference, take_census
from kalshi_platform.operations.status import status_lines
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import CENSUS, REFERENCE, Lease, held
from kalshi_platform.storage.reads.reference_status import reference_reasons
from kalshi_platform.storage.reads.status import Status, read_status
from kalshi_platform.storage.writes.told import Changes
from kalshi_platform_tests.ingest.reference_truth import facts_alone, position, rows_of
from kalshi_platform_tests.waiting import until
from kalshi_simulator.testing import RunningSimulator, running_simulator

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=5,
        trades_per_second=1,
        history_trades_per_second=0.01,
        markets=12,
        history_days=2,
        read_tokens_per_second=50_000,
    ) as simulator:
        simulator.hold()
        yield simulator


@pytest.fixture
def settings(database: str, exchange: RunningSimulator, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        home=tmp_path,
        database_url=database,
        rest_url=exchange.rest_url,
        api_key_id=exchange.key_id,
        private_key_path=exchange.private_key_path,
        rest_tokens_per_second=10_000,
    )


def environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "KALSHI_HOME": str(settings.home),
        "DATABASE_URL": settings.url,
        "KALSHI_REST_URL": settings.rest_url,
        "KALSHI_API_KEY_ID": str(settings.api_key_id),
        "KALSHI_PRIVATE_KEY_PATH": str(settings.private_key_path),
    }


def status(database: str) -> Status:
    with connect(database) as connection:
        return read_status(connection, simulated=True)


def test_a_census_says_what_it_read_and_a_second_one_that_nothing_changed(
    settings: Settings, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take_census(settings, threading.Event())
    first = capsys.readouterr().out
    assert "markets " in first
    assert "nothing changed" not in first
    before = facts_alone(database)
    assert take_census(settings, threading.Event())
    assert "Every row was there already; nothing changed." in capsys.readouterr().out
    assert facts_alone(database) == before
    reference = status(database).reference
    assert reference is not None
    assert reference.census == "complete"


def test_a_census_that_is_stopped_says_how_to_go_on(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    stop.set()
    assert not take_census(settings, stop)
    assert "run the same command again to continue" in capsys.readouterr().out


def test_a_second_census_at_once_is_refused(settings: Settings, database: str) -> None:
    other = Lease(database, CENSUS)
    assert other.acquire()
    try:
        with pytest.raises(Refusal, match="under way"):
            take_census(settings, threading.Event())
    finally:
        other.release()


def test_markets_of_past_days_are_filled_and_a_second_run_changes_nothing(
    settings: Settings, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = parts_named(["markets"])
    assert backfill(settings, YESTERDAY, YESTERDAY, threading.Event(), parts)
    first = capsys.readouterr().out
    assert f"{YESTERDAY}  " in first
    assert "rows added or changed." in first
    assert rows_of(database, "trades") == []
    before = facts_alone(database)
    assert len(before["markets"]) > 500
    assert backfill(settings, YESTERDAY, YESTERDAY, threading.Event(), parts)
    assert "Every row was there already; nothing changed." in capsys.readouterr().out
    assert facts_alone(database) == before


def test_a_day_is_filled_with_trades_candles_and_markets_unless_told_otherwise(
    settings: Settings, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backfill(settings, YESTERDAY, YESTERDAY, threading.Event())
    assert "candles written" in capsys.readouterr().out
    traded = {row["market_ticker"] for row in rows_of(database, "trades")}
    assert traded
    known = {
        row["market_ticker"] for row in rows_of(database, "markets") if row["metadata"] is not None
    }
    assert traded <= known, "combos as well, since markets come last"
    assert rows_of(database, "candles_1m")
    assert backfill(settings, YESTERDAY, YESTERDAY, threading.Event())
    assert "Every row was there already; nothing changed." in capsys.readouterr().out
    assert backfill(settings, YESTERDAY, YESTERDAY, threading.Event(), {Part.CANDLES})
    assert f"{YESTERDAY}  nothing changed" in capsys.readouterr().out


def test_stopped_it_does_not_say_that_it_is_done(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    stop.set()
    for parts in ({Part.MARKETS}, {Part.CANDLES}, ALL_PARTS):
        assert not backfill(settings, YESTERDAY, YESTERDAY, stop, parts)
        assert "run the same command again to continue" in capsys.readouterr().out


def test_the_process_keeps_in_step_until_sigterm(settings: Settings, database: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kalshi_platform.cli", "reference"],
        env=environment(settings),
        cwd=Path(__file__).parents[2],
    )
    try:
        until(lambda: (position(database, "refreshed") or {}).get("at"), 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
    with connect(database) as connection:
        assert not held(connection, REFERENCE)


def test_a_second_one_stands_by_and_takes_over(settings: Settings, database: str) -> None:
    first = Lease(database, REFERENCE)
    assert first.acquire()
    stop = threading.Event()
    spare = threading.Thread(target=keep_reference, args=(settings, stop))
    spare.start()
    try:
        stop.wait(1.5)
        assert position(database, "refreshed") is None
        first.release()
        until(lambda: (position(database, "refreshed") or {}).get("at"), 15)
    finally:
        stop.set()
        spare.join(20)
        first.release()
    assert not spare.is_alive()


def test_the_status_tells_what_is_awaited_unconfirmed_and_unknown(
    settings: Settings, database: str
) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO markets (market_ticker, closes_at, outcome_status, not_found_at)"
            " VALUES ('KXA', now() - interval '2 hours', NULL, NULL),"
            " ('KXB', now() + interval '2 hours', NULL, NULL),"
            " ('KXC', now() - interval '3 hours', 'determined', NULL),"
            " ('KXD', NULL, NULL, now())"
        )
        connection.execute(
            "INSERT INTO settlements (market_ticker, status, result, effective_at, source,"
            " recorded_at) VALUES ('KXC', 'determined', 'yes', now(), 'lifecycle',"
            " now() - interval '11 minutes')"
        )
        connection.execute("INSERT INTO events (event_ticker, not_found_at) VALUES ('KXE', now())")
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position) VALUES ('reference',"
            " 'refreshed', jsonb_build_object('at', now() - interval '4 minutes', 'error', 'why'))"
        )
    found = status(database)
    reference = found.reference
    assert reference is not None
    assert (reference.pending_outcomes, reference.unconfirmed_outcomes) == (1, 1)
    assert 7200 <= (reference.oldest_pending_age or 0) < 7260
    assert (reference.markets_not_found, reference.events_not_found) == (1, 1)
    assert (reference.census, reference.runs) == ("never", False)
    # One trouble is told once: while nothing is asked for, nothing can be confirmed.
    assert reference_reasons(reference) == ["markets have not been refreshed for 240 s: why"]
    assert reference_reasons(replace(reference, refresh_age=10.0)) == [
        "outcomes not confirmed by REST: 1, the oldest for 660 s"
    ]
    assert found.status == "degraded"
    assert set(reference_reasons(reference)) <= set(found.reasons)
    text = "\n".join(status_lines(found))
    assert "outcomes    1 to confirm, the oldest for 660 s; 1 awaited" in text
    assert "refreshed 240." in text
    assert "5 things to ask for; unknown to REST: 1 markets, 1 events, 0 series" in text
    # As a program reads it.
    assert msgspec.json.decode(msgspec.json.encode(found))["reference"]["due"] == 5


def test_a_database_that_nothing_was_recorded_in_is_not_called_late(database: str) -> None:
    found = status(database)
    assert found.reference is not None
    assert reference_reasons(found.reference) == []


def test_a_line_says_only_what_was_asked_for() -> None:
    assert day_line(YESTERDAY, None, None) == f"{YESTERDAY}  nothing changed"
    report = CensusReport(complete=True, tally=Tally(series=Changes(1, 2, 3), rejected=4))
    lines = census_lines(report)
    assert lines[0].split() == ["series", "6", "read,", "1", "added,", "2", "changed"]
    assert lines[-1] == "4 could not be read: see the table rejected_messages."


def test_a_day_of_markets_is_one_line() -> None:
    from kalshi_platform.ingest.reference_days import ReferenceDayReport

    report = ReferenceDayReport(YESTERDAY, True, 1500, 0, 0, 1500, 1400, 0, 0)
    assert markets_line(report).endswith("1,500 times told of a market; nothing changed")
