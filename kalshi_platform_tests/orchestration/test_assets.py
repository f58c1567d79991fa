"""The assets and their checks, run by Dagster on a real database."""

import json
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import checks
from kalshi_platform.orchestration.assets.books import book_deltas, book_snapshots
from kalshi_platform.orchestration.assets.candles import CandleRun, candles
from kalshi_platform.orchestration.assets.feed import quotes
from kalshi_platform.orchestration.assets.reference import reference
from kalshi_platform.orchestration.assets.trades import trades
from kalshi_platform.orchestration.automation import (
    candles_each_minute,
    check_today_job,
    make_partitions,
)
from kalshi_platform.orchestration.checks import (
    candles_checks,
    feed_checks,
    reference_checks,
    trades_checks,
)
from kalshi_platform.orchestration.report import feed_report
from kalshi_platform.orchestration.resources import ENVIRONMENT, Database, Exchange, Home
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions

DAY = date(2026, 3, 5)
TODAY = datetime.now(UTC).date()
NOON = datetime(2026, 3, 5, 12, 0, 5, tzinfo=UTC)


def insert(
    connection: psycopg.Connection,
    at: datetime = NOON,
    price_micros: int = 360_000,
    market: str = "KXTEST-A",
    count_centis: int = 150,
) -> None:
    """One trade and its stale minute, as whoever lands one writes them."""
    ensure_partitions(connection, [at.date()])
    connection.execute(
        "INSERT INTO trades (traded_at, count_centis, yes_price_micros, traded_on, trade_id,"
        " exact_time, taker_side, market_ticker) VALUES (%s, %s, %s, %s, %s, true, 'yes', %s)",
        [at, count_centis, price_micros, at.date(), uuid.uuid4(), market],
    )
    connection.execute(
        "INSERT INTO stale_candles VALUES (date_trunc('minute', %s, 'UTC'), %s)", [at, market]
    )


def land(database: str, *given: dict[str, Any]) -> None:
    with connect(database) as connection:
        for trade in given or ({},):
            insert(connection, **trade)


def materialize(
    database: str,
    day: date = DAY,
    *,
    instance: dg.DagsterInstance | None = None,
    only_stale: bool = False,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() if instance is None else nullcontext(instance) as used:
        return dg.materialize(
            [candles, candles_checks],
            partition_key=None if "tags" in options else str(day),
            resources={"database": Database(url=database)},
            run_config=dg.RunConfig(ops={"candles": CandleRun(only_stale=only_stale)}),
            instance=used,
            **options,
        )


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def test_a_past_day_is_rebuilt_and_every_check_of_it_passes(database):
    land(database, {}, {"at": NOON + timedelta(seconds=40), "price_micros": 410_000})
    result = materialize(database)
    assert rows(database, "SELECT open_micros, close_micros, volume_centis FROM candles_1d") == [
        (360_000, 410_000, 300)
    ]
    assert passed(result) == dict.fromkeys(
        (
            "candles_equal_quotes",
            "candles_equal_trades",
            "candles_in_order",
            "ties_decided",
            "volume_kept",
        ),
        True,
    )
    [minutes] = result.asset_materializations_for_node("candles")[:1]
    assert minutes.partition == str(DAY)
    assert minutes.metadata["dagster/partition_row_count"].value == 1
    assert "KXTEST-A $0.3600 → $0.4100, 3.00 contracts" in str(
        minutes.metadata["busiest_market"].value
    )


def test_a_second_run_of_a_day_changes_no_row(database):
    land(database)
    materialize(database)
    versions = "SELECT xmin::text, ctid::text FROM candles_1m ORDER BY 2"
    before = rows(database, versions)
    result = materialize(database)
    assert rows(database, versions) == before
    for event in result.asset_materializations_for_node("candles"):
        assert event.metadata["candles_written"].value == 0


def test_a_range_of_days_is_one_run_with_figures_for_each_day(database):
    next_day = NOON + timedelta(days=1)
    land(database, {}, {"at": next_day}, {"at": next_day + timedelta(minutes=3)})
    result = materialize(
        database,
        tags={
            "dagster/asset_partition_range_start": str(DAY),
            "dagster/asset_partition_range_end": str(next_day.date()),
        },
    )
    counts = {
        (event.asset_key.to_user_string(), event.partition): event.metadata[
            "dagster/partition_row_count"
        ].value
        for event in result.asset_materializations_for_node("candles")
    }
    assert counts[("candles_1m", str(DAY))] == 1
    assert counts[("candles_1m", str(next_day.date()))] == 2
    assert len(counts) == 6


def test_the_refresh_of_a_minute_reports_the_past_day_that_a_late_trade_changed(database):
    land(database, {}, {"at": datetime.now(UTC)})
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(database, TODAY, instance=instance, only_stale=True)
        assert instance.get_materialized_partitions(dg.AssetKey("candles_1h")) == {
            str(DAY),
            str(TODAY),
        }
    assert rows(database, "SELECT count(*) FROM candles_1d") == [(2,)]
    assert rows(database, "SELECT count(*) FROM stale_candles") == [(0,)]


@pytest.fixture
def asked_alone(monkeypatch, database):
    """Checks asked without a run of their asset are about today, which here is the test's day."""
    monkeypatch.setattr(checks, "today", lambda: DAY)

    def ask() -> dict[str, dg.AssetCheckEvaluation]:
        job = dg.Definitions(
            assets=[quotes, book_snapshots, book_deltas, trades, candles, reference],
            asset_checks=[feed_checks, trades_checks, candles_checks, reference_checks],
            jobs=[check_today_job],
            resources={
                "database": Database(url=database),
                "exchange": Exchange(rest_url="", ws_url="", key_id="", private_key_path=""),
            },
        ).resolve_job_def(check_today_job.name)
        result = job.execute_in_process(raise_on_error=False)
        return {check.check_name: check for check in result.get_asset_check_evaluations()}

    return ask


def test_a_right_day_passes_every_check(database, asked_alone):
    land(database)
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO markets (market_ticker, event_ticker, metadata) VALUES"
            " ('KXTEST-A', 'KXTEST', '{}')"
        )
        connection.execute("INSERT INTO events (event_ticker, metadata) VALUES ('KXTEST', '{}')")
    materialize(database)
    assert {name: check.passed for name, check in asked_alone().items()} == dict.fromkeys(
        checks.PLACES, True
    )


def test_a_price_out_of_range_fails_its_check_and_stops_what_comes_after(database, asked_alone):
    land(database, {"price_micros": 1_500_000})
    check = asked_alone()["prices_in_range"]
    assert not check.passed
    assert check.blocking
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert check.metadata["failed_days"].value == str(DAY)


def test_a_candle_that_is_not_its_trades_fails_its_checks(database, asked_alone):
    land(database)
    materialize(database)
    with connect(database) as connection:
        connection.execute("UPDATE candles_1m SET volume_centis = volume_centis + 1")
    found = asked_alone()
    assert not found["volume_kept"].passed
    assert not found["candles_equal_trades"].passed


def test_an_open_gap_warns_and_stops_nothing(database, asked_alone):
    land(database)
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
            " VALUES ('trade', 'disconnect', 'open', %s, %s)",
            [NOON, NOON + timedelta(seconds=9)],
        )
    check = asked_alone()["no_open_gap"]
    assert not check.passed
    assert not check.blocking
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_every_check_of_the_day_has_its_place():
    assert set(checks.PLACES) == {check.name for check in checks.CHECKS}


@pytest.fixture(autouse=True)
def environment(monkeypatch, database):
    """Requests are checked against the job, whose resources name their variables."""
    for _, _, variable, _ in ENVIRONMENT:
        monkeypatch.setenv(variable, database)


def schedule_tick(database: str, instance: dg.DagsterInstance) -> Any:
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(2026, 3, 6, 0, 0, tzinfo=UTC),
        resources={"database": Database(url=database)},
        repository_def=defs.get_repository_def(),
    ) as context:
        return candles_each_minute(context)


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    """One with a storage on disk, as schedules want it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as stored:
        yield stored


def test_each_minute_has_a_run_when_trades_have_changed(database, instance):
    land(database)
    request = schedule_tick(database, instance)
    assert isinstance(request, dg.RunRequest)
    assert (request.run_key, request.partition_key) == ("2026-03-06T00:00", "2026-03-06")
    assert request.run_config["ops"] == {"candles": {"config": {"only_stale": True}}}


def test_a_minute_without_trades_has_no_run(database, instance):
    assert isinstance(schedule_tick(database, instance), dg.SkipReason)


def test_a_refresh_under_way_is_not_joined_by_another(database, instance):
    land(database)
    job = defs.resolve_job_def("refresh_candles")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    result = schedule_tick(database, instance)
    assert isinstance(result, dg.SkipReason)
    assert "under way" in (result.skip_message or "")


def report(database: str, folder: str, cursor: str | None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(
        cursor=cursor,
        definitions=defs,
        resources={"database": Database(url=database), "home": Home(folder=folder)},
    ) as context:
        result = feed_report(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def test_a_day_is_reported_when_the_stream_has_changed_it_and_not_again(database, tmp_path):
    now = datetime.now(UTC)
    (tmp_path / "tape").mkdir()
    segment = tmp_path / "tape" / f"{int(now.timestamp() * 1000):013d}.ndjson.zst"
    segment.write_bytes(b"12345")
    with connect(database) as connection:
        insert(connection, at=now)
        connection.execute(
            "INSERT INTO raw_trades (landed_at, received_at, traded_at, count_centis,"
            " yes_price_micros, trade_id, source, taker_side, market_ticker)"
            " VALUES (%s, %s, %s, 1, 1, %s, 'ws', 'yes', 'A')",
            [now, now, now, uuid.uuid4()],
        )
        connection.commit()
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.commit()
    first = report(database, str(tmp_path), None)
    assert isinstance(first, dg.SensorResult)
    events = {e.asset_key.to_user_string(): e for e in first.asset_events}
    assert set(events) == {"feed_tape", "raw_trades", "trades"}
    assert {e.partition for e in events.values()} == {str(TODAY)}
    assert events["feed_tape"].metadata["compressed_bytes"].value == 5
    assert events["raw_trades"].metadata["dagster/partition_row_count"].value == 1
    assert events["raw_trades"].metadata["newest_received_at"].value == now.isoformat(
        timespec="milliseconds"
    )
    assert isinstance(report(database, str(tmp_path), first.cursor), dg.SkipReason)
    segment.write_bytes(b"1234567")
    again = report(database, str(tmp_path), first.cursor)
    assert isinstance(again, dg.SensorResult)
    assert [e.asset_key.to_user_string() for e in again.asset_events] == ["feed_tape"]
    assert set(json.loads(again.cursor or "")) == set(json.loads(first.cursor or ""))


def test_partitions_are_made_ahead(database):
    with connect(database) as connection:
        tomorrow = TODAY + timedelta(days=1)
        connection.execute(f"DROP TABLE trades_{tomorrow:%Y%m%d}".encode())
    with dg.build_op_context(resources={"database": Database(url=database)}) as context:
        make_partitions(context)
    names = {
        name for (name,) in rows(database, "SELECT relname FROM pg_class WHERE relispartition")
    }
    assert f"{tables.trades.name}_{tomorrow:%Y%m%d}" in names


@pytest.mark.parametrize("name", ["candles_each_minute", "certify_yesterdays_trades"])
def test_schedules_run_without_being_switched_on(name):
    schedule = defs.resolve_schedule_def(name)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.execution_timezone == "UTC"
