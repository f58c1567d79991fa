"""The alert sensor: looks at everything every few seconds, tells what changed, delivers.

What it decides stands in the tables, not in a cursor: after any death it goes on where it was.
When the daemon is down, nobody looks; `GET /health` says so, and answers without Dagster.
"""

from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import psycopg

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.conditions import Condition, Links
from kalshi_platform.orchestration.failures import failed_checks, failed_runs
from kalshi_platform.orchestration.resources import Database, Home, first_line
from kalshi_platform.orchestration.runlog import STORAGE_DOWN
from kalshi_platform.settings import Settings
from kalshi_platform.storage.leases import ALERTS

TICK_SECONDS = 5
_OF_DAGSTER = (kinds.RUN.name, kinds.CHECK.name)


@dg.sensor(
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tell operators once when something goes wrong, and once when it is over: stale "
    "data, open gaps, failed runs and checks, rejected messages, a filling disk, and more.",
)
def alerts(context: dg.SensorEvaluationContext, database: Database, home: Home) -> dg.SkipReason:
    """Look, compare with the alerts that go on, write down the changes, send what is due."""
    settings = Settings()
    try:
        with database.connect(autocommit=True) as connection:
            # A tick that Dagster has given up may still be at work.
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [ALERTS]).fetchone()
            if row != (True,):
                return dg.SkipReason("Another process looks and delivers.")
            return _look(context, connection, settings, Path(home.folder).absolute())
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"The database cannot be reached: {first_line(error)}")


def _look(
    context: dg.SensorEvaluationContext,
    connection: psycopg.Connection,
    settings: Settings,
    home: Path,
) -> dg.SkipReason:
    from kalshi_platform.alerting.channels import channels_of
    from kalshi_platform.alerting.delivery import deliver_due
    from kalshi_platform.alerting.findings import platform_conditions
    from kalshi_platform.alerting.looking import folders_of, read_facts
    from kalshi_platform.alerting.store import record

    links = Links(settings.dagster_url or f"http://127.0.0.1:{settings.dagster_port}")
    channels = channels_of(settings)
    facts = read_facts(
        connection,
        simulated=settings.simulated,
        folders=folders_of(home),
        disk_percent=settings.alert_disk_percent,
    )
    holding, judged = platform_conditions(facts, links), set(kinds.KINDS)
    try:
        holding += _of_dagster(context, links)
    except STORAGE_DOWN as error:
        # Its alerts stay as they are; the others are looked at all the same.
        judged -= set(_OF_DAGSTER)
        context.log.warning("Dagster's storage does not answer: %s", type(error).__name__)
    with connection.transaction():
        changes = record(connection, holding, judged, list(channels))
    sent = deliver_due(connection, channels)
    for change in changes:
        about = change.condition or change.alert
        assert about is not None, "a change is of an alert or of a condition"
        context.log.info("%s: %s", about.name, change.action.value)
    for failure in sent.failed:
        context.log.warning("not delivered: %s", failure)
    return dg.SkipReason(_sentence(holding, sent.arrived, len(sent.failed)))


def _of_dagster(context: dg.SensorEvaluationContext, links: Links) -> list[Condition]:
    repository = context.repository_def
    assert repository is not None, "a sensor is evaluated in its repository"
    keys = sorted(repository.asset_graph.asset_check_keys, key=lambda key: key.to_user_string())
    return [
        *failed_runs(context.instance, repository.job_names, links),
        *failed_checks(context.instance, keys, links),
    ]


def _sentence(holding: Iterable[Condition], arrived: int, failed: int) -> str:
    names = sorted({condition.name for condition in holding})
    state = f"Not as it should be: {', '.join(names)}." if names else "All is well."
    sent = f" {arrived} messages sent." if arrived else ""
    return state + sent + (f" {failed} could not be sent." if failed else "")
