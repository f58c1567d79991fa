"""Markets as REST tells them: newer facts are taken, nothing else moves, and asked when due."""

import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from kalshi_platform.exchange.lifecycle import Determined, MarketChange
from kalshi_platform.exchange.reference import read_market
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.events import write_events
from kalshi_platform.storage.writes.markets import ask_again, name_markets, write_markets
from kalshi_platform.storage.writes.told import Changes
from kalshi_platform_tests.exchange.wire import MARKET, event, market
from kalshi_platform_tests.storage.reference_rows import (
    READ_AT,
    change,
    make_due,
    open_transaction,
    row,
    rows,
    tell,
)
from kalshi_platform_tests.waiting import until

TICKER = "KXRAIN-26OCT01-T1.5"
CREATED_AT = datetime(2026, 9, 28, 14, 0, 0, 200_000, UTC)
FAR = "2090-01-01T00:00:00Z"
NEW, CHANGED, SAME = Changes(1, 0, 0), Changes(0, 1, 0), Changes(0, 0, 1)


@pytest.fixture
def database(reference_database):
    return reference_database


def later(seconds):
    return (CREATED_AT + timedelta(seconds=seconds)).isoformat()


def name(database, *tickers):
    with connect(database) as connection:
        name_markets(connection, tickers)


def finalized(**changes):
    outcome = {
        "status": "finalized",
        "result": "yes",
        "settlement_value_dollars": "1.0000",
        "settlement_ts": later(900),
        "updated_time": later(901),
    }
    return market(**outcome | changes)


def test_a_market_arrives_with_every_fact_and_its_event(database):
    assert tell(database, "markets", market(close_time=FAR)) == NEW
    held = row(database, "markets", TICKER)
    assert held["event_ticker"] == "KXRAIN-26OCT01"
    assert held["title"] == MARKET["title"]
    assert held["floor_strike"] == Decimal("1.5")
    assert held["price_ranges"] == MARKET["price_ranges"]
    assert (held["told_status"], held["outcome_status"]) == ("active", None)
    assert (held["yes_bid_micros"], held["volume_centis"]) == (123_000, 298_550)
    assert (held["metadata_source"], held["read_at"]) == ("rest", READ_AT)
    assert held["metadata"]["rules_primary"] == MARKET["rules_primary"]
    assert held["exchange_updated_at"] == CREATED_AT
    assert held["series_ticker"] is None
    assert row(database, "events", "KXRAIN-26OCT01")["pause"] <= 0, "asked at once"


def test_a_placeholder_is_filled_and_counts_as_changed(database):
    name(database, TICKER)
    assert row(database, "markets", TICKER)["pause"] <= 0
    assert tell(database, "markets", market()) == CHANGED


def test_the_same_again_leaves_the_row_untouched_whatever_was_traded(database):
    tell(database, "markets", market(close_time=FAR))
    before = row(database, "markets", TICKER)["xmin"]
    busy = market(close_time=FAR, volume_fp="99999.00", yes_bid_dollars="0.5000")
    assert tell(database, "markets", busy) == SAME
    assert row(database, "markets", TICKER)["xmin"] == before


def test_a_strike_written_with_other_digits_is_the_same_strike(database):
    tell(database, "markets", market(close_time=FAR, floor_strike=70))
    assert tell(database, "markets", market(close_time=FAR, floor_strike=70.0)) == SAME


def test_figures_of_trading_come_along_when_a_fact_changes(database):
    tell(database, "markets", market())
    told = market(updated_time=later(60), title="Other", volume_fp="3000.00")
    assert tell(database, "markets", told, read_at=READ_AT + timedelta(1)) == CHANGED
    held = row(database, "markets", TICKER)
    assert (held["title"], held["volume_centis"]) == ("Other", 300_000)
    assert held["read_at"] == READ_AT + timedelta(1)
    assert held["updated_at"] > held["first_seen_at"]


def test_figures_of_trading_are_those_of_the_reading_that_is_noted(database):
    tell(database, "markets", market(close_time=FAR, yes_bid_dollars="0.1000"))
    before = row(database, "markets", TICKER)
    make_due(database)
    read_at = READ_AT + timedelta(hours=3)
    busy = market(close_time=FAR, yes_bid_dollars="0.0000", volume_fp="99999.00")
    assert tell(database, "markets", busy, read_at=read_at) == SAME
    held = row(database, "markets", TICKER)
    assert (held["read_at"], held["yes_bid_micros"], held["volume_centis"]) == (
        read_at,
        0,
        9_999_900,
    )
    assert held["updated_at"] == before["updated_at"], "no fact changed"


def test_a_reading_that_is_not_believed_leaves_the_figures_alone(database):
    tell(database, "markets", market(updated_time=later(60), volume_fp="50.00"))
    make_due(database)
    behind = market(volume_fp="40.00", yes_bid_dollars="0.9000")
    assert tell(database, "markets", behind, read_at=READ_AT + timedelta(hours=3)) == SAME
    held = row(database, "markets", TICKER)
    assert (held["read_at"], held["volume_centis"]) == (READ_AT, 5_000)
    assert held["yes_bid_micros"] == 123_000


def test_an_older_state_never_wins_and_is_asked_for_again(database):
    tell(database, "markets", market(updated_time=later(60), title="Newer"))
    make_due(database)
    before = row(database, "markets", TICKER)
    for attempts, pause in ((1, 5), (2, 10), (3, 20)):
        assert tell(database, "markets", market(title="Older")) == SAME
        held = row(database, "markets", TICKER)
        assert (held["title"], held["read_attempts"]) == ("Newer", attempts)
        assert held["pause"] == pytest.approx(pause, abs=2)
        make_due(database)
    assert held["read_at"] == before["read_at"], "nothing was learnt"


def test_an_older_state_told_unasked_moves_nothing(database):
    tell(database, "markets", market(updated_time=later(60), close_time=FAR))
    before = row(database, "markets", TICKER)
    assert tell(database, "markets", market(title="Older")) == SAME
    assert row(database, "markets", TICKER)["xmin"] == before["xmin"]


def test_rest_is_believed_once_it_was_asked_long_enough(database):
    tell(database, "markets", market(updated_time=later(60), title="Newer"))
    for _ in range(6):
        make_due(database)
        assert tell(database, "markets", market(title="Older")) == SAME
    assert tell(database, "markets", market(title="Older")) == CHANGED
    held = row(database, "markets", TICKER)
    assert (held["title"], held["exchange_updated_at"]) == ("Older", CREATED_AT)


def test_of_two_states_on_one_page_the_later_one_is_kept(database):
    pages = [market(updated_time=later(60), title="Newer"), market(title="Older")]
    assert tell(database, "markets", *pages) == NEW
    assert row(database, "markets", TICKER)["title"] == "Newer"


def test_a_thousand_markets_are_written_at_once(database):
    page = [
        market(ticker=f"KXRAIN-{n}", event_ticker=f"KXRAIN-E{n // 3}", close_time=FAR)
        for n in range(1000)
    ]
    assert tell(database, "markets", *page) == Changes(1000, 0, 0)
    assert tell(database, "markets", *page) == Changes(0, 0, 1000)
    assert rows(database, "SELECT count(*) FROM events") == [{"count": 334}]


@pytest.mark.parametrize(
    ("status", "is_paused"), [("inactive", True), ("active", False), ("closed", None)]
)
def test_only_the_status_of_trading_hours_says_whether_a_market_is_paused(
    database, status, is_paused
):
    for was in (False, True):
        change(database, MarketChange(TICKER, {"is_paused": was}), at=CREATED_AT)
        for _ in range(2):
            tell(database, "markets", market(status=status))
        expected = was if is_paused is None else is_paused
        assert row(database, "markets", TICKER)["is_paused"] is expected


def test_a_combo_gets_no_row_from_rest_but_keeps_the_one_it_has(database):
    combo = market(ticker="KXMVESPORTS-S1-A", event_ticker="KXMVESPORTS-S1")
    assert tell(database, "markets", combo) == SAME
    assert rows(database, "SELECT FROM markets") == rows(database, "SELECT FROM events") == []
    name(database, "KXMVESPORTS-S1-A")
    assert tell(database, "markets", combo) == CHANGED


def test_a_market_found_after_all_is_missing_no_longer(database):
    tell(database, "markets", market(close_time=FAR))
    with connect(database) as connection:
        connection.execute("UPDATE markets SET not_found_at = now()")
    assert tell(database, "markets", market(close_time=FAR)) == SAME
    assert row(database, "markets", TICKER)["not_found_at"] is None


# Series ------------------------------------------------------------------------------------------


def test_a_market_learns_its_series_whichever_is_told_first(database):
    other = market(ticker="KXRAIN-26OCT01-T2")
    tell(database, "markets", market(close_time=FAR))
    tell(database, "events", event())
    tell(database, "markets", other)
    for ticker in (TICKER, "KXRAIN-26OCT01-T2"):
        assert row(database, "markets", ticker)["series_ticker"] == "KXRAIN"


def test_a_market_of_an_event_without_series_says_so(database):
    tell(database, "markets", market())
    assert row(database, "markets", TICKER)["series_ticker"] is None
    tell(database, "events", event(series_ticker=""))
    assert row(database, "markets", TICKER)["series_ticker"] == ""


def test_an_event_told_while_its_market_is_being_written_still_names_its_series(database):
    with open_transaction(database) as ours:
        write_markets(ours, [market()], source="rest", read_at=READ_AT)

        def tell_event():
            with connect(database) as theirs:
                write_events(theirs, [event()], source="rest", read_at=READ_AT)

        thread = threading.Thread(target=tell_event)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: rows(database, waiting)[0]["count"] > 0, 10)
        ours.commit()
        thread.join(10)
    assert not thread.is_alive()
    assert row(database, "markets", TICKER)["series_ticker"] == "KXRAIN"


# The queue ---------------------------------------------------------------------------------------


def paused(database):
    return row(database, "markets", TICKER)["pause"]


def test_a_market_that_trades_is_asked_for_two_minutes_after_its_close(database):
    closes_at = (datetime.now(UTC) + timedelta(hours=5)).replace(microsecond=0)
    tell(database, "markets", market(close_time=closes_at.isoformat()))
    held = row(database, "markets", TICKER)
    assert held["next_read_at"] == closes_at + timedelta(minutes=2)
    assert held["read_attempts"] == 0


def combo(ticker, expected_in, closes_in):
    now = datetime.now(UTC).replace(microsecond=0)
    return market(
        ticker=ticker,
        expected_expiration_time=(now + expected_in).isoformat(),
        close_time=(now + closes_in).isoformat(),
    )


def test_a_combo_is_asked_for_once_its_last_game_should_be_over(database):
    told = combo("KXMVEA-1", timedelta(hours=3), timedelta(days=2))
    name(database, "KXMVEA-1")
    tell(database, "markets", told)
    held = row(database, "markets", "KXMVEA-1")
    assert held["next_read_at"] == held["expected_expires_at"] + timedelta(minutes=2)


def test_a_combo_overdue_is_asked_for_with_growing_pauses_and_at_its_close(database):
    told = combo("KXMVEA-1", timedelta(hours=-1), timedelta(minutes=30))
    name(database, "KXMVEA-1")
    pauses = []
    for _ in range(8):
        tell(database, "markets", told)
        pauses.append(round(row(database, "markets", "KXMVEA-1")["pause"], -1))
        make_due(database)
    assert pauses[:6] == [60, 60, 120, 240, 480, 960]
    assert pauses[6] == pauses[7] == pytest.approx(32 * 60, abs=30)


def test_a_market_that_never_closes_is_no_trouble(database):
    tell(database, "markets", market(close_time="9999-12-31T23:59:59Z"))
    assert paused(database) > 10**9


def test_a_closed_market_is_asked_for_its_outcome_with_growing_pauses(database):
    pauses = []
    for _ in range(12):
        tell(database, "markets", market(status="closed"))
        pauses.append(round(paused(database), -1))
        make_due(database)
    assert pauses[:5] == [60, 60, 120, 240, 480]
    assert pauses[-1] == 6 * 3600
    tell(database, "markets", market(status="closed", updated_time=later(60)))
    assert round(paused(database), -1) == 60, "a fact that changed begins anew"


def test_a_market_told_before_it_is_due_keeps_its_place(database):
    tell(database, "markets", market(status="closed"))
    before = row(database, "markets", TICKER)
    assert tell(database, "markets", market(status="closed")) == SAME
    assert row(database, "markets", TICKER)["xmin"] == before["xmin"]


def test_an_outcome_that_rest_does_not_show_yet_is_asked_for_with_growing_pauses(database):
    tell(database, "markets", market(status="closed"))
    determined_at = CREATED_AT + timedelta(seconds=600)
    change(database, Determined(TICKER, "yes", 1_000_000, determined_at))
    assert paused(database) == pytest.approx(5, abs=2)
    pauses = []
    for _ in range(9):
        make_due(database)
        tell(database, "markets", market(status="closed", updated_time=later(601)))
        pauses.append(paused(database))
    expected = [5, 5, 10, 20, 40, 80, 160, 320, 600]
    assert pauses == pytest.approx(expected, abs=2)
    assert rows(database, "SELECT result, confirmed_at FROM settlements") == [
        {"result": "yes", "confirmed_at": None}
    ]


@pytest.mark.parametrize(
    ("timer", "first", "second"), [(0, 60, 60), (300, 360, 360), (86_400, 3600, 3600)]
)
def test_a_confirmed_outcome_is_asked_for_again_when_it_should_be_final(
    database, timer, first, second
):
    told = market(
        status="determined",
        result="no",
        settlement_value_dollars="0.0000",
        settlement_timer_seconds=timer,
    )
    tell(database, "markets", told)
    assert paused(database) == pytest.approx(first, abs=2)
    make_due(database)
    tell(database, "markets", told)
    assert paused(database) == pytest.approx(second, abs=2)
    make_due(database)
    tell(database, "markets", told)
    assert paused(database) == pytest.approx(min(3600, 2 * second), abs=2)


def test_a_final_market_is_asked_for_no_more(database):
    assert tell(database, "markets", finalized()) == NEW
    held = row(database, "markets", TICKER)
    assert (held["next_read_at"], held["read_attempts"]) == (None, 0)
    assert held["outcome_status"] == "finalized"
    assert tell(database, "markets", finalized(), source="historical") == SAME
    assert row(database, "markets", TICKER)["xmin"] == held["xmin"]


def test_a_market_of_which_a_message_could_not_be_read_is_asked_for_at_once(database):
    tell(database, "markets", finalized())
    with connect(database) as connection:
        ask_again(connection, {TICKER, "KXRAIN-26OCT01-T9"})
    assert paused(database) <= 0
    assert row(database, "markets", "KXRAIN-26OCT01-T9")["pause"] <= 0


def test_metadata_is_stored_digit_for_digit(database):
    body = json.dumps(MARKET | {"custom_strike": {"a": "HERE"}}).replace(
        '"HERE"', "0.10000000000000000555"
    )
    tell(database, "markets", read_market(body.encode()))
    [held] = rows(database, "SELECT custom_strike::text AS text FROM markets")
    assert held["text"] == '{"a": 0.10000000000000000555}'
