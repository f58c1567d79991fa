"""Alerts as they stand, what they are made of, and whether anybody still looks."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

import msgspec
import psycopg
from psycopg.rows import class_row

# Where the one who looks leaves word: a checkpoint.
SOURCE = "alerts"
WATCH = "watch"
# Looked at every 5 s; after this long without, nobody looks.
UNWATCHED_SECONDS = 60.0
# A delivery that failed so often needs eyes.
FAILED_ATTEMPTS = 3
# Beyond this, rows are not counted one by one.
_COUNTED = 1_000

_FAILING = f"""\
SELECT channel, count(*)::int AS messages, max(error) AS error FROM alert_deliveries
WHERE next_attempt_at IS NOT NULL AND attempts >= {FAILED_ATTEMPTS}
GROUP BY channel ORDER BY channel"""  # noqa: S608 (constants)

# One JSON object; both tables are small.
ALERT_STATUS = f"""json_build_object(
        'looked_at', (SELECT updated_at FROM ingestion_checkpoints
                      WHERE source = '{SOURCE}' AND scope = '{WATCH}'),
        'going_on', (SELECT count(*) FROM alerts
                     WHERE recovered_at IS NULL AND told_at IS NOT NULL),
        'failing', (SELECT coalesce(json_agg(failing), '[]') FROM ({_FAILING}) AS failing))"""  # noqa: S608 (constants)


_ALERTS = (
    "SELECT alert_id, name, kind, severity, summary, remedy, link, started_at, told_at, gone_since,"
    " recovered_at, recovery FROM alerts"
)


class Alert(NamedTuple):
    """One alert; instants are UTC."""

    alert_id: int
    name: str
    kind: str
    severity: str
    summary: str
    remedy: str
    link: str | None
    started_at: datetime
    told_at: datetime | None
    """None: it has not held for long enough yet."""
    gone_since: datetime | None
    recovered_at: datetime | None
    recovery: str | None


class FailingChannel(msgspec.Struct, frozen=True):
    """A channel that messages do not get through."""

    channel: str
    messages: int
    error: str


class AlertRead(msgspec.Struct):
    """The answer to ALERT_STATUS."""

    looked_at: datetime | None
    going_on: int
    failing: list[FailingChannel]


class Rejected(NamedTuple):
    """Messages that could not be read of late; `newest` is the reason of the last one."""

    messages: int
    newest: str | None


class OpenGap(NamedTuple):
    """The gap that has been open for longest."""

    channel: str
    starts_at: datetime
    ends_at: datetime


class Unarchived(NamedTuple):
    """A day of a table whose archive is not there, or not right."""

    table_name: str
    day: date


def alert_reasons(read: AlertRead, now: datetime) -> list[str]:
    """What keeps operators from being told, in words; none where alerts were never looked at."""
    reasons = []
    if read.looked_at is not None:
        age = (now - read.looked_at).total_seconds()
        if age > UNWATCHED_SECONDS:
            reasons.append(f"alerts have not been looked at for {age:.0f} s")
    reasons += [
        f"{one.messages} alerts did not get through ({one.channel}): {one.error}"
        for one in read.failing
    ]
    return reasons


def going_on(connection: psycopg.Connection) -> list[Alert]:
    """All alerts without a recovery, those not told yet among them, oldest first."""
    with connection.cursor(row_factory=class_row(Alert)) as cursor:
        return cursor.execute(
            _ALERTS + " WHERE recovered_at IS NULL ORDER BY started_at, alert_id"
        ).fetchall()


def told(connection: psycopg.Connection, most: int, *, over: bool) -> list[Alert]:
    """The newest alerts that were told, newest first; with those that are `over`, or without."""
    with connection.cursor(row_factory=class_row(Alert)) as cursor:
        return cursor.execute(
            _ALERTS + " WHERE told_at IS NOT NULL AND (recovered_at IS NULL OR %s)"
            " ORDER BY started_at DESC, alert_id DESC LIMIT %s",
            [over, most],
        ).fetchall()


def failing_channels(connection: psycopg.Connection) -> list[FailingChannel]:
    """Channels whose messages have failed several times and are still tried."""
    with connection.cursor(row_factory=class_row(FailingChannel)) as cursor:
        return cursor.execute(_FAILING.encode()).fetchall()


def rejected_lately(connection: psycopg.Connection, seconds: float) -> Rejected:
    """Messages rejected within the last `seconds`; counted up to 1,000."""
    row = connection.execute(
        "SELECT count(*), (array_agg(reason ORDER BY received_at DESC))[1] FROM ("
        " SELECT reason, received_at FROM rejected_messages"
        " WHERE received_at > now() - make_interval(secs => %s)"
        " ORDER BY received_at DESC LIMIT %s) AS newest",
        [seconds, _COUNTED],
    ).fetchone()
    assert row is not None, "aggregates always give a row"
    return Rejected(*row)


def oldest_open_gap(connection: psycopg.Connection) -> OpenGap | None:
    """The gap that was noticed first of those that wait to be healed."""
    with connection.cursor(row_factory=class_row(OpenGap)) as cursor:
        return cursor.execute(
            "SELECT channel, starts_at, ends_at FROM gaps WHERE status = 'open'"
            " ORDER BY detected_at LIMIT 1"
        ).fetchone()


def unarchived_days(
    connection: psycopg.Connection, tables: Sequence[str], *, older_than_days: int
) -> list[Unarchived]:
    """Days of `tables` in the database that began longer ago and have no verified archive.

    Oldest first. Today is 0 days old.
    """
    with connection.cursor(row_factory=class_row(Unarchived)) as cursor:
        return cursor.execute(
            "WITH days AS (SELECT parent.relname AS table_name,"
            # A case, since conditions are met in any order: to_date must not see other names.
            " CASE WHEN child.relname ~ '_[0-9]{8}$'"
            " THEN to_date(right(child.relname, 8), 'YYYYMMDD') END AS day FROM pg_inherits"
            " JOIN pg_class parent ON parent.oid = inhparent"
            " JOIN pg_class child ON child.oid = inhrelid"
            " WHERE inhparent = ANY (%s::regclass[]))"
            " SELECT table_name, day FROM days"
            " WHERE day < (now() AT TIME ZONE 'UTC')::date - %s::int"
            " AND NOT EXISTS (SELECT FROM archives WHERE archives.table_name = days.table_name"
            " AND archives.day = days.day AND verified_at IS NOT NULL)"
            " ORDER BY day, table_name",
            [list(tables), older_than_days],
        ).fetchall()


def damaged_archives(connection: psycopg.Connection) -> list[Unarchived]:
    """Days that are nowhere but in a file, which was not read back as it should be."""
    with connection.cursor(row_factory=class_row(Unarchived)) as cursor:
        return cursor.execute(
            "SELECT table_name, day FROM archives"
            " WHERE dropped_at IS NOT NULL AND verified_at IS NULL ORDER BY day, table_name"
        ).fetchall()
