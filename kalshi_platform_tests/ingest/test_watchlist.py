"""Which books are wanted, chosen from the tables; and what is told of them."""

import itertools
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from kalshi_platform.exchange.books import BookReport, Books
from kalshi_platform.ingest import watchlist as module
from kalshi_platform.ingest.watchlist import Watchlist, still_busiest
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.sweeps import checkpoint
from kalshi_platform.storage.reads.watchlist import SOURCE, WATCH
from kalshi_platform_tests.api.reference_rows import market, put
from kalshi_platform_tests.api.rows import at, land, trade
from kalshi_platform_tests.transform.book_rows import Snapshot
from kalshi_platform_tests.transform.book_rows import land as land_book
from kalshi_platform_tests.waiting import until

NOON = at("12:00:00")
OPEN = {"opens_at": at("08:00:00"), "closes_at": at("18:00:00")}


def come_to(database, when=NOON, **channels):
    """The loader has read up to `when`, by the exchange's clock."""
    until_ms = {"trade": when, "ticker": when, **channels}
    feed = {
        "channels": {
            name: {"complete_until_ms": int(instant.timestamp() * 1000)}
            for name, instant in until_ms.items()
        }
    }
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_checkpoints (source, scope, position)"
            " VALUES ('ws', 'tape', jsonb_build_object('feed', %s::jsonb))"
            " ON CONFLICT (source, scope) DO UPDATE SET position = excluded.position",
            [psycopg.types.json.Jsonb(feed)],
        )


def busy(database, **trades):
    """Trades just before noon: how many, by ticker."""
    rows = [
        trade("11:59:00", market_ticker=ticker) for ticker, count in trades.items() for _ in
        range(count)
    ]  # fmt: skip
    land(database, *rows)


def keep_snapshot(database, ticker, received_at, source="exchange"):
    """A snapshot of long ago by the exchange's clock, as in a replay."""
    with connect(database) as connection:
        count = "SELECT count(*) FROM book_snapshots WHERE market_ticker = %s"
        [order] = connection.execute(count, [ticker]).fetchone()
        snapshot = Snapshot(NOON, order, market=ticker)
        land_book(connection, snapshot)
        connection.execute(
            "UPDATE book_snapshots SET received_at = %s, source = %s"
            " WHERE market_ticker = %s AND feed_order = %s",
            [received_at, source, ticker, snapshot.feed_order],
        )


class Chooser:
    """A watchlist that looks when it is told to."""

    def __init__(self, database, words, at_most=500):
        self.books = Books()
        self.books.report = BookReport(connected=True)
        self.list = Watchlist(database, self.books, words, at_most)
        self.connection = connect(database, autocommit=True)
        self.now = 1_000.0

    def look(self, seconds=20.0):
        self.now += seconds
        self.list.look(self.connection, self.now)
        return list(self.books.wanted)

    def told(self):
        position, _ = checkpoint(self.connection, SOURCE, WATCH)
        return position


@pytest.fixture
def chooser(database):
    made = []

    def make(words, **options):
        made.append(Chooser(database, words, **options))
        return made[-1]

    yield make
    for one in made:
        one.connection.close()


def test_the_busiest_of_the_last_quarter_of_an_hour_are_wanted(database, chooser):
    busy(database, KXA=3, KXB=5, KXC=1, KXMVEX=9)
    early = [trade("11:44:00", market_ticker="KXEARLY") for _ in range(9)]
    land(database, *early)
    come_to(database)
    assert chooser("busiest:2").look() == ["KXB", "KXA"]
    assert chooser("busiest:20").look() == ["KXB", "KXA", "KXC"]


def test_the_quarter_of_an_hour_ends_with_the_newest_trade_however_old(database, chooser):
    busy(database, KXA=3)
    come_to(database, ticker=at("15:00:00"))
    assert chooser("busiest:2").look() == ["KXA"]


def test_one_that_is_watched_stays_while_it_is_among_twice_as_many(database, chooser):
    busy(database, KXA=3, KXB=5, KXC=1)
    come_to(database)
    here = chooser("busiest:2")
    assert here.look() == ["KXB", "KXA"]
    busy(database, KXC=3, KXD=9)  # D 9, B 5, C 4, A 3
    assert here.look() == ["KXB", "KXA"]
    busy(database, KXE=4, KXF=20)  # F 20, D 9, B 5, C 4, E 4, A 3
    assert here.look() == ["KXB", "KXF"]


def test_closed_and_settled_markets_leave_whatever_named_them(database, chooser):
    put(
        database,
        market("KXR-1", series_ticker="KXR", **OPEN),
        market("KXR-2", series_ticker="KXR", **OPEN | {"closes_at": at("12:10:00")}),
        market("KXN", series_ticker="KXN", **OPEN | {"closes_at": at("12:10:00")}),
        market("KXT", **OPEN | {"closes_at": at("12:10:00")}),
        market("KXU", **OPEN),
    )
    busy(database, KXT=9, KXU=1)
    come_to(database)
    here = chooser("KXN,series:KXR,busiest:2,KXGUESS")
    assert here.look() == ["KXN", "KXGUESS", "KXR-2", "KXR-1", "KXT", "KXU"]
    come_to(database, at("12:10:00"))
    assert here.look() == ["KXGUESS", "KXR-1", "KXU"]
    with connect(database) as connection:
        connection.execute("UPDATE markets SET outcome_status = 'determined'")
    assert here.look() == ["KXGUESS"]


def test_markets_of_a_series_come_a_minute_before_they_open(database, chooser):
    soon = {"opens_at": NOON + timedelta(seconds=50)}
    later = {"opens_at": NOON + timedelta(seconds=70)}
    put(
        database,
        market("KXR-1", series_ticker="KXR", **OPEN | soon),
        market("KXR-2", series_ticker="KXR", **OPEN | later),
    )
    come_to(database)
    here = chooser("series:KXR")
    assert here.look() == ["KXR-1"]
    come_to(database, NOON + timedelta(seconds=15))
    assert here.look() == ["KXR-1", "KXR-2"]


def test_never_more_than_the_most_are_wanted_and_the_rest_is_told(database, chooser):
    put(
        database,
        *(market(f"KXR-{number}", series_ticker="KXR", **OPEN) for number in range(5)),
    )
    busy(database, KXA=1)
    come_to(database)
    here = chooser("busiest:3,series:KXR,KXN", at_most=4)
    assert here.look() == ["KXN", "KXR-0", "KXR-1", "KXR-2"]
    assert here.told()["left_out"] == 3  # one of the series beyond the most is counted, and A
    assert here.told()["wanted"] == 4


def test_none_is_none(database, chooser):
    busy(database, KXA=3)
    come_to(database)
    here = chooser("none")
    assert here.look() == []
    assert here.told() == {
        "choice": "none", "wanted": 0, "watched": 0, "left_out": 0, "refused": [],
        "short_since": None, "error": None,
    }  # fmt: skip


def test_before_anything_has_been_recorded_named_markets_are_wanted(chooser):
    assert chooser("KXN,busiest:3,series:KXR").look() == ["KXN"]


def test_books_are_chosen_each_quarter_of_a_minute_and_at_first_more_often(database, chooser):
    here = chooser("busiest:3")
    assert here.look() == []
    busy(database, KXA=3)
    come_to(database)
    assert here.look(1.9) == []
    assert here.look(0.2) == ["KXA"]
    assert here.look(60) == ["KXA"]
    busy(database, KXB=5)
    assert here.look(14.9) == ["KXA"]
    assert here.look(0.2) == ["KXA", "KXB"]


def test_what_is_refused_is_told_by_reason_with_examples(database, chooser):
    here = chooser("none")
    many = {f"KX-{number:03d}": "code 26: too many" for number in range(50)}
    here.books.report = BookReport(True, frozenset(), many | {"KXNO": "no snapshot came"})
    here.look()
    first, second = here.told()["refused"]
    assert (first["reason"], first["markets"], len(first["examples"])) == (
        "code 26: too many",
        50,
        10,
    )
    assert second == {"reason": "no snapshot came", "markets": 1, "examples": ["KXNO"]}


def know(database, *tickers):
    with connect(database) as connection:
        connection.execute("DELETE FROM book_watches")
        for ticker in tickers:
            connection.execute(
                "INSERT INTO book_watches (market_ticker, starts_at, start_order, connection, sid,"
                " use_yes_price) VALUES (%s, now(), 1, 1, 1, false)",
                [ticker],
            )


def load_with_lag(database, seconds=0.0):
    """The loader has just set its gauges."""
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO ingestion_metrics (name, labels, value) VALUES"
            " ('loader_seen_at_seconds', '', extract(epoch FROM now())),"
            " ('loaded_lag_seconds', 'channel=\"trade\"', %s) ON CONFLICT (name, labels)"
            " DO UPDATE SET value = excluded.value, updated_at = now()",
            [seconds],
        )


def test_since_when_books_are_missing_is_told(database, chooser):
    here = chooser("KXA,KXB")
    here.look()
    since = datetime.fromisoformat(here.told()["short_since"])
    assert abs(datetime.now(UTC) - since) < timedelta(seconds=60)
    know(database, "KXA", "KXOTHER")
    here.look()
    assert here.told()["watched"] == 1
    assert datetime.fromisoformat(here.told()["short_since"]) == since
    know(database, "KXA", "KXB")
    here.look()
    assert (here.told()["watched"], here.told()["short_since"]) == (2, None)


def test_a_book_that_is_watched_but_not_known_is_asked_for_less_and_less_often(database, chooser):
    here = chooser("KXA,KXB")
    here.books.report = BookReport(True, frozenset({"KXA", "KXB"}))
    know(database, "KXA")
    asked_at = []
    for tenth in range(400):
        if tenth % 40 == 0:
            load_with_lag(database)
        here.look(0.5)
        if here.books.doubted:
            assert list(here.books.doubted) == ["KXB"]
            here.books.doubted.clear()
            asked_at.append(tenth / 2)
    waits = [b - a for a, b in itertools.pairwise(asked_at)]
    assert asked_at[0] == 0.5
    assert waits == [5, 10, 20, 40, 80]
    know(database, "KXA", "KXB")
    here.look(0.5)
    know(database, "KXA")
    load_with_lag(database)
    here.look(0.5)
    here.look(1.0)
    assert list(here.books.doubted) == ["KXB"]


@pytest.mark.parametrize(("lag", "asked"), [(0.5, True), (3.0, False)])
def test_a_loader_that_is_late_gets_its_time(database, chooser, lag, asked):
    here = chooser("KXA")
    here.books.report = BookReport(True, frozenset({"KXA"}))
    load_with_lag(database, lag)
    here.look(0.5)
    here.look(2.0)
    assert bool(here.books.doubted) is asked


def test_where_nobody_loads_nothing_is_asked_for(database, chooser):
    here = chooser("KXA")
    here.books.report = BookReport(True, frozenset({"KXA"}))
    for _ in range(10):
        here.look(5)
    assert not here.books.doubted


def test_a_book_that_the_exchange_has_not_told_whole_for_an_hour_is_asked_for(database, chooser):
    here = chooser("KXA,KXB,KXC")
    know(database, "KXA", "KXB", "KXC", "KXD")
    here.books.report = BookReport(True, frozenset({"KXA", "KXB", "KXC"}))
    now = datetime.now(UTC)
    for ticker, minutes in {"KXA": 61, "KXB": 55, "KXD": 300}.items():
        keep_snapshot(database, ticker, now - timedelta(minutes=minutes))
    keep_snapshot(database, "KXA", now, source="own")  # which proves nothing
    here.look()
    assert not here.books.outdated  # nobody loads what would come
    load_with_lag(database)
    here.look(60)
    assert list(here.books.outdated) == ["KXC", "KXA"]
    here.books.outdated.clear()
    here.look(30)
    assert not here.books.outdated
    keep_snapshot(database, "KXA", now)
    load_with_lag(database)
    here.look(30)
    assert not here.books.outdated  # asked for a moment ago, and not answered yet
    load_with_lag(database)
    here.look(900)
    assert list(here.books.outdated) == ["KXC"]


def test_a_query_that_takes_too_long_leaves_the_choice_and_is_told(database, chooser, monkeypatch):
    here = chooser("KXA,busiest:3")
    assert here.look() == ["KXA"]
    come_to(database)
    with connect(database) as blocker:
        blocker.execute("LOCK TABLE trades")
        here.connection.execute("SET statement_timeout = '200 ms'")
        assert here.look() == ["KXA"]
    assert "timeout" in here.told()["error"]
    here.look()
    assert here.told()["error"] is None


def test_the_thread_outlives_a_failure_and_a_database_that_is_away(database, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(module, "_GLANCE_SECONDS", 0.05)
    books, stop = Books(), threading.Event()
    watchlist = Watchlist(database, books, "KXA", 5)
    real, failures = watchlist._chosen, [RuntimeError("a bug"), psycopg.OperationalError("gone")]

    def chosen(connection):
        if failures:
            raise failures.pop(0)
        return real(connection)

    monkeypatch.setattr(watchlist, "_chosen", chosen)
    thread = threading.Thread(target=watchlist.run, args=[stop])
    thread.start()
    try:
        until(lambda: books.wanted == ("KXA",))
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    with connect(database) as connection:
        assert connection.execute(
            "SELECT value FROM ingestion_metrics WHERE name = 'book_choice_failures_total'"
        ).fetchone() == (1.0,)


def test_without_a_database_the_thread_still_stops(monkeypatch):
    stop, tried = threading.Event(), threading.Event()

    def connect_in_vain(url, **options):
        tried.set()
        return connect(url, **options)

    monkeypatch.setattr(module, "connect", connect_in_vain)
    watchlist = Watchlist("postgresql://nobody@127.0.0.1:1/none", Books(), "busiest:3", 5)
    thread = threading.Thread(target=watchlist.run, args=[stop])
    thread.start()
    assert tried.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_new_one_comes_only_for_one_that_leaves():
    assert still_busiest(["a", "b", "c", "d"], [], 2) == ["a", "b"]
    assert still_busiest(["a", "b", "c", "d"], ["d", "c"], 2) == ["d", "c"]
    assert still_busiest(["a", "b", "c", "d"], ["x", "c"], 2) == ["c", "a"]
    assert still_busiest([], ["x"], 2) == []
