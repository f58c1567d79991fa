"""The check that asks the exchange: what it shows, and that an exchange away stops nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.orchestration import agreement
from kalshi_platform.orchestration.agreement import agrees_with_the_exchange
from kalshi_platform.orchestration.assets.candles import candles
from kalshi_platform.orchestration.resources import Database, Exchange
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.candles import rebuild_day
from kalshi_platform_tests.ingest.truth import client
from kalshi_simulator.testing import RunningSimulator, running_simulator

DAY = (datetime.now(UTC) - timedelta(days=1)).date()


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(
        seed=31,
        trades_per_second=1,
        history_trades_per_second=0.02,
        history_days=2,
        live_days=5,
        read_tokens_per_second=50_000,
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def ample_budget(monkeypatch):
    monkeypatch.setenv("KALSHI_REST_TOKENS_PER_SECOND", "20000")
    monkeypatch.setattr(agreement, "_RETRY_SECONDS", 0.0)


def fetch(database: str, simulator: RunningSimulator) -> None:
    with client(simulator) as rest:
        sweep_day(database, rest, DAY)
    with connect(database) as connection:
        rebuild_day(connection, DAY)


def run(database: str, simulator: RunningSimulator, **exchange: str) -> Any:
    """The check's evaluation in a run of the candles of DAY, which succeeds."""
    given = {
        "rest_url": simulator.rest_url,
        "ws_url": simulator.ws_url,
        "key_id": simulator.key_id,
        "private_key_path": str(simulator.private_key_path),
        **exchange,
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [candles, agrees_with_the_exchange],
            partition_key=str(DAY),
            resources={"database": Database(url=database), "exchange": Exchange(**given)},
            instance=instance,
        )
    assert result.success
    [check] = result.get_asset_check_evaluations()
    return check


def test_a_day_that_agrees_passes_and_shows_each_column(database, simulator):
    fetch(database, simulator)
    check = run(database, simulator)
    assert check.passed
    shown = {name: value.value for name, value in check.metadata.items()}
    assert shown["values_compared"] == shown["values_equal"] + shown["values_undecided"] > 100
    assert shown["markets_compared"] > 5
    lines = shown["agreement"].splitlines()
    assert lines[0].startswith("| column | 1m equal | 1h equal | 1d equal | in a gap |")
    [volume] = [line for line in lines if line.startswith("| volume_centis ")]
    assert volume.endswith("| 0 | 0 | 0 |")
    assert str(DAY) in shown["only_trades_compared"]
    assert "first_differences" not in shown


def test_a_difference_warns_and_is_shown_with_both_values(database, simulator):
    fetch(database, simulator)
    with connect(database) as connection:
        connection.execute(
            "UPDATE trades SET count_centis = count_centis + 1000000000 WHERE trade_id ="
            " (SELECT trade_id FROM trades ORDER BY trade_id LIMIT 1)"
        )
    check = run(database, simulator)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    lines = check.metadata["first_differences"].value.splitlines()
    assert lines[0] == "| interval | market | starts at | column | theirs | ours |"
    assert {line.split(" | ")[3] for line in lines[2:]} == {"volume_centis"}
    assert {line.split(" | ")[0] for line in lines[2:]} == {"| 1m", "| 1h", "| 1d"}


@pytest.mark.parametrize(
    ("exchange", "sentence"),
    [
        ({"rest_url": "http://127.0.0.1:9/trade-api/v2"}, "No answer from 127.0.0.1"),
        ({"private_key_path": "/no/such/key.pem"}, "key.pem"),
    ],
)
def test_an_exchange_that_cannot_be_asked_fails_no_run(database, simulator, exchange, sentence):
    fetch(database, simulator)
    check = run(database, simulator, **exchange)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert sentence in check.metadata["not_compared"].value


def test_an_exchange_that_fails_is_told(database, simulator):
    fetch(database, simulator)
    simulator.fault("rest_503", count=1_000)
    try:
        check = run(database, simulator)
    finally:
        simulator.clear_faults()
    assert not check.passed
    assert "503" in check.metadata["not_compared"].value
