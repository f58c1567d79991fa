"""Books from the tape: every message once, and known from when to when."""

import json
import time
from unittest.mock import ANY

import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.ingest.book_lines import (
    MARKET,
    OTHER,
    book_at,
    delta,
    instant,
    lines,
    opening,
    reply,
    snapshot,
    subscribe_line,
    watches,
)
from kalshi_platform_tests.ingest.builders import (
    CONNECTION,
    event_line,
    line,
    subscribed,
    text_line,
    trade,
)
from kalshi_platform_tests.ingest.test_any_frame import ticker_frame
from kalshi_platform_tests.ingest.test_loader import load, rows, write

YES = [["0.3000", "5.00"]]
NO = [["0.6000", "7.25"]]


def loaded(database, folder, *blocks):
    write(folder, *blocks)
    load(database, folder)


def test_snapshots_and_deltas_land_once(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES, no=NO), delta(2, at_ms=10)),
        lines(delta(3, at_ms=20, side="no", price_dollars="0.6000", delta_fp="-7.25")),
    )
    load(database, tmp_path)
    assert rows(database, "SELECT count(*) FROM book_snapshots") == [(1,)]
    assert rows(database, "SELECT count(*) FROM book_deltas") == [(2,)]
    assert book_at(database, 10) == ({300_000: 600}, {600_000: 725})
    assert book_at(database, 20) == ({300_000: 600}, {})
    assert watches(database) == [(0, None, None)]
    assert rows(database, "SELECT count(*) FROM gaps") == [(0,)]
    [(order, seq, sid, delta_centis, price, side)] = rows(
        database,
        "SELECT feed_order, seq, sid, delta_centis, price_micros, side FROM book_deltas"
        " WHERE seq = 3",
    )
    assert (order >> 32, order & 0xFFFF) == (CONNECTION, 4)
    assert (seq, sid, delta_centis, price, side) == (3, 2, -725, 600_000, "no")


def test_prices_of_the_no_side_are_stored_in_its_own_terms(database, tmp_path):
    in_yes_terms = [["0.4000", "7.25"], ["0.4500", "1.00"]]
    loaded(
        database,
        tmp_path,
        opening(use_yes_price=1),
        lines(
            snapshot(1, yes=YES, no=in_yes_terms),
            delta(2, side="no", price_dollars="0.4500", delta_fp="1.00"),
            delta(3, side="yes"),
        ),
    )
    assert book_at(database, 0) == ({300_000: 600}, {550_000: 200, 600_000: 725})
    assert rows(database, "SELECT use_yes_price FROM book_watches") == [(True,)]


def test_a_subscription_keeps_the_terms_that_it_was_asked_with(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(use_yes_price=1),
        lines(snapshot(1, no=[["0.4000", "1.00"]])),
        # Another one is asked for, but these still come from the first.
        [subscribe_line(use_yes_price=0)],
        lines(delta(2, side="no", price_dollars="0.4000")),
        lines(subscribed("orderbook_delta", 5), snapshot(1, sid=5, market=OTHER, no=YES)),
    )
    assert book_at(database, 0) == ({}, {600_000: 200})
    assert book_at(database, 0, OTHER) == ({}, {300_000: 500})


def test_a_delta_without_its_own_time_has_the_frames(database, tmp_path):
    absurd = {"ts_ms": 1_790_000_000_000_000}
    loaded(
        database,
        tmp_path,
        opening(),
        lines(
            snapshot(1, yes=YES),
            delta(2, at_ms=10, ts_ms=None),
            delta(3, at_ms=20) | {"msg": delta(3)["msg"] | absurd},
        ),
    )
    assert book_at(database, 9) == ({300_000: 500}, {})
    assert book_at(database, 10) == ({300_000: 600}, {})
    assert book_at(database, 20) == ({300_000: 700}, {})


def test_a_repeated_delta_counts_once_and_a_late_one_where_it_belongs(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(),
        lines(
            snapshot(1, yes=YES),
            delta(2, at_ms=10),
            delta(2, at_ms=10),
            delta(4, at_ms=30),
            delta(3, at_ms=20),
            delta(3, at_ms=20),
            delta(5, at_ms=40),
        ),
    )
    assert book_at(database, 40) == ({300_000: 900}, {})
    # Number 3 was missing when 4 came: what it would say could not be known.
    assert watches(database) == [(0, 10, "sequence_jump")]
    repeated = "SELECT value FROM ingestion_metrics WHERE name = 'repeated_total'"
    assert rows(database, repeated) == [(2,)]


def test_a_jump_ends_all_watches_and_a_snapshot_begins_its_own(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), snapshot(2, market=OTHER, yes=YES), delta(3, at_ms=10)),
        lines(delta(5, at_ms=30), snapshot(6, at_ms=50, yes=YES)),
        # Asked for again though it is known: nothing begins anew.
        lines(snapshot(7, at_ms=60, yes=YES)),
    )
    assert watches(database) == [(0, 10, "sequence_jump"), (50, None, None)]
    assert watches(database, OTHER) == [(0, 10, "sequence_jump")]
    assert rows(database, "SELECT channel, cause, status, first_seq, last_seq FROM gaps") == [
        ("orderbook_delta", "sequence_jump", "explained", 4, 4)
    ]


@pytest.mark.parametrize("pieces", [1, 4])
def test_a_snapshot_that_its_deltas_do_not_make_reveals_a_silent_loss(database, tmp_path, pieces):
    told = [
        snapshot(1, yes=YES),
        delta(2, at_ms=10),
        snapshot(3, at_ms=20, yes=[["0.3000", "6.00"]]),  # as it must be
        delta(4, at_ms=30),
        snapshot(5, at_ms=40, yes=[["0.3000", "9.00"]]),  # two contracts came unseen
        delta(6, at_ms=50),
        snapshot(7, at_ms=60, yes=[["0.3000", "10.00"]]),
        snapshot(8, at_ms=70, market=OTHER, yes=YES),
    ]
    size = len(told) // pieces
    blocks = [lines(*told[first : first + size]) for first in range(0, len(told), size)]
    loaded(database, tmp_path, opening(), *blocks)
    differs = "a snapshot that its deltas do not make"
    assert watches(database) == [(0, 20, differs), (40, None, None)]
    assert watches(database, OTHER) == [(70, None, None)]
    assert rows(
        database,
        "SELECT channel, cause, status, market_ticker, starts_at, ends_at, connection FROM gaps",
    ) == [("orderbook_delta", differs, "explained", MARKET, instant(20), instant(40), CONNECTION)]
    counted = "SELECT value FROM ingestion_metrics WHERE name = 'books_differ_total'"
    assert rows(database, counted) == [(1,)]


def test_a_snapshot_may_reveal_the_jump_and_begin_the_next_watch(database, tmp_path):
    loaded(
        database, tmp_path, opening(), lines(snapshot(1, yes=YES), snapshot(3, at_ms=9, yes=YES))
    )
    assert watches(database) == [(0, 0, "sequence_jump"), (9, None, None)]


def test_what_was_sent_just_before_a_snapshot_is_not_known_to_have_come(database, tmp_path):
    # A delta of time 15 may be among the lost ones, though the snapshot was sent at 20.
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), delta(2, at_ms=10)),
        lines(snapshot(3, at_ms=20, market=OTHER), delta(5, at_ms=30)),
    )
    assert watches(database) == [(0, 10, "sequence_jump")]
    assert watches(database, OTHER) == [(20, 20, "sequence_jump")]


def test_a_reconnect_ends_all_watches_with_its_cause(database, tmp_path):
    later = CONNECTION + 100
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), delta(2, at_ms=10)),
        [event_line("close", cause="connection lost")],
        opening(sid=1, connection=later, at_ms=100),
        lines(
            snapshot(1, sid=1, at_ms=120, no=NO),
            delta(2, sid=1, at_ms=130),
            connection=later,
        ),
    )
    assert watches(database) == [(0, 10, "disconnect: connection lost"), (120, None, None)]
    assert book_at(database, 130) == ({300_000: 100}, {600_000: 725})
    assert rows(database, "SELECT channel, cause FROM gaps") == [
        ("orderbook_delta", "disconnect: connection lost")
    ]


def test_a_connection_that_ends_without_a_word_ends_its_watches(database, tmp_path):
    later = CONNECTION + 100
    loaded(
        database,
        tmp_path,
        [event_line("open"), event_line("close", cause="of long ago")],
        opening(),
        lines(snapshot(1, yes=YES), delta(2, at_ms=10)),
        [event_line("open", later)],
    )
    assert watches(database) == [(0, 10, "restart")]


def test_code_25_ends_all_watches_and_the_next_sid_begins_its_own(database, tmp_path):
    overflow = {"msg": {"code": 25, "msg": "buffer overflow"}}
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), delta(2, at_ms=10), reply("error", 3, at_ms=20, **overflow)),
        # Nothing of an ended subscription begins a watch.
        lines(snapshot(4, at_ms=30, yes=YES)),
        [subscribe_line(cause="code 25: buffer overflow")],
        lines(subscribed("orderbook_delta", 7), snapshot(1, sid=7, at_ms=50, yes=YES)),
        lines(delta(2, sid=7, at_ms=60)),
    )
    assert watches(database) == [(0, 10, "code 25: buffer overflow"), (50, None, None)]
    assert book_at(database, 60) == ({300_000: 600}, {})


def test_a_late_snapshot_of_the_subscription_before_hides_no_book(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES)),
        [subscribe_line(cause="no snapshot: silence for 60 s")],
        lines(subscribed("orderbook_delta", 7), snapshot(1, sid=7, at_ms=50, no=NO)),
        lines(snapshot(2, at_ms=60, yes=YES), delta(2, sid=7, at_ms=70)),
    )
    assert book_at(database, 70) == ({300_000: 100}, {600_000: 725})
    assert rows(database, "SELECT value FROM ingestion_metrics WHERE name = 'overtaken_total'") == [
        (1,)
    ]


def test_a_delta_ahead_of_its_frame_makes_nothing_known_beyond_the_frame(database, tmp_path):
    ahead = delta(2, at_ms=10) | {"msg": delta(2, at_ms=9_000)["msg"]}
    loaded(database, tmp_path, opening(), lines(snapshot(1, yes=YES), ahead, delta(4, at_ms=50)))
    assert watches(database) == [(0, 10, "sequence_jump")]


def test_an_unsubscribed_one_is_watched_no_longer(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), delta(2, at_ms=10), reply("unsubscribed", 3, at_ms=20)),
    )
    assert watches(database) == [(0, 10, "unsubscribed")]


def test_other_errors_and_other_subscriptions_end_nothing(database, tmp_path):
    limit = {"msg": {"code": 26, "msg": "subscription market limit exceeded"}}
    loaded(
        database,
        tmp_path,
        opening(),
        lines(subscribed("trade", 1), snapshot(1, yes=YES), reply("error", 2, **limit)),
        lines(reply("ok", 3, msg={}), reply("ok", 4)),
        lines(reply("unsubscribed", 1, sid=1), trade(5)),
    )
    assert watches(database) == [(0, None, None)]


def test_a_market_that_the_list_leaves_out_is_watched_no_longer(database, tmp_path):
    listed = {"msg": {"market_tickers": [OTHER]}}
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), snapshot(2, market=OTHER), delta(3, at_ms=10)),
        lines(reply("ok", 4, at_ms=25, **listed), snapshot(5, at_ms=90, yes=YES)),
    )
    assert watches(database) == [(0, 25, "not watched any more"), (90, None, None)]
    assert watches(database, OTHER) == [(0, None, None)]
    assert rows(database, "SELECT count(*) FROM gaps") == [(0,)]


def test_a_list_that_cannot_be_read_leaves_no_book_known(database, tmp_path):
    listed = {"msg": {"market_tickers": [5]}}
    loaded(database, tmp_path, opening(), lines(snapshot(1, yes=YES), reply("ok", 2, **listed)))
    assert watches(database) == [(0, 0, "rejected_message")]


@pytest.mark.parametrize(
    "changes",
    [
        {"price_dollars": "0.0000"},
        {"price_dollars": "1.0000"},
        {"price_dollars": None},
        {"delta_fp": "--1.00"},
        {"delta_fp": 5},
        {"delta_fp": "1e2"},
        {"side": "maybe"},
    ],
)
def test_a_delta_that_cannot_be_read_ends_its_markets_watch_alone(database, tmp_path, changes):
    bad = delta(4, at_ms=20, **changes)
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), snapshot(2, market=OTHER), delta(3, at_ms=10), bad),
        lines(delta(5, at_ms=30)),
    )
    assert watches(database) == [(0, 10, "rejected_message")]
    assert watches(database, OTHER) == [(0, None, None)]
    assert rows(database, "SELECT channel, cause, market_ticker FROM gaps") == [
        ("orderbook_delta", "rejected_message", MARKET)
    ]
    [(message,)] = rows(database, "SELECT message FROM rejected_messages")
    assert json.loads(message) == bad


@pytest.mark.parametrize(
    "sides",
    [
        {"yes_dollars_fp": [["0.3000", "0.00"]]},
        {"yes_dollars_fp": [["0.3000", "1.00"], ["0.30", "1.00"]]},
        {"yes_dollars_fp": [["1.0000", "1.00"]]},
        {"no_dollars_fp": [["0.3000"]]},
        {"no_dollars_fp": None},
        {"yes": [[30, 5]]},
    ],
)
def test_a_snapshot_that_cannot_be_read_ends_its_markets_watch(database, tmp_path, sides):
    bad = snapshot(3, at_ms=20)
    bad["msg"] |= sides
    loaded(
        database, tmp_path, opening(), lines(snapshot(1, yes=YES), snapshot(2, market=OTHER), bad)
    )
    assert watches(database) == [(0, 0, "rejected_message")]
    assert watches(database, OTHER) == [(0, None, None)]
    assert rows(database, "SELECT count(*) FROM book_snapshots") == [(2,)]


def test_a_flood_of_deltas_that_cannot_be_read_is_one_gap_a_market(database, tmp_path):
    # As after a change of the exchange's format: the loader must not fall behind.
    markets = [f"KXFLOOD-26OCT01-T{number}" for number in range(20)]
    flood = [
        delta(21 + number, at_ms=number, market=markets[number % 20], price_dollars="x")
        for number in range(20_000)
    ]
    write(
        tmp_path,
        opening(),
        lines(*(snapshot(seq, market=market) for seq, market in enumerate(markets, 1))),
        lines(*flood),
    )
    began = time.monotonic()
    load(database, tmp_path)
    assert time.monotonic() - began < 20  # line by line it is minutes
    assert rows(
        database,
        "SELECT market_ticker, count(*), min(starts_at), max(ends_at) FROM gaps"
        " GROUP BY 1 HAVING count(*) < 100 ORDER BY max(ends_at)",
    ) == [(market, ANY, instant(0), instant(19_980 + at)) for at, market in enumerate(markets)]
    assert rows(database, "SELECT count(*) FROM rejected_messages") == [(20_000,)]
    assert rows(database, "SELECT DISTINCT ends_at, ended_by FROM book_watches") == [
        (instant(0), "rejected_message")
    ]


def test_each_delta_that_cannot_be_read_ends_the_watch_that_began_since(database, tmp_path):
    bad = {"price_dollars": "x"}
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), delta(2, at_ms=10), delta(3, at_ms=20, **bad)),
        lines(delta(4, at_ms=25, **bad), snapshot(5, at_ms=30, yes=YES), delta(6, at_ms=40)),
        lines(delta(7, at_ms=50, **bad)),
    )
    assert watches(database) == [(0, 10, "rejected_message"), (30, 40, "rejected_message")]
    gaps = rows(database, "SELECT starts_at, ends_at FROM gaps ORDER BY starts_at")
    assert gaps == [(instant(10), instant(25)), (instant(40), instant(50))]


def test_a_message_of_books_without_a_market_leaves_no_book_known(database, tmp_path):
    loaded(
        database,
        tmp_path,
        opening(),
        lines(snapshot(1, yes=YES), snapshot(2, market=OTHER), delta(3, market="not a ticker")),
    )
    assert watches(database) == [(0, 0, "rejected_message")]
    assert watches(database, OTHER) == [(0, 0, "rejected_message")]
    assert rows(database, "SELECT market_ticker FROM gaps") == [(None,)]


def test_books_under_a_subscription_that_is_not_known_are_kept_and_not_watched(database, tmp_path):
    loaded(database, tmp_path, lines(snapshot(1, yes=YES), delta(2, at_ms=10)))
    assert book_at(database, 10) == ({300_000: 600}, {})
    assert watches(database) == []


def test_a_damaged_tape_leaves_no_book_known(database, tmp_path):
    write(tmp_path, opening(), lines(snapshot(1, yes=YES), delta(2, at_ms=10)))
    [segment] = tmp_path.iterdir()
    (tmp_path / segment.name).write_bytes(segment.read_bytes() + b"\x28\xb5\x2f\xfd damaged")
    write(tmp_path, lines(delta(3, at_ms=20)))
    load(database, tmp_path)
    assert watches(database) == [(0, 10, "tape_damaged")]
    assert ("orderbook_delta", "tape_damaged") in rows(database, "SELECT channel, cause FROM gaps")


def test_the_checkpoint_does_not_grow_with_the_books(database, tmp_path):
    markets = [f"KXMANY-26OCT01-T{number}" for number in range(300)]
    loaded(
        database,
        tmp_path,
        opening(),
        lines(*(snapshot(seq, market=market) for seq, market in enumerate(markets, 1))),
    )
    assert rows(database, "SELECT count(*) FROM book_watches") == [(300,)]
    [(size,)] = rows(database, "SELECT length(position::text) FROM ingestion_checkpoints")
    assert size < 1000


# Quotes ------------------------------------------------------------------------------------------


def gaps_of_quotes(database):
    return rows(database, "SELECT market_ticker, cause, status FROM gaps WHERE channel = 'ticker'")


def test_a_quote_makes_its_minute_stale(database, tmp_path):
    write(tmp_path, [line(subscribed("ticker", 2)), line(ticker_frame()), line(ticker_frame())])
    load(database, tmp_path)
    assert rows(database, "SELECT market_ticker, starts_at FROM stale_candles") == rows(
        database,
        "SELECT market_ticker, date_trunc('minute', min(quoted_at)) FROM quotes GROUP BY 1",
    )


@pytest.mark.parametrize(
    ("changes", "market"),
    [
        ({"yes_bid_dollars": "x"}, MARKET),
        ({"yes_bid_dollars": 5}, MARKET),
        ({"market_ticker": "a b"}, None),
        ({"market_ticker": 5}, None),
    ],
)
def test_a_quote_that_cannot_be_read_is_a_gap_of_its_market(database, tmp_path, changes, market):
    bad = ticker_frame()
    bad["msg"] |= changes
    write(tmp_path, [line(subscribed("ticker", 2)), line(ticker_frame()), line(bad)])
    load(database, tmp_path)
    assert gaps_of_quotes(database) == [(market, "rejected_message", "explained")]


@pytest.mark.parametrize(
    ("text", "gaps"),
    [
        ('{"type":"ticker","sid":2,"msg":{"market_ticker":"KXTEST-26OCT01-T1","pr', [(MARKET,)]),
        ('upstream connect error {"type":"ticker","sid', [(None,)]),
        ("upstream connect error", [(None,)]),
        ('{"type":"trade","sid":1,"seq":4,"msg":{"trade_id":"', []),
    ],
)
def test_a_text_that_may_have_been_a_quote_is_a_gap(database, tmp_path, text, gaps):
    write(tmp_path, [line(subscribed("ticker", 2)), line(ticker_frame()), text_line(text)])
    load(database, tmp_path)
    assert rows(database, "SELECT market_ticker FROM gaps") == gaps


def test_a_gap_of_quotes_makes_its_candles_stale(database, tmp_path):
    write(
        tmp_path,
        [line(subscribed("ticker", 2))],
        [line(subscribed("ticker", 1), CONNECTION + 100, at_ms=100_000)],
    )
    load(database, tmp_path)
    with connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM stale_candles").fetchone() == (1,)
