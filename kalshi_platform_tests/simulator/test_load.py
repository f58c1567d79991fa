"""Many books and many deltas: what is asked for is sent, and it is still the truth."""

import time

from kalshi_platform_tests.simulator.talking import Talk, book_at, books_told, levels
from kalshi_simulator.figures import parse_instant
from kalshi_simulator.testing import running_simulator


async def test_many_books_get_as_many_deltas_as_asked_for_and_stay_true():
    begun = time.monotonic()
    with running_simulator(markets=600, deltas_per_second=3_000, history_days=0) as simulator:
        assert time.monotonic() - begun < 10
        tickers = [m["ticker"] for m in simulator.ledger("markets") if m["status"] == "active"]
        tickers = [ticker for ticker in tickers if ticker.startswith("KXNFLGAME")][:500]
        assert len(tickers) == 500
        async with Talk(simulator, compression=None) as talk:
            await talk.subscribe("orderbook_delta", market_tickers=tickers)
            await talk.collect("orderbook_snapshot", 500)
            first = len(talk.frames)
            begun = time.monotonic()
            await talk.collect("orderbook_delta", 6_000)
            assert 1.0 < time.monotonic() - begun < 10
            held = simulator.hold()
            some = tickers[::25]
            truths = {ticker: levels(simulator.ledger_book(ticker, held)) for ticker in some}
            listed = await talk.answer(await talk.send("list_subscriptions"))
            assert listed["type"] == "ok"
    numbers = [frame["seq"] for frame in talk.frames if "seq" in frame]
    assert numbers == list(range(1, len(numbers) + 1))
    deltas = [frame["msg"] for frame in talk.frames[first:] if frame["type"] == "orderbook_delta"]
    assert len({delta["market_ticker"] for delta in deltas}) > 450
    assert {delta["side"] for delta in deltas} == {"yes", "no"}
    at_ms = parse_instant(held) // 1_000
    assert at_ms >= deltas[-1]["ts_ms"]
    frames = books_told(talk)
    for ticker in some:
        assert book_at(frames[ticker], at_ms) == truths[ticker]
