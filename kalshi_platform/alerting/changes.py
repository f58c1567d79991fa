"""What to do about each alert, decided from what holds now and what was told before.

A condition must hold, and be gone, for as long as its kind says before anybody hears of it; both
are counted by the database's clock in the rows themselves, so a restart forgets nothing.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from kalshi_platform.alerting.conditions import Condition
from kalshi_platform.alerting.kinds import KINDS
from kalshi_platform.storage.reads.alerts import Alert


class Action(Enum):
    """What happens to an alert."""

    BEGIN = "noted, not told yet"
    BEGIN_AND_TELL = "told at once"
    TELL = "told, having held for long enough"
    DESCRIBE = "said anew, not told yet"
    HOLD = "holds again"
    FADE = "does not hold just now"
    RECOVER = "over, and told so"
    FORGET = "over before it was told"
    ESCALATE = "worse than told: told anew"


class Change(NamedTuple):
    """One alert's change; `alert` is None for a new one, `condition` for one that is gone."""

    action: Action
    alert: Alert | None
    condition: Condition | None


def changes(
    now: datetime,
    going_on: Sequence[Alert],
    holding: Iterable[Condition],
    judged: Collection[str],
) -> list[Change]:
    """The changes that `now` makes.

    Args:
        going_on: alerts without a recovery, those not told yet among them.
        holding: all that is wrong now.
        judged: the kinds that were looked at; alerts of others stay as they are.
    """
    known = {alert.name: alert for alert in going_on}
    held = {condition.name: condition for condition in holding}
    found = [
        change
        for name, condition in held.items()
        if (change := _of_holding(now, known.get(name), condition)) is not None
    ]
    for alert in going_on:
        if alert.name not in held and alert.kind in judged:
            change = _of_gone(now, alert)
            if change is not None:
                found.append(change)
    return found


def _of_holding(now: datetime, alert: Alert | None, condition: Condition) -> Change | None:
    holds_seconds = condition.holds_seconds
    if holds_seconds is None:
        holds_seconds = condition.kind.holds_seconds
    if alert is None:
        if not condition.tells:
            return None
        action = Action.BEGIN if holds_seconds else Action.BEGIN_AND_TELL
        return Change(action, None, condition)
    if alert.told_at is None:
        if not condition.tells:
            return Change(Action.FORGET, alert, condition)
        long_enough = (now - alert.started_at).total_seconds() >= holds_seconds
        return Change(Action.TELL if long_enough else Action.DESCRIBE, alert, condition)
    if condition.tells and condition.severity == "error" and alert.severity != "error":
        return Change(Action.ESCALATE, alert, condition)
    return None if alert.gone_since is None else Change(Action.HOLD, alert, condition)


def _of_gone(now: datetime, alert: Alert) -> Change | None:
    if alert.told_at is None:
        return Change(Action.FORGET, alert, None)
    # A kind of an older release has no rule any more: it is over.
    kind = KINDS.get(alert.kind)
    gone_seconds = 0 if kind is None else kind.gone_seconds
    if gone_seconds == 0:
        return Change(Action.RECOVER, alert, None)
    if alert.gone_since is None:
        return Change(Action.FADE, alert, None)
    gone_for = (now - alert.gone_since).total_seconds()
    return Change(Action.RECOVER, alert, None) if gone_for >= gone_seconds else None
