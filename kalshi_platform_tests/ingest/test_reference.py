"""The sync: what changed, what was named, what awaits its outcome; through outages and refusals."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from kalshi_platform.exchange.errors import Unauthorized
from kalshi_platform.exchange.lifecycle import Determined
from kalshi_platform.ingest.census import census
from kalshi_platform.ingest.reference import RefreshReport, refresh
from kalshi_platform.ingest.reference_changes import OVERLAP, save_watermark
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import REFERENCE, Lease
from kalshi_platform.storage.reads.status import read_status
from kalshi_platform.storage.writes.events import name_events
from kalshi_platform.storage.writes.lifecycle import apply_changes
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform_tests.ingest.reference_truth import (
    facts_alone,
    held_events,
    held_markets,
    is_combo,
    ledger_events,
    ledger_markets,
    make_due,
    position,
    row_of,
)
from kalshi_platform_tests.ingest.truth import client
from kalshi_simulator.testing import RunningSimulator, running_simulator


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator(
        seed=5,
        trades_per_second=1,
        history_trades_per_second=0.02,
        history_days=2,
        live_days=1,
        dormant_markets=2_400,
        read_tokens_per_second=50_000,
    ) as simulator:
        simulator.hold()
        yield simulator


@pytest.fixture
def simulator(exchange: RunningSimulator) -> Iterator[RunningSimulator]:
    yield exchange
    exchange.clear_faults()


@pytest.fixture(scope="module")
def truth(exchange: RunningSimulator) -> list[dict]:
    return exchange.ledger("markets")


class OnceNothingIsLeft(threading.Event):
    """Set as soon as there is time to wait for the next look."""

    def wait(self, timeout: float | None = None) -> bool:
        return timeout != 0


def sync(
    database: str, simulator: RunningSimulator, seconds: float | None = None, **options
) -> RefreshReport:
    """All that is to be done, however long it takes; or as many looks as fit into the seconds."""
    rest = client(simulator, **{"retry_seconds": 0.2, **options})
    if seconds is None:
        return refresh(database, rest, OnceNothingIsLeft(), seconds=60)
    return refresh(database, rest, threading.Event(), seconds=seconds)


def one_of(markets: list[dict], **wanted: object) -> dict:
    return next(
        row
        for row in markets
        if not is_combo(row["ticker"])
        and all(row.get(name) == value for name, value in wanted.items())
    )


def name(database: str, *tickers: str) -> None:
    with connect(database) as connection:
        name_markets(connection, tickers)


def tell_outcome(database: str, ticker: str, result: str, value: int | None) -> None:
    """What the stream says of an outcome, and no wait before REST is asked."""
    now = datetime.now(UTC)
    change = Determined(ticker, result, value, now - timedelta(days=3))
    with connect(database) as connection:
        apply_changes(connection, [(change, now - timedelta(days=3), now)])
    make_due(database)


# What changed


def test_everything_that_changed_is_taken_once_and_a_second_round_changes_nothing(
    database, simulator
):
    census(database, client(simulator), threading.Event())
    sync(database, simulator)
    assert simulator.touch(2_000) == 2_000
    make_due(database, round_too=True)
    report = sync(database, simulator)
    assert report.rounds == 1
    assert report.tally.markets.changed == 2_000
    held = held_markets(database)
    truth = ledger_markets(simulator)
    assert held == {ticker: truth[ticker] for ticker in held}
    assert held_events(database) == ledger_events(simulator)
    before = facts_alone(database)
    make_due(database, round_too=True)
    again = sync(database, simulator)
    assert (again.rounds, again.tally.changed) == (1, 0)
    assert facts_alone(database) == before


def test_the_first_round_begins_at_the_exchanges_present_time(database, simulator):
    report = sync(database, simulator)
    assert report.rounds == 1
    newest = client(simulator).newest_trade_at()
    at = datetime.fromisoformat(position(database, "watermark:markets")["at"])
    assert newest is not None
    assert at >= newest
    assert at <= datetime.fromisoformat(simulator.stats()["now"])


def test_after_an_outage_all_that_was_missed_is_taken_in_slices(database, simulator):
    newest = client(simulator).newest_trade_at()
    assert newest is not None
    since = newest - timedelta(hours=6)
    with connect(database) as connection:
        for kind in ("markets", "events", "series"):
            save_watermark(connection, kind, since)
    before = simulator.stats()["rest_requests"]
    report = sync(database, simulator)
    assert report.rounds == 1
    assert simulator.stats()["rest_requests"] - before > 6
    changed = {
        ticker: facts
        for ticker, facts in ledger_markets(simulator).items()
        if facts["exchange_updated_at"] > since - OVERLAP
    }
    cutoff = client(simulator).cutoff().market_settled_ts
    assert len(changed) > 50
    assert since > cutoff
    assert held_markets(database) == changed
    at = datetime.fromisoformat(position(database, "watermark:markets")["at"])
    # The largest on the first page: what changed while later ones were read may have been missed.
    assert newest - OVERLAP <= at <= max(f["exchange_updated_at"] for f in changed.values())


# What was named


def test_a_market_known_by_name_gets_its_facts_its_event_and_its_series(database, simulator, truth):
    market = one_of(truth, status="active")
    name(database, market["ticker"])
    report = sync(database, simulator)
    assert report.failures == 0
    row = row_of(database, "markets", market["ticker"])
    assert row["metadata_source"] == "rest"
    assert row["title"] == market["title"]
    event = row_of(database, "events", row["event_ticker"])
    assert event["metadata"] is not None
    assert event["next_read_at"] is None
    assert row["series_ticker"] == event["series_ticker"]


def test_a_combo_that_traded_is_asked_for_with_its_event(database, simulator, truth):
    combo = next(row["ticker"] for row in truth if is_combo(row["ticker"]))
    name(database, combo)
    sync(database, simulator)
    row = row_of(database, "markets", combo)
    assert row["metadata"] is not None
    assert row_of(database, "events", row["event_ticker"])["metadata"] is not None


def test_a_market_behind_the_cutoff_comes_from_the_archive_with_its_outcome(database, simulator):
    cutoff = client(simulator).cutoff().market_settled_ts
    market = next(
        row
        for row in simulator.ledger("markets")
        if not is_combo(row["ticker"])
        and row.get("settlement_ts")
        and datetime.fromisoformat(row["settlement_ts"]) < cutoff
    )
    name(database, market["ticker"])
    sync(database, simulator)
    row = row_of(database, "markets", market["ticker"])
    assert (row["metadata_source"], row["next_read_at"]) == ("historical", None)
    outcome = row_of(database, "settlements", market["ticker"])
    assert (outcome["status"], outcome["source"]) == ("finalized", "historical")
    assert outcome["result"] == market["result"]
    assert outcome["confirmed_at"] is not None


def test_a_name_that_nobody_knows_is_asked_for_with_growing_pauses(database, simulator):
    sync(database, simulator)
    name(database, "KXNONE-1")
    pauses = []
    for _ in range(4):
        make_due(database)
        report = sync(database, simulator)
        assert report.tally.missing >= 1
        row = row_of(database, "markets", "KXNONE-1")
        assert row["metadata"] is None
        pauses.append(round((row["next_read_at"] - row["not_found_at"]).total_seconds()))
    assert pauses == [5, 10, 20, 40]
    with connect(database) as connection:
        connection.execute("UPDATE markets SET first_seen_at = now() - interval '25 hours'")
    make_due(database)
    sync(database, simulator)
    row = row_of(database, "markets", "KXNONE-1")
    assert row["next_read_at"] - row["not_found_at"] == timedelta(days=1)


def test_a_market_that_appears_late_is_found_and_no_longer_missing(database, simulator, truth):
    market = max(
        (row for row in truth if not is_combo(row["ticker"])), key=lambda row: row["created_time"]
    )
    simulator.fault("not_found_after_created", seconds=1e7)
    name(database, market["ticker"])
    sync(database, simulator)
    assert row_of(database, "markets", market["ticker"])["not_found_at"] is not None
    simulator.clear_faults()
    make_due(database)
    sync(database, simulator)
    row = row_of(database, "markets", market["ticker"])
    assert row["metadata"] is not None
    assert row["not_found_at"] is None


def test_a_series_that_the_exchange_does_not_have_is_a_fact(database, simulator):
    known = {row["ticker"] for row in simulator.ledger("series")}
    event = next(
        row
        for row in simulator.ledger("events")
        if row.get("series_ticker") and row["series_ticker"] not in known
    )
    with connect(database) as connection:
        name_events(connection, [event["event_ticker"]])
    report = sync(database, simulator)
    assert report.failures == 0
    series = row_of(database, "series", event["series_ticker"])
    assert series["not_found_at"] is not None
    assert series["metadata"] is None
    with connect(database) as connection:
        status = read_status(connection, simulated=True).reference
    assert status is not None
    assert status.series_not_found == 1


# Outcomes


def test_an_outcome_that_the_stream_told_is_confirmed(database, simulator, truth):
    market = one_of(truth, status="finalized", result="yes")
    name(database, market["ticker"])
    tell_outcome(database, market["ticker"], "yes", 1_000_000)
    assert row_of(database, "settlements", market["ticker"])["confirmed_at"] is None
    sync(database, simulator)
    outcome = row_of(database, "settlements", market["ticker"])
    assert outcome["confirmed_at"] is not None
    assert outcome["status"] == "finalized"
    assert outcome["settled_at"] == datetime.fromisoformat(market["settlement_ts"])
    assert row_of(database, "markets", market["ticker"])["next_read_at"] is None


def test_an_outcome_that_rest_does_not_show_yet_is_asked_for_again_soon(database, simulator, truth):
    market = one_of(truth, status="active")
    name(database, market["ticker"])
    tell_outcome(database, market["ticker"], "no", 0)
    for _ in range(2):
        make_due(database)
        sync(database, simulator)
        row = row_of(database, "markets", market["ticker"])
        assert row["outcome_status"] == "determined"
        assert row["next_read_at"] - datetime.now(UTC) < timedelta(seconds=25)
    outcome = row_of(database, "settlements", market["ticker"])
    assert (outcome["result"], outcome["confirmed_at"]) == ("no", None)


def test_outcomes_to_confirm_go_before_names(database, simulator, truth):
    settled = one_of(truth, status="finalized", result="no")["ticker"]
    name(database, *(f"KXNONE-{number}" for number in range(1_500)), settled)
    tell_outcome(database, settled, "no", 0)
    rest = client(simulator)
    # No time but for the first call.
    refresh(database, rest, threading.Event(), seconds=0.001)
    refresh(database, rest, threading.Event(), seconds=0.4)
    assert row_of(database, "settlements", settled)["confirmed_at"] is not None


# What goes wrong


def test_an_outage_is_counted_and_shown_and_all_is_made_up_for_after_it(database, simulator):
    market = simulator.ledger("markets")[0]["ticker"]
    name(database, market)
    simulator.fault("rest_503", seconds=600)
    report = sync(database, simulator)
    assert report.failures >= 1
    assert report.rounds == 0
    assert "503" in (report.error or "")
    told = position(database, "refreshed")
    assert told == {"at": None, "error": report.error}
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO recorded_exchange (exchange, first_used_at)"
            " VALUES ('simulated', now() - interval '10 minutes')"
        )
        connection.commit()
        status = read_status(connection, simulated=True)
    [reason] = [reason for reason in status.reasons if reason.startswith("markets have")]
    assert reason.startswith("markets have never been refreshed for 6")
    assert "503" in reason
    simulator.clear_faults()
    report = sync(database, simulator, seconds=4)
    assert (report.rounds, report.failures) == (1, 0)
    assert row_of(database, "markets", market)["metadata"] is not None
    with connect(database) as connection:
        status = read_status(connection, simulated=True)
    assert status.reference is not None
    assert status.reference.error is None
    assert [reason for reason in status.reasons if "refreshed" in reason] == []
    failures = {metric.name: metric.value for metric in status.metrics}
    assert failures["reference_failures_total"] >= 1


def test_pauses_grow_while_it_cannot_be_asked(database, simulator):
    simulator.fault("rest_503", seconds=600)
    before = simulator.stats()["rest_requests"]
    report = sync(database, simulator, seconds=4, retry_seconds=0.0)
    # At 0 and 2 seconds; the third time would be at 6.
    assert report.failures == 2
    assert simulator.stats()["rest_requests"] - before == 2


def test_a_refused_key_is_raised_and_shown(database, simulator):
    simulator.fault("rest_401", count=1)
    with pytest.raises(Unauthorized):
        sync(database, simulator)
    told = position(database, "refreshed")
    assert told is not None
    assert "KALSHI_API_KEY_ID" in told["error"]


def test_two_never_work_at_once(database, simulator):
    other = Lease(database, REFERENCE)
    assert other.acquire()
    try:
        began = time.monotonic()
        report = sync(database, simulator, seconds=30)
    finally:
        other.release()
    assert report.is_elsewhere
    assert time.monotonic() - began < 25
    assert sync(database, simulator).rounds == 1


def test_a_database_that_is_away_is_no_error(simulator):
    report = refresh(
        "postgresql://nobody@127.0.0.1:1/none", client(simulator), threading.Event(), seconds=5
    )
    assert report.failures == 1


def test_it_ends_when_asked_to(database, simulator):
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    began = time.monotonic()
    refresh(database, client(simulator, stop=stop), stop, seconds=60)
    assert time.monotonic() - began < 50
