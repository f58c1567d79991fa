"""`kalshi-platform alerts`: what is listed, what a test says, and what doctor and health know."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.conditions import Condition
from kalshi_platform.alerting.store import record
from kalshi_platform.cli import app
from kalshi_platform.operations.doctor import checks
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.alerts import ALERT_STATUS, AlertRead, alert_reasons
from kalshi_platform.storage.writes.alerts import keep_watch
from kalshi_platform_tests.alerting.listening import listening


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path: Path):
    """Nothing but what a test sets."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        if field.startswith("alert_"):
            monkeypatch.delenv(f"KALSHI_{field.upper()}", raising=False)


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["alerts", *arguments])
    return result.exit_code, result.output


def look(database: str, *names: str) -> None:
    with connect(database) as connection:
        record(
            connection,
            [Condition(name, kinds.CHECK, "error", "It fails.", "Mend it.") for name in names],
            set(kinds.KINDS),
            ["webhook"],
        )


def test_a_list_says_what_goes_on_and_what_to_do(database, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database)
    assert call("list") == (0, "No alert goes on.\n")
    look(database, "check a", "check b")
    look(database, "check b")
    code, said = call("list")
    assert code == 0
    assert "error    check b: since" in said and "What to do: Mend it." in said
    assert "check a" not in said
    assert "check a" in call("list", "--all")[1]


def test_a_try_tells_what_each_channel_answered_and_fails_if_one_does(monkeypatch):
    with listening() as webhook:
        monkeypatch.setenv("KALSHI_ALERT_WEBHOOK_URL", webhook.url)
        code, said = call("test")
        assert code == 0
        assert "ok      webhook, started: accepted (200 OK)" in said
        assert webhook.titles == ["WARNING test", "RECOVERED test"]
        webhook.answer = (404, b"no_team")
        code, said = call("test")
        assert code == 1
        assert "FAILED  webhook, started: refused with 404 Not Found: no_team" in said
        assert "secret" not in said


def test_a_try_without_a_channel_says_how_to_get_one():
    code, said = call("test")
    assert code == 0
    assert "KALSHI_ALERT_WEBHOOK_URL" in said


@pytest.mark.parametrize(
    ("changes", "passed", "words"),
    [
        ({}, True, "to the log alone"),
        ({"alert_webhook_url": "http://h/secret"}, True, "to a webhook"),
        ({"alert_smtp_url": "smtp://h", "alert_email_to": "a@b.test"}, True, "as mail"),
        ({"alert_smtp_url": "smtp://h"}, False, "no address"),
    ],
)
def test_doctor_says_where_alerts_go(tmp_path, changes: dict[str, Any], passed, words):
    settings = Settings(_env_file=None, home=tmp_path, **changes)
    [check] = [check for check in checks(settings) if check.name == "alerts"]
    assert (check.passed, words in check.found) == (passed, True)
    assert "secret" not in check.found


def reasons(database: str) -> list[str]:
    """As the API's role reads it."""
    with connect(database) as connection:
        connection.execute("SET ROLE kalshi_reader")
        row = connection.execute(f"SELECT {ALERT_STATUS}, now()".encode()).fetchone()
        assert row is not None
        return alert_reasons(msgspec.convert(row[0], AlertRead), row[1] + timedelta(seconds=0.1))


def test_health_can_tell_that_nobody_looks_and_that_messages_do_not_arrive(database):
    assert reasons(database) == []
    with connect(database) as connection:
        keep_watch(connection)
    look(database, "check a")
    assert reasons(database) == []
    with connect(database) as connection:
        connection.execute(
            "UPDATE ingestion_checkpoints SET updated_at = now() - interval '2 minutes'"
        )
        connection.execute("UPDATE alert_deliveries SET attempts = 3, error = 'refused with 403'")
    assert reasons(database) == [
        "alerts have not been looked at for 120 s",
        "1 alerts did not get through (webhook): refused with 403",
    ]
