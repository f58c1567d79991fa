"""What must not happen: writing, endless statements, traces in answers, keys in logs."""

import httpx
import psycopg
import pytest
import structlog
from structlog.testing import capture_logs

from api.app import create_app
from api.database import DatabaseUnavailable, ReadDatabase, StatementTooSlow
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.rows import TICKER


@pytest.fixture(autouse=True)
def _logs_can_be_captured():
    structlog.reset_defaults()


async def test_the_apis_role_cannot_write(standing):
    url, _ = standing
    database = ReadDatabase(url, connections=1)
    await database.open()
    for statement in (
        "DELETE FROM trades",
        "INSERT INTO markets (market_ticker) VALUES ('x')",
        "UPDATE api_keys SET revoked_at = NULL",
        "DROP TABLE trades",
        "CREATE TABLE mine (a int)",
        "TRUNCATE candles_1m",
    ):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await database.row(statement)
        # Not even in a transaction that asks for it: the role lacks the right.
        async with database._pool.connection() as connection:
            await connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.encode())
            await connection.execute("RESET default_transaction_read_only")
    await database.close()


async def test_a_statement_without_end_is_cut(standing):
    slow = ReadDatabase(standing[0], connections=1, statement_seconds=0.1)
    await slow.open()
    with pytest.raises(StatementTooSlow):
        await slow.row("SELECT 1 FROM pg_sleep(30)")
    assert await slow.row("SELECT 1") == (b"1",)
    await slow.close()


async def test_waiting_for_a_connection_has_an_end(standing):
    narrow = ReadDatabase(standing[0], connections=1, wait_seconds=0.2)
    await narrow.open()
    async with narrow._pool.connection():
        with pytest.raises(DatabaseUnavailable):
            await narrow.row("SELECT 1")
    await narrow.close()


async def test_a_slow_page_is_a_503_with_the_remedy(standing, monkeypatch):
    url, key = standing
    monkeypatch.setattr(
        "api.routes.trades.trades_page",
        lambda *_args, **_fields: ("SELECT pg_sleep(30) /* %(x)s */", {"x": 1}),
    )
    app = create_app(url, simulated=True, statement_seconds=0.2)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://api",
            headers={"X-API-Key": key},
        ) as client,
    ):
        response = await client.post("/trades", json={"market_ticker": TICKER})
    assert response.status_code == 503
    assert "narrower" in response.json()["detail"]
    assert response.headers["retry-after"] == "5"


async def test_an_unforeseen_fault_leaves_its_trace_in_the_log_alone(asker, monkeypatch):
    def fall_over(*_args, **_fields):
        raise ZeroDivisionError("a detail of ours")

    monkeypatch.setattr("api.routes.trades.trades_page", fall_over)
    with capture_logs() as logs:
        response = await asker.post("/trades", json={"market_ticker": TICKER})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "a detail of ours" not in response.text
    assert "Traceback" not in response.text
    [failure] = [line for line in logs if line["event"] == "request_failed"]
    assert failure["request_id"] == response.json()["request_id"]
    assert failure["exc_info"]


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("SELECT no_such_column FROM trades", psycopg.errors.UndefinedColumn),
        ("SELECT no_such_function()", psycopg.errors.UndefinedFunction),
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
    ],
)
async def test_a_wrong_statement_is_a_fault_of_ours_and_no_outage(
    asker, standing, monkeypatch, statement, fault
):
    monkeypatch.setattr(
        "api.routes.markets.markets_page", lambda *_args, **_fields: (statement, {})
    )
    with capture_logs() as logs:
        response = await asker.get("/markets")
    assert (response.status_code, response.headers.get("retry-after")) == (500, None)
    assert response.json()["type"] == "urn:kalshi-platform:problem:internal"
    assert "no_such" not in response.text
    [failure] = [line for line in logs if line["event"] == "request_failed"]
    assert failure["request_id"] == response.json()["request_id"]
    database = ReadDatabase(standing[0], connections=1)
    await database.open()
    with pytest.raises(fault):
        await database.row(statement)
    await database.close()


async def test_a_role_without_rights_is_an_outage_until_it_has_them(database, key):
    def allow(verb: str, to: str) -> None:
        with connect(database) as connection:
            connection.execute(f"{verb} SELECT ON markets {to} kalshi_reader".encode())

    app = create_app(database, simulated=True, connections=1)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://api",
            headers={"X-API-Key": key},
        ) as client,
    ):
        allow("REVOKE", "FROM")
        try:
            assert (await client.get("/markets")).status_code == 503
        finally:
            allow("GRANT", "TO")
        assert (await client.get("/markets")).status_code == 200


async def test_each_request_is_one_log_line_without_its_key(asker, standing):
    with capture_logs() as logs:
        await asker.post("/trades", json={"market_ticker": TICKER})
    [line] = [line for line in logs if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/trades", 200)
    assert line["key_id"] == 1
    assert standing[1] not in str(logs)


def test_making_the_application_opens_nothing():
    create_app("postgresql://nobody@203.0.113.1/none", simulated=True)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_larger_than_any_question_is_refused(asker, announced):
    async def parts():
        for _ in range(200):
            yield b" " * 1000

    content = b" " * 200_000 if announced else parts()
    response = await asker.post(
        "/trades", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert "65,536 bytes" in response.json()["detail"]


async def test_a_database_without_tables_is_down_and_not_a_fault(empty_database):
    app = create_app(empty_database, simulated=True, connections=1)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://api",
            headers={"X-API-Key": "kk_x"},
        ) as client,
    ):
        health = await client.get("/health")
        page = await client.post("/trades", json={"market_ticker": TICKER})
    assert health.status_code == 503
    assert "run `kalshi-platform migrate`" in health.json()["reasons"][0]
    assert page.status_code == 503
