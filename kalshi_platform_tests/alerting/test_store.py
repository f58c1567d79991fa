"""Alerts in the tables: begun, told, held, over; on the database's clock, moved and not awaited."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.conditions import Condition
from kalshi_platform.alerting.store import record
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.alerts import going_on, told
from kalshi_platform.storage.writes.alerts import keep_watch

CHANNELS = ["log", "webhook"]


@pytest.fixture
def connection(database):
    with connect(database) as found:
        yield found


def stopped(**changed: Any) -> Condition:
    fields: dict[str, Any] = {
        "name": "stopped recorder",
        "kind": kinds.STOPPED,
        "severity": "error",
        "summary": "Nothing is being recorded.",
        "remedy": "Start it.",
    }
    return Condition(**fields | changed)


def look(connection: psycopg.Connection, *holding: Condition) -> None:
    record(connection, holding, set(kinds.KINDS), CHANNELS)
    connection.commit()  # now() is the transaction's


def pass_seconds(connection: psycopg.Connection, seconds: float) -> None:
    """Let all that stands in the rows have happened so much earlier."""
    connection.execute(
        "UPDATE alerts SET started_at = started_at - %(by)s, told_at = told_at - %(by)s,"
        " gone_since = gone_since - %(by)s",
        {"by": timedelta(seconds=seconds)},
    )
    connection.commit()


def messages(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT name, event, channel FROM alert_deliveries JOIN alerts USING (alert_id)"
        " ORDER BY alert_id, event DESC, channel"
    ).fetchall()


def test_an_alert_is_told_after_its_time_and_is_over_after_its_time(connection):
    look(connection, stopped())
    assert messages(connection) == []
    pass_seconds(connection, 29)
    look(connection, stopped(summary="Still nothing."))
    assert messages(connection) == []
    pass_seconds(connection, 1)
    look(connection, stopped(summary="Nothing for 30 s."))
    started = [("stopped recorder", "started", channel) for channel in CHANNELS]
    assert messages(connection) == started
    [alert] = told(connection, 10, over=False)
    assert alert.summary == "Nothing for 30 s."
    look(connection)
    assert messages(connection) == started
    pass_seconds(connection, 15)
    look(connection)
    assert messages(connection) == started + [
        ("stopped recorder", "recovered", channel) for channel in CHANNELS
    ]
    [alert] = told(connection, 10, over=True)
    assert alert.recovered_at == alert.gone_since
    assert alert.recovery == kinds.STOPPED.recovery
    assert told(connection, 10, over=False) == []


def test_a_flapping_condition_is_one_alert(connection):
    for _ in range(10):
        look(connection, stopped(holds_seconds=0))
        look(connection)
        pass_seconds(connection, 10)
    assert [event for _, event, _ in messages(connection)] == ["started", "started"]


def test_what_never_held_for_long_leaves_nothing(connection):
    look(connection, stopped())
    look(connection)
    assert going_on(connection) == []
    assert messages(connection) == []


def test_the_same_trouble_again_is_another_alert(connection):
    for _ in range(2):
        look(connection, stopped(holds_seconds=0))
        look(connection)
        pass_seconds(connection, 15)
        look(connection)
    assert len(told(connection, 10, over=True)) == 2


def test_a_warning_that_became_an_error_is_one_more_message_and_no_recovery(connection):
    look(connection, stopped(kind=kinds.CHECK, severity="warning"))
    look(connection, stopped(kind=kinds.CHECK))
    assert [event for _, event, _ in messages(connection)] == ["started"] * 4
    error, warning = told(connection, 10, over=True)
    assert (error.severity, error.recovered_at) == ("error", None)
    assert warning.recovered_at is not None


def test_a_recovery_goes_where_its_start_went(connection):
    look(connection, stopped(holds_seconds=0))
    look(connection)
    pass_seconds(connection, 15)
    record(connection, [], set(kinds.KINDS), ["log", "smtp"])
    assert {channel for _, event, channel in messages(connection) if event == "recovered"} == {
        "log",
        "webhook",
    }


def test_what_postgres_cannot_hold_is_told_all_the_same(connection):
    look(connection, stopped(holds_seconds=0, summary="a\0b", remedy="\ud800"))
    [alert] = told(connection, 10, over=False)
    assert alert.summary == "a\\x00b"


def test_the_watch_begins_anew_when_nobody_looked_for_a_minute(connection):
    def watched() -> float:
        seconds = keep_watch(connection).seconds
        connection.commit()
        return seconds

    def move(column: str) -> None:
        connection.execute(column.encode())
        connection.commit()

    assert watched() == 0
    move(
        "UPDATE ingestion_checkpoints SET updated_at = now() - interval '59 seconds',"
        " position = jsonb_build_object('since', now() - interval '5 minutes')"
    )
    assert 300 <= watched() < 330
    move("UPDATE ingestion_checkpoints SET updated_at = now() - interval '61 seconds'")
    assert watched() == 0
