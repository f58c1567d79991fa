"""Trades read all at once are what they are one by one, whatever stands between and among them."""

from datetime import UTC, datetime
from random import Random
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from kalshi_platform.ingest import batch as batches
from kalshi_platform.ingest.batch import Batch
from kalshi_platform.ingest.feed import FeedState
from kalshi_platform.ingest.tape import Block, Position
from kalshi_platform_tests.ingest.book_lines import delta, snapshot
from kalshi_platform_tests.ingest.builders import (
    CONNECTION,
    event_line,
    lifecycle,
    line,
    subscribed,
    trade,
    trade_id,
)
from kalshi_platform_tests.ingest.test_any_frame import ticker_frame

CHANNELS = {1: "trade", 2: "orderbook_delta", 3: "market_lifecycle_v2", 4: "ticker"}
# What a trade may be told like, the form that is always sent apart.
UNUSUAL = (
    {"trade_id": trade_id(7).replace("-", "")},
    {"trade_id": "0" * 8 + "-" + "0" * 4 + "-0000-0000-" + "0" * 11 + " "},
    {"trade_id": "-" * 36},
    {"trade_id": trade_id(7).upper()},
    {"count_fp": "3"},
    {"count_fp": "0.00"},
    {"count_fp": "1.50\n2.50"},
    {"count_fp": "٣.٠٠"},
    {"count_fp": "-1.00"},
    {"count_fp": "12345678901.00"},
    {"yes_price_dollars": "0.0001", "no_price_dollars": "0.9999"},
    {"yes_price_dollars": "0.5000"},
    {"yes_price_dollars": "1.0000", "no_price_dollars": "0.0000"},
    {"taker_outcome_side": "no"},
    {"is_block_trade": True},
    {"ts_ms": 0},
    {"ts_ms": CONNECTION * 1000 + 60_000_000},
    {"market_ticker": "KX TEST"},
    {"market_ticker": "KXMVE-COMBO"},
)


def frames(rng: Random, oddity: float) -> list[bytes]:
    """A connection's lines: trades mostly, with what else may come between them."""
    seq = dict.fromkeys(CHANNELS, 0)
    lines = [event_line("open")]
    lines += [line(subscribed(channel, sid)) for sid, channel in CHANNELS.items()]
    clock = 0
    for _ in range(rng.randrange(60)):
        clock += rng.choice((0, 0, 1, 40_000))
        dice = rng.random()
        if dice < 0.75:
            seq[1] += 1 + (rng.random() < oddity / 4)
            frame = trade(seq[1], number=rng.randrange(1 << 40), ts_ms=CONNECTION * 1000 + clock)
            frame["msg"]["market_ticker"] = rng.choice(("KXA", "KXB", "KXC"))
            if rng.random() < oddity:
                frame["msg"] |= rng.choice(UNUSUAL)
            if rng.random() < oddity:
                side = frame["msg"].pop("taker_outcome_side")
                frame["msg"]["taker_side"] = side
            if rng.random() < 0.1:
                del frame["msg"]["is_block_trade"]
            if rng.random() < 0.5:
                frame["sending_ts_ms"] = CONNECTION * 1000 + clock + 3
        elif dice < 0.85:
            frame = ticker_frame(4)
        elif dice < 0.95:
            seq[2] += 1
            frame = rng.choice((delta, snapshot))(seq[2], at_ms=clock)
        else:
            # Now and then under a sid that is not its own.
            sid = 1 if rng.random() < oddity else 3
            seq[sid] += 1
            frame = rng.choice(
                (
                    lifecycle(seq[sid], sid=sid),
                    {"type": "ok", "id": 9, "sid": sid, "seq": seq[sid]},
                    {"type": "error", "id": 9, "sid": sid, "seq": seq[sid], "msg": {"code": 18}},
                    {"type": "unsubscribed", "id": 9, "sid": sid, "seq": seq[sid]},
                )
            )
        lines.append(line(frame, at_ms=clock))
        if rng.random() < oddity / 5:
            lines.append(rng.choice((event_line("close"), b'{"torn', line(subscribed("trade", 1)))))
        if rng.random() < oddity / 10:
            lines.append(event_line("open", CONNECTION + 1))
    return lines


def read(lines: list[bytes], pieces: int, fewest_at_once: int) -> tuple[Batch, FeedState]:
    state = FeedState()
    batch = Batch(state, {"KXA"}, datetime(2026, 10, 1, tzinfo=UTC))
    size = len(lines) // pieces + 1
    with patch.object(batches, "_FEWEST_AT_ONCE", fewest_at_once):
        for first in range(0, len(lines), size):
            place = Position(1, first)
            batch.read(Block(place, place, b"".join(lines[first : first + size])))
    return batch, state


def contents(batch: Batch, state: FeedState) -> dict[str, object]:
    packed = batch.trades.packed if batch.trades else None
    told = ("quotes", "quote_days", "quote_minutes", "lifecycle", "rejected", "gaps", "counters")
    kept = ("new_markets", "trade_days", "received_days", "messages", "newest")
    return {
        "trades": packed,
        "deltas": batch.books.deltas,
        "snapshots": batch.books.snapshots,
        "state": msgspec.to_builtins(state, str_keys=True),
        **{name: getattr(batch, name) for name in (*told, *kept)},
    }


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    seed=some.integers(0, 2**32),
    pieces=some.integers(1, 4),
    oddity=some.sampled_from([0.0, 0.02, 0.2]),
)
def test_all_at_once_is_the_same_as_one_by_one(seed, pieces, oddity):
    lines = frames(Random(seed), oddity)
    one_by_one = contents(*read(lines, pieces, fewest_at_once=1 << 30))
    assert contents(*read(lines, pieces, fewest_at_once=1)) == one_by_one


@pytest.mark.parametrize("changes", UNUSUAL)
def test_one_unusual_trade_among_many_is_read_as_it_would_be_alone(changes):
    told = [trade(seq) for seq in range(1, 41)]
    told[30]["msg"] |= changes
    lines = [event_line("open"), line(subscribed()), *map(line, told)]
    one_by_one = contents(*read(lines, 2, fewest_at_once=1 << 30))
    assert contents(*read(lines, 2, fewest_at_once=1)) == one_by_one


def test_many_ordinary_trades_are_read_at_once_whatever_else_the_block_holds(monkeypatch):
    head = [event_line("open"), *(line(subscribed(each, sid)) for sid, each in CHANNELS.items())]
    state = FeedState()
    batch = Batch(state, set(), datetime(2026, 10, 1, tzinfo=UTC))
    place = Position(1, 0)
    batch.read(Block(place, place, b"".join([*head, line(delta(1))])))
    monkeypatch.setattr(batch, "_trade", None)  # which reads one
    block = [
        data for seq in range(1, 21) for data in (line(trade(seq)), line(delta(seq + 1, at_ms=seq)))
    ]
    batch.read(Block(place, place, b"".join(block)))
    assert (len(batch.trades), len(batch.books.deltas)) == (20, 21)
    assert batch.messages["trade"] == 20
    assert state.subscriptions[1].seq == 20
    assert state.frames == len(CHANNELS) + 1 + 40
