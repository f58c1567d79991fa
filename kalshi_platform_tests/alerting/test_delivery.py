"""Messages on their way: once each, in order, again after a failure, and no secret on the way."""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import psycopg
import pytest
import structlog

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.channels import Log, NotDelivered
from kalshi_platform.alerting.channels import Webhook as WebhookChannel
from kalshi_platform.alerting.conditions import Condition
from kalshi_platform.alerting.delivery import deliver_due
from kalshi_platform.alerting.messages import Message, as_slack
from kalshi_platform.alerting.store import record
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.alerts import failing_channels
from kalshi_platform_tests.alerting.listening import Webhook, listening
from kalshi_platform_tests.alerting.test_changes import alert
from kalshi_platform_tests.ports import free_ports


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as found:
        yield found


@pytest.fixture
def connection(database):
    with connect(database, autocommit=True) as found:
        yield found


def disk(name: str = "disk of the tape") -> Condition:
    return Condition(name, kinds.CHECK, "error", "It is full.", "Free some space.")


def look(connection: psycopg.Connection, *holding: Condition) -> None:
    with connection.transaction():
        record(connection, holding, set(kinds.KINDS), ["webhook"])


def deliver(connection: psycopg.Connection, webhook: Webhook, **options: Any) -> Any:
    return deliver_due(connection, {"webhook": WebhookChannel(webhook.url)}, **options)


def hurry(connection: psycopg.Connection) -> None:
    """All that waits for its next attempt is due now."""
    connection.execute(
        "UPDATE alert_deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL"
    )


def rows(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT event, attempts, delivered_at IS NOT NULL, error,"
        " round(extract(epoch FROM next_attempt_at - now()))::int"
        " FROM alert_deliveries ORDER BY alert_id, event DESC"
    ).fetchall()


def test_a_message_arrives_once_and_its_end_once(connection, webhook):
    look(connection, disk())
    for _ in range(3):
        deliver(connection, webhook)
    assert webhook.titles == ["ERROR disk of the tape"]
    look(connection)
    for _ in range(3):
        deliver(connection, webhook)
    assert webhook.titles == ["ERROR disk of the tape", "RECOVERED disk of the tape"]


def test_an_end_waits_for_its_start(connection, webhook):
    webhook.answer = (503, b"")
    look(connection, disk())
    deliver(connection, webhook)
    look(connection)
    webhook.answer = (200, b"ok")
    deliver(connection, webhook)
    assert webhook.titles == []
    hurry(connection)
    deliver(connection, webhook)
    assert webhook.titles == ["ERROR disk of the tape"]
    deliver(connection, webhook)
    assert webhook.titles == ["ERROR disk of the tape", "RECOVERED disk of the tape"]


def test_pauses_grow_from_five_seconds_to_five_minutes(connection, webhook):
    webhook.answer = (500, b"")
    look(connection, disk())
    pauses = []
    for _ in range(8):
        deliver(connection, webhook)
        [(*_, pause)] = rows(connection)
        pauses.append(pause)
        hurry(connection)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    assert rows(connection)[0][3] == "refused with 500 Internal Server Error"


@pytest.mark.parametrize(
    ("asked", "given"), [("120", 120), ("864000", 3600), ("9" * 20, 3600), ("9" * 400, 3600)]
)
def test_a_channel_that_asks_for_patience_gets_some(connection, webhook, asked, given):
    webhook.answer, webhook.headers = (429, b""), {"Retry-After": asked}
    look(connection, disk())
    deliver(connection, webhook)
    [(_, _, _, error, pause)] = rows(connection)
    assert (error, pause) == ("refused with 429 Too Many Requests", given)


def test_after_a_day_a_message_is_given_up_and_its_end_is_not_sent(connection, webhook):
    webhook.answer = (500, b"")
    look(connection, disk())
    look(connection)
    connection.execute("UPDATE alerts SET told_at = told_at - interval '24 hours'")
    deliver(connection, webhook)
    webhook.answer = (200, b"ok")
    hurry(connection)
    deliver(connection, webhook)
    assert webhook.heard == []
    assert [(event, waits) for event, *_, waits in rows(connection)] == [
        ("started", None),
        ("recovered", None),
    ]


def test_a_channel_that_is_no_more_is_given_up(connection, webhook):
    look(connection, disk())
    deliver_due(connection, {"log": Log()})
    [(_, _, delivered, error, waits)] = rows(connection)
    assert (delivered, error, waits) == (False, "this channel is not configured any more", None)


def test_one_slow_channel_does_not_hold_up_the_turn_nor_the_others(connection, webhook):
    webhook.go_on.clear()
    with connection.transaction():
        record(connection, [disk()], set(kinds.KINDS), ["log", "webhook"])
    began = monotonic()
    channels = {"log": Log(), "webhook": WebhookChannel(webhook.url)}
    outcome = deliver_due(connection, channels, seconds=0.5)
    assert monotonic() - began < 3
    assert (outcome.arrived, outcome.failed) == (1, ["webhook: no answer within 0 s"])


def test_many_messages_go_out_at_once(connection, webhook):
    look(connection, *(disk(f"disk {number}") for number in range(20)))
    assert deliver(connection, webhook).arrived == 20
    assert len(set(webhook.titles)) == 20


def test_two_turns_at_the_same_time_are_kept_apart_by_the_lease(connection, webhook, database):
    """The lease is the sensor's; this holds that a message is due until it is noted."""
    look(connection, disk())
    seen = threading.Event()

    class Watching:
        name = "webhook"

        def send(self, message: Message) -> str:
            with connect(database) as other:
                row = other.execute(
                    "SELECT count(*) FROM alert_deliveries WHERE next_attempt_at <= now()"
                ).fetchone()
                assert row == (1,)
            seen.set()
            return "ok"

    deliver_due(connection, {"webhook": Watching()})
    assert seen.is_set()
    assert rows(connection)[0][2] is True


def test_a_fault_of_ours_is_noted_and_raised(connection):
    class Broken:
        name = "webhook"

        def send(self, message: Message) -> str:
            raise KeyError("blocks")

    look(connection, disk())
    with pytest.raises(KeyError):
        deliver_due(connection, {"webhook": Broken()})
    assert rows(connection)[0][3] == "a fault of ours (KeyError)"


def test_a_channel_that_fails_again_and_again_is_told_of(connection, webhook):
    webhook.answer = (403, b"invalid_token")
    look(connection, disk())
    for attempt in range(3):
        assert failing_channels(connection) == [], attempt
        deliver(connection, webhook)
        hurry(connection)
    [failing] = failing_channels(connection)
    assert (failing.channel, failing.messages) == ("webhook", 1)
    assert failing.error == "refused with 403 Forbidden: invalid_token"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b"no_service"), "refused with 404 Not Found: no_service"),
        ((404, b"<p>/services/T0/B0/a-secret-token was not found"), "refused with 404 Not Found"),
        ((302, b""), "refused with 302 Found"),
    ],
)
def test_errors_say_what_is_wrong_without_the_address(webhook, answer, said):
    webhook.answer = answer
    with pytest.raises(NotDelivered) as failed:
        WebhookChannel(webhook.url).send(Message(alert(), "started"))
    assert str(failed.value) == said


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{port}/token", "ftp://h/token", "token", "http://h:token/"]
)
def test_an_address_that_leads_nowhere_is_an_error_without_it(address):
    [port] = free_ports(1)
    with pytest.raises(NotDelivered) as failed:
        WebhookChannel(address.format(port=port)).send(Message(alert(), "started"))
    assert "token" not in str(failed.value)


def test_no_log_tells_the_address(webhook, caplog):
    caplog.set_level(logging.DEBUG)
    WebhookChannel(webhook.url).send(Message(alert(), "started"))
    assert len(webhook.heard) == 1
    assert "secret" not in caplog.text


def test_slack_is_told_in_its_format():
    body = as_slack(Message(alert(summary="a < b & c > d", link="http://h/runs/1"), "started"))
    first, remedy, notes = body["blocks"]
    assert body["text"].startswith("ERROR stopped recorder: a &lt; b &amp; c &gt; d\n")
    assert first["text"]["text"] == "*ERROR stopped recorder*\na &lt; b &amp; c &gt; d"
    assert remedy["text"] == {"type": "mrkdwn", "text": "*What to do:* Start it."}
    assert "<http://h/runs/1|open in Dagster>" in notes["elements"][0]["text"]


def test_an_end_says_how_long_it_lasted():
    began = datetime(2026, 11, 21, 12, tzinfo=UTC)
    over = alert(started_at=began, recovered_at=began.replace(minute=3), recovery="It runs again.")
    message = Message(over, "recovered")
    assert message.text.splitlines()[0] == (
        "RECOVERED stopped recorder: It runs again. It lasted 180 s."
    )
    assert len(as_slack(message)["blocks"]) == 2
    long = over._replace(recovered_at=began.replace(day=23, hour=13))
    assert "It lasted 2 days, 1:00:00." in Message(long, "recovered").text


def test_the_log_says_it_at_the_level_of_the_alert():
    with structlog.testing.capture_logs() as lines:
        Log().send(Message(alert(), "started"))
        Log().send(Message(alert(severity="warning"), "started"))
    assert [line["log_level"] for line in lines] == ["error", "warning"]
    assert lines[0]["alert"] == "stopped recorder"
