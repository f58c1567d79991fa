"""The alert sensor: looks at everything every few seconds, tells what changed, delivers.

What it decides stands in the tables, not in a cursor: after any death it goes on where it was.
When the daemon is down, nobody looks; `GET /health` says so, and answers without Dagster.
"""

import logging
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
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
# From the first look of a tick to the second.
AGAIN_SECONDS = 2.5
# Messages are sent while a whole turn of delivery fits into this: one that is cut short may have
# arrived, and would be sent again.
LONGEST_TICK_SECONDS = 11.0
# This is loaded when the code server starts.
_STARTED_AT = datetime.now(UTC)
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
    """What the platform says, twice a tick, since the daemon asks a sensor once in 5 s at most;
    what Dagster says, in between: it takes longer."""
    links = Links(settings.dagster_address)
    turn = _Turn(context.log, connection, settings)
    begun = time.monotonic()
    _look_at_platform(turn, home, links)
    try:
        turn.tell(_of_dagster(context, links), _OF_DAGSTER)
    except STORAGE_DOWN as error:
        # Its alerts stay as they are; the others are looked at all the same.
        context.log.warning("Dagster's storage does not answer: %s", type(error).__name__)
    if (pause := AGAIN_SECONDS - (time.monotonic() - begun)) > 0:
        time.sleep(pause)
        _look_at_platform(turn, home, links)
    return dg.SkipReason(turn.sentence())


def _look_at_platform(turn: "_Turn", home: Path, links: Links) -> None:
    from kalshi_platform.alerting.findings import platform_conditions
    from kalshi_platform.alerting.looking import folders_of, read_facts

    facts = read_facts(
        turn.connection,
        simulated=turn.settings.simulated,
        folders=folders_of(home),
        disk_percent=turn.settings.alert_disk_percent,
    )
    turn.tell(platform_conditions(facts, links), set(kinds.KINDS) - set(_OF_DAGSTER))


class _Turn:
    """One tick's changes, messages and words."""

    def __init__(
        self, log: logging.Logger, connection: psycopg.Connection, settings: Settings
    ) -> None:
        from kalshi_platform.alerting.channels import channels_of

        self.connection = connection
        self.settings = settings
        self._log = log
        self._channels = channels_of(settings)
        self._begun = time.monotonic()
        self._names: dict[str, set[str]] = {}
        self._arrived = self._failed = 0

    def tell(self, holding: Sequence[Condition], judged: Collection[str]) -> None:
        """Write down what has changed in the kinds that were judged, and send what is due."""
        from kalshi_platform.alerting.changes import Action
        from kalshi_platform.alerting.delivery import TURN_SECONDS, Delivered, deliver_due
        from kalshi_platform.alerting.store import record

        with self.connection.transaction():
            changes = record(self.connection, holding, judged, list(self._channels))
        left = LONGEST_TICK_SECONDS - (time.monotonic() - self._begun)
        sent = Delivered(0, [])
        if left >= TURN_SECONDS:
            sent = deliver_due(self.connection, self._channels, seconds=TURN_SECONDS)
        for change in changes:
            about = change.condition or change.alert
            assert about is not None, "a change is of an alert or of a condition"
            if change.action is not Action.DESCRIBE:  # which comes with each tick
                self._log.info("%s: %s", about.name, change.action.value)
        for failure in sent.failed:
            self._log.warning("not delivered: %s", failure)
        for kind in judged:
            self._names[kind] = {one.name for one in holding if one.kind.name == kind}
        self._arrived += sent.arrived
        self._failed += len(sent.failed)

    def sentence(self) -> str:
        """What the tick shows in Dagster."""
        names = sorted(set().union(*self._names.values()))
        state = f"Not as it should be: {', '.join(names)}." if names else "All is well."
        sent = f" {self._arrived} messages sent." if self._arrived else ""
        return state + sent + (f" {self._failed} could not be sent." if self._failed else "")


def _of_dagster(context: dg.SensorEvaluationContext, links: Links) -> list[Condition]:
    repository = context.repository_def
    assert repository is not None, "a sensor is evaluated in its repository"
    keys = sorted(repository.asset_graph.asset_check_keys, key=lambda key: key.to_user_string())
    return [
        *failed_runs(context.instance, repository.job_names, links, started_at=_STARTED_AT),
        *failed_checks(context.instance, keys, links),
    ]
