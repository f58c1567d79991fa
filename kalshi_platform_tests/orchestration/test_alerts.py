"""The alert sensor: from what is wrong to a message on a listening webhook, once, and its end."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from kalshi_platform.alerting import delivery
from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import alerts as module
from kalshi_platform.orchestration.alerts import alerts
from kalshi_platform.orchestration.resources import ENVIRONMENT, Database, Home
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import ALERTS, LOADER, RECORDER, Lease
from kalshi_platform_tests.alerting.listening import Webhook, listening

S = dg.DagsterRunStatus


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as found:
        yield found


@pytest.fixture(autouse=True)
def configured(monkeypatch, tmp_path: Path, webhook: Webhook):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0)
    # Dagster looks for these before it makes a run of a job.
    for _, _, variable, _ in ENVIRONMENT:
        monkeypatch.setenv(variable, "unused")
    monkeypatch.setenv("DATABASE_URL", "postgresql://unused/unused")
    monkeypatch.setenv("KALSHI_ALERT_WEBHOOK_URL", webhook.url)
    monkeypatch.setenv("KALSHI_ALERT_DISK_PERCENT", "100")
    monkeypatch.setenv("KALSHI_DAGSTER_URL", "http://dagster.test")
    monkeypatch.delenv("KALSHI_ALERT_SMTP_URL", raising=False)


@pytest.fixture
def recording(database) -> Iterator[None]:
    """Somebody records and loads, and messages have just come."""
    leases = [Lease(database, lock) for lock in (RECORDER, LOADER)]
    for lease in leases:
        assert lease.acquire()
    messages_came(database, 0)
    yield
    for lease in leases:
        lease.release()


def messages_came(database: str, seconds_ago: float) -> None:
    """The last message of each channel came so long ago; alerts have been looked at for longer."""
    with connect(database) as connection:
        # Young enough for tables without a row to be starting still.
        connection.execute(
            "INSERT INTO recorded_exchange (exchange, first_used_at)"
            " VALUES ('simulated', now() - interval '150 seconds') ON CONFLICT DO NOTHING"
        )
        for channel in ("trade", "ticker"):
            connection.execute(
                "INSERT INTO ingestion_metrics (name, labels, value, updated_at)"
                " VALUES ('last_received_at_seconds', %s,"
                " extract(epoch FROM now()) - %s, now())"
                " ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value",
                [f'channel="{channel}"', seconds_ago],
            )
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position, updated_at) VALUES"
            " ('alerts', 'watch', jsonb_build_object('since', now() - interval '1 hour'), now()),"
            " ('reference', 'refreshed', jsonb_build_object('at', now()), now())"
            " ON CONFLICT (source, scope) DO UPDATE SET position = excluded.position,"
            " updated_at = now()"
        )


def pass_seconds(database: str, seconds: float) -> None:
    with connect(database) as connection:
        connection.execute(
            "UPDATE alerts SET started_at = started_at - make_interval(secs => %(by)s),"
            " gone_since = gone_since - make_interval(secs => %(by)s)",
            {"by": seconds},
        )


def tick(instance: dg.DagsterInstance, database: str, home: Path) -> str:
    with dg.build_sensor_context(
        instance=instance,
        definitions=defs,
        resources={"database": Database(url=database), "home": Home(folder=str(home))},
    ) as context:
        result = alerts(context)
    assert isinstance(result, dg.SkipReason)
    return result.skip_message or ""


def test_all_is_well_says_nothing(instance, database, tmp_path, webhook, recording):
    assert tick(instance, database, tmp_path) == "All is well."
    assert webhook.heard == []


def test_a_feed_that_stops_is_told_once_and_its_return_once(
    instance, database, tmp_path, webhook, recording
):
    """Looked at every 5 s, what may be 60 s old is told of after 65 s at the latest."""
    messages_came(database, 59)
    tick(instance, database, tmp_path)
    assert webhook.heard == []
    began = time.monotonic()
    messages_came(database, 60.5)
    assert tick(instance, database, tmp_path).startswith("Not as it should be: stale feed")
    assert time.monotonic() - began < 5
    assert webhook.titles == ["ERROR stale feed"]
    assert "(limit 60 s)" in webhook.heard[0].body["text"]
    messages_came(database, 70)
    tick(instance, database, tmp_path)
    messages_came(database, 1)
    tick(instance, database, tmp_path)
    assert len(webhook.heard) == 1
    pass_seconds(database, 15)
    tick(instance, database, tmp_path)
    tick(instance, database, tmp_path)
    assert webhook.titles == ["ERROR stale feed", "RECOVERED stale feed"]


def test_a_run_that_fails_is_told_with_a_link_and_the_next_success_is_its_end(
    instance, database, tmp_path, webhook, recording
):
    job = defs.resolve_job_def("certify_trades")
    tags = {"dagster/partition": "2026-11-20"}
    failed = instance.create_run_for_job(job, status=S.FAILURE, tags=tags)
    tick(instance, database, tmp_path)
    assert webhook.titles == ["ERROR run certify_trades 2026-11-20"]
    assert f"http://dagster.test/runs/{failed.run_id}" in webhook.heard[0].body["text"]
    instance.create_run_for_job(job, status=S.STARTED, tags=tags)
    tick(instance, database, tmp_path)
    instance.create_run_for_job(job, status=S.SUCCESS, tags=tags)
    tick(instance, database, tmp_path)
    pass_seconds(database, 15)
    tick(instance, database, tmp_path)
    assert webhook.titles[1:] == ["RECOVERED run certify_trades 2026-11-20"]


def test_a_tick_looks_a_second_time(instance, database, tmp_path, webhook, recording, monkeypatch):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 1.5)
    messages_came(database, 59)
    assert tick(instance, database, tmp_path).startswith("Not as it should be: stale feed")
    assert webhook.titles == ["ERROR stale feed"]


def test_a_webhook_that_takes_its_time_hears_everything_once(
    instance, database, tmp_path, webhook, recording, monkeypatch
):
    monkeypatch.setattr(delivery, "TURN_SECONDS", 3.0)
    monkeypatch.setattr(module, "LONGEST_TICK_SECONDS", 4.0)
    webhook.takes_seconds = 1.8
    messages_came(database, 61)
    instance.create_run_for_job(defs.resolve_job_def("certify_trades"), status=S.FAILURE)
    for _ in range(3):
        assert "could not be sent" not in tick(instance, database, tmp_path)
    assert sorted(webhook.titles) == ["ERROR run certify_trades", "ERROR stale feed"]


def test_nothing_is_told_twice_by_two_who_look(instance, database, tmp_path, webhook, recording):
    messages_came(database, 61)
    with connect(database, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [ALERTS])
        assert tick(instance, database, tmp_path) == "Another process looks and delivers."
    assert webhook.heard == []
    tick(instance, database, tmp_path)
    assert len(webhook.heard) == 1


def test_what_was_begun_before_a_restart_goes_on_after_it(
    instance, database, tmp_path, webhook, recording
):
    webhook.answer = (503, b"")
    messages_came(database, 61)
    assert "1 could not be sent" in tick(instance, database, tmp_path)
    with connect(database) as connection:
        connection.execute("UPDATE alert_deliveries SET next_attempt_at = now()")
    webhook.answer = (200, b"ok")
    with dg.DagsterInstance.ephemeral() as another:
        tick(another, database, tmp_path)
        tick(another, database, tmp_path)
    assert webhook.titles == ["ERROR stale feed"]


def test_while_dagsters_storage_is_away_the_rest_is_told_and_its_alerts_stay(
    instance, database, tmp_path, webhook, recording, monkeypatch
):
    job = defs.resolve_job_def("certify_trades")
    instance.create_run_for_job(job, status=S.FAILURE)
    tick(instance, database, tmp_path)

    def away(*_: object, **__: object) -> None:
        raise module.STORAGE_DOWN[0]("SELECT 1", {}, Exception("away"))

    monkeypatch.setattr(module, "failed_runs", away)
    messages_came(database, 61)
    for _ in range(2):
        tick(instance, database, tmp_path)
        pass_seconds(database, 20)
    assert webhook.titles == ["ERROR run certify_trades", "ERROR stale feed"]


def test_a_database_that_is_away_skips_a_tick(instance, tmp_path):
    said = tick(instance, f"postgresql://postgres@/none?host={tmp_path}", tmp_path)
    assert said.startswith("The database cannot be reached")


def test_it_looks_every_five_seconds_from_the_start():
    assert alerts.minimum_interval_seconds == 5
    assert alerts.default_status is dg.DefaultSensorStatus.RUNNING
    assert alerts in defs.sensors
