"""The containers, rehearsed: each service's own command and health check, in compose's order.

The services of docker-compose.yml run as processes of this machine against one server that stands
for the image of PostgreSQL; see `composed`.
"""

import json
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from kalshi_platform.orchestration.stream import stream_job
from kalshi_platform_tests.operations.composed import Rehearsal
from kalshi_platform_tests.waiting import until

MESSAGES_PER_SECOND = 1_000
# An operator's .env: nothing but how busy the made-up exchange is.
DOTENV = {
    "KALSHI_SIMULATOR_MESSAGES_PER_SECOND": str(MESSAGES_PER_SECOND),
    "KALSHI_SIMULATOR_TRADES_PER_SECOND": "100",
    "KALSHI_SIMULATOR_HISTORY_DAYS": "1",
}
GROUND = {"password", "postgres", "migrate", "simulator"}
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@pytest.fixture(scope="module")
def ground() -> Iterator[Rehearsal]:
    """Database, migrations and exchange; stopped and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kalshi-compose-") as folder:
        Path(folder).chmod(0o755)  # the database's user is another one
        rehearsal = Rehearsal(Path(folder), DOTENV)
        try:
            for name in rehearsal.order(GROUND):
                rehearsal.start(name)
            rehearsal.wait_for("simulator", "service_healthy")
            rehearsal.wait_for("migrate", "service_completed_successfully")
            yield rehearsal
            assert rehearsal.stop("simulator")[0] == 0
            assert rehearsal.stop("postgres")[0] == 0
            assert list(rehearsal.processes()) == []
        finally:
            rehearsal.kill_all()


@pytest.mark.timeout(420)
def test_every_service_runs_is_healthy_works_and_stops_in_order_without_a_loss(
    ground: Rehearsal,
) -> None:
    names = set(ground.services) - GROUND
    order = ground.order(names)
    for name in order:
        ground.start(name)
    for name in order:
        ground.wait_for(name, "service_healthy")

    api = f"http://127.0.0.1:{ground.ports['8000']}"
    said = ground.run_in("api", "kalshi-platform", "keys", "create", "rehearsal")
    [key] = re.findall(r"kk_\S+", said)
    market = until(lambda: busiest_market(ground), 60, every=0.2)
    flows_at = datetime.now(UTC)
    answer = httpx.post(
        f"{api}/trades", json={"market_ticker": market}, headers={"X-API-Key": key}, timeout=10
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]
    assert httpx.get(f"{api}/health", timeout=10).json()["simulated"] is True

    # Refreshed each minute by a schedule of the daemon, in a run of the code server.
    until(lambda: materialized(ground, "candles_1m"), 180, every=0.5)
    answer = httpx.get(
        f"{api}/candles/{market}?interval=1m", headers={"X-API-Key": key}, timeout=10
    )
    assert answer.json()["data"], answer.text

    stopped_at: dict[str, datetime] = {}
    codes = {}
    for name in reversed(order):
        stopped_at[name] = datetime.now(UTC)
        codes[name], _ = ground.stop(name)
    assert codes == dict.fromkeys(order, 0)
    assert open_runs(ground) == {}
    assert_nothing_is_lost(ground, since=flows_at, until=stopped_at["recorder"])


@pytest.mark.timeout(420)
def test_a_stream_in_dagster_is_stopped_with_its_code_server_and_loses_nothing(
    ground: Rehearsal,
) -> None:
    for name in ("code", "daemon"):
        ground.start(name, KALSHI_STREAM_IN_DAGSTER="1")
    before = messages(ground)
    until(lambda: messages(ground) > before, 180, every=0.2)
    flows_at = datetime.now(UTC)
    # Some seconds of the full load.
    until(lambda: messages(ground) > before + 8 * MESSAGES_PER_SECOND, 60, every=0.2)
    assert open_runs(ground)[stream_job.name] == ["STARTED"]
    stopped_at = datetime.now(UTC)
    # The code server first: nothing has told the daemon, nor the run.
    assert (ground.stop("code")[0], ground.stop("daemon")[0]) == (0, 0)
    assert open_runs(ground) == {}
    assert_nothing_is_lost(ground, since=flows_at, until=stopped_at)


def sql(ground: Rehearsal, database: str, query: str, *values: object) -> list[Any]:
    password = (ground.folder / "secrets" / "database_password").read_text()
    with psycopg.connect(
        host="127.0.0.1",
        port=ground.ports["5432"],
        user="kalshi",
        password=password,
        dbname=database,
    ) as connection:
        return connection.execute(query.encode(), values).fetchall()


def busiest_market(ground: Rehearsal) -> str | None:
    rows = sql(
        ground,
        "kalshi",
        "SELECT market_ticker FROM trades WHERE feed_order IS NOT NULL"
        " GROUP BY 1 ORDER BY count(*) DESC LIMIT 1",
    )
    return rows[0][0] if rows else None


def messages(ground: Rehearsal) -> int:
    """How many messages of the stream have been loaded."""
    [(count,)] = sql(
        ground,
        "kalshi",
        "SELECT coalesce(sum(value), 0)::bigint FROM ingestion_metrics"
        " WHERE name = 'messages_total'",
    )
    return int(count)


def materialized(ground: Rehearsal, asset: str) -> bool:
    """Whether Dagster's UI shows the asset as materialized, and its code location as loaded."""
    answer = httpx.post(
        f"http://127.0.0.1:{ground.ports['3000']}/graphql",
        json={
            "query": """query ($asset: [String!]!) {
                workspaceOrError { ... on Workspace { locationEntries {
                    loadStatus locationOrLoadError { __typename } } } }
                assetOrError(assetKey: {path: $asset}) { ... on Asset {
                    assetMaterializations(limit: 1) { runId } } } }""",
            "variables": {"asset": [asset]},
        },
        timeout=20,
    ).json()["data"]
    [entry] = answer["workspaceOrError"]["locationEntries"]
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    return bool(answer["assetOrError"].get("assetMaterializations"))


def open_runs(ground: Rehearsal) -> dict[str, list[str]]:
    """Status of the runs that Dagster's books call begun and not ended, by job."""
    found: dict[str, list[str]] = {}
    for job, status in sql(ground, "dagster", "SELECT pipeline_name, status FROM runs ORDER BY id"):
        # What waits in the queue has not begun; the next daemon starts it.
        if status not in ENDED | {"QUEUED"}:
            found.setdefault(job, []).append(status)
    return found


def assert_nothing_is_lost(ground: Rehearsal, *, since: datetime, until: datetime) -> None:
    """Every trade that the exchange made while the stream was recorded is in the table.

    What was on its way at either end is not the recorder's yet: a second is left out there.
    """
    window = since + timedelta(seconds=1), until - timedelta(seconds=1)
    truth = ledger(ground, *window)
    assert len(truth) > 300, "there was something to lose"
    held = sql(
        ground,
        "kalshi",
        "SELECT trade_id::text FROM trades WHERE traded_at >= %s AND traded_at < %s",
        since,
        until,
    )
    assert truth - {trade for (trade,) in held} == set()


def ledger(ground: Rehearsal, start: datetime, end: datetime) -> set[str]:
    query = f"start={start:%Y-%m-%dT%H:%M:%S.%fZ}&end={end:%Y-%m-%dT%H:%M:%S.%fZ}"
    url = f"http://127.0.0.1:{ground.ports['8090']}/control/ledger/trades?{query}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return {json.loads(line)["trade_id"] for line in answer}
