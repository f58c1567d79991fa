"""Looking: what holds now is compared with the alerts that go on, and the difference is written."""

from collections.abc import Collection, Iterable, Sequence

import psycopg

from kalshi_platform.alerting.changes import Action, Change, changes
from kalshi_platform.alerting.conditions import Condition
from kalshi_platform.alerting.kinds import KINDS
from kalshi_platform.storage.reads.alerts import going_on
from kalshi_platform.storage.writes import alerts as writes


def record(
    connection: psycopg.Connection,
    holding: Iterable[Condition],
    judged: Collection[str],
    channels: Sequence[str],
) -> list[Change]:
    """Begin, tell and end alerts by what holds; the caller commits.

    An alert and its messages stand in one transaction: none is told without a row, none is lost.

    Args:
        holding: all that is wrong now.
        judged: the kinds that were looked at.
        channels: names of the channels on which an alert that begins now is told.
    """
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None, "a query of one expression answers one row"
    found = changes(row[0], going_on(connection), holding, judged)
    for change in found:
        _apply(connection, change, channels)
    return found


def _apply(connection: psycopg.Connection, change: Change, channels: Sequence[str]) -> None:
    action, alert, condition = change
    if alert is None:
        assert condition is not None, "what begins holds"
        alert_id = _begin(connection, condition)
        if action is Action.BEGIN_AND_TELL:
            writes.tell_alert(connection, alert_id, channels)
        return
    match action:
        case Action.TELL | Action.DESCRIBE:
            assert condition is not None, "what is told holds"
            writes.describe_alert(
                connection,
                alert.alert_id,
                summary=condition.summary,
                remedy=condition.remedy,
                link=condition.link,
            )
            if action is Action.TELL:
                writes.tell_alert(connection, alert.alert_id, channels)
        case Action.HOLD | Action.FADE:
            writes.note_gone(connection, alert.alert_id, gone=action is Action.FADE)
        case Action.RECOVER:
            kind = KINDS.get(alert.kind)
            sentence = kind.recovery if kind else "Nobody looks for this any more."
            writes.recover_alert(connection, alert.alert_id, sentence)
        case Action.FORGET:
            writes.forget_alert(connection, alert.alert_id)
        case Action.ESCALATE:
            assert condition is not None, "what is worse holds"
            writes.replace_alert(connection, alert.alert_id, "It has become worse.")
            writes.tell_alert(connection, _begin(connection, condition), channels)
        case _:
            raise AssertionError(f"{action} is of a new alert")


def _begin(connection: psycopg.Connection, condition: Condition) -> int:
    return writes.begin_alert(
        connection,
        name=condition.name,
        kind=condition.kind.name,
        severity=condition.severity,
        summary=condition.summary,
        remedy=condition.remedy,
        link=condition.link,
    )
