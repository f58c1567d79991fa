"""The comparison with the exchange's candles: what is equal, what is explained, what is not."""

from datetime import UTC, datetime
from typing import Any

from kalshi_platform.transform.agreement import (
    COLUMNS,
    QUOTE_COLUMNS,
    TRADE_COLUMNS,
    Agreement,
    Difference,
    Evidence,
    Gap,
    Verdict,
    compare,
)

START = 1_773_000_000  # a whole minute
NOON = datetime.fromtimestamp(START, UTC)


def at(minute: float) -> datetime:
    return datetime.fromtimestamp(START + 60 * minute, UTC)


def candle(bid: int = 40, ask: int = 42, trades: int | None = 41, **changes: Any) -> dict[str, Any]:
    """Quotes that stand, and trades at one price (cents); `changes` by column."""
    values: dict[str, Any] = dict.fromkeys(TRADE_COLUMNS[:4], trades and trades * 10_000)
    values["volume_centis"] = 0 if trades is None else 150
    values |= {name: (bid if "bid" in name else ask) * 10_000 for name in QUOTE_COLUMNS}
    values["open_interest_centis"] = 700
    return {**values, **changes}


def ours(minute: int = 0, *, gap: bool = False, **changes: Any) -> dict[str, Any]:
    return {**candle(**changes), "quoted_at": at(minute), "quote_gap": gap}


def agreement(
    theirs: dict[int, dict[str, Any]], mine: dict[int, dict[str, Any]], **evidence: Any
) -> Agreement:
    """Compare one market, minutes from noon."""
    keyed = (
        {("A", START + 60 * minute): found for minute, found in side.items()}
        for side in (theirs, mine)
    )
    evidence = {"first_quoted_at": {"A": at(-5)}, **evidence}
    return compare("1m", 60, *keyed, Evidence(**evidence))


def counts(found: Agreement) -> dict[str, int]:
    return {verdict.name: count for verdict in Verdict if (count := found.count(verdict))}


def test_equal_candles_agree_in_every_column():
    found = agreement({0: candle()}, {0: ours()})
    assert counts(found) == {"EQUAL": len(COLUMNS)}
    assert {column for _, column, _ in found.verdicts} == set(COLUMNS)


def test_another_value_is_a_difference_with_both_sides():
    found = agreement({0: candle()}, {0: ours(yes_bid_low_micros=390_000)})
    assert found.differences == [
        Difference("1m", "A", NOON, "yes_bid_low_micros", 400_000, 390_000)
    ]
    assert counts(found) == {"EQUAL": len(COLUMNS) - 1, "DIFFERENT": 1}


def test_minutes_without_a_trade_compare_quotes_alone():
    found = agreement({0: candle(trades=None)}, {0: ours(trades=None)})
    assert counts(found) == {"EQUAL": len(QUOTE_COLUMNS)}


def test_a_trade_that_only_one_side_has_is_a_difference():
    for theirs, mine in (
        ({0: candle()}, {0: ours(trades=None)}),
        ({0: candle(trades=None)}, {0: ours()}),
    ):
        found = agreement(theirs, mine)
        assert [different.column for different in found.differences] == list(TRADE_COLUMNS)


def test_a_candle_that_only_one_side_lists_is_compared_with_what_stood_there():
    theirs = {0: candle(), 1: candle(trades=None)}
    mine = {0: ours(), 2: ours(2, trades=None)}
    found = agreement(theirs, mine)
    assert counts(found) == {"EQUAL": len(COLUMNS) + 2 * len(QUOTE_COLUMNS)}
    moved = agreement({0: candle(), 1: candle(bid=41, trades=None)}, {0: ours()})
    assert {d.column for d in moved.differences} == {c for c in COLUMNS if "bid" in c}
    moved = agreement({0: candle()}, {0: ours(), 1: ours(1, ask=43, trades=None)})
    assert {d.column for d in moved.differences} == {c for c in COLUMNS if "ask" in c}


def test_the_first_candle_of_theirs_is_compared_with_what_stood_before_the_day():
    found = agreement({0: candle(trades=None)}, {}, standing={"A": ours(-3)})
    assert counts(found) == {"EQUAL": len(QUOTE_COLUMNS)}


def test_a_trade_of_theirs_where_we_have_no_candle_is_missing():
    found = agreement({0: candle(), 1: candle()}, {0: ours()})
    assert [d.column for d in found.differences] == list(TRADE_COLUMNS)
    assert found.differences[-1] == Difference("1m", "A", at(1), "volume_centis", 150, 0)


def test_quotes_that_differ_inside_a_gap_are_counted_apart():
    found = agreement({0: candle()}, {0: ours(gap=True, ask=43)})
    assert counts(found) == {"EQUAL": len(COLUMNS) - 4, "IN_GAP": 4}
    assert not found.differences


def test_where_we_have_no_candle_the_gaps_since_the_last_quote_count():
    theirs = {0: candle(), 5: candle(bid=41, trades=None)}
    for gap, verdict in (
        (Gap(None, at(2), at(3)), "IN_GAP"),
        (Gap("A", at(2), at(3)), "IN_GAP"),
        (Gap("B", at(2), at(3)), "DIFFERENT"),
        (Gap(None, at(-2), at(-1)), "DIFFERENT"),
        (Gap(None, at(6), at(7)), "DIFFERENT"),
    ):
        found = agreement(theirs, {0: ours()}, quote_gaps=[gap])
        assert counts(found)[verdict] == 4, gap


def test_a_gap_of_trades_explains_no_quote_and_the_other_way_round():
    gap = Gap(None, at(0.2), at(0.4))
    found = agreement({0: candle()}, {0: ours(trades=None, bid=39)}, trade_gaps=[gap])
    assert {c for (_, c, verdict) in found.verdicts if verdict is Verdict.IN_GAP} == {
        *TRADE_COLUMNS
    }
    assert {d.column for d in found.differences} == {c for c in COLUMNS if "bid" in c}
    found = agreement({0: candle()}, {0: ours(trades=None, gap=True)})
    assert len(found.differences) == len(TRADE_COLUMNS)


def test_an_open_that_a_tie_decides_is_undecided_and_a_high_never_is():
    ties = {("A", START, "open_micros"), ("A", START, "close_micros")}
    mine = {0: ours(open_micros=1, high_micros=1)}
    found = agreement({0: candle()}, mine, ties=ties)
    assert counts(found)["UNDECIDED"] == 1
    assert [d.column for d in found.differences] == ["high_micros"]


def test_before_our_first_quote_only_trades_are_compared():
    nothing = dict.fromkeys(QUOTE_COLUMNS)
    for mine, first in (
        ({0: ours(**nothing)}, {}),
        ({0: ours(bid=39)}, {"A": at(0.5)}),
    ):
        found = agreement({0: candle()}, mine, first_quoted_at=first)
        assert counts(found) == {"EQUAL": len(TRADE_COLUMNS)}
        assert found.not_quoted == 1


def test_where_quotes_have_been_dropped_their_columns_are_compared_all_the_same():
    found = agreement({0: candle()}, {0: ours(bid=39)}, first_quoted_at={}, quotes_kept=False)
    assert counts(found)["DIFFERENT"] == 4


def test_a_synthetic_candle_of_theirs_says_nothing_of_quotes():
    synthetic = candle(trades=None, **dict.fromkeys(QUOTE_COLUMNS[:8]), open_interest_centis=0)
    assert agreement({0: synthetic}, {0: ours(trades=None)}).compared == 0


def test_comparisons_add_up():
    total = agreement({0: candle()}, {0: ours(bid=39)})
    total.add(agreement({0: candle()}, {0: ours()}))
    assert counts(total) == {"EQUAL": 2 * len(COLUMNS) - 4, "DIFFERENT": 4}
    assert len(total.differences) == 4
