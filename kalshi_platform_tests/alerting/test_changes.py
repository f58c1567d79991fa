"""When an alert is told and when it is over: decided from instants, without waiting for them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.changes import Action, changes
from kalshi_platform.alerting.conditions import Condition
from kalshi_platform.storage.reads.alerts import Alert

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ALL = set(kinds.KINDS)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def condition(**changed: Any) -> Condition:
    fields: dict[str, Any] = {
        "name": "stopped recorder",
        "kind": kinds.STOPPED,
        "severity": "error",
        "summary": "Nothing is being recorded.",
        "remedy": "Start it.",
    }
    return Condition(**fields | changed)


def alert(**changed: Any) -> Alert:
    fields: dict[str, Any] = {
        "alert_id": 1,
        "name": "stopped recorder",
        "kind": "stopped",
        "severity": "error",
        "summary": "Nothing is being recorded.",
        "remedy": "Start it.",
        "link": None,
        "started_at": ago(300),
        "told_at": ago(270),
        "gone_since": None,
        "recovered_at": None,
        "recovery": None,
    }
    return Alert(**fields | changed)


def actions(
    going_on: list[Alert], holding: list[Condition], judged: set[str] = ALL
) -> list[Action]:
    return [change.action for change in changes(NOW, going_on, holding, judged)]


def test_what_needs_not_hold_is_told_at_once():
    assert actions([], [condition(kind=kinds.DISK)]) == [Action.BEGIN_AND_TELL]


def test_what_must_hold_first_is_noted_then_told():
    assert actions([], [condition()]) == [Action.BEGIN]
    young, ripe = alert(told_at=None, started_at=ago(29)), alert(told_at=None, started_at=ago(30))
    assert actions([young], [condition()]) == [Action.DESCRIBE]
    assert actions([ripe], [condition()]) == [Action.TELL]


def test_what_went_before_it_was_told_was_nothing():
    assert actions([alert(told_at=None)], []) == [Action.FORGET]


def test_what_goes_on_is_told_once():
    assert actions([alert()], [condition(summary="Still nothing.")]) == []


def test_what_is_gone_must_stay_gone():
    assert actions([alert()], []) == [Action.FADE]
    assert actions([alert(gone_since=ago(14.9))], []) == []
    assert actions([alert(gone_since=ago(15))], []) == [Action.RECOVER]


def test_what_comes_back_meanwhile_is_the_same_alert():
    assert actions([alert(gone_since=ago(60))], [condition()]) == [Action.HOLD]


def test_what_only_keeps_an_alert_going_starts_none_and_lets_it_not_recover():
    quiet = condition(tells=False)
    assert actions([], [quiet]) == []
    assert actions([alert()], [quiet]) == []
    assert actions([alert(gone_since=ago(14))], [quiet]) == [Action.HOLD]
    assert actions([alert(told_at=None)], [quiet]) == [Action.FORGET]


def test_a_warning_that_becomes_an_error_is_told_anew_and_not_the_other_way_round():
    assert actions([alert(severity="warning")], [condition()]) == [Action.ESCALATE]
    assert actions([alert()], [condition(severity="warning")]) == []


def test_what_was_not_looked_at_stays_as_it_is():
    run = alert(name="run certify_trades 2026-11-20", kind="run")
    assert actions([run, alert(gone_since=ago(15))], [], ALL - {"run", "check"}) == [Action.RECOVER]


def test_what_waits_does_not_depend_on_its_kind_alone():
    hasty = condition(holds_seconds=0)
    assert actions([], [hasty]) == [Action.BEGIN_AND_TELL]
    patient = condition(kind=kinds.STALE, holds_seconds=4)
    assert actions([], [patient]) == [Action.BEGIN]


@pytest.mark.parametrize("kind", kinds.KINDS.values(), ids=str)
def test_every_kind_ends(kind: kinds.Kind):
    gone = alert(kind=kind.name, gone_since=ago(3600))
    assert actions([gone], [], {kind.name}) == [Action.RECOVER]
