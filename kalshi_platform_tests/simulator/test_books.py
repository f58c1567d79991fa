"""Books: tickers, deltas, snapshots, candlesticks and the ledger tell one and the same."""

import random
from collections import Counter, defaultdict
from typing import Any

import pytest

from kalshi_platform_tests.simulator.hearing import MORNING, Listener, still_world
from kalshi_simulator import schedule
from kalshi_simulator.candles import Candle, Range, candles_of
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import (
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    count_centis,
    parse_instant,
    price_e4,
)
from kalshi_simulator.layout import QUIET
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.views import market_views
from kalshi_simulator.standing import books_of, has_book

START = parse_instant(MORNING)
END = START + HOUR_US
TEMPERS = {*range(schedule.VOID + 1), QUIET}

Sides = dict[str, dict[int, int]]


@pytest.fixture(scope="module")
def listener() -> Listener:
    """An hour heard: trades and tickers of all, the books of those to which anything happens.

    Time passes in pieces of any length, as it does for a process that is now and then late.
    """
    heard = Listener(still_world())
    heard.command("subscribe", channels=["trade"])
    heard.command("subscribe", channels=["ticker"], send_initial_snapshot=True)
    heard.command("subscribe", channels=["orderbook_delta"], market_tickers=["NOBODY"])
    dice = random.Random(5)
    watched: set[str] = set()
    while heard.feed.at_us < END:
        around = lively(heard.exchange, heard.feed.at_us)
        fresh = {m.ticker for m in around if m.temper != QUIET} - watched
        if fresh:
            heard.command(
                "update_subscription", sid=3, action="add_markets", market_tickers=sorted(fresh)
            )
            watched |= fresh
        piece = dice.choice([10_000, 700_000, SECOND_US, 9 * SECOND_US, 100 * SECOND_US])
        heard.advance(min(END, heard.feed.at_us + piece))
    return heard


def lively(exchange: Exchange, us: int) -> list[Market]:
    """Markets that have been created and are not over."""
    return [m for m in exchange.directory.all() if m.created_us <= us < m.close_us]


def markets_heard(listener: Listener) -> list[Market]:
    directory = listener.exchange.directory
    tickers = {body["market_ticker"] for kind, body in listener.heard if kind == "ticker"}
    return [m for m in directory.all() if m.ticker in tickers and m.open_us < END]


def told(listener: Listener, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Messages of a type by market, in the order in which they came."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one, body in listener.heard:
        if one == kind:
            found[body["market_ticker"]].append(body)
    return found


def us_of(message: dict[str, Any]) -> int:
    return int(message["ts_ms"]) * 1_000


def ohlc(values: list[int]) -> Range:
    return Range(values[0], max(values), min(values), values[-1])


def folded(
    quotes: list[dict[str, Any]], trades: list[dict[str, Any]], begin: int, end: int
) -> Candle | None:
    """One bucket of one market out of what was heard, the slow way.

    What stood at the start, and what came since; None where bid, ask and tape stood still.
    """
    inside = [quote for quote in quotes if begin <= us_of(quote) < end]
    stood = [quote for quote in quotes if us_of(quote) < begin][-1:]
    traded = [trade for trade in trades if begin <= us_of(trade) < end]
    earlier = [trade for trade in trades if us_of(trade) < begin]
    pairs = {(quote["yes_bid_dollars"], quote["yes_ask_dollars"]) for quote in stood + inside}
    if not traded and (len(pairs) == 1 if stood else not pairs):
        return None
    replaced = bool(inside) and us_of(inside[0]) == begin
    own = inside if replaced else stood + inside
    prices = [price_e4(trade["yes_price_dollars"]) for trade in traded]
    counts = [count_centis(trade["count_fp"]) for trade in traded]
    paid = sum(price * count for price, count in zip(prices, counts, strict=True))
    return Candle(
        end,
        ohlc(prices) if prices else None,
        (2 * paid + sum(counts)) // (2 * sum(counts)) if prices else None,
        price_e4(earlier[-1]["yes_price_dollars"]) if earlier else None,
        ohlc([price_e4(quote["yes_bid_dollars"]) for quote in own]),
        ohlc([price_e4(quote["yes_ask_dollars"]) for quote in own]),
        sum(counts),
        count_centis((stood + inside)[-1]["open_interest_fp"]),
    )


@pytest.mark.parametrize("period", [MINUTE_US, HOUR_US])
def test_what_the_stream_told_folds_into_the_candlesticks(listener: Listener, period: int):
    quotes, trades = told(listener, "ticker"), told(listener, "trade")
    compared = still = 0
    tempers = set()
    for market in markets_heard(listener):
        found = candles_of(listener.exchange, market, START + period, END, period, END)
        theirs = {candle.end_us: candle for candle in found}
        for begin in range(START, END, period):
            ends = begin + period
            mine = folded(quotes[market.ticker], trades[market.ticker], begin, ends)
            assert mine == theirs.get(ends), (market.ticker, market.temper, begin - START)
            compared += mine is not None
            still += mine is None and has_book(market, begin)
        tempers.add(market.temper)
    assert tempers == TEMPERS
    assert compared > (2_000 if period == MINUTE_US else 120)
    assert period == HOUR_US or still > 10, "minutes of pauses and after early closes"


def applied(sides: Sides, message: dict[str, Any]) -> None:
    """Let a delta change a book."""
    side, e4 = sides[message["side"]], price_e4(message["price_dollars"])
    text = message["delta_fp"]
    change = -count_centis(text[1:]) if text.startswith("-") else count_centis(text)
    size = side.get(e4, 0) + change
    assert size >= 0
    if size:
        side[e4] = size
    else:
        del side[e4]


def sides_of(message: dict[str, Any]) -> Sides:
    """The book of a snapshot; a side without orders has no key."""
    return {
        name: {
            price_e4(price): count_centis(count)
            for price, count in message.get(f"{name}_dollars_fp", [])
        }
        for name in ("yes", "no")
    }


def test_snapshot_and_deltas_are_the_book_at_any_instant(listener: Listener):
    dice = random.Random(9)
    every = [m for m in markets_heard(listener) if m.temper != QUIET]
    snapshots, deltas = told(listener, "orderbook_snapshot"), told(listener, "orderbook_delta")
    empty = 0
    for turn in range(400):
        market = dice.choice(every)
        [first] = snapshots[market.ticker]
        low, high = us_of(first), min(END, market.planned_close_us + 20 * SECOND_US)
        at = dice.randrange(low, high)
        if market.recess is not None and turn % 3 == 0 and market.recess[0] >= low:
            # More of those moments at which everything changes.
            at = min(high - 1, dice.choice(market.recess[:2]) + dice.randrange(2 * SECOND_US))
        sides = sides_of(first)
        for delta in deltas[market.ticker]:
            if us_of(delta) <= at:
                applied(sides, delta)
        [book] = books_of(listener.exchange.layout, [market], at)
        assert sides == {"yes": book.yes, "no": book.no}, (market.ticker, at)
        empty += not book.yes and not book.no
    assert empty > 20


def test_the_best_of_the_book_is_what_ticker_and_market_say(listener: Listener):
    """At any step: the ticker, the book, and the market as REST shows it."""
    dice = random.Random(3)
    tickers, every = told(listener, "ticker"), markets_heard(listener)
    for _ in range(500):
        market = dice.choice(every)
        at = dice.randrange(max(START, market.open_us), min(END, market.planned_close_us))
        last = [body for body in tickers[market.ticker] if us_of(body) <= at][-1]
        [view] = market_views(listener.exchange, [market], [at])
        [book] = books_of(listener.exchange.layout, [market], at)
        quoted = [
            price_e4(last["yes_bid_dollars"]), price_e4(last["yes_ask_dollars"]),
            count_centis(last["yes_bid_size_fp"]), count_centis(last["yes_ask_size_fp"]),
        ]  # fmt: skip
        bid, no_bid = max(book.yes, default=0), max(book.no, default=0)
        assert quoted == [bid, 10_000 - no_bid, book.yes.get(bid, 0), book.no.get(no_bid, 0)]
        for name in ("yes_bid_dollars", "yes_ask_dollars", "yes_bid_size_fp", "yes_ask_size_fp"):
            assert view[name] == last[name]


def test_now_and_then_nobody_bids_on_one_side(listener: Listener):
    sizes = Counter(
        (body["yes_bid_size_fp"] == "0.00", body["yes_ask_size_fp"] == "0.00")
        for kind, body in listener.heard
        if kind == "ticker"
    )
    assert min(sizes[True, False], sizes[False, True]) > 5
    one_sided = [
        body
        for kind, body in listener.heard
        if kind == "ticker" and body["yes_bid_size_fp"] == "0.00" != body["yes_ask_size_fp"]
    ]
    assert {body["yes_bid_dollars"] for body in one_sided} == {"0.0000"}


def of_temper(listener: Listener, temper: int) -> list[Market]:
    """Markets of a temper that lived within the hour."""
    return [
        market
        for market in markets_heard(listener)
        if market.temper == temper and market.open_us >= START and market.planned_close_us < END
    ]


def between(messages: list[dict[str, Any]], begin: int, end: int) -> list[dict[str, Any]]:
    return [message for message in messages if begin <= us_of(message) < end]


def test_a_pause_holds_the_book_and_its_end_begins_it_anew(listener: Listener):
    tickers, deltas = told(listener, "ticker"), told(listener, "orderbook_delta")
    paused = of_temper(listener, schedule.PAUSED)
    assert paused
    for market in paused:
        assert market.recess is not None
        begin, end, _ = market.recess
        assert not between(tickers[market.ticker], begin, end)
        assert not between(deltas[market.ticker], begin, end)
        layout = listener.exchange.layout
        held = [books_of(layout, [market], us)[0] for us in (begin - 1, begin, end - 1)]
        assert held[0] == held[1] == held[2]
        emptied = between(tickers[market.ticker], end, end + SECOND_US)
        assert us_of(emptied[0]) == end
        assert (emptied[0]["yes_bid_dollars"], emptied[0]["yes_ask_dollars"]) == (
            "0.0000", "1.0000",
        )  # fmt: skip
        [again, *_] = between(tickers[market.ticker], end + SECOND_US, END)
        assert us_of(again) == end + SECOND_US
        assert again["yes_bid_size_fp"] != "0.00" or again["yes_ask_size_fp"] != "0.00"
        gone = between(deltas[market.ticker], end, end + SECOND_US)
        assert len(gone) == len(held[0].yes) + len(held[0].no)
        assert all(delta["delta_fp"].startswith("-") for delta in gone)


def test_a_close_empties_the_book_and_a_reopening_fills_it(listener: Listener):
    tickers, deltas = told(listener, "ticker"), told(listener, "orderbook_delta")
    reopened, early = (of_temper(listener, t) for t in (schedule.REOPENED, schedule.EARLY))
    assert reopened
    assert early
    ends = [(market, market.close_us, END) for market in reopened + early]
    for market in reopened:
        assert market.recess is not None
        ends.append((market, market.recess[0], market.recess[1]))
        [filled, *_] = between(tickers[market.ticker], market.recess[1], END)
        assert us_of(filled) == market.recess[1]
    for market, close, until in ends:
        [last] = between(tickers[market.ticker], close, until)
        assert us_of(last) == close
        assert (last["yes_bid_size_fp"], last["yes_ask_size_fp"]) == ("0.00", "0.00")
        gone = between(deltas[market.ticker], close, until)
        assert gone
        assert {us_of(delta) for delta in gone} == {close}
        assert books_of(listener.exchange.layout, [market], close)[0] == ({}, {})


def test_no_step_is_skipped_by_a_feed_that_is_late():
    """Half an hour in one go, and second by second: the same messages."""

    def heard(*pieces: int) -> list[tuple[str, dict[str, Any]]]:
        listener = Listener(still_world(markets=5))
        tickers = [m.ticker for m in lively(listener.exchange, START)]
        listener.command("subscribe", channels=["ticker", "trade"])
        listener.command("subscribe", channels=["orderbook_delta"], market_tickers=tickers)
        for piece in pieces:
            listener.advance(listener.feed.at_us + piece)
        return listener.heard

    at_once = heard(HOUR_US // 2)
    assert at_once == heard(*[SECOND_US] * 1_800)
    assert len({us_of(body) for kind, body in at_once if kind == "ticker"}) > 1_200


def test_a_feed_that_slept_for_long_tells_how_things_stand():
    listener = Listener(still_world(markets=12, rate=0.0))
    listener.command("subscribe", channels=["ticker"], send_initial_snapshot=True)
    stays = next(m for m in lively(listener.exchange, START) if m.ticker.startswith("KXNFLGAME"))
    listener.command("subscribe", channels=["orderbook_delta"], market_tickers=[stays.ticker])
    listener.advance(START + 5 * HOUR_US)
    assert len(listener.heard) < 200
    [first] = told(listener, "orderbook_snapshot")[stays.ticker]
    sides = sides_of(first)
    for delta in told(listener, "orderbook_delta")[stays.ticker]:
        applied(sides, delta)
    [book] = books_of(listener.exchange.layout, [stays], START + 5 * HOUR_US)
    assert sides == {"yes": book.yes, "no": book.no}


def test_a_quiet_window_begins_without_a_candle_of_its_own(listener: Listener):
    """Whether a bucket has a candle does not hang on the window that was asked for."""
    for market in of_temper(listener, schedule.PAUSED):
        asked = (START + MINUTE_US, END, MINUTE_US, END)
        every = candles_of(listener.exchange, market, *asked)
        for first in range(START + MINUTE_US, END, MINUTE_US):
            found = candles_of(listener.exchange, market, first, END, MINUTE_US, END)
            assert found == [candle for candle in every if candle.end_us >= first]
