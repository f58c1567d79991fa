"""Events and series as REST tells them, and what is behind is asked for again."""

from datetime import timedelta
from decimal import Decimal

import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.events import name_events
from kalshi_platform.storage.writes.series import name_series
from kalshi_platform.storage.writes.told import Changes
from kalshi_platform_tests.exchange.wire import event, series
from kalshi_platform_tests.storage.reference_rows import READ_AT, make_due, row, rows, tell

TICKERS = {"events": "KXRAIN-26OCT01", "series": "KXRAIN"}
FACTS = {"events": event, "series": series}
both = pytest.mark.parametrize("table", ["events", "series"])


@pytest.fixture
def database(reference_database):
    return reference_database


def name(database, table):
    with connect(database) as connection:
        {"events": name_events, "series": name_series}[table](connection, [TICKERS[table]])


def test_an_event_arrives_with_every_fact_and_its_series(database):
    told = event(fee_type_override="flat", fee_multiplier_override=0.25)
    assert tell(database, "events", told) == Changes(1, 0, 0)
    held = row(database, "events", "KXRAIN-26OCT01")
    assert (held["title"], held["sub_title"]) == ("Rain in New York", "On Oct 1")
    assert (held["mutually_exclusive"], held["fee_type_override"]) == (True, "flat")
    assert held["fee_multiplier_override"] == Decimal("0.25")
    assert held["metadata"]["settlement_sources"][0]["name"] == "NWS"
    assert (held["next_read_at"], held["metadata_source"]) == (None, "rest")
    assert row(database, "series", "KXRAIN")["pause"] <= 0, "asked at once"


def test_a_series_arrives_with_every_fact(database):
    assert tell(database, "series", series()) == Changes(1, 0, 0)
    held = row(database, "series", "KXRAIN")
    assert (held["frequency"], held["category"]) == ("daily", "Climate and Weather")
    assert held["categories"] == ["Climate and Weather", "Science"]
    assert held["tags"] == ["Rain"]
    assert held["fee_multiplier"] == Decimal("0.5")
    assert held["settlement_sources"] == [{"name": "NWS", "url": "https://example.com/"}]
    assert held["next_read_at"] is None


@both
def test_the_same_again_leaves_the_row_untouched(database, table):
    tell(database, table, FACTS[table]())
    before = row(database, table, TICKERS[table])["xmin"]
    assert tell(database, table, FACTS[table]()) == Changes(0, 0, 1)
    assert row(database, table, TICKERS[table])["xmin"] == before


@both
def test_a_placeholder_is_filled_and_asked_for_no_more(database, table):
    name(database, table)
    assert row(database, table, TICKERS[table])["pause"] <= 0
    assert tell(database, table, FACTS[table]()) == Changes(0, 1, 0)
    assert row(database, table, TICKERS[table])["next_read_at"] is None


@both
def test_one_that_was_queued_and_has_not_changed_leaves_the_queue(database, table):
    tell(database, table, FACTS[table]())
    make_due(database, table)
    assert tell(database, table, FACTS[table](), read_at=READ_AT + timedelta(1)) == Changes(0, 0, 1)
    held = row(database, table, TICKERS[table])
    assert (held["next_read_at"], held["read_at"]) == (None, READ_AT + timedelta(1))


@both
def test_an_older_state_is_ignored_and_asked_for_again_until_it_is_believed(database, table):
    tell(database, table, FACTS[table](last_updated_ts="2026-10-01T00:00:00Z", title="Newer"))
    pauses = []
    for _ in range(6):
        make_due(database, table)
        assert tell(database, table, FACTS[table](title="Older")) == Changes(0, 0, 1)
        held = row(database, table, TICKERS[table])
        assert held["title"] == "Newer"
        pauses.append(held["pause"])
    assert pauses == pytest.approx([5, 10, 20, 40, 80, 160], abs=2)
    assert tell(database, table, FACTS[table](title="Older")) == Changes(0, 1, 0)
    assert row(database, table, TICKERS[table])["title"] == "Older"


@both
def test_one_told_without_a_time_of_change_is_taken_and_keeps_the_time_it_has(database, table):
    tell(database, table, FACTS[table]())
    before = row(database, table, TICKERS[table])["exchange_updated_at"]
    told = FACTS[table](last_updated_ts=None, title="Other")
    assert tell(database, table, told) == Changes(0, 1, 0)
    held = row(database, table, TICKERS[table])
    assert (held["title"], held["exchange_updated_at"]) == ("Other", before)
    assert tell(database, table, told) == Changes(0, 0, 1)


def test_an_event_without_series_names_none(database):
    tell(database, "events", event(series_ticker=""))
    assert row(database, "events", "KXRAIN-26OCT01")["series_ticker"] == ""
    assert rows(database, "SELECT FROM series") == []


@both
def test_nothing_told_changes_nothing(database, table):
    assert tell(database, table) == Changes(0, 0, 0)
