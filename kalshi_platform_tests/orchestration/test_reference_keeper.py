"""The keeper of markets and outcomes: a run where something is due, one at a time, no other."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from psycopg.types.json import Jsonb

from kalshi_platform.definitions import defs
from kalshi_platform.orchestration.reference_keeper import (
    ROUND_SECONDS,
    Need,
    reference_keeper,
    why_sync,
)
from kalshi_platform.orchestration.resources import ENVIRONMENT, Database
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import REFERENCE, Lease
from kalshi_platform.storage.reads.reference import CENSUS, REFRESHED, SOURCE

S = dg.DagsterRunStatus
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
IDLE = Need(census=False, completed_at=NOW, due_seconds=-5, is_held=False)


@pytest.fixture(autouse=True)
def environment(monkeypatch, database):
    """Requests are checked against the job, whose resources name their variables."""
    for _, _, variable, _ in ENVIRONMENT:
        monkeypatch.setenv(variable, database)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def save(database: str, scope: str, **position: Any) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position) VALUES (%s, %s, %s)"
            " ON CONFLICT (source, scope) DO UPDATE SET position = excluded.position",
            [SOURCE, scope, Jsonb(position)],
        )


@pytest.fixture
def settled(database: str) -> str:
    """A database in which the census was taken, a round just completed, and nothing is due."""
    save(database, CENSUS, completed_at=datetime.now(UTC).isoformat())
    save(database, REFRESHED, at=datetime.now(UTC).isoformat(), error=None)
    return database


def make_due(database: str, table: str, column: str) -> None:
    with connect(database) as connection:
        connection.execute(f"INSERT INTO {table} ({column}) VALUES ('KXNEW')".encode())


def tick(
    database: str, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        definitions=defs,
        resources={"database": Database(url=database)},
    ) as context:
        result = reference_keeper(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def requested(result: dg.SensorResult | dg.SkipReason) -> list[str | None]:
    if isinstance(result, dg.SkipReason):
        return []
    return [request.job_name for request in result.run_requests or []]


def test_a_new_platform_takes_a_census_and_syncs(database, instance):
    assert set(requested(tick(database, instance))) == {"census", "refresh_reference"}


def test_nothing_runs_while_nothing_is_due(settled, instance):
    result = tick(settled, instance)
    assert isinstance(result, dg.SkipReason)
    assert result.skip_message == "Nothing is due."


@pytest.mark.parametrize(
    ("table", "column"),
    [("markets", "market_ticker"), ("events", "event_ticker"), ("series", "series_ticker")],
)
def test_whatever_is_due_is_synced(settled, instance, table, column):
    make_due(settled, table, column)
    assert requested(tick(settled, instance)) == ["refresh_reference"]


def test_what_is_due_later_waits(settled, instance):
    make_due(settled, "markets", "market_ticker")
    with connect(settled) as connection:
        connection.execute("UPDATE markets SET next_read_at = now() + interval '1 hour'")
    assert requested(tick(settled, instance)) == []


def test_the_exchange_is_asked_for_changes_though_nothing_is_due(settled, instance):
    old = datetime.now(UTC) - timedelta(seconds=ROUND_SECONDS + 1)
    save(settled, REFRESHED, at=old.isoformat(), error=None)
    assert requested(tick(settled, instance)) == ["refresh_reference"]


@pytest.mark.parametrize("status", [S.NOT_STARTED, S.STARTED])
def test_a_run_under_way_is_not_joined_by_another(database, instance, status):
    for job in ("census", "refresh_reference"):
        instance.create_run_for_job(defs.resolve_job_def(job), status=status)
    result = tick(database, instance)
    assert isinstance(result, dg.SkipReason)
    assert result.skip_message == "census is under way. refresh_reference is under way."


def test_a_census_that_died_is_taken_up_again_after_a_pause(settled, instance, monkeypatch):
    save(settled, CENSUS, cursor="somewhere")
    run = instance.create_run_for_job(defs.resolve_job_def("census"), status=S.STARTED)
    assert requested(tick(settled, instance)) == []
    instance.report_run_failed(run, "The run's process is gone.")
    result = tick(settled, instance)
    assert isinstance(result, dg.SkipReason)
    assert "census failed; the next one starts in " in (result.skip_message or "")
    monkeypatch.setattr(
        "kalshi_platform.orchestration.reference_keeper._PAUSE_AFTER_FAILURE_SECONDS", 0
    )
    assert requested(tick(settled, instance)) == ["census"]


def test_a_sync_outside_of_dagster_is_left_alone_and_reported_once_a_minute(settled, instance):
    make_due(settled, "markets", "market_ticker")
    lease = Lease(settled, REFERENCE)
    assert lease.acquire()
    first = tick(settled, instance)
    assert isinstance(first, dg.SensorResult)
    assert not first.run_requests
    days = {event.partition for event in first.asset_events}
    assert str(datetime.now(UTC).date()) in days
    reported = {event.asset_key.to_user_string() for event in first.asset_events}
    assert reported == {"markets", "settlements", "events", "series"}
    soon = datetime.now(UTC) + timedelta(seconds=30)
    save(settled, REFRESHED, at=soon.isoformat(), error=None)
    again = tick(settled, instance, first.cursor)
    assert isinstance(again, dg.SkipReason)
    assert "outside" in (again.skip_message or "")
    later = datetime.now(UTC) + timedelta(seconds=90)
    save(settled, REFRESHED, at=later.isoformat(), error=None)
    assert isinstance(tick(settled, instance, first.cursor), dg.SensorResult)
    lease.release()
    assert requested(tick(settled, instance, first.cursor)) == ["refresh_reference"]


def test_a_database_that_is_away_is_told_and_starts_nothing(instance):
    result = tick("postgresql://nobody@127.0.0.1:1/none", instance)
    assert isinstance(result, dg.SkipReason)
    assert "cannot be reached" in (result.skip_message or "")


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (IDLE, None),
        (IDLE._replace(due_seconds=None), None),
        (IDLE._replace(due_seconds=0.2), "Something has been due for 0 s."),
        (IDLE._replace(completed_at=None), "Nothing has been synced yet."),
        (
            IDLE._replace(completed_at=NOW - timedelta(seconds=61)),
            "The last complete round was 61 s ago.",
        ),
    ],
)
def test_the_reason_for_a_sync_is_told(need, reason):
    assert why_sync(need, NOW) == reason
