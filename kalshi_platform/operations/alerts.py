"""`kalshi-platform alerts`: what goes on and what was, and whether messages would arrive."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from kalshi_platform.alerting.channels import NotDelivered, channels_of
from kalshi_platform.alerting.messages import Message, instant
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import require_current_schema
from kalshi_platform.storage.reads.alerts import Alert, failing_channels, told
from kalshi_platform.storage.writes.alerts import Event

_MOST_LISTED = 200


class Tried(NamedTuple):
    """How one message fared on one channel."""

    channel: str
    event: Event
    arrived: bool
    answer: str


def list_alerts(settings: Settings, *, over: bool) -> Iterator[str]:
    """Lines for the operator: the alerts that go on, newest first; with those that are `over`."""
    with connect(settings.url) as connection:
        require_current_schema(connection)
        found = told(connection, _MOST_LISTED, over=over)
        failing = failing_channels(connection)
    for alert in found:
        yield from _lines(alert)
    if not found:
        yield "No alert goes on." if not over else "No alert was ever told."
    for one in failing:
        yield f"{one.messages} messages wait for {one.channel}: {one.error}"


def try_channels(settings: Settings) -> Iterator[Tried]:
    """Send a made-up alert and its end through every channel, now; nothing is stored."""
    now = datetime.now(UTC)
    alert = Alert(
        alert_id=0,
        name="test",
        kind="test",
        severity="warning",
        summary="This is a test: nothing is wrong.",
        remedy="Nothing: `kalshi-platform alerts test` has sent this.",
        link=settings.dagster_address,
        started_at=now,
        told_at=now,
        gone_since=now,
        recovered_at=now,
        recovery="This is a test: nothing was wrong.",
    )
    events: tuple[Event, ...] = ("started", "recovered")
    for channel in channels_of(settings).values():
        for event in events:
            try:
                answer = channel.send(Message(alert, event))
            except NotDelivered as error:
                yield Tried(channel.name, event, False, str(error))
            else:
                yield Tried(channel.name, event, True, answer)


def line_of(tried: Tried) -> str:
    """How a try fared, as the operator reads it."""
    mark = "ok    " if tried.arrived else "FAILED"
    return f"{mark}  {tried.channel}, {tried.event}: {tried.answer}"


def _lines(alert: Alert) -> Iterator[str]:
    end = "" if alert.recovered_at is None else f", over {instant(alert.recovered_at)}"
    yield f"{alert.severity:<7}  {alert.name}: since {instant(alert.started_at)}{end}"
    yield f"         {alert.summary}"
    if alert.recovered_at is None:
        yield f"         What to do: {alert.remedy}"
        if alert.link is not None:
            yield f"         {alert.link}"
