"""REST against the other exchange, which shares no code with the client."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.errors import ClockSkew, NotFound, Unauthorized
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_simulator.testing import RunningSimulator, running_simulator

CALLER = """
import sys
from pathlib import Path
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.storage.budget import PostgresBudget
url, rest_url, key_id, key_path = sys.argv[1:]
signer = Signer.from_pem(key_id, Path(key_path))
with RestClient(rest_url, signer, PostgresBudget(url, 200)) as rest:
    for _ in range(40):
        rest.cutoff()
    requests, retries = rest.drain_counts()
print(sum(requests.values()), sum(retries.values()))
"""


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator(seed=13, trades_per_second=20, history_days=2) as running:
        yield running


@pytest.fixture
def rest(simulator: RunningSimulator) -> Iterator[RestClient]:
    signer = Signer.from_pem(simulator.key_id, simulator.private_key_path)
    with RestClient(simulator.rest_url, signer, LocalBudget(150)) as client:
        yield client
    simulator.clear_faults()


def test_status_cutoff_and_lists_are_read(rest):
    assert rest.exchange_status().trading_active
    assert rest.cutoff().trades_created_ts < datetime.now(UTC)
    markets = [document.read for document in rest.markets(status="open", mve_filter="exclude")]
    assert len({market.ticker for market in markets}) == len(markets) > 20
    assert {market.status for market in markets} == {"active"}
    series = {document.read.ticker for document in rest.series()}
    events = {document.read.event_ticker: document.read for document in rest.events()}
    assert {market.event_ticker for market in markets} <= set(events)
    assert {event.series_ticker for event in events.values()} <= series


def test_a_market_keeps_all_of_its_json(rest):
    first = next(rest.markets(status="open")).read
    market = rest.market(first.ticker)
    assert market.read.ticker == first.ticker
    assert b'"price_ranges"' in market.body
    with pytest.raises(NotFound):
        rest.market("KXNONE-1")


def test_candles_equal_the_trades_they_are_made_of(rest):
    now = int(datetime.now(UTC).timestamp())
    ticker = rest.trades_page("live", now - 7200, now, limit=1).trades[0].market_ticker
    start = now - now % 3600 - 3600
    candles = rest.candlesticks_of([ticker], start, start + 3600, 60)[ticker]
    candles = [candle for candle in candles if candle.ends_at_seconds == start + 3600]
    trades = [
        trade
        for page in rest.trade_pages("live", start - 1, start + 3600)
        for trade in page.trades
        if trade.market_ticker == ticker
        and start <= trade.traded_at_micros // 1_000_000 < start + 3600
    ]
    assert sum(candle.volume_centis for candle in candles) == sum(t.count_centis for t in trades)
    if trades:
        assert candles[0].high_micros == max(trade.yes_price_micros for trade in trades)
        assert candles[0].low_micros == min(trade.yes_price_micros for trade in trades)


def test_a_key_of_someone_else_is_refused(simulator, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "kalshi_simulator.cli", "keygen", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    signer = Signer.from_pem(simulator.key_id, tmp_path / "private_key.pem")
    with (
        RestClient(simulator.rest_url, signer, LocalBudget(150)) as rest,
        pytest.raises(Unauthorized, match="KALSHI_API_KEY_ID"),
    ):
        rest.cutoff()


def test_a_clock_that_is_wrong_is_named_with_its_error(simulator):
    class LateSigner(Signer):
        def headers(self, method: str, path: str, now_ms: int | None = None) -> dict[str, str]:
            late = datetime.now(UTC) - timedelta(minutes=5)
            return super().headers(method, path, int(late.timestamp() * 1000))

    late = LateSigner.from_pem(simulator.key_id, simulator.private_key_path)
    with (
        RestClient(simulator.rest_url, late, LocalBudget(150)) as rest,
        pytest.raises(ClockSkew, match="Set it"),
    ):
        rest.cutoff()


def test_processes_that_share_the_budget_are_never_limited(database, tmp_path: Path):
    with running_simulator(seed=13, read_tokens_per_second=200, history_days=1) as running:
        arguments = [database, running.rest_url, running.key_id, str(running.private_key_path)]
        callers = [
            subprocess.Popen(
                [sys.executable, "-c", CALLER, *arguments], stdout=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        counts = [caller.communicate(timeout=60)[0].split() for caller in callers]
        # 120 calls, of which the exchange's bucket alone would take 60 at once.
        assert counts == [["40", "0"]] * 3
