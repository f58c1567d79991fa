"""An exchange that refuses its own cursors is not asked for the same pages without end."""

import json
import threading
from datetime import date

import pytest

from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.errors import BadRequest
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.census import census
from kalshi_platform.ingest.reference_days import backfill_days
from kalshi_platform_tests.exchange.scripted import Answer, scripted
from kalshi_platform_tests.ingest.test_reference_queue import REFUSED

CUTOFF = Answer(
    body=b'{"market_settled_ts":"2026-09-01T00:00:00Z","trades_created_ts":"2026-09-01T00:00:00Z"}'
)
# Once, and five times again.
WALKS = 6


def page(envelope: str, cursor: str = "") -> Answer:
    return Answer(body=json.dumps({envelope: [], "cursor": cursor}).encode())


def client(url: str) -> RestClient:
    return RestClient(url, None, LocalBudget(10_000))


def test_a_census_gives_up_on_cursors_that_always_die(database):
    no_trades = [page("trades")] * 3
    answers = [*no_trades, page("series"), *[page("events", "next"), REFUSED] * WALKS]
    with scripted(*answers) as server, pytest.raises(BadRequest):
        census(database, client(server.url), threading.Event())
    assert len(server.asked) == len(answers)


def test_a_backfill_gives_up_on_cursors_that_always_die(database):
    answers = [CUTOFF, *[page("markets", "next"), REFUSED] * WALKS]
    with scripted(*answers) as server, pytest.raises(BadRequest):
        backfill_days(database, client(server.url), [date(2026, 10, 1)], None, threading.Event())
    assert len(server.asked) == len(answers)
