"""Lifecycle messages in the tables: applied in order, never over something newer."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from kalshi_platform.exchange.lifecycle import Determined, EventChange, MarketChange, Settled
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform_tests.exchange.wire import event, market
from kalshi_platform_tests.storage.reference_rows import (
    READ_AT,
    change,
    make_due,
    row,
    rows,
    tell,
)

TICKER, EVENT = "KXRAIN-26OCT01-T1.5", "KXRAIN-26OCT01"
COMBO, COMBO_EVENT = "KXMVESPORTS-S1-A", "KXMVESPORTS-S1"
BEGUN = datetime(2026, 9, 28, 14, tzinfo=UTC)
OPENS, CLOSES = BEGUN + timedelta(hours=1), BEGUN + timedelta(hours=9)


@pytest.fixture
def database(reference_database):
    return reference_database


def at(seconds):
    return BEGUN + timedelta(seconds=seconds)


def created(ticker=TICKER, event_ticker=EVENT, **columns):
    facts = {"event_ticker": event_ticker, "title": "Rain?", "opens_at": OPENS, "closes_at": CLOSES}
    return MarketChange(ticker, facts | columns, b'{"event_type": "created"}')


def event_created(ticker=EVENT, series="KXRAIN"):
    return EventChange(ticker, {"series_ticker": series, "title": "Rain"}, b'{"a": 1}')


def closing(closes_at, ticker=TICKER):
    return MarketChange(ticker, {"closes_at": closes_at})


def outcomes(database):
    query = "SELECT market_ticker, status, result FROM settlements ORDER BY market_ticker"
    return [tuple(found.values()) for found in rows(database, query)]


def history(database, ticker=TICKER):
    query = (
        "SELECT version, status, result, settlement_value_micros, effective_at"
        " FROM settlement_history WHERE market_ticker = %s ORDER BY version"
    )
    return [tuple(found.values()) for found in rows(database, query, ticker)]


# Markets -----------------------------------------------------------------------------------------


def test_a_creation_makes_the_market_and_names_its_event(database):
    change(database, created(floor_strike=Decimal("1.50")), at=at(0))
    held = row(database, "markets", TICKER)
    assert (held["event_ticker"], held["title"]) == (EVENT, "Rain?")
    assert (held["opens_at"], held["closes_at"]) == (OPENS, CLOSES)
    assert held["floor_strike"] == Decimal("1.50")
    assert held["exchange_updated_at"] is None, "REST has nothing to tell of the time before it"
    assert (held["metadata"], held["metadata_source"]) == ({"event_type": "created"}, "lifecycle")
    assert held["pause"] == pytest.approx(5, abs=2)
    assert row(database, "events", EVENT)["pause"] <= 0


def test_a_message_changes_what_it_names_and_leaves_the_rest(database):
    tell(database, "markets", market())
    before = row(database, "markets", TICKER)
    change(database, closing(CLOSES), at=READ_AT)
    held = row(database, "markets", TICKER)
    moved = {name for name in held if held[name] != before[name]} - {"xmin", "pause"}
    assert moved == {"closes_at", "exchange_updated_at", "updated_at", "next_read_at"}
    assert held["pause"] == pytest.approx(5, abs=2)


def test_a_null_clears_a_column(database):
    tell(database, "markets", market())
    change(database, MarketChange(TICKER, {"floor_strike": None}), at=READ_AT)
    assert row(database, "markets", TICKER)["floor_strike"] is None


def test_changes_of_one_batch_are_applied_in_order(database):
    change(
        database,
        (created(), at(0)),
        (MarketChange(TICKER, {"is_paused": True}), at(1)),
        (closing(at(7200)), at(2)),
        (MarketChange(TICKER, {"is_paused": False}), at(3)),
        (closing(at(9000)), at(4)),
    )
    held = row(database, "markets", TICKER)
    assert (held["is_paused"], held["closes_at"]) == (False, at(9000))
    assert held["exchange_updated_at"] == at(3)


def test_a_message_older_than_what_is_known_changes_nothing(database):
    change(database, (closing(at(7200)), at(100)))
    make_due(database)
    before = row(database, "markets", TICKER)["xmin"]
    change(database, (closing(at(9000)), at(98)))
    assert row(database, "markets", TICKER)["xmin"] == before


def test_rest_does_not_undo_a_message_and_a_message_does_not_undo_rest(database):
    tell(database, "markets", market(updated_time=at(50).isoformat()))
    change(database, (closing(at(7200)), at(60)))
    tell(database, "markets", market(updated_time=at(50).isoformat()))
    assert row(database, "markets", TICKER)["closes_at"] == at(7200)
    newer = market(updated_time=at(200).isoformat(), close_time=at(9000).isoformat())
    tell(database, "markets", newer)
    change(database, (closing(at(7200)), at(60)))
    assert row(database, "markets", TICKER)["closes_at"] == at(9000)


def test_a_creation_does_not_replace_what_rest_told_of_the_market(database):
    tell(database, "markets", market())
    change(database, created(), at=READ_AT)
    held = row(database, "markets", TICKER)
    assert held["metadata_source"] == "rest"
    assert "rules_primary" in held["metadata"]


def test_a_market_learns_its_series_from_an_event_that_is_known(database):
    change(database, event_created(), created())
    change(database, created("KXRAIN-26OCT01-T2"))
    for ticker in (TICKER, "KXRAIN-26OCT01-T2"):
        assert row(database, "markets", ticker)["series_ticker"] == "KXRAIN"


def test_a_thousand_messages_are_applied_at_once(database):
    changes = [created(f"KXRAIN-{n}", f"KXRAIN-E{n // 3}") for n in range(1000)]
    changes += [Determined(f"KXRAIN-{n}", "yes", 1_000_000, at(60)) for n in range(1000)]
    change(database, *changes)
    assert len(outcomes(database)) == 1000


# Combos ------------------------------------------------------------------------------------------


def test_a_combo_that_nobody_traded_leaves_no_trace(database):
    change(
        database,
        event_created(COMBO_EVENT),
        created(COMBO, COMBO_EVENT),
        closing(CLOSES, COMBO),
        Determined(COMBO, "yes", 1_000_000, at(60)),
        Settled(COMBO, at(120)),
    )
    for table in ("markets", "events", "series", "settlements", "settlement_history"):
        assert rows(database, f"SELECT FROM {table}") == []


def test_a_combo_that_was_traded_is_changed_like_any_market(database):
    with connect(database) as connection:
        name_markets(connection, [COMBO])
    change(database, closing(CLOSES, COMBO), Determined(COMBO, "yes", 1_000_000, at(60)))
    held = row(database, "markets", COMBO)
    assert (held["closes_at"], held["outcome_status"]) == (CLOSES, "determined")
    assert outcomes(database) == [(COMBO, "determined", "yes")]


def test_an_event_of_combos_that_is_known_is_changed(database):
    tell(database, "events", event(event_ticker=COMBO_EVENT, series_ticker=""))
    change(database, event_created(COMBO_EVENT, "KXMVESPORTS"), at=READ_AT)
    assert row(database, "events", COMBO_EVENT)["series_ticker"] == "KXMVESPORTS"


# Events ------------------------------------------------------------------------------------------


def test_a_created_event_is_there_with_its_series(database):
    change(database, event_created(), at=at(0))
    held = row(database, "events", EVENT)
    assert (held["series_ticker"], held["title"]) == ("KXRAIN", "Rain")
    assert (held["exchange_updated_at"], held["metadata"]) == (None, {"a": 1})
    assert held["pause"] == pytest.approx(5, abs=2)
    assert row(database, "series", "KXRAIN")["pause"] <= 0


def test_rest_is_believed_of_an_event_whose_creation_was_told_late(database):
    change(database, event_created(), at=at(30))
    tell(database, "events", event(event_ticker=EVENT, last_updated_ts="2026-09-28T14:00:00Z"))
    held = row(database, "events", EVENT)
    assert (held["exchange_updated_at"], held["next_read_at"]) == (BEGUN, None)
    assert held["category"] is not None


def test_an_event_tells_its_series_to_the_markets_that_came_before(database):
    change(database, created())
    assert row(database, "markets", TICKER)["series_ticker"] is None
    change(database, event_created())
    assert row(database, "markets", TICKER)["series_ticker"] == "KXRAIN"


def test_a_fee_is_overridden_and_cleared(database):
    fee = {"fee_type_override": "flat", "fee_multiplier_override": Decimal("0.25")}
    change(database, (EventChange(EVENT, fee), at(0)))
    held = row(database, "events", EVENT)
    assert (held["fee_type_override"], held["fee_multiplier_override"]) == ("flat", Decimal("0.25"))
    change(database, (EventChange(EVENT, dict.fromkeys(fee)), at(10)), (event_created(), at(-9)))
    held = row(database, "events", EVENT)
    assert (held["fee_type_override"], held["title"]) == (None, None)


# Outcomes ----------------------------------------------------------------------------------------


def test_a_determination_is_an_outcome_at_once(database):
    change(database, Determined(TICKER, "scalar", 500_000, at(60)))
    [held] = rows(database, "SELECT * FROM settlements")
    assert (held["status"], held["result"]) == ("determined", "scalar")
    assert held["settlement_value_micros"] == 500_000
    assert held["determined_at"] == held["effective_at"] == at(60)
    assert (held["source"], held["confirmed_at"]) == ("lifecycle", None)
    assert held["recorded_at"] == READ_AT
    market_row = row(database, "markets", TICKER)
    assert market_row["outcome_status"] == "determined"
    assert market_row["exchange_updated_at"] == at(59)
    assert market_row["pause"] == pytest.approx(5, abs=2)


def test_an_amended_outcome_shows_both_versions_and_the_valid_one(database):
    change(database, Determined(TICKER, "yes", 1_000_000, at(60)))
    change(database, Determined(TICKER, "no", 0, at(90)))
    change(database, Settled(TICKER, at(150)))
    assert outcomes(database) == [(TICKER, "finalized", "no")]
    assert history(database) == [
        (1, "determined", "yes", 1_000_000, at(60)),
        (2, "amended", "no", 0, at(90)),
        (3, "finalized", "no", 0, at(150)),
    ]


def test_a_repeated_message_changes_no_row_and_asks_nothing(database):
    told = [Determined(TICKER, "yes", 1_000_000, at(60)), Settled(TICKER, at(90))]
    change(database, *told)
    make_due(database)
    before = [
        row(database, "markets", TICKER),
        *rows(database, "SELECT xmin::text FROM settlements"),
    ]
    change(database, *told)
    after = [
        row(database, "markets", TICKER),
        *rows(database, "SELECT xmin::text FROM settlements"),
    ]
    assert before[0] | {"pause": 0} == after[0] | {"pause": 0}
    assert before[1] == after[1]


def test_an_outcome_that_rest_has_made_final_is_not_asked_for_again(database):
    tell(
        database,
        "markets",
        market(
            status="finalized",
            result="yes",
            settlement_value_dollars="1.0000",
            settlement_ts=at(90.5).isoformat(),
            updated_time=at(91).isoformat(),
        ),
    )
    change(database, Determined(TICKER, "yes", 1_000_000, at(60)), Settled(TICKER, at(90)))
    assert row(database, "markets", TICKER)["next_read_at"] is None
    assert [version[:2] for version in history(database)] == [(1, "determined"), (2, "finalized")]
    [held] = rows(database, "SELECT settled_at, determined_at FROM settlements")
    assert held == {"settled_at": at(90.5), "determined_at": at(60)}


def test_a_payment_of_an_unknown_result_has_rest_asked(database):
    tell(database, "markets", market(close_time="2090-01-01T00:00:00Z"))
    change(database, Settled(TICKER, at(90)))
    assert outcomes(database) == []
    assert row(database, "markets", TICKER)["pause"] == pytest.approx(5, abs=2)


def test_two_versions_that_turn_out_to_be_one_leave_no_third_behind(database):
    change(database, Determined(TICKER, "yes", 1_000_000, at(60)))
    disputed = {"result": "yes", "settlement_value_dollars": "1.0000"}
    tell(
        database,
        "markets",
        market(status="amended", updated_time=at(91).isoformat(), **disputed | {"result": "no"}),
    )
    change(database, Determined(TICKER, "scalar", 500_000, at(75)))
    change(database, Determined(TICKER, "no", None, at(90)))
    assert [version[1:3] for version in history(database)] == [
        ("determined", "yes"),
        ("amended", "scalar"),
        ("amended", "no"),
    ]


# Whole lives -------------------------------------------------------------------------------------


def life(rng, ticker):
    """Messages and REST's answers of one market, in the order of the exchange's time."""
    first, second = rng.sample([("yes", 1_000_000), ("no", 0), ("scalar", 500_000)], 2)
    moment = rng.randrange(10, 100)
    answers = []

    def rest(status, answer, seconds, **more):
        dollars = f"{answer[1] / 1_000_000:.4f}"
        answers.append(
            market(
                ticker=ticker,
                status=status,
                result=answer[0],
                settlement_value_dollars=dollars,
                updated_time=at(seconds).isoformat(),
                **more,
            )
        )

    in_force = first
    answers.append(Determined(ticker, *first, at(moment)))
    rest("determined", first, moment + 0.3)
    expected = [("determined", *first)]
    if rng.random() < 0.5:
        moment += rng.randrange(5, 100)
        in_force = second
        answers.append(Determined(ticker, *second, at(moment)))
        rest("amended", second, moment + 0.3)
        expected.append(("amended", *second))
    moment += rng.randrange(5, 100)
    answers.append(Settled(ticker, at(moment)))
    settled_at = at(moment + 0.765432)
    rest("finalized", in_force, moment + 2, settlement_ts=settled_at.isoformat())
    expected.append(("finalized", *in_force))
    return answers, expected, settled_at


@pytest.mark.parametrize("in_order", [True, False])
def test_lives_told_in_any_order_end_in_the_same_outcome(database, in_order):
    rng = random.Random(in_order)
    lives = {f"KXLIFE-{n}": life(rng, f"KXLIFE-{n}") for n in range(60)}
    queues = {}
    for ticker, (evidence, _, _) in lives.items():
        queue = [one for one in evidence for _ in range(rng.choice([1, 1, 2]))]
        if not in_order:
            rng.shuffle(queue)
            # REST is asked until it has told the end.
            queue.append(evidence[-1])
        queues[ticker] = queue
    while queues:
        turn = [queue.pop(0) for queue in queues.values()]
        queues = {ticker: queue for ticker, queue in queues.items() if queue}
        make_due(database, even_if_final=False)
        told = [one for one in turn if not isinstance(one, Determined | Settled)]
        change(database, *(one for one in turn if isinstance(one, Determined | Settled)))
        tell(database, "markets", *told)
    held = {found["market_ticker"]: found for found in rows(database, "SELECT * FROM settlements")}
    for ticker, (_, expected, settled_at) in lives.items():
        outcome = held[ticker]
        status, result, value = expected[-1]
        assert (outcome["status"], outcome["result"]) == (status, result)
        assert outcome["settlement_value_micros"] == value
        assert outcome["settled_at"] == outcome["effective_at"] == settled_at
        assert outcome["confirmed_at"] is not None
        assert row(database, "markets", ticker)["next_read_at"] is None
        if in_order:
            assert [version[1:4] for version in history(database, ticker)] == expected
