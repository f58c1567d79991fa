"""Markets, events, series and outcomes as Dagster fills them, against the simulated exchange."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.exchange.errors import Unauthorized
from kalshi_platform.orchestration import checks
from kalshi_platform.orchestration.assets import reference as assets
from kalshi_platform.orchestration.assets.reference import TABLES, reference
from kalshi_platform.orchestration.checks import CHECKS_OF_REFERENCE, reference_checks
from kalshi_platform.orchestration.resources import Database, Exchange
from kalshi_platform.orchestration.sync import census_job, refresh_reference
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import CENSUS, REFERENCE, Lease
from kalshi_simulator.testing import RunningSimulator, running_simulator

TODAY = datetime.now(UTC).date()
# Both whole: the second last day stays whole should midnight pass while the tests run.
DAY = TODAY - timedelta(days=2)
BEFORE = DAY - timedelta(days=1)


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    """Five days of history, of which the older ones are in the archive."""
    with running_simulator(
        seed=17,
        trades_per_second=5,
        history_trades_per_second=0.02,
        history_days=5,
        live_days=2,
        read_tokens_per_second=50_000,
    ) as running:
        yield running


@pytest.fixture
def faulty(simulator: RunningSimulator) -> Iterator[RunningSimulator]:
    """The simulator, its faults ended afterwards."""
    yield simulator
    simulator.clear_faults()


@pytest.fixture(autouse=True)
def ample_budget(monkeypatch):
    """As the simulator's, so that no test waits for tokens."""
    monkeypatch.setenv("KALSHI_REST_TOKENS_PER_SECOND", "20000")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def resources(database: str, simulator: RunningSimulator, **changes: str) -> dict[str, Any]:
    exchange = {
        "rest_url": simulator.rest_url,
        "ws_url": simulator.ws_url,
        "key_id": simulator.key_id,
        "private_key_path": str(simulator.private_key_path),
    }
    return {"database": Database(url=database), "exchange": Exchange(**{**exchange, **changes})}


def run_job(
    job: dg.JobDefinition,
    given: dict[str, Any],
    instance: dg.DagsterInstance,
    *,
    raise_on_error: bool = True,
) -> dg.ExecuteInProcessResult:
    sync = {"ops": {"sync_reference": {"config": {"seconds": 1}}}}
    return (
        dg.Definitions(jobs=[job], resources=given)
        .resolve_job_def(job.name)
        .execute_in_process(
            run_config=sync if job is refresh_reference else None,
            instance=instance,
            raise_on_error=raise_on_error,
        )
    )


def materialize(
    given: dict[str, Any], instance: dg.DagsterInstance, selection: list[str] | None = None
) -> dg.ExecuteInProcessResult:
    """BEFORE and DAY in one run, with their checks."""
    return dg.materialize(
        [reference, reference_checks],
        resources=given,
        instance=instance,
        selection=None if selection is None else dg.AssetSelection.assets(*selection),
        tags={
            "dagster/asset_partition_range_start": str(BEFORE),
            "dagster/asset_partition_range_end": str(DAY),
        },
    )


def lines_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.user_message for entry in instance.all_logs(run_id)]


def materializations(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetMaterialization]:
    return [
        entry.dagster_event.step_materialization_data.materialization
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        if entry.dagster_event is not None
    ]


def row_counts(instance: dg.DagsterInstance, run_id: str) -> dict[tuple[str, str | None], int]:
    """Rows by table and partition, of the run's materializations."""
    return {
        (event.asset_key.to_user_string(), event.partition): int(
            str(event.metadata["dagster/partition_row_count"].value)
        )
        for event in materializations(instance, run_id)
    }


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


def facts(database: str) -> list[list[tuple[Any, ...]]]:
    """All rows, `updated_at` included, without their place in the queue for REST."""
    queue = "{next_read_at,read_attempts,read_at,not_found_at}"
    return [
        rows(database, f"SELECT to_jsonb(row) - '{queue}'::text[] FROM {t} AS row ORDER BY 1")
        for t in TABLES
    ]


def test_days_of_both_tiers_are_one_run_that_fills_all_four_tables(database, simulator, instance):
    given = resources(database, simulator)
    result = materialize(given, instance)
    counts = row_counts(instance, result.run_id)
    assert set(counts) == {(table, str(day)) for table in TABLES for day in (BEFORE, DAY)}
    sources = dict(
        rows(database, "SELECT metadata_source, count(*) FROM markets GROUP BY metadata_source")
    )
    assert set(sources) == {"rest", "historical"}
    for day in (BEFORE, DAY):
        settled = {
            entry["ticker"]
            for entry in simulator.ledger("settlements")
            if entry.get("settlement_ts", "").startswith(str(day))
            # Combos are kept once traded; here nothing is.
            and not entry["ticker"].startswith("KXMVE")
        }
        assert len(settled) > 0
        assert counts[("settlements", str(day))] == len(settled)
        assert counts[("markets", str(day))] >= len(settled)
    passed = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert passed == {spec.name: True for spec in CHECKS_OF_REFERENCE}

    before = facts(database)
    again = materialize(given, instance)
    assert facts(database) == before
    assert row_counts(instance, again.run_id) == counts


def test_one_of_the_assets_can_be_asked_for_alone_and_the_others_are_reported(
    database, simulator, instance
):
    result = materialize(resources(database, simulator), instance, ["settlements"])
    assert {table for table, _ in row_counts(instance, result.run_id)} == set(TABLES)
    checked = {check.asset_key.to_user_string() for check in result.get_asset_check_evaluations()}
    assert checked <= {"settlements"}


def test_a_sync_describes_what_was_named_and_reports_today(database, simulator, instance):
    [market] = [m for m in simulator.ledger("markets") if m["status"] == "active"][:1]
    with connect(database) as connection:
        connection.execute("INSERT INTO markets (market_ticker) VALUES (%s)", [market["ticker"]])
    result = run_job(refresh_reference, resources(database, simulator), instance)
    [(title, event)] = rows(
        database,
        f"SELECT title, event_ticker FROM markets WHERE market_ticker = '{market['ticker']}'",
    )
    assert (title, event) == (market["title"], market["event_ticker"])
    assert rows(database, f"SELECT 1 FROM events WHERE event_ticker = '{event}'") == [(1,)]
    reported = row_counts(instance, result.run_id)
    assert {table for table, day in reported if day == str(TODAY)} == set(TABLES)
    [markets] = [
        event
        for event in materializations(instance, result.run_id)
        if (event.asset_key, event.partition) == (dg.AssetKey("markets"), str(TODAY))
    ]
    assert int(str(markets.metadata["changed"].value)) >= 1
    assert any(" complete rounds; markets " in line for line in lines_of(instance, result.run_id))


def test_a_market_that_nobody_asks_for_fails_its_check_and_is_named(
    database, simulator, monkeypatch
):
    monkeypatch.setattr(checks, "today", lambda: DAY)
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO markets (market_ticker, closes_at, next_read_at) VALUES (%s, %s, NULL)",
            ["KXFORGOTTEN", f"{DAY}T12:00Z"],
        )
    job = dg.define_asset_job("ask", dg.AssetSelection.checks_for_assets("settlements"))
    given = dg.Definitions(
        [reference],
        asset_checks=[reference_checks],
        jobs=[job],
        resources=resources(database, simulator),
    )
    result = given.resolve_job_def("ask").execute_in_process()
    found = {check.check_name: check for check in result.get_asset_check_evaluations()}
    check = found.pop("past_markets_have_outcomes")
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    table = check.metadata["examples"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["market_ticker"] for record in table.records] == ["KXFORGOTTEN"]
    assert found
    assert all(other.passed for other in found.values())


def test_a_sync_leaves_the_work_to_a_process_that_does_it(database, simulator, instance):
    lease = Lease(database, REFERENCE)
    assert lease.acquire()
    result = run_job(refresh_reference, resources(database, simulator), instance)
    lease.release()
    assert "Another process syncs; this run leaves it to that one." in lines_of(
        instance, result.run_id
    )
    assert row_counts(instance, result.run_id) == {}


def test_while_rest_is_down_a_sync_ends_well_and_reports_no_day(database, faulty, instance):
    faulty.fault("rest_503", count=1_000)
    result = run_job(refresh_reference, resources(database, faulty), instance)
    assert result.success
    assert row_counts(instance, result.run_id) == {}
    lines = lines_of(instance, result.run_id)
    assert any(" failures, at last: " in line for line in lines)
    assert "No round has been completed lately: the days are not reported." in lines


def test_today_fails_and_is_not_reported_while_rest_is_down(
    database, faulty, instance, monkeypatch
):
    monkeypatch.setattr(assets, "_TODAY_SECONDS", 1)
    monkeypatch.setattr(assets, "RETRY_SECONDS", 0.5)
    given = resources(database, faulty)

    def ask() -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [reference],
            partition_key=str(assets.today()),
            resources=given,
            instance=instance,
            raise_on_error=False,
        )

    faulty.fault("rest_503", count=1_000)
    down = ask()
    assert not down.success
    assert row_counts(instance, down.run_id) == {}
    faulty.clear_faults()
    again = ask()
    assert again.success
    assert {table for table, _ in row_counts(instance, again.run_id)} == set(TABLES)


@pytest.mark.parametrize("job", [refresh_reference, census_job], ids=lambda job: job.name)
def test_a_refused_key_fails_the_run(database, simulator, instance, job):
    given = resources(database, simulator, key_id="00000000-0000-0000-0000-000000000000")
    result = run_job(job, given, instance, raise_on_error=False)
    assert not result.success
    [step] = [event for event in result.all_events if event.is_step_failure]
    assert Unauthorized.__name__ in str(step.event_specific_data)


def test_a_census_knows_every_market_that_is_not_settled(database, simulator, instance):
    given = resources(database, simulator)
    result = run_job(census_job, given, instance)
    known = {ticker for (ticker,) in rows(database, "SELECT market_ticker FROM markets")}
    listed = {
        market["ticker"]
        for market in simulator.ledger("markets")
        if market["status"] in ("initialized", "active", "inactive", "closed")
        and not market["ticker"].startswith("KXMVE")
    }
    assert len(listed) > 0
    # Those that settled while the lists were read, or were born since, are the sync's.
    assert len(listed - known) <= len(listed) // 20
    assert "100 % of the exchange's lists read" in lines_of(instance, result.run_id)


def test_a_census_elsewhere_is_left_alone(database, simulator, instance):
    lease = Lease(database, CENSUS)
    assert lease.acquire()
    result = run_job(census_job, resources(database, simulator), instance)
    lease.release()
    assert rows(database, "SELECT count(*) FROM markets") == [(0,)]
    assert "Another process takes a census; this run leaves it to that one." in lines_of(
        instance, result.run_id
    )
