"""Quotes and books in Dagster: when they are reported, what is checked, when their days go."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import checks
from kalshi_platform.orchestration.assets.books import book_deltas, book_snapshots
from kalshi_platform.orchestration.assets.feed import feed_tape, quotes
from kalshi_platform.orchestration.automation import drop_old_partitions
from kalshi_platform.orchestration.checks import feed_checks
from kalshi_platform.orchestration.report import feed_report
from kalshi_platform.orchestration.resources import ENVIRONMENT, Database, Home
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions

NOW = datetime.now(UTC)
TODAY = NOW.date()
YESTERDAY = TODAY - timedelta(days=1)
BOOKS = {"book_deltas", "book_snapshots"}


@pytest.fixture(autouse=True)
def environment(monkeypatch, database):
    """Requests are checked against the job, whose resources name their variables."""
    for _, _, variable, _ in ENVIRONMENT:
        monkeypatch.setenv(variable, database)


def land_delta(database: str, at: datetime = NOW, price_micros: int = 300_000) -> None:
    with connect(database) as connection:
        ensure_partitions(connection, [at.date()], only=[tables.book_deltas])
        connection.execute(
            "INSERT INTO book_deltas VALUES (%s, %s, 5, 2, 100, %s, 1, 'yes', 'KXTEST-A')",
            [at, at, price_micros],
        )
        connection.execute("SELECT pg_stat_force_next_flush()")


def land_snapshot(database: str, at: datetime = NOW) -> None:
    with connect(database) as connection:
        ensure_partitions(connection, [at.date()], only=[tables.book_snapshots])
        connection.execute(
            "INSERT INTO book_snapshots VALUES (%s, %s, 4, 1, 1, 'exchange', 'KXTEST-A',"
            " '{300000}', '{100}', '{}', '{}')",
            [at, at],
        )
        connection.execute("SELECT pg_stat_force_next_flush()")


def watch(database: str) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO book_watches (market_ticker, starts_at, start_order, connection, sid,"
            " use_yes_price) VALUES ('KXTEST-A', %s, 4, 1, 1, false)",
            [NOW],
        )


def recorder_says(database: str, wanted: int, age_seconds: float = 0) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position, updated_at)"
            " VALUES ('books', 'watch', %s, now() - make_interval(secs => %s))",
            [json.dumps({"wanted": wanted, "watched": wanted}), age_seconds],
        )


def reported(
    database: str, folder: Any, cursor: str | None
) -> tuple[dict[str, dg.AssetMaterialization], str | None]:
    """What one tick reports, by asset, and the cursor of the next."""
    with dg.build_sensor_context(
        cursor=cursor,
        definitions=defs,
        resources={"database": Database(url=database), "home": Home(folder=str(folder))},
    ) as context:
        result = feed_report(context)
    if not isinstance(result, dg.SensorResult):
        return {}, cursor
    return {e.asset_key.to_user_string(): e for e in result.asset_events}, result.cursor


def long_ago(cursor: str | None) -> str:
    """The cursor as it would be had its reports of books been made six minutes ago."""
    seen = json.loads(cursor or "{}")
    return json.dumps({name: seen[name] - 360 if name in BOOKS else seen[name] for name in seen})


@pytest.fixture
def once_reported(database, tmp_path) -> str:
    """The cursor after books were written to and reported, six minutes ago."""
    land_delta(database)
    land_snapshot(database)
    watch(database)
    with connect(database) as connection:
        for channel in ("orderbook_delta", "orderbook_delta", "ticker"):
            connection.execute(
                "INSERT INTO gaps (channel, cause, status, starts_at, ends_at)"
                " VALUES (%s, 'disconnect', 'explained', %s, %s)",
                [channel, NOW, NOW],
            )
    events, cursor = reported(database, tmp_path, None)
    assert set(events) == BOOKS
    assert events["book_deltas"].partition == str(TODAY)
    assert events["book_deltas"].metadata["dagster/partition_row_count"].value == 1
    assert events["book_deltas"].metadata["books_watched"].value == 1
    assert events["book_deltas"].metadata["gaps"].value == 2
    return long_ago(cursor)


def test_books_that_are_watched_are_reported_when_nothing_happens_to_them(
    database, tmp_path, once_reported
):
    recorder_says(database, wanted=1)
    events, cursor = reported(database, tmp_path, once_reported)
    assert set(events) == BOOKS
    assert "nothing has happened" in (events["book_deltas"].description or "")
    assert events["book_deltas"].metadata["books_watched_now"].value == 1
    # Not again at once: the fact is stored with each event.
    assert reported(database, tmp_path, cursor)[0] == {}


def test_books_that_nobody_wants_are_not_stale(database, tmp_path, once_reported):
    with connect(database) as connection:
        connection.execute("UPDATE book_watches SET ends_at = starts_at, ended_by = 'x'")
    recorder_says(database, wanted=0)
    events, _ = reported(database, tmp_path, once_reported)
    assert "no book is wanted" in (events["book_snapshots"].description or "")


@pytest.mark.parametrize(
    ("wanted", "age_seconds"),
    [(3, 0), (0, 90), (3, 90)],
    ids=["wanted and not watched", "recorder silent", "both"],
)
def test_books_grow_stale_where_they_are_not_what_they_should_be(
    database, tmp_path, once_reported, wanted, age_seconds
):
    with connect(database) as connection:
        connection.execute("UPDATE book_watches SET ends_at = starts_at, ended_by = 'x'")
    recorder_says(database, wanted=wanted, age_seconds=age_seconds)
    assert reported(database, tmp_path, once_reported)[0] == {}


def test_a_platform_that_never_had_a_book_reports_none(database, tmp_path):
    recorder_says(database, wanted=0)
    assert reported(database, tmp_path, None)[0] == {}


def ask(database: str) -> dict[str, dg.AssetCheckEvaluation]:
    job = dg.define_asset_job(
        "checks", selection=dg.AssetSelection.checks_for_assets("quotes", *sorted(BOOKS))
    )
    definitions = dg.Definitions(
        assets=[feed_tape, quotes, book_deltas, book_snapshots],
        asset_checks=[feed_checks],
        jobs=[job],
        resources={"database": Database(url=database)},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("checks").execute_in_process(instance=instance)
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def test_the_checks_of_the_feed_look_at_today_and_yesterday(database):
    land_snapshot(database)
    land_delta(database)
    watch(database)
    found = ask(database)
    assert set(found) == {
        "books_equal_their_deltas",
        "books_not_crossed",
        "watches_explained",
        "quotes_in_range",
        "quotes_not_crossed",
        "quoted_volume_never_falls",
        "odometer_agrees",
    }
    assert all(check.passed for check in found.values())
    assert {check.metadata["days"].value for check in found.values()} == {f"{YESTERDAY}, {TODAY}"}


def test_a_watch_of_yesterday_without_a_cause_fails_its_check(database):
    with connect(database) as connection:
        at = NOW - timedelta(days=1)
        connection.execute(
            "INSERT INTO book_watches (market_ticker, starts_at, ends_at, start_order, connection,"
            " sid, use_yes_price) VALUES ('KXTEST-A', %s, %s, 4, 1, 1, false)",
            [at, at],
        )
    check = ask(database)["watches_explained"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert check.metadata["failed_days"].value == str(YESTERDAY)
    assert check.metadata["examples"].records[0].data["question"] == "ended without a cause"


def test_every_check_of_the_feed_has_a_place_and_none_blocks():
    for spec in checks.CHECKS_OF_FEED:
        assert checks.PLACES[spec.name].asset == spec.asset_key.to_user_string()
        assert not spec.blocking


def test_old_days_are_dropped_and_said_to_be(database, tmp_path, monkeypatch):
    monkeypatch.setenv("KALSHI_QUOTES_DAYS", "3")
    monkeypatch.setenv("KALSHI_ARCHIVE_URL", str(tmp_path / "archive"))
    old = TODAY - timedelta(days=5)
    with connect(database) as connection:
        ensure_partitions(connection, [old, YESTERDAY], only=[tables.quotes])
    archive_day(database, Store(str(tmp_path / "archive")), tables.quotes.name, old)

    @dg.job(resource_defs={"database": Database(url=database)})
    def housekeeping() -> None:
        drop_old_partitions()

    result = housekeeping.execute_in_process()
    [observed] = [
        event.asset_observation_data.asset_observation
        for event in result.all_events
        if event.event_type_value == "ASSET_OBSERVATION"
    ]
    assert (observed.asset_key.to_user_string(), observed.partition) == ("quotes", str(old))
    assert observed.metadata["bytes_freed"].value > 0
    with connect(database) as connection:
        names = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^quotes_[0-9]'")
        left = {name for (name,) in names}
    assert f"quotes_{YESTERDAY:%Y%m%d}" in left
    assert f"quotes_{old:%Y%m%d}" not in left
