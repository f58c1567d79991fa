"""GET /health, /metrics, /docs; and what the platform says of itself."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import LOADER, RECORDER, Lease
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.reads.status import read_status
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.api.health_rows import feed, received
from kalshi_platform_tests.api.reference_rows import market, put, settled
from kalshi_platform_tests.api.rows import TICKER, at, land, open_gap, trade


async def test_a_platform_at_work_is_ok(anonymous, database):
    recorder, loader = Lease(database, RECORDER), Lease(database, LOADER)
    assert recorder.acquire()
    assert loader.acquire()
    feed(database, "trade", age=1)
    feed(database, "ticker", age=1)
    feed(database, "market_lifecycle_v2", age=4_000)
    received(database, "raw_trades", age=1)
    received(database, "quotes", age=1)
    response = await anonymous.get("/health")
    recorder.release()
    loader.release()
    body = response.json()
    assert (response.status_code, body["status"], body["reasons"]) == (200, "ok", [])
    assert body["simulated"] is True
    [source] = [source for source in body["sources"] if source["channel"] == "trade"]
    assert (source["messages"], source["lag"], source["late"]) == (5, 0.75, False)
    assert 1 <= source["last_message_age"] < 30
    assert source["limit"] == 60


async def test_health_names_each_thing_that_is_wrong(anonymous, database):
    feed(database, "trade", age=100)
    feed(database, "ticker", age=1)
    with open_gap(database, at("10:00:00"), at("10:01:00")), connect(database) as connection:
        connection.execute("UPDATE gaps SET detected_at = now() - interval '10 minutes'")
        connection.execute(
            "INSERT INTO rejected_messages (received_at, source, reason, code_version, message)"
            " VALUES (now(), 'ws', 'why', '1', 'x')"
        )
        connection.commit()
        response = await anonymous.get("/health")
    body = response.json()
    assert (response.status_code, body["status"]) == (503, "stale")
    told = " | ".join(body["reasons"])
    for part in ("no recorder runs", "no loader runs", "trade: no message for 10", "gap has been"):
        assert part in told
    assert "ticker" not in told
    assert (body["open_gaps"], body["rejected_today"]) == (1, 1)


@pytest.mark.parametrize(("minutes", "late"), [(4, False), (6, True)])
async def test_health_tells_of_candles_that_nobody_refreshes(anonymous, database, minutes, late):
    land(database, trade(), trade())
    with connect(database) as connection:
        connection.execute(
            "UPDATE stale_candles SET noted_at = now() - make_interval(mins => %s)", [minutes]
        )
    body = (await anonymous.get("/health")).json()
    told = [reason for reason in body["reasons"] if reason.startswith("candles have not been")]
    assert bool(told) is late
    assert body["oldest_stale_candle_age"] >= minutes * 60


async def test_a_minute_that_changed_twice_is_one_to_recompute(anonymous, database):
    land(database, trade("10:00:05"))
    land(database, trade("10:00:06"))
    land(database, trade("10:01:05"))
    assert (await anonymous.get("/health")).json()["stale_candles"] == 2


async def test_a_channel_that_never_spoke_is_not_a_zero(anonymous, database):
    body = (await anonymous.get("/health")).json()
    [source] = [source for source in body["sources"] if source["channel"] == "trade"]
    assert (source["messages"], source["last_message_age"], source["lag"]) == (None, None, None)
    assert (source["late"], source["starting"]) == (False, True)
    metrics = (await anonymous.get("/metrics")).text
    assert "ingestion_last_message_age_seconds{" not in metrics
    assert "ingestion_oldest_open_gap_seconds" not in metrics


async def test_command_line_and_api_tell_the_same(anonymous, database):
    feed(database, "trade", age=5)
    told = (await anonymous.get("/health")).json()
    with connect(database) as connection:
        read = read_status(connection, simulated=True)
    assert (read.status, read.reasons) == (told["status"], told["reasons"])
    assert [source.messages for source in read.sources] == [
        source["messages"] for source in told["sources"]
    ]


async def test_metrics_are_prometheus_text_of_platform_and_api(client, database):
    land(database, trade())
    feed(database, "trade", age=5, messages=12)
    await client.post("/trades", json={"market_ticker": TICKER})
    await client.get("/candles/KXNOPE")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["ingestion_messages_total", (("channel", "trade"), ("source", "ws"))] == 12
    assert samples["platform_simulated", ()] == 1
    served = (("method", "POST"), ("route", "/trades"), ("status", "200"))
    assert samples["api_requests_total", served] == 1
    # A ticker that somebody typed makes no time series of its own.
    refused = (("method", "GET"), ("route", "/candles/{ticker}"), ("status", "404"))
    assert samples["api_requests_total", refused] == 1
    assert samples["api_request_seconds_count", (("route", "/trades"),)] == 1


async def test_metrics_tell_how_markets_and_outcomes_are(anonymous, database):
    hour = timedelta(hours=1)
    put(
        database,
        market("KX-closed", closes_at=datetime.now(UTC) - hour, next_read_at=None),
        *settled("KX-told", confirmed_at=None, recorded_at=datetime.now(UTC) - hour),
        *settled("KX-confirmed"),
    )
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position)"
            " VALUES ('reference', 'refreshed', jsonb_build_object('at', now() - interval '70 s'))"
        )
    figures = await metrics_of(anonymous)
    assert (figures["outcomes_pending"], figures["outcomes_unconfirmed"]) == (1, 1)
    assert 3600 <= figures["outcomes_oldest_pending_seconds"] < 3700
    assert 3600 <= figures["outcomes_oldest_unconfirmed_seconds"] < 3700
    assert 70 <= figures["reference_refresh_age_seconds"] < 170
    assert (figures["reference_sync_runs"], figures["reference_census_complete"]) == (0, 0)
    # Two markets carry the queue's default: they are to be asked for now.
    assert (figures["reference_due"], figures["reference_markets_not_found"]) == (2, 0)


async def test_an_age_of_nothing_is_no_figure(anonymous, database):
    figures = await metrics_of(anonymous)
    assert (figures["outcomes_pending"], figures["outcomes_unconfirmed"]) == (0, 0)
    for name in ("oldest_pending_seconds", "oldest_unconfirmed_seconds"):
        assert f"outcomes_{name}" not in figures
    assert "reference_refresh_age_seconds" not in figures


async def metrics_of(client: httpx.AsyncClient) -> dict[str, float]:
    """The figures without labels."""
    text = (await client.get("/metrics")).text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


async def test_health_answers_while_every_other_connection_is_busy(client, app, database):
    busy = [
        asyncio.create_task(app.state.database.row("SELECT 1 FROM pg_sleep(3)")) for _ in range(8)
    ]
    deadline = time.monotonic() + 5
    with connect(database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE '%pg_sleep(3)'"
                " AND pid <> pg_backend_pid() AND state = 'active'"
            ).fetchone()
            if row == (4,):
                break
            await asyncio.sleep(0.02)
    started = time.monotonic()
    assert (await client.get("/health")).status_code == 200
    assert time.monotonic() - started < 3, "the statements that fill the pool take as long"
    assert not any(task.done() for task in busy)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_the_api_outlives_its_database(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("away")
    server = EmbeddedDatabase(folder / "postgres")
    server.start()
    url = server.create_database("kalshi")
    migrate(url)
    land(url, trade())
    with connect(url) as connection:
        key = create_key(connection, "tests")
    server.stop()
    app = create_app(url, simulated=False)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://api", headers={"X-API-Key": key}
        ) as client,
    ):

        async def ask() -> httpx.Response:
            return await client.post("/trades", json={"market_ticker": TICKER})

        down = await client.get("/health")
        assert (down.status_code, down.json()["status"]) == (503, "down")
        assert (await client.get("/metrics")).status_code == 200
        refused = await ask()
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "2"
        try:
            server.start()
            await _until(ask)
            assert (await client.get("/health")).status_code == 200
            # Restarted between two requests: every pooled connection is dead, no caller notices.
            server.stop()
            server.start()
            assert (await ask()).status_code == 200
        finally:
            server.stop()


async def _until(ask, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while (response := await ask()).status_code != 200:
        assert time.monotonic() < deadline, response.text
        await asyncio.sleep(0.1)


async def test_the_documentation_needs_no_network(asker):
    page = (await asker.get("/docs")).text
    assert "http://" not in page.replace("http://api", "")
    assert "https://" not in page
    for path in ("/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css"):
        assert path in page
        assert (await asker.get(path)).status_code == 200


async def test_the_description_names_every_route_with_its_errors_and_key(asker):
    described = (await asker.get("/openapi.json")).json()
    trades = described["paths"]["/trades"]["post"]
    candles = described["paths"]["/candles/{ticker}"]["get"]
    for operation in (trades, candles):
        assert {"200", "401", "404", "422", "503"} <= set(operation["responses"])
        assert {"HTTPBearer": []} in operation["security"]
        assert {"APIKeyHeader": []} in operation["security"]
        for status in ("401", "404", "422", "503"):
            assert "application/problem+json" in operation["responses"][status]["content"]
    assert "security" not in described["paths"]["/health"]["get"]
    assert "float" not in json.dumps(described["components"]["schemas"]["Trade"])


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/trades", 405)]
)
async def test_a_wrong_address_is_a_problem_too(asker, method, path, status):
    response = await asker.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


async def test_the_callers_own_request_id_is_kept_where_it_is_harmless(asker):
    kept = await asker.get("/nope", headers={"X-Request-Id": "mine-1.2_3"})
    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "mine-1.2_3"
    for other in ('"quoted"', "x" * 65, "a b", ""):
        replaced = await asker.get("/nope", headers={"X-Request-Id": other})
        assert replaced.headers["x-request-id"] != other
        assert len(replaced.headers["x-request-id"]) == 32
