"""Each check of markets, events and outcomes passes on a right day and names what is wrong."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.days import reference_figures
from kalshi_platform.storage.statements import run
from kalshi_platform.transform import quality_reference as quality
from kalshi_platform_tests.transform.reference import DAY, MARKET, land, trade

NOON = DAY + timedelta(hours=12)
LONG_AGO = DAY - timedelta(days=30)
SERIES, EVENT = "KXTEST", "KXTEST-26OCT05"


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    return postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A series, its event, its market that traded, closed and paid yes on DAY; rolled back."""
    with connect(shared_database) as opened:
        put(opened, "series", series_ticker=SERIES)
        put(opened, "events", event_ticker=EVENT, series_ticker=SERIES)
        market(opened, MARKET)
        outcome(opened, MARKET)
        land(opened, trade("10:00:05"), trade("10:00:09"))
        yield opened
        opened.rollback()


def put(connection: psycopg.Connection[Any], table: str, **columns: Any) -> None:
    """One row that the exchange has described, first seen long ago and changed on DAY."""
    known = {
        "first_seen_at": LONG_AGO,
        "exchange_updated_at": NOON,
        "metadata": "{}",
        "next_read_at": None,
    }
    values = {**known, **columns}
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    connection.execute(
        f"INSERT INTO {table} ({names}) VALUES ({places})".encode(), list(values.values())
    )


def market(connection: psycopg.Connection[Any], ticker: str, **columns: Any) -> None:
    usual = {"event_ticker": EVENT, "series_ticker": SERIES, "closes_at": NOON}
    put(connection, "markets", market_ticker=ticker, **{**usual, **columns})


def outcome(
    connection: psycopg.Connection[Any],
    ticker: str,
    result: str = "yes",
    value: int | None = 1_000_000,
    confirmed_at: datetime | None = NOON,
    recorded_at: datetime = NOON,
    settled_at: datetime | None = NOON,
) -> None:
    shared = [ticker, "finalized", result, value, NOON, "rest", recorded_at, confirmed_at]
    connection.execute(
        "INSERT INTO settlements (market_ticker, status, result, settlement_value_micros,"
        " effective_at, source, recorded_at, confirmed_at, settled_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [*shared, settled_at],
    )
    connection.execute(
        "INSERT INTO settlement_history (market_ticker, status, result, settlement_value_micros,"
        " effective_at, source, recorded_at, confirmed_at, version)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 1)",
        shared,
    )


def ask(connection: psycopg.Connection[Any], check: Any) -> tuple[bool, dict[str, Any]]:
    """Whether it passed, and the figures by name."""
    cursor = run(connection, check(DAY.date()))
    row = cursor.fetchone()
    assert row is not None and cursor.description is not None
    figures = dict(zip((column.name for column in cursor.description), row, strict=True))
    return figures.pop("passed"), figures


def examples(figures: dict[str, Any], column: str = "market_ticker") -> list[Any]:
    return [example[column] for example in figures["examples"]]


def test_a_right_day_passes_and_has_looked_at_its_rows(connection):
    found = {check.name: ask(connection, check.query) for check in quality.CHECKS}
    assert {name for name, (passed, _) in found.items() if passed is True} == set(found)
    assert found["traded_markets_known"][1]["markets_traded"] == 1
    assert found["hierarchy_complete"][1]["markets"] == 1
    assert found["outcome_value_matches_result"][1]["outcomes"] == 1
    assert found["events_belong_to_series"][1]["events_that_name_one"] == 1


@pytest.mark.parametrize("check", quality.CHECKS, ids=lambda check: check.name)
def test_a_day_without_rows_passes(connection, check):
    query = check.query(DAY.date() - timedelta(days=90))
    row = run(connection, query).fetchone()
    assert row is not None
    assert row[0] is True


def test_every_traded_ticker_is_found_by_stepping_through_the_index(connection):
    tickers = [f"KXSTEP-{number:03d}" for number in range(50)]
    land(connection, *(trade(f"10:{n:02d}:01", market=t) for n, t in enumerate(tickers)))
    land(connection, trade(DAY + timedelta(days=1, hours=1), market="KXTOMORROW"))
    passed, figures = ask(connection, quality.traded_markets_known)
    assert not passed
    assert figures["markets_traded"] == 51
    assert figures["markets_unknown"] == 50
    assert examples(figures) == tickers[:20]


def test_a_traded_market_is_given_ten_minutes_to_be_described(connection):
    land(connection, trade(market="NEW"))
    market(connection, "NEW", metadata=None, first_seen_at=datetime.now(UTC))
    passed, figures = ask(connection, quality.traded_markets_known)
    assert passed
    assert (figures["markets_asked_for"], figures["markets_unknown"]) == (1, 0)
    connection.execute(
        "UPDATE markets SET first_seen_at = now() - interval '11 minutes', not_found_at = now()"
        " WHERE market_ticker = 'NEW'"
    )
    passed, figures = ask(connection, quality.traded_markets_known)
    assert not passed
    [unknown] = figures["examples"]
    assert (unknown["market_ticker"], unknown["not_found"]) == ("NEW", True)
    assert 660 <= unknown["waiting_seconds"] < 700


def test_a_closed_market_without_outcome_is_pending_while_it_is_asked_for(connection):
    market(connection, "LATE", next_read_at=NOON, settlement_timer_seconds=3600)
    market(connection, "LATER", next_read_at=NOON)
    passed, figures = ask(connection, quality.past_markets_have_outcomes)
    assert passed
    assert figures["markets_pending"] == 2
    assert examples(figures) == ["LATER", "LATE"]
    ages = examples(figures, "overdue_seconds")
    assert ages[0] - ages[1] == 3600
    assert figures["oldest_pending_seconds"] == ages[0]


def test_a_closed_market_without_outcome_that_nobody_asks_for_is_forgotten(connection):
    market(connection, "PENDING", next_read_at=NOON)
    market(connection, "FORGOTTEN", closes_at=NOON + timedelta(hours=1))
    passed, figures = ask(connection, quality.past_markets_have_outcomes)
    assert not passed
    assert (figures["markets_forgotten"], figures["markets_pending"]) == (1, 1)
    assert examples(figures) == ["FORGOTTEN", "PENDING"]


def test_an_outcome_that_is_not_final_and_that_nobody_asks_for_is_forgotten(connection):
    for ticker, next_read_at in (("ASKED", NOON), ("FORGOTTEN", None), ("FINAL", None)):
        market(connection, ticker, next_read_at=next_read_at)
        outcome(connection, ticker)
    connection.execute(
        "UPDATE settlements SET status = 'determined' WHERE market_ticker IN ('ASKED', 'FORGOTTEN')"
    )
    passed, figures = ask(connection, quality.past_markets_have_outcomes)
    assert not passed
    assert (figures["markets_forgotten"], figures["markets_pending"]) == (1, 0)
    assert examples(figures) == ["FORGOTTEN"]


@pytest.mark.parametrize(
    ("result", "value", "right"),
    [
        ("yes", 1_000_000, True),
        ("yes", 0, False),
        ("yes", 999_999, False),
        ("yes", None, True),
        ("no", 0, True),
        ("no", 1, False),
        ("no", None, True),
        ("scalar", 0, True),
        ("scalar", 500_000, True),
        ("scalar", 1_000_000, True),
        ("scalar", 1_000_001, False),
        ("scalar", None, False),
        ("void", None, True),
        ("void", 500_000, True),
        ("void", -1, False),
        ("", None, False),
    ],
)
def test_a_value_must_be_one_that_its_result_can_have(connection, result, value, right):
    outcome(connection, "OTHER", result, value)
    passed, figures = ask(connection, quality.outcome_value_matches_result)
    assert passed is right
    assert examples(figures) == ([] if right else ["OTHER"])
    assert figures["values_untold"] == (value is None)


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM settlement_history",
        "UPDATE settlement_history SET version = 2",
        "UPDATE settlement_history SET result = 'no'",
        "UPDATE settlement_history SET status = 'determined'",
        "UPDATE settlement_history SET settlement_value_micros = NULL",
    ],
)
def test_an_outcome_that_its_history_does_not_end_in_is_found(connection, harm):
    connection.execute(harm.encode())
    passed, figures = ask(connection, quality.outcomes_are_their_last_version)
    assert not passed
    assert examples(figures) == [MARKET]


def test_an_amended_outcome_is_its_last_version(connection):
    connection.execute(
        "INSERT INTO settlement_history (market_ticker, version, status, result,"
        " settlement_value_micros, effective_at, source)"
        " VALUES (%s, 2, 'amended', 'no', 0, %s, 'rest')",
        [MARKET, NOON],
    )
    assert ask(connection, quality.outcomes_are_their_last_version)[0] is False
    connection.execute(
        "UPDATE settlements SET status = 'amended', result = 'no', settlement_value_micros = 0"
    )
    assert ask(connection, quality.outcomes_are_their_last_version)[0] is True


def test_an_outcome_is_given_ten_minutes_to_be_confirmed(connection):
    outcome(connection, "NEW", confirmed_at=None, recorded_at=datetime.now(UTC))
    passed, figures = ask(connection, quality.settlements_confirmed)
    assert passed
    assert figures["outcomes_asked_for"] == 1
    outcome(connection, "OLD", confirmed_at=None)
    passed, figures = ask(connection, quality.settlements_confirmed)
    assert not passed
    assert figures["outcomes_unconfirmed"] == 1
    assert examples(figures) == ["OLD"]


def test_a_series_that_the_exchange_does_not_know_is_told_and_not_failed(connection):
    put(connection, "events", event_ticker="NO-SERIES", series_ticker="")
    put(connection, "events", event_ticker="UNKNOWN", series_ticker="KXGONE")
    put(connection, "series", series_ticker="KXGONE", metadata=None, not_found_at=NOON)
    passed, figures = ask(connection, quality.events_belong_to_series)
    assert passed
    assert figures["series_not_found"] == 1
    assert figures["events_that_name_one"] == 2


@pytest.mark.parametrize(("first_seen", "asked_for"), [("never", 0), ("long ago", 0), ("now", 1)])
def test_a_series_that_an_event_names_must_be_held_soon(connection, first_seen, asked_for):
    put(connection, "events", event_ticker="ORPHAN", series_ticker="KXNEW")
    if first_seen != "never":
        put(
            connection,
            "series",
            series_ticker="KXNEW",
            metadata=None,
            first_seen_at=LONG_AGO if first_seen == "long ago" else datetime.now(UTC),
        )
    passed, figures = ask(connection, quality.events_belong_to_series)
    assert passed is bool(asked_for)
    assert figures["series_asked_for"] == asked_for
    assert figures["series_missing"] == 1 - asked_for
    assert examples(figures, "event_ticker") == ["ORPHAN"] * (1 - asked_for)


def test_a_market_without_its_event_or_of_another_series_is_found(connection):
    market(connection, "NO-EVENT", event_ticker="KXNONE-1")
    market(connection, "OTHER-SERIES", series_ticker="KXOTHER")
    market(connection, "NAMELESS", event_ticker=None)
    market(connection, "EVENT-NOT-FOUND", event_ticker="KXGONE-1", series_ticker=None)
    put(connection, "events", event_ticker="KXGONE-1", metadata=None, not_found_at=NOON)
    # Not of this day, or not described yet.
    market(connection, "EARLIER", event_ticker="KXNONE-2", exchange_updated_at=LONG_AGO)
    market(connection, "PLACEHOLDER", event_ticker="KXNONE-3", metadata=None)
    passed, figures = ask(connection, quality.hierarchy_complete)
    assert not passed
    assert examples(figures) == ["NAMELESS", "NO-EVENT", "OTHER-SERIES"]
    assert figures["events_missing"] == 2
    assert figures["series_that_differ"] == 1
    assert figures["events_not_found"] == 1


def test_an_event_is_given_ten_minutes_to_be_described(connection):
    market(connection, "CHILD", event_ticker="KXNEW-1", series_ticker=None)
    put(
        connection,
        "events",
        event_ticker="KXNEW-1",
        metadata=None,
        first_seen_at=datetime.now(UTC),
    )
    passed, figures = ask(connection, quality.hierarchy_complete)
    assert passed
    assert figures["events_asked_for"] == 1


def test_a_day_counts_what_the_exchange_created_changed_or_paid_on_it(connection):
    elsewhere = {"exchange_updated_at": LONG_AGO}
    market(connection, "CREATED", created_at=NOON, **elsewhere)
    market(connection, "EARLIER", **elsewhere)
    market(connection, "NAMED", metadata=None, exchange_updated_at=None, first_seen_at=NOON)
    market(connection, "NAMED-EARLIER", metadata=None, exchange_updated_at=None)
    put(connection, "events", event_ticker="EARLIER", **elsewhere)
    put(connection, "series", series_ticker="GONE", metadata=None, not_found_at=NOON)
    outcome(connection, "UNPAID", settled_at=None, confirmed_at=None)
    found = {
        table: reference_figures(connection, table, DAY.date())
        for table in ("markets", "events", "series", "settlements")
    }
    assert found == {
        "markets": {"rows": 3, "undescribed": 1},
        "events": {"rows": 1, "undescribed": 0},
        "series": {"rows": 2, "not_found": 1},
        "settlements": {"rows": 1, "not_yet_paid": 1, "unconfirmed": 1},
    }
    empty = reference_figures(connection, "settlements", (DAY - timedelta(days=90)).date())
    assert empty == {"rows": 0, "not_yet_paid": 0, "unconfirmed": 0}
