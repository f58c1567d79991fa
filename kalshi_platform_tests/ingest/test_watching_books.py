"""The whole service and order books: what is wanted is watched, and known again after any loss."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kalshi_platform.exchange import book_snapshots
from kalshi_platform.ingest.service import RecordingOptions, record
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import RECORDER, held
from kalshi_platform.storage.reads.status import Status, read_status
from kalshi_platform.storage.reads.watchlist import open_watches
from kalshi_platform_tests.waiting import until
from kalshi_simulator.testing import RunningSimulator, running_simulator


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    with running_simulator(seed=5, trades_per_second=50) as running:
        yield running


@pytest.fixture
def faulty(simulator: RunningSimulator) -> Iterator[RunningSimulator]:
    yield simulator
    simulator.clear_faults()


@contextmanager
def watching(database, tape, simulator, books, **options) -> Iterator[Callable[[], Status]]:
    """Record with these books; yields a question for the status."""
    stop = threading.Event()
    failures: list[Exception] = []
    recording = RecordingOptions(
        database_url=database,
        tape_folder=tape,
        ws_url=simulator.ws_url,
        rest_url=simulator.rest_url,
        key_id=simulator.key_id,
        private_key_path=simulator.private_key_path,
        rest_tokens_per_second=20_000,
        books=books,
        **options,
    )

    def work() -> None:
        try:
            record(recording, stop)
        except Exception as error:  # noqa: BLE001  # raised again below, in the test's thread
            failures.append(error)

    def status() -> Status:
        with connect(database) as connection:
            return read_status(connection, simulated=True)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield status
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive(), "the service did not stop"
    if failures:
        raise failures[0]


def known(database) -> set[str]:
    with connect(database) as connection:
        return open_watches(connection)


def ended(database) -> list[tuple[str, str]]:
    with connect(database) as connection:
        return connection.execute(
            "SELECT ended_by, market_ticker FROM book_watches WHERE ends_at IS NOT NULL"
            " ORDER BY watch_id"
        ).fetchall()


def test_the_busiest_books_are_watched_once_trades_flow(database, tmp_path, simulator):
    with watching(database, tmp_path, simulator, "busiest:5") as status:
        told = until(
            lambda: (
                (books := status().books)
                and books.wanted == 5 == books.watched
                and books.short_for is None
                and books
            )
        )
        assert (told.choice, told.refused) == ("busiest:5", [])
    with connect(database) as connection:
        assert not held(connection, RECORDER)


def test_a_book_whose_message_cannot_be_read_is_known_again(database, tmp_path, faulty):
    with watching(database, tmp_path, faulty, "busiest:3"):
        until(lambda: len(known(database)) == 3)
        before = known(database)
        faulty.fault("missing_field", channel="orderbook_delta", field="price_dollars", count=1)
        # Which books are the busiest may change meanwhile, and ends other windows.
        [ticker] = until(lambda: [one for why, one in ended(database) if why == "rejected_message"])
        assert ticker in before
        until(lambda: ticker in known(database), seconds=10)


def test_what_is_not_to_be_had_is_told_and_disturbs_nothing(
    database, tmp_path, simulator, monkeypatch
):
    monkeypatch.setattr(book_snapshots, "_ADDED_SECONDS", 2)
    words = "KXNOSUCH-1,busiest:2"
    with watching(database, tmp_path, simulator, words) as status:
        books = until(lambda: (one := status().books) and one.refused and one)
        until(lambda: len(known(database)) == 2)
    assert [one.examples for one in books.refused] == [["KXNOSUCH-1"]]
    assert books.wanted == 3


def test_with_none_there_is_no_subscription(database, tmp_path, simulator):
    with watching(database, tmp_path, simulator, "none") as status:
        until(lambda: (books := status().books) and books.choice == "none")
        until(lambda: any(one.channel == "trade" and one.messages for one in status().sources))
    assert known(database) == set()
    with connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM book_watches").fetchone() == (0,)
