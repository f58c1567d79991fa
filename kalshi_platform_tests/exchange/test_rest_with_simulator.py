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
    page = rest.markets_page("live", status="open", mve_filter="exclude")
    assert page.rejected == []
    markets = page.items
    assert len({market.market_ticker for market in markets}) == len(markets) > 20
    assert {market.status for market in markets} == {"active"}
    series = {one.series_ticker for one in rest.series_list().items}
    events, cursor = [], None
    while not events or cursor is not None:
        listed = rest.events_page(cursor)
        events, cursor = events + listed.items, listed.cursor
    assert {market.event_ticker for market in markets} <= {one.event_ticker for one in events}
    # Some events name no series, or one that the exchange does not have.
    named = {event.series_ticker for event in events}
    assert len(series & named) > 3


def test_pages_join_without_a_market_twice_or_missing(rest):
    whole = rest.markets_page("live", mve_filter="exclude", status="settled")
    parts, cursor = [], None
    while not parts or cursor is not None:
        page = rest.markets_page("live", cursor, mve_filter="exclude", status="settled", limit=70)
        parts, cursor = parts + page.items, page.cursor
    names = [market.market_ticker for market in parts]
    assert len(names) == len(set(names)) > 70
    assert {market.market_ticker for market in whole.items} <= set(names)


def test_a_market_keeps_all_of_its_json(rest):
    [first, second] = rest.markets_page("live", status="open", limit=2).items
    named = rest.markets_named("live", [first.market_ticker, "KXNONE-1", second.market_ticker])
    assert {one.market_ticker for one in named.items} == {
        first.market_ticker,
        second.market_ticker,
    }
    assert all(b'"price_ranges"' in one.metadata for one in named.items)


def test_single_events_and_series_are_read_and_those_unknown_are_not_found(rest):
    [event] = rest.events_page(limit=1).items
    [same] = rest.event(event.event_ticker).items
    assert same == event
    series = rest.series_list().items[0]
    assert rest.series_one(series.series_ticker).items == [series]
    for ask in (rest.event, rest.series_one):
        with pytest.raises(NotFound):
            ask("KXNONE")


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
