"""Lifecycle messages from the tape to the tables, in the transaction of their batch."""

import json
from datetime import UTC, datetime, timedelta

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.ingest.builders import (
    CONNECTION,
    lifecycle,
    line,
    subscribed,
    trade,
)
from kalshi_platform_tests.ingest.test_any_frame import one_by_one, raw_line, ticker_frame
from kalshi_platform_tests.ingest.test_loader import load, rows, write

TICKER = "KXTEST-26OCT01-T1"
COMBO = "KXMVESPORTS-S1-A"
BEGUN = datetime.fromtimestamp(CONNECTION, UTC)
SENT = {"sending_ts_ms": CONNECTION * 1000}


def created(seq, ticker=TICKER, **changes):
    told = {
        "title": "A test?",
        "yes_sub_title": "yes",
        "no_sub_title": "no",
        "can_close_early": True,
        "event_ticker": ticker.rpartition("-")[0],
        "expected_expiration_ts": CONNECTION + 9000,
    }
    message = {
        "market_ticker": ticker,
        "event_type": "created",
        "open_ts": CONNECTION + 60,
        "close_ts": CONNECTION + 3600,
        "price_level_structure": "linear_cent",
        "price_ranges": [],
        "additional_metadata": told,
    }
    return of_market(seq, **message | changes)


def of_market(seq, **message):
    ticker = message.setdefault("market_ticker", TICKER)
    is_combo = ticker.startswith("KXMVE")
    kind = "multivariate_market_lifecycle" if is_combo else "market_lifecycle_v2"
    return {"type": kind, "sid": 4 if is_combo else 3, "seq": seq, "msg": message} | SENT


def determined(seq, result="yes", value="1.0000", seconds=3700, **changes):
    told = {"result": result, "settlement_value": value, "determination_ts": CONNECTION + seconds}
    return of_market(seq, **{"event_type": "determined"} | told | changes)


def settled(seq, seconds=3800, **changes):
    return of_market(seq, event_type="settled", settled_ts=CONNECTION + seconds, **changes)


def begin():
    return [
        line(subscribed("trade", 1)),
        line(subscribed("market_lifecycle_v2", 3)),
        line(subscribed("multivariate_market_lifecycle", 4)),
    ]


def load_frames(database, folder, *frames):
    write(folder, [*begin(), *(f if isinstance(f, bytes) else line(f) for f in frames)])
    load(database, folder)


def test_the_life_of_a_market_is_told_by_its_messages(database, tmp_path):
    event = {
        "event_ticker": "KXTEST-26OCT01",
        "title": "Test",
        "subtitle": "today",
        "collateral_return_type": "",
        "series_ticker": "KXTEST",
    }
    load_frames(
        database,
        tmp_path,
        {"type": "event_lifecycle", "sid": 3, "seq": 1, "msg": event} | SENT,
        created(2),
        of_market(3, event_type="deactivated", is_deactivated=True),
        of_market(4, event_type="activated", is_deactivated=False),
        of_market(5, event_type="close_date_updated", close_ts=CONNECTION + 3000),
        determined(6),
        determined(7, "no", "0.0000", 3750),
        settled(8),
        {
            "type": "event_fee_update",
            "sid": 3,
            "seq": 9,
            "msg": {
                "event_ticker": "KXTEST-26OCT01",
                "fee_type_override": "flat",
                "fee_multiplier_override": 0.5,
            },
        }
        | SENT,
    )
    assert rows(
        database,
        "SELECT event_ticker, series_ticker, title, opens_at, closes_at, is_paused, outcome_status"
        " FROM markets",
    ) == [
        (
            "KXTEST-26OCT01",
            "KXTEST",
            "A test?",
            BEGUN + timedelta(seconds=60),
            BEGUN + timedelta(seconds=3000),
            False,
            "finalized",
        )
    ]
    assert rows(database, "SELECT title, sub_title, fee_type_override FROM events") == [
        ("Test", "today", "flat")
    ]
    assert rows(database, "SELECT series_ticker FROM series") == [("KXTEST",)]
    assert rows(
        database,
        "SELECT version, status, result, settlement_value_micros, source"
        " FROM settlement_history ORDER BY version",
    ) == [
        (1, "determined", "yes", 1_000_000, "lifecycle"),
        (2, "amended", "no", 0, "lifecycle"),
        (3, "finalized", "no", 0, "lifecycle"),
    ]
    [(due,)] = rows(database, "SELECT next_read_at - now() < interval '6 s' FROM markets")
    assert due
    assert rows(database, "SELECT count(*) FROM lifecycle_events") == [(9,)]


def test_loading_the_same_tape_twice_changes_nothing(database, tmp_path):
    load_frames(database, tmp_path, created(1), determined(2), settled(3))
    query = "SELECT xmin::text FROM markets UNION SELECT xmin::text FROM settlements"
    before = rows(database, query)
    load(database, tmp_path)
    with connect(database) as connection:
        connection.execute("DELETE FROM ingestion_checkpoints")
        connection.execute("UPDATE markets SET next_read_at = NULL")
        [moved] = connection.execute("SELECT xmin::text FROM markets").fetchall()
    load(database, tmp_path)
    assert set(rows(database, query)) - {moved} <= set(before)


def test_a_combo_gets_its_row_from_a_trade_and_from_nothing_else(database, tmp_path):
    quoted = ticker_frame(sid=2)
    quoted["msg"]["market_ticker"] = COMBO
    load_frames(
        database, tmp_path, created(1, COMBO), line(quoted), determined(2, market_ticker=COMBO)
    )
    assert rows(database, "SELECT FROM markets") == []
    assert rows(database, "SELECT FROM settlements") == []
    assert rows(database, "SELECT FROM events") == []
    assert rows(database, "SELECT count(*) FROM lifecycle_events") == [(2,)]
    assert rows(database, "SELECT count(*) FROM quotes") == [(1,)]


def test_a_combo_that_is_traded_in_the_same_batch_learns_its_outcome(database, tmp_path):
    load_frames(
        database,
        tmp_path,
        created(1, COMBO),
        trade(1, market_ticker=COMBO),
        determined(2, market_ticker=COMBO),
    )
    assert rows(database, "SELECT market_ticker, outcome_status FROM markets") == [
        (COMBO, "determined")
    ]


def test_an_ordinary_market_has_its_row_from_any_message_on(database, tmp_path):
    quoted = ticker_frame(sid=2)
    quoted["msg"]["market_ticker"] = "KXQUOTED-1"
    unheard_of = of_market(1, event_type="unheard_of", market_ticker="KXUNHEARD-1")
    load_frames(database, tmp_path, line(quoted), unheard_of)
    assert rows(database, "SELECT market_ticker FROM markets ORDER BY 1") == [
        ("KXQUOTED-1",),
        ("KXUNHEARD-1",),
    ]
    assert rows(database, "SELECT event_type FROM lifecycle_events") == [("unheard_of",)]


def test_a_determination_that_cannot_be_read_is_refused_and_rest_is_asked_at_once(
    database, tmp_path
):
    load_frames(
        database,
        tmp_path,
        determined(1, value="1.0001"),
        created(2, "KXOTHER-1"),
        determined(3, "yes"),
    )
    [(reason, message)] = rows(database, "SELECT reason, message FROM rejected_messages")
    assert "settlement_value 1.0001 is not within" in reason
    assert json.loads(message)["msg"]["event_type"] == "determined"
    assert rows(database, "SELECT result FROM settlements") == [("yes",)], "the next one counts"
    [(pause,)] = rows(
        database,
        "SELECT next_read_at - updated_at <= interval '0' FROM markets"
        f" WHERE market_ticker = '{TICKER}'",
    )
    assert pause, "asked at once"


def test_a_gap_in_the_stream_of_combos_has_the_open_ones_asked_for(database, tmp_path):
    of_another = determined(5, market_ticker="KXMVESPORTS-S1-B")
    asked_soon = "SELECT next_read_at < now() + interval '1 minute' FROM markets"
    lines = [*begin(), line(trade(1, market_ticker=COMBO))]
    write(tmp_path, lines)
    load(database, tmp_path)
    with connect(database) as connection:
        # REST has told of it, so it waits for its close.
        connection.execute("UPDATE markets SET next_read_at = now() + interval '1 day'")
    assert rows(database, asked_soon) == [(False,)]

    write(tmp_path, [*lines, line(of_another)])
    load(database, tmp_path)

    assert rows(database, asked_soon) == [(True,)]


def test_an_unreadable_message_of_a_combo_asks_nothing():
    batch, fates = one_by_one(*begin(), line(determined(1, value="x", market_ticker=COMBO)))
    assert fates[-1] == "refused"
    assert batch.unread_markets == set()


def test_a_document_that_the_database_refuses_changes_nothing_and_spoils_nothing(
    database, tmp_path
):
    frames = [determined(n, market_ticker=f"KXTEST-{n}") for n in range(1, 12)]
    absurd = json.dumps(frames[4] | {"msg": frames[4]["msg"] | {"x": "HERE"}})
    frames[4] = raw_line(absurd.replace('"HERE"', "1e999999").encode())
    load_frames(database, tmp_path, *frames)
    assert rows(database, "SELECT count(*) FROM lifecycle_events") == [(10,)]
    assert rows(database, "SELECT count(*) FROM settlements") == [(10,)]
    assert rows(database, "SELECT count(*) FROM rejected_messages") == [(1,)]
    [(told, due)] = rows(
        database,
        "SELECT outcome_status, next_read_at <= now() FROM markets"
        " WHERE market_ticker = 'KXTEST-5'",
    )
    assert (told, due) == (None, True)


def test_a_change_that_the_database_refuses_spoils_no_other(database, tmp_path):
    with connect(database) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '54000'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON settlements FOR EACH ROW"
            " WHEN (new.market_ticker = 'KXTEST-5') EXECUTE FUNCTION refuse()"
        )
    frames = [determined(n, market_ticker=f"KXTEST-{n}") for n in range(1, 12)]
    load_frames(database, tmp_path, trade(1), *frames)
    assert rows(database, "SELECT count(*) FROM lifecycle_events") == [(11,)], "all are kept"
    assert rows(database, "SELECT count(*) FROM settlements") == [(10,)]
    assert rows(database, "SELECT count(*) FROM trades") == [(1,)]
    [(reason,)] = rows(database, "SELECT reason FROM rejected_messages")
    assert "no room" in reason
    [(told, due)] = rows(
        database,
        "SELECT outcome_status, next_read_at <= now() FROM markets"
        " WHERE market_ticker = 'KXTEST-5'",
    )
    assert (told, due) == (None, True)


def test_births_of_combos_are_rows_and_nothing_more():
    births = [line(created(seq, f"KXMVESPORTS-S1-{seq}")) for seq in range(1, 50)]
    batch, fates = one_by_one(*begin(), *births)
    assert fates[3:] == ["lifecycle"] * 49
    assert (batch.changes, batch.new_markets) == ([], set())


def test_a_plain_lifecycle_message_still_counts_its_number():
    batch, _ = one_by_one(
        *begin(), line(lifecycle(1)), line(determined(2, value="x")), line(lifecycle(5))
    )
    assert [(gap.first_seq, gap.last_seq) for gap in batch.gaps if gap.first_seq] == [(3, 4)]
