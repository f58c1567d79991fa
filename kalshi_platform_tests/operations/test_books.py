"""What the operator reads of the order books, and how a bad setting is refused."""

from typing import Any

import pydantic
import pytest
from psycopg.types.json import Jsonb

from kalshi_platform.operations.errors import sentence_for
from kalshi_platform.operations.status import status_lines
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import LOADER, RECORDER, Lease
from kalshi_platform.storage.reads.status import Status, read_status

REFUSED = [{"reason": "code 26: too many", "markets": 4, "examples": ["A", "B", "C", "D"]}]


def told(database: str, *, age: int = 1, short: int | None = None, **changes: Any) -> Status:
    """The status while a recorder runs that told of its books `age` seconds ago."""
    state = {"choice": "busiest:5", "wanted": 5, "watched": 1, "left_out": 0, "refused": []}
    recorder, loader = Lease(database, RECORDER), Lease(database, LOADER)
    assert recorder.acquire()
    assert loader.acquire()
    try:
        with connect(database) as connection:
            connection.execute(
                "INSERT INTO ingestion_checkpoints (source, scope, position, updated_at)"
                " VALUES ('books', 'watch', %s::jsonb || jsonb_build_object('short_since',"
                " now() - make_interval(secs => %s)), now() - make_interval(secs => %s))",
                [Jsonb({**state, **changes}), short, age],
            )
            connection.execute(
                "INSERT INTO book_watches (market_ticker, starts_at, ends_at, start_order,"
                " connection, sid, use_yes_price) VALUES ('A', now(), NULL, 1, 1, 1, false),"
                " ('A', now(), now(), 1, 1, 1, false)"
            )
            connection.commit()
            return read_status(connection, simulated=True)
    finally:
        recorder.release()
        loader.release()


def about_books(status: Status) -> list[str]:
    return [reason for reason in status.reasons if "books" in reason]


def test_books_that_are_all_watched_are_a_line(database: str) -> None:
    status = told(database, wanted=1)
    assert about_books(status) == []
    assert "books       1 watched of 1 wanted (busiest:5)" in status_lines(status)


def test_books_missing_for_a_minute_degrade_with_the_cause(database: str) -> None:
    status = told(database, short=61, refused=REFUSED, left_out=3)
    [reason] = about_books(status)
    assert status.status == "degraded"
    assert reason.startswith("books: 1 watched of 5 wanted for 61 s: ")
    assert reason.endswith("code 26: too many (4: A, B, C, …)")
    lines = status_lines(status)
    [line] = [line for line in lines if line.startswith("books")]
    assert line.endswith(
        "1 watched of 5 wanted (busiest:5), 3 left out (KALSHI_BOOKS_AT_MOST), fewer for 61 s"
    )
    assert "            4 refused: code 26: too many: A, B, C, D" in lines


def test_books_missing_for_a_moment_do_not(database: str) -> None:
    assert about_books(told(database, short=30, refused=REFUSED)) == []


def test_a_watchlist_that_has_fallen_silent_is_told(database: str) -> None:
    assert about_books(told(database, age=100)) == ["books have not been chosen for 100 s"]


def test_a_choice_that_fails_is_told(database: str) -> None:
    assert about_books(told(database, error="too slow")) == [
        "books cannot be chosen afresh: too slow"
    ]


def test_before_any_recorder_has_told_nothing_is_wrong_with_books(database: str) -> None:
    with connect(database) as connection:
        status = read_status(connection, simulated=True)
    assert about_books(status) == []
    assert "books       0 watched; no recorder has chosen any yet" in status_lines(status)


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("KALSHI_BOOKS", "busiest", "KALSHI_BOOKS is not usable: 'busiest' is none of its parts"),
        ("KALSHI_BOOKS_AT_MOST", "-1", "KALSHI_BOOKS_AT_MOST is not usable"),
        ("KALSHI_BOOKS_AT_MOST", "many", "KALSHI_BOOKS_AT_MOST is not usable"),
        ("KALSHI_BOOKS_USE_YES_PRICE", "maybe", "KALSHI_BOOKS_USE_YES_PRICE is not usable"),
        ("KALSHI_BOOKS_DAYS", "1", "KALSHI_BOOKS_DAYS is not usable"),
        ("KALSHI_QUOTES_DAYS", "0", "KALSHI_QUOTES_DAYS is not usable"),
    ],
)
def test_a_bad_setting_is_one_sentence(
    variable: str, value: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(pydantic.ValidationError) as raised:
        Settings(_env_file=None)  # type: ignore[call-arg]
    sentence = sentence_for(raised.value)
    assert sentence is not None
    assert part in sentence
    assert "\n" not in sentence
