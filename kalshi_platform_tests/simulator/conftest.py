"""One simulator for all tests that leave it as they found it, and one per test for the others."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from kalshi_simulator.exchange import Exchange, open_exchange
from kalshi_simulator.testing import RunningSimulator, running_simulator


def world(folder: Path | None = None, **changes: float | int | None) -> Exchange:
    """An exchange in this process, a small one unless told otherwise."""
    options: dict[str, float | int | None] = {
        "seed": 11, "markets": 40, "speed_milli": 1_000, "trades_per_second": 5.0,
        "history_trades_per_second": 2.0, "history_days": 2, "live_days": None,
    }  # fmt: skip
    return open_exchange(folder, **{**options, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def exchange() -> Exchange:
    return world()


@pytest.fixture(scope="session")
def simulator() -> Iterator[RunningSimulator]:
    """Runs all session long: 100 trades a second, four days of history, an ample REST budget."""
    with running_simulator(
        seed=5, trades_per_second=100, history_days=4, read_tokens_per_second=100_000
    ) as running:
        yield running


@pytest.fixture
def rest(simulator: RunningSimulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=simulator.rest_url, timeout=30) as client:
        yield client


@pytest.fixture
def faulty(simulator: RunningSimulator) -> Iterator[RunningSimulator]:
    """The simulator, its faults ended afterwards."""
    yield simulator
    simulator.clear_faults()


@pytest.fixture
def open_tickers(rest: httpx.Client) -> list[str]:
    """Tickers of markets that are open now, the busiest first."""
    markets = rest.get("/markets", params={"status": "open", "limit": 1_000}).json()["markets"]
    markets.sort(key=lambda market: -Decimal(market["volume_24h_fp"]))
    return [market["ticker"] for market in markets]


@pytest.fixture
def long_tickers(open_tickers: list[str]) -> list[str]:
    """Those of them that stay open for long."""
    return [ticker for ticker in open_tickers if ticker.startswith(("KXNFLGAME", "KXFED"))]
