"""GET /health: ages measured from the rows, their limits, and what is only starting."""

import asyncio
import os
import signal
import time

import httpx
import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import LOADER, RECORDER, Lease
from kalshi_platform_tests.api.health_rows import feed, received, started, told

TABLES = ("raw_trades", "quotes", "lifecycle_events", "book_deltas", "settlements", "candles_1m")


@pytest.fixture
def at_work(database):
    """Recorder and loader hold their leases; they were started long ago and have just spoken."""
    leases = [Lease(database, RECORDER), Lease(database, LOADER)]
    assert all(lease.acquire() for lease in leases)
    started(database, age=50_000)
    for channel in ("trade", "ticker"):
        feed(database, channel, age=1)
    for table in ("raw_trades", "quotes", "lifecycle_events"):
        received(database, table, age=1)
    yield database
    for lease in leases:
        lease.release()


async def health(client: httpx.AsyncClient) -> tuple[int, dict]:
    response = await client.get("/health")
    return response.status_code, response.json()


def table_of(body: dict, name: str) -> dict:
    [table] = [table for table in body["tables"] if table["table"] == name]
    return table


async def test_every_table_has_its_age_and_what_is_fresh_is_ok(anonymous, at_work):
    status, body = await health(anonymous)
    assert (status, body["status"], body["reasons"]) == (200, "ok", [])
    assert {table["table"] for table in body["tables"]} == set(TABLES)
    trades = table_of(body, "raw_trades")
    assert 1 <= trades["age_seconds"] < 30
    assert (trades["limit_seconds"], trades["late"]) == (60, False)


@pytest.mark.parametrize(
    ("table", "channel", "late_age", "early_age"),
    [
        ("raw_trades", "trade", 61, 40),
        ("quotes", "ticker", 61, 40),
        ("lifecycle_events", "market_lifecycle_v2", 3_700, 3_000),
    ],
)
async def test_a_table_beyond_its_limit_is_stale_and_503(
    anonymous, at_work, table, channel, late_age, early_age
):
    for age, code in ((late_age, 503), (early_age, 200)):
        with connect(at_work) as connection:
            connection.execute(f"TRUNCATE {table}".encode())
        received(at_work, table, age=age)
        status, body = await health(anonymous)
        assert (status, body["status"]) == (code, "stale" if code == 503 else "ok")
        assert table_of(body, table)["late"] is (code == 503)
        assert any(reason.startswith(f"{table}: no row for ") for reason in body["reasons"]) is (
            code == 503
        )


async def test_a_channel_beyond_its_limit_is_stale_and_503(anonymous, at_work):
    feed(at_work, "trade", age=70)
    status, body = await health(anonymous)
    assert (status, body["status"]) == (503, "stale")
    assert [reason[:25] for reason in body["reasons"]] == ["trade: no message for 70 "[:25]]


async def test_rows_of_a_backfill_make_no_dead_feed_look_fresh(anonymous, at_work):
    with connect(at_work) as connection:
        connection.execute("TRUNCATE raw_trades")
    received(at_work, "raw_trades", age=100)
    received(at_work, "raw_trades", age=0, source="rest", rows=20_000)
    status, body = await health(anonymous)
    assert (status, table_of(body, "raw_trades")["late"]) == (503, True)
    assert table_of(body, "raw_trades")["age_seconds"] >= 100


async def test_candles_that_nobody_refreshes_are_stale(anonymous, at_work):
    with connect(at_work) as connection:
        connection.execute(
            "INSERT INTO stale_candles (market_ticker, starts_at, noted_at)"
            " VALUES ('KX-A', now(), now() - interval '6 minutes'), ('KX-B', now(), now())"
        )
    status, body = await health(anonymous)
    assert (status, body["status"]) == (503, "stale")
    assert 360 <= table_of(body, "candles_1m")["age_seconds"] < 400
    assert [reason[:32] for reason in body["reasons"]] == ["candles have not been refreshed "]


@pytest.mark.parametrize(("choice", "late"), [("busiest:20", True), ("series:KXA", False)])
async def test_books_that_are_wanted_and_silent_are_stale_unless_they_may_be_quiet(
    anonymous, at_work, choice, late
):
    received(at_work, "book_deltas", age=700)
    with connect(at_work) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position) VALUES ('books', 'watch',"
            " jsonb_build_object('choice', %s::text, 'wanted', 2, 'refused', '[]'::jsonb))",
            [choice],
        )
    _, body = await health(anonymous)
    deltas = table_of(body, "book_deltas")
    assert (deltas["late"], deltas["limit_seconds"]) == (late, 600 if late else None)


async def test_books_that_nobody_wants_have_no_limit(anonymous, at_work):
    received(at_work, "book_deltas", age=70_000)
    status, body = await health(anonymous)
    assert (status, table_of(body, "book_deltas")["limit_seconds"]) == (200, None)


async def test_what_was_never_started_is_starting_and_not_503(anonymous, database):
    status, body = await health(anonymous)
    assert (status, body["status"]) == (200, "degraded")
    [reason] = [reason for reason in body["reasons"] if reason.startswith("starting")]
    assert reason == "starting (nothing has been recorded yet), nothing yet of: ticker, trade"
    assert not any(table["late"] for table in body["tables"])


@pytest.mark.parametrize(("start_age", "code"), [(20, 200), (170, 200), (200, 503)])
async def test_a_recorder_has_some_minutes_to_bring_its_first_message(
    anonymous, at_work, start_age, code
):
    """Stopped for an hour, started again: the rows are old, and nobody need be woken yet."""
    started(at_work, age=start_age)
    with connect(at_work) as connection:
        connection.execute("TRUNCATE raw_trades, quotes, lifecycle_events")
    for channel, table in (("trade", "raw_trades"), ("ticker", "quotes")):
        feed(at_work, channel, age=3_600)
        received(at_work, table, age=3_600)
    status, body = await health(anonymous)
    assert status == code
    assert body["status"] == ("degraded" if code == 200 else "stale")
    is_told = any(reason.startswith("starting (for ") for reason in body["reasons"])
    assert is_told is (code == 200)


async def test_what_has_spoken_since_its_start_is_late_like_anything_else(anonymous, at_work):
    started(at_work, age=100)
    feed(at_work, "trade", age=70)
    status, body = await health(anonymous)
    [source] = [source for source in body["sources"] if source["channel"] == "trade"]
    assert (status, source["late"], source["starting"]) == (503, True, False)


async def test_figures_of_a_loader_that_is_gone_are_no_figures_of_now(anonymous, database):
    told(database, "tape_backlog_bytes", "", 0.0)
    told(database, "loaded_lag_max_seconds", 'channel="trade"', 0.2)
    _, body = await health(anonymous)
    assert body["tape_backlog_bytes"] is None
    text = (await anonymous.get("/metrics")).text
    assert "tape_backlog_bytes " not in text
    assert "loaded_lag_max" not in text


async def test_many_who_ask_at_once_are_answered_at_once(anonymous, at_work):
    await anonymous.get("/health")
    began = time.monotonic()
    answers = await asyncio.gather(*(anonymous.get("/health") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert time.monotonic() - began < 3, "one connection reads for all of them"
    with connect(at_work) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row == (0,)


async def test_a_database_that_is_frozen_is_told_in_time_and_heard_again(anonymous, at_work):
    assert (await health(anonymous))[0] == 200
    with connect(at_work) as connection:
        backends = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'kalshi-platform api'"
        ).fetchall()
    try:
        for (pid,) in backends:
            os.kill(pid, signal.SIGSTOP)
        for path in ("/health", "/metrics"):
            answer = await asyncio.wait_for(anonymous.get(path), 10)
            assert "down" in answer.text or "platform_up 0.0" in answer.text
    finally:
        for (pid,) in backends:
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while (await health(anonymous))[0] != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_flood_of_refused_messages_does_not_slow_the_answer(anonymous, at_work):
    with connect(at_work) as connection:
        connection.execute(
            "INSERT INTO rejected_messages (received_at, source, reason, code_version, message)"
            " SELECT now(), 'ws', 'why', '1', 'x' FROM generate_series(1, 15000)"
        )
    status, body = await health(anonymous)
    assert (status, body["status"]) == (200, "ok")
    assert body["rejected_today"] == 10_000
