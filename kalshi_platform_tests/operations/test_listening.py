"""The webhook that prints alerts: `kalshi-platform alerts listen`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from kalshi_platform.alerting.channels import Webhook
from kalshi_platform.alerting.messages import Message
from kalshi_platform.operations.alerts import try_channels
from kalshi_platform.operations.listening import listener
from kalshi_platform.settings import Settings
from kalshi_platform_tests.alerting.test_changes import alert


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A listener's address, and what it has shown."""
    shown: list[str] = []
    with listener(0, shown.append) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", shown
        finally:
            server.shutdown()
            thread.join()


def test_what_the_webhook_channel_sends_is_shown(monkeypatch):
    with listening() as (url, shown):
        monkeypatch.setenv("KALSHI_ALERT_WEBHOOK_URL", url)
        tried = [each for each in try_channels(Settings()) if each.channel == Webhook.name]
    assert [each.arrived for each in tried] == [True, True]
    assert len(shown) == 2
    assert all(text.strip() for text in shown)


def test_a_link_is_shown_as_it_is_opened():
    link = "http://dagster.test/assets/trades?view=partitions&partition=2026-11-21"
    with listening() as (url, shown):
        Webhook(url).send(Message(alert(link=link), "started"))
    assert link in shown[0].splitlines()


@pytest.mark.parametrize("content", [b"", b"not JSON", b'{"blocks": []}', b"[]"])
def test_what_is_no_message_is_refused_and_not_shown(content):
    with listening() as (url, shown):
        assert httpx.post(url, content=content).status_code == 400
    assert shown == []


def test_more_than_any_message_holds_is_not_read():
    with listening() as (url, shown):
        assert httpx.post(url, content=b"x" * 100_000).status_code == 413
    assert shown == []
