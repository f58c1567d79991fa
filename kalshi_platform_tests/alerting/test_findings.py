"""What counts as wrong: by the status, by the tables, by the disks."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.alerting.conditions import Condition, Links
from kalshi_platform.alerting.disks import Disk, disks_of
from kalshi_platform.alerting.findings import Facts, platform_conditions
from kalshi_platform.alerting.kinds import KINDS
from kalshi_platform.alerting.looking import folders_of, read_facts
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.reads.alerts import FailingChannel, OpenGap, Rejected, Unarchived
from kalshi_platform.storage.reads.book_status import BookStatus, RefusedBooks
from kalshi_platform.storage.reads.freshness import Source, TableAge
from kalshi_platform.storage.reads.status import Status

LINKS = Links("http://dagster.test/")
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def source(channel: str, age: float | None, limit: float | None = 60) -> Source:
    late = limit is not None and (age is None or age > limit)
    return Source(channel, 1, age, limit, None, late, False)


def table(name: str, age: float, limit: float = 60) -> TableAge:
    return TableAge(name, age, limit, age > limit, False)


def status(**changed: Any) -> Status:
    fields: dict[str, Any] = {
        "status": "ok",
        "reasons": [],
        "simulated": True,
        "database": "ok",
        "recorder_runs": True,
        "loader_runs": True,
        "sources": [source("ticker", 1), source("trade", 1), source("lifecycle", 9_000, None)],
        "open_gaps": 0,
    }
    return Status(**fields | changed)


def facts(**changed: Any) -> Facts:
    fields: dict[str, Any] = {
        "status": status(),
        "watched_seconds": 3600.0,
        "rejected": Rejected(0, None),
        "gap": None,
        "unarchived": [],
        "damaged": [],
        "failing": [],
        "disks": [],
        "disk_percent": 90.0,
    }
    return Facts(**fields | changed)


def lately() -> list[date]:
    """Today and yesterday: minutes ago may have been either."""
    today = datetime.now(UTC).date()
    return [today - timedelta(days=1), today]


def found(**changed: Any) -> dict[str, Condition]:
    return {one.name: one for one in platform_conditions(facts(**changed), LINKS)}


def telling(**changed: Any) -> list[str]:
    return [name for name, condition in found(**changed).items() if condition.tells]


def test_nothing_is_wrong_when_nothing_is():
    assert found() == {}


def test_one_channel_that_is_silent_is_named_with_its_age_and_limit():
    silent = status(sources=[source("ticker", 1), source("trade", 63)])
    [condition] = found(status=silent).values()
    assert condition.name == "stale trade"
    assert condition.summary == "No message of the channel trade for 63 s (limit 60 s)."
    assert condition.link == "http://dagster.test/assets/raw_trades"


def test_a_feed_of_which_nothing_comes_is_one_alert_whatever_it_consists_of():
    dead = status(
        sources=[source("ticker", 61), source("trade", 62)],
        tables=[table("raw_trades", 62), table("quotes", 61), table("book_deltas", 700, 600)],
    )
    assert telling(status=dead) == ["stale feed"]
    # What was told before goes on.
    assert {"stale trade", "stale ticker", "stale raw_trades"} <= set(found(status=dead))


def test_channels_that_go_silent_one_after_the_other_are_waited_for():
    [condition] = found(status=status(sources=[source("trade", 61), source("ticker", 60)])).values()
    assert condition.holds_seconds is not None and 0 < condition.holds_seconds <= 5


def test_a_table_is_told_of_when_its_source_is_not():
    alone = status(tables=[table("raw_trades", 70), table("candles_1m", 400, 300)])
    assert telling(status=alone) == ["stale raw_trades", "stale candles_1m"]
    behind = status(
        sources=[source("trade", 70), source("ticker", 1)], tables=[table("raw_trades", 70)]
    )
    assert telling(status=behind) == ["stale trade"]


def test_what_is_late_from_before_anybody_looked_is_not_told_yet():
    dead = status(sources=[source("ticker", 7200), source("trade", 7200)])
    assert telling(status=dead, watched_seconds=59) == []
    assert telling(status=dead, watched_seconds=60) == ["stale feed"]


@pytest.mark.parametrize(("age", "names"), [(120.0, []), (121.0, ["open gap"])])
def test_a_gap_is_told_once_it_is_older_than_its_limit(age, names):
    gap = OpenGap("trade", AT, AT.replace(minute=2))
    assert telling(status=status(open_gaps=1, oldest_open_gap_age=age), gap=gap) == names


def test_the_remedy_of_a_gap_names_its_days():
    gap = OpenGap("trade", AT.replace(day=20), AT)
    [condition] = found(status=status(open_gaps=2, oldest_open_gap_age=500.0), gap=gap).values()
    assert "backfill --from 2026-11-20 --to 2026-11-21" in condition.remedy


def test_rejected_messages_are_counted_with_the_newest_reason():
    [condition] = found(rejected=Rejected(3, "not JSON")).values()
    assert condition.severity == "warning"
    assert "3 messages" in condition.summary and "not JSON" in condition.summary


@pytest.mark.parametrize(
    ("percent", "tells"), [(88.9, None), (89.5, False), (90.0, False), (90.1, True)]
)
def test_a_disk_is_told_beyond_its_limit_and_over_a_percent_below(percent, tells):
    conditions = found(disks=[Disk("the tape", Path("/tape"), percent, 10**9)])
    assert [one.tells for one in conditions.values()] == ([] if tells is None else [tells])


def test_each_file_system_is_looked_at_once(tmp_path):
    (tmp_path / "tape").mkdir()
    [disk] = disks_of(folders_of(tmp_path))
    assert disk.label == "the home folder"
    assert 0 < disk.percent < 100


def test_a_recorder_and_a_loader_that_do_not_run_are_two():
    dead = status(recorder_runs=False, loader_runs=False)
    assert telling(status=dead) == ["stopped recorder", "stopped loader"]


def test_books_that_are_refused_are_named():
    refused = [RefusedBooks("unknown market", 1, ["KXNOSUCH"])]
    books = BookStatus("KXNOSUCH", 1, 0, 0, refused, 61.0, 1.0, None)
    [condition] = found(status=status(books=books)).values()
    assert "KXNOSUCH" in condition.summary


def test_books_that_are_missing_as_nothing_comes_are_no_trouble_of_their_own():
    books = BookStatus("busiest:20", 20, 0, 0, [], 61.0, 1.0, None)
    silent = status(sources=[source("ticker", 61), source("trade", 61)], books=books)
    assert telling(status=silent) == ["stale feed"]
    assert "books missing" in found(status=silent)
    # Those of a feed that comes again are known by the time that the recorder has said so.
    assert telling(status=status(books=books)) == ["books missing"]
    assert KINDS["books"].holds_seconds > 15


def test_days_without_an_archive_and_damaged_ones_are_told_apart():
    days = [Unarchived("trades", date(2026, 11, 17)), Unarchived("quotes", date(2026, 11, 18))]
    conditions = found(unarchived=days, damaged=days[:1])
    assert "trades of 2026-11-17 and 1 more" in conditions["archive behind"].summary
    assert conditions["archive behind"].severity == "warning"
    assert conditions["archive damaged"].severity == "error"


def test_a_channel_that_fails_is_named_with_its_answer():
    [condition] = found(failing=[FailingChannel("smtp", 2, "refused with 554")]).values()
    assert condition.name == "delivery by smtp"
    assert "refused with 554" in condition.summary


def test_every_condition_says_what_to_do():
    dead = status(
        recorder_runs=False,
        sources=[source("ticker", None), source("trade", None)],
        open_gaps=1,
        oldest_open_gap_age=130.0,
    )
    for condition in found(
        status=dead,
        gap=OpenGap("trade", AT, AT),
        rejected=Rejected(1, "x"),
        unarchived=[Unarchived("trades", date(2026, 11, 17))],
        damaged=[Unarchived("trades", date(2026, 11, 17))],
        failing=[FailingChannel("webhook", 1, "x")],
        disks=[Disk("the tape", Path("/tape"), 99, 0)],
    ).values():
        assert condition.remedy.endswith("."), condition.name


def test_facts_are_read_from_the_tables(database, tmp_path):
    with connect(database) as connection:
        ensure_partitions(connection, [*lately(), date(2026, 1, 5)])
        connection.execute(
            "INSERT INTO rejected_messages (received_at, source, reason, code_version, message)"
            " VALUES (now() - interval '9 minutes', 'ws', 'older', '1', ''),"
            " (now() - interval '8 minutes', 'ws', 'newer', '1', '')"
        )
        ensure_partitions(connection, [date(2026, 1, 5)])
        connection.execute(
            "INSERT INTO gaps (channel, cause, status, starts_at, ends_at, detected_at) VALUES"
            " ('trade', 'x', 'open', now(), now(), now()),"
            " ('ticker', 'x', 'open', now(), now(), now() - interval '1 hour'),"
            " ('trade', 'x', 'healed', now(), now(), now() - interval '2 hours')"
        )
        connection.execute(
            "INSERT INTO archives (table_name, day, path, schema_version, row_count, bytes, sha256,"
            " checksum, verified_at, dropped_at) VALUES"
            " ('trades', '2026-01-05', 'p', 1, 0, 0, '', 0, now(), NULL),"
            " ('trades', '2026-01-04', 'p', 1, 0, 0, '', 0, NULL, now())"
        )
        read = read_facts(connection, simulated=True, folders=folders_of(tmp_path), disk_percent=90)
    assert read.rejected == Rejected(2, "newer")
    assert read.gap is not None and read.gap.channel == "ticker"
    assert read.unarchived == [
        Unarchived(name, date(2026, 1, 5))
        for name in ("book_deltas", "book_snapshots", "lifecycle_events", "quotes", "raw_trades")
    ]
    assert read.damaged == [Unarchived("trades", date(2026, 1, 4))]
    assert read.failing == []
    assert read.watched_seconds == 0


def test_what_was_rejected_more_than_ten_minutes_ago_is_over(database, tmp_path):
    with connect(database) as connection:
        ensure_partitions(connection, lately())
        connection.execute(
            "INSERT INTO rejected_messages (received_at, source, reason, code_version, message)"
            " VALUES (now() - interval '11 minutes', 'ws', 'x', '1', '')"
        )
        read = read_facts(connection, simulated=True, folders=[], disk_percent=90)
    assert read.rejected.messages == 0
