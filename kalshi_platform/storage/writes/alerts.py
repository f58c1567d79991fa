"""Alerts and their deliveries: rows as they change. The caller commits; time is the database's."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import psycopg

from kalshi_platform.storage.reads.alerts import SOURCE, WATCH, Alert
from kalshi_platform.storage.texts import storable

Event = Literal["started", "recovered"]

# After this long without a look the watch begins anew.
WATCH_ENDS_SECONDS = 60.0
# A message is tried again for so long.
GIVE_UP_SECONDS = 24 * 3600.0
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
# A channel may ask for more patience than that, but not for any.
_LONGEST_ASKED_SECONDS = 3600.0


class Watch(NamedTuple):
    """Since when alerts have been looked at without a longer pause."""

    now: datetime
    seconds: float


class Delivery(NamedTuple):
    """A message that is due on a channel."""

    alert: Alert
    event: Event
    channel: str
    attempts: int


def keep_watch(connection: psycopg.Connection) -> Watch:
    """Note that somebody looks now; what was not looked at for a minute is watched afresh."""
    row = connection.execute(
        "INSERT INTO ingestion_checkpoints AS watch (source, scope, position, updated_at)"
        " VALUES (%s, %s, jsonb_build_object('since', now()), now())"
        " ON CONFLICT (source, scope) DO UPDATE SET updated_at = excluded.updated_at,"
        " position = CASE WHEN now() - watch.updated_at > make_interval(secs => %s)"
        " THEN excluded.position ELSE watch.position END"
        " RETURNING now(), extract(epoch FROM now() - (position->>'since')::timestamptz)::float8",
        [SOURCE, WATCH, WATCH_ENDS_SECONDS],
    ).fetchone()
    assert row is not None, "the statement writes one row"
    return Watch(*row)


def begin_alert(
    connection: psycopg.Connection,
    *,
    name: str,
    kind: str,
    severity: str,
    summary: str,
    remedy: str,
    link: str | None,
) -> int:
    """A new row, not told yet; its alert_id."""
    row = connection.execute(
        "INSERT INTO alerts (name, kind, severity, summary, remedy, link)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING alert_id",
        [storable(name), kind, severity, storable(summary), storable(remedy), link],
    ).fetchone()
    assert row is not None, "the statement writes one row"
    return int(row[0])


def describe_alert(
    connection: psycopg.Connection, alert_id: int, *, summary: str, remedy: str, link: str | None
) -> None:
    """Say anew what is wrong, of an alert that was not told yet."""
    connection.execute(
        "UPDATE alerts SET summary = %s, remedy = %s, link = %s WHERE alert_id = %s",
        [storable(summary), storable(remedy), link, alert_id],
    )


def tell_alert(connection: psycopg.Connection, alert_id: int, channels: Sequence[str]) -> None:
    """The alert is told from now on, on each of the channels."""
    connection.execute("UPDATE alerts SET told_at = now() WHERE alert_id = %s", [alert_id])
    connection.execute(
        "INSERT INTO alert_deliveries (alert_id, event, channel, next_attempt_at)"
        " SELECT %s, 'started', channel, now() FROM unnest(%s::text[]) AS channel",
        [alert_id, list(channels)],
    )


def note_gone(connection: psycopg.Connection, alert_id: int, *, gone: bool) -> None:
    """The alert's condition does not hold just now; or holds again."""
    connection.execute(
        "UPDATE alerts SET gone_since = CASE WHEN %s THEN now() END WHERE alert_id = %s",
        [gone, alert_id],
    )


def recover_alert(connection: psycopg.Connection, alert_id: int, recovery: str) -> None:
    """The alert is over since its condition went; told on the channels that its start was for."""
    connection.execute(
        "UPDATE alerts SET recovered_at = coalesce(gone_since, now()), recovery = %s"
        " WHERE alert_id = %s",
        [recovery, alert_id],
    )
    connection.execute(
        "INSERT INTO alert_deliveries (alert_id, event, channel, next_attempt_at)"
        " SELECT alert_id, 'recovered', channel, now() FROM alert_deliveries"
        " WHERE alert_id = %s AND event = 'started'"
        # Nobody needs to hear of the end of what could not be told for a day.
        " AND (delivered_at IS NOT NULL OR next_attempt_at IS NOT NULL)",
        [alert_id],
    )


def replace_alert(connection: psycopg.Connection, alert_id: int, recovery: str) -> None:
    """The alert is over, and another one says what has become of it: no message."""
    connection.execute(
        "UPDATE alerts SET recovered_at = now(), recovery = %s WHERE alert_id = %s",
        [recovery, alert_id],
    )


def forget_alert(connection: psycopg.Connection, alert_id: int) -> None:
    """Take out an alert that was never told."""
    connection.execute("DELETE FROM alerts WHERE alert_id = %s AND told_at IS NULL", [alert_id])


def due_deliveries(connection: psycopg.Connection, most: int) -> list[Delivery]:
    """Messages whose time has come, oldest first; a recovery only after its start."""
    rows = connection.execute(
        "SELECT event, channel, attempts, alerts.alert_id, name, kind, severity, summary, remedy,"
        " link, started_at, told_at, gone_since, recovered_at, recovery"
        " FROM alert_deliveries AS due JOIN alerts USING (alert_id)"
        " WHERE next_attempt_at <= now() AND (event = 'started' OR EXISTS ("
        "   SELECT FROM alert_deliveries AS start WHERE start.alert_id = due.alert_id"
        "   AND start.event = 'started' AND start.channel = due.channel"
        "   AND start.delivered_at IS NOT NULL))"
        " ORDER BY next_attempt_at, alert_id LIMIT %s",
        [most],
    ).fetchall()
    return [Delivery(Alert(*row[3:]), row[0], row[1], row[2]) for row in rows]


def note_delivered(connection: psycopg.Connection, delivery: Delivery) -> None:
    """The message has arrived: it is never sent again."""
    connection.execute(
        "UPDATE alert_deliveries SET delivered_at = now(), next_attempt_at = NULL, error = NULL,"
        " attempts = attempts + 1 WHERE alert_id = %s AND event = %s AND channel = %s",
        [delivery.alert.alert_id, delivery.event, delivery.channel],
    )


def note_failed(
    connection: psycopg.Connection, delivery: Delivery, error: str, pause_seconds: float | None
) -> None:
    """The message has not arrived: tried again after a pause, for a day in all.

    Args:
        pause_seconds: what the channel asked for, an hour at most; None: 5 s, doubled each time up
            to 5 minutes.
    """
    pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(delivery.attempts, 16), _LONGEST_PAUSE_SECONDS)
    if pause_seconds is not None:
        pause = max(pause, min(pause_seconds, _LONGEST_ASKED_SECONDS))
    connection.execute(
        "UPDATE alert_deliveries SET error = %(error)s, attempts = attempts + 1,"
        " next_attempt_at = CASE WHEN now() - %(since)s < make_interval(secs => %(most)s)"
        " THEN now() + make_interval(secs => %(pause)s) END"
        " WHERE alert_id = %(alert_id)s AND event = %(event)s AND channel = %(channel)s",
        {
            "error": storable(error),
            "since": _due_since(delivery),
            "most": GIVE_UP_SECONDS,
            "pause": pause,
            "alert_id": delivery.alert.alert_id,
            "event": delivery.event,
            "channel": delivery.channel,
        },
    )
    if delivery.event == "started":
        _give_up_recovery(connection, delivery)


def give_up(connection: psycopg.Connection, delivery: Delivery, error: str) -> None:
    """The message will not be sent: its channel is no more."""
    connection.execute(
        "UPDATE alert_deliveries SET next_attempt_at = NULL, error = %s"
        " WHERE alert_id = %s AND event = %s AND channel = %s",
        [error, delivery.alert.alert_id, delivery.event, delivery.channel],
    )
    if delivery.event == "started":
        _give_up_recovery(connection, delivery)


def _due_since(delivery: Delivery) -> datetime:
    alert = delivery.alert
    since = alert.told_at if delivery.event == "started" else alert.recovered_at
    assert since is not None, "only what was told, or is over, is delivered"
    return since


def _give_up_recovery(connection: psycopg.Connection, delivery: Delivery) -> None:
    """Where a start was given up, its recovery is not sent either."""
    connection.execute(
        "UPDATE alert_deliveries AS recovery SET next_attempt_at = NULL, error = start.error"
        " FROM alert_deliveries AS start WHERE start.alert_id = recovery.alert_id"
        " AND start.channel = recovery.channel AND start.event = 'started'"
        " AND recovery.event = 'recovered' AND start.next_attempt_at IS NULL"
        " AND start.delivered_at IS NULL AND recovery.alert_id = %s AND recovery.channel = %s",
        [delivery.alert.alert_id, delivery.channel],
    )
