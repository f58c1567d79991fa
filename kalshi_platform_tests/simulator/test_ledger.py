"""The ledger: a function of the seed, without holes, and with what makes clients stumble."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kalshi_platform_tests.simulator.conftest import world
from kalshi_simulator import ticks
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from kalshi_simulator.generation import BLOCK_TRADE, TAKER_YES
from kalshi_simulator.hashing import hash_of, hash_words
from kalshi_simulator.ledger import Epoch, Ledger
from kalshi_simulator.quotes import quotes_at, quotes_of_market
from kalshi_simulator.schedule import STEP_US


def ids(exchange: Exchange, start: int, end: int) -> list[tuple[int, int, int]]:
    rows = exchange.ledger.rows_between(start, end)
    return list(zip(rows.us.tolist(), rows.high.tolist(), rows.low.tolist(), strict=True))


def test_both_forms_of_the_hash_agree():
    words = np.arange(50, dtype=np.uint64) * np.uint64(7919)
    assert hash_words(words, 12).tolist() == [hash_of(int(word), 12) for word in words]


def test_the_same_state_gives_the_same_trades(tmp_path: Path):
    first = world(tmp_path)
    start, end = first.state.begins_us, first.state.started_us + 60 * SECOND_US
    assert ids(world(tmp_path), start, end) == ids(first, start, end)


def test_another_seed_gives_other_trades(exchange: Exchange):
    start = exchange.state.begins_us
    assert ids(world(seed=12), start, start + HOUR_US) != ids(exchange, start, start + HOUR_US)


def test_pieces_of_time_add_up_to_the_whole(exchange: Exchange):
    start = exchange.state.started_us - 3 * HOUR_US
    cuts = [start + part * 1_234_567_891 for part in range(10)]
    pieces = [trade for left, right in pairwise(cuts) for trade in ids(exchange, left, right)]
    assert pieces == ids(exchange, cuts[0], cuts[-1])
    assert len(pieces) > 1_000


def test_a_new_rate_changes_nothing_that_happened(tmp_path: Path):
    first = world(tmp_path, trades_per_second=50.0)
    start = first.state.started_us - HOUR_US
    slower = world(tmp_path, trades_per_second=3.0)
    turn = slower.state.epochs[-1].from_us
    assert len(slower.state.epochs) == 3
    assert ids(slower, start, turn) == ids(first, start, turn)
    after = len(ids(slower, turn, turn + HOUR_US))
    assert 0.7 * 3 * 3_600 < after < 1.3 * 3 * 3_600


def test_trade_ids_are_unique(exchange: Exchange):
    rows = exchange.ledger.rows_between(exchange.state.begins_us, exchange.clock.now())
    identities = set(zip(rows.high.tolist(), rows.low.tolist(), strict=True))
    assert len(identities) == len(rows) > 200_000


def test_trades_lie_on_the_grid_of_their_market_and_only_while_it_is_open(exchange: Exchange):
    end = exchange.clock.now()
    rows = exchange.ledger.rows_between(end - HOUR_US, end)
    directory = exchange.directory
    columns = (rows.us.tolist(), rows.slot.tolist(), rows.price_e4.tolist(), rows.centis.tolist())
    for us, slot, price, centis in zip(*columns, strict=True):
        market = directory.at(slot, us)
        assert market.status_at(us) == "active"
        assert ticks.allows(directory.structure_at(market, us), price)
        assert centis > 0
        assert us % MINUTE_US


def test_it_has_what_clients_stumble_over(exchange: Exchange):
    rows = exchange.ledger.rows_between(exchange.state.begins_us, exchange.clock.now())
    assert (np.diff(rows.us) == 0).sum() > 10_000, "ties"
    assert (rows.price_e4 % 10 != 0).any(), "ticks of a hundredth of a cent"
    assert (rows.centis % 100 != 0).any(), "fractional counts"
    assert 0 < ((rows.flags & BLOCK_TRADE) != 0).sum() < len(rows) // 100, "block trades"
    assert 0.4 < ((rows.flags & TAKER_YES) != 0).mean() < 0.7, "both sides"
    offset = rows.us % DAY_US
    assert (offset < 1_000).any(), "just after midnight"
    assert (offset > DAY_US - 1_000).any(), "just before midnight"
    tied = rows.take(np.asarray(np.append(np.diff(rows.us) == 0, False)))
    assert len(np.unique(tied.price_e4)) > 10
    names = [market.ticker for market in exchange.directory.all()]
    assert any("." in name for name in names), "dots in tickers"


def test_totals_are_the_sums_of_the_trades(exchange: Exchange):
    end = exchange.clock.now()
    rows = exchange.ledger.rows_between(exchange.state.begins_us, end)
    for slot in range(0, 40, 7):
        own = int(rows.centis[rows.slot == slot].sum())
        assert exchange.ledger.totals(slot, end)[0] == own


def test_rates_are_kept_over_an_hour(exchange: Exchange):
    start = exchange.state.begins_us + 5 * HOUR_US
    ledger = Ledger(exchange.layout, [Epoch(start, 400.0)])
    count = len(ledger.rows_between(start, start + 600 * SECOND_US))
    assert 0.7 * 240_000 < count < 1.3 * 240_000


@pytest.mark.parametrize("slot", range(0, 40, 3))
def test_quotes_of_one_market_are_the_quotes(exchange: Exchange, slot: int):
    market = exchange.directory.at(slot, exchange.state.started_us)
    first = market.open_us // STEP_US
    steps = np.arange(first, min(first + 2_000, market.close_us // STEP_US), dtype=np.int64)
    fast = quotes_of_market(exchange.layout, slot, market.open_us, market.period_us, steps)
    slow = quotes_at(exchange.layout, np.full(len(steps), slot, dtype=np.int64), steps * STEP_US)
    assert fast.bid.tolist() == slow.bid.tolist()
    assert fast.ask.tolist() == slow.ask.tolist()
