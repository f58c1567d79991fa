"""Archived days that cannot be read, that move while they are asked for, or are asked for a lot."""

import asyncio
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

import api.archive
from api.app import create_app
from kalshi_platform.archive import layout, row_groups
from kalshi_platform.archive.store import Store
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.archived import (
    Question,
    archive,
    archive_and_drop,
    ask,
    day,
    drop,
    restore,
    start_of,
)
from kalshi_platform_tests.api.rows import TICKER, Row, land

DEADLINE = 20


@pytest.fixture(autouse=True)
def _logs_can_be_captured():
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(layout, "_ROW_GROUP", 64)


@pytest.fixture
async def app(database, tmp_path):
    app = create_app(database, simulated=True, archive=str(tmp_path), connections=4)
    async with app.router.lifespan_context(app):
        yield app


def _land(database: str, days: int, rows: int = 200) -> None:
    dice = random.Random(1)
    for number in range(days):
        land(
            database,
            *(
                Row(
                    traded_at=start_of(day(number)).replace(hour=12, microsecond=dice.randrange(9)),
                    feed_order=dice.choice([None, dice.randrange(10**9)]),
                )
                for _ in range(rows)
            ),
        )


def _of_day(number: int) -> Question:
    window = {
        "start_time": start_of(day(number)).isoformat(),
        "end_time": start_of(day(number + 1)).isoformat(),
    }
    return Question("POST", "/trades", {"market_ticker": TICKER, "limit": 1000, **window})


def _file(folder: Path, number: int) -> Path:
    [path] = folder.glob(f"trades/day={day(number)}/*.parquet")
    return path


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def _change(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _remove,
        _cut,
        *(lambda path, place=place: _change(path, place) for place in (0.1, 0.5, 0.8, 0.999)),
        lambda path: path.write_bytes(b"PAR1"),
    ],
)
async def test_a_damaged_file_is_said_and_never_served(client, database, tmp_path, damage):
    _land(database, 2)
    archive_and_drop(database, tmp_path, "trades", [day(0), day(1)])
    path = _file(tmp_path, 0)
    content = path.read_bytes()
    damage(path)
    with capture_logs() as logs:
        status, headers, body = await ask(client, _of_day(0))
    problem = json.loads(body)
    assert (status, headers["content-type"]) == (503, "application/problem+json")
    assert problem["detail"].startswith(f"trades of {day(0)} are archived, and their file cannot")
    assert int(headers["retry-after"]) > 0
    [line] = [line for line in logs if line["event"] == "archive_unreadable"]
    assert (line["table"], line["day"]) == ("trades", str(day(0)))
    assert line["reason"] and str(tmp_path) not in problem["detail"]
    # Other days are served, and this one as soon as its file is back.
    assert (await ask(client, _of_day(1))).status == 200
    path.write_bytes(content)
    assert (await ask(client, _of_day(0))).status == 200


async def test_content_is_checked_even_where_files_are_too_large_to_hash(
    client, database, tmp_path, monkeypatch
):
    monkeypatch.setattr(row_groups, "_compare_hash", lambda *_: None)
    _land(database, 1)
    whole = await ask(client, _of_day(0))
    archive_and_drop(database, tmp_path, "trades", [day(0)])
    path, dice = _file(tmp_path, 0), random.Random(4)
    content = path.read_bytes()
    # The pages' own checksums; the footer is not among the pages.
    footer = int.from_bytes(content[-8:-4], "little") + 8
    statuses = set()
    for _ in range(30):
        damaged = bytearray(content)
        damaged[dice.randrange(4, len(content) - footer)] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        client._transport.app.state.archive._reader._groups._values.clear()
        client._transport.app.state.archive._reader._files._values.clear()
        answer = await ask(client, _of_day(0))
        statuses.add(answer.status)
        assert answer == whole or answer.status == 503
    assert 503 in statuses


async def test_without_an_archive_a_dropped_day_is_no_empty_day(database, tmp_path, key):
    import httpx

    _land(database, 1)
    archive_and_drop(database, tmp_path, "trades", [day(0)])
    app = create_app(database, simulated=True, connections=2)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://api", headers={"X-API-Key": key}
        ) as client,
    ):
        assert (await ask(client, _of_day(0))).status == 503


async def test_no_answer_notices_that_days_come_and_go(client, database, tmp_path):
    """Dropped and restored as quickly as possible, by one who holds no lock of ours."""
    _land(database, 3)
    questions = [_of_day(0), _of_day(1), Question("POST", "/trades", {"market_ticker": TICKER})]
    before = [await ask(client, question) for question in questions]
    for number in range(3):
        archive(database, tmp_path, "trades", day(number))
    ended = threading.Event()
    moved = 0

    def move() -> None:
        nonlocal moved
        dice = random.Random(3)
        gone: set[int] = set()
        with connect(database) as connection:
            while not ended.is_set():
                number = dice.randrange(3)
                (restore if number in gone else drop)(connection, "trades", day(number))
                connection.commit()
                gone ^= {number}
                moved += 1

    moving = asyncio.create_task(asyncio.to_thread(move))
    served = 0
    try:
        began = time.monotonic()
        while (moved < 40 or served < 200) and time.monotonic() - began < DEADLINE:
            answers = await asyncio.gather(*(ask(client, question) for question in questions))
            for answer, expected in zip(answers, before, strict=True):
                # Sent away when a day moved at each of several attempts; never another answer.
                assert answer == expected or answer.status == 503
                served += answer.status == 200
    finally:
        ended.set()
        await moving
    assert moved > 5 and served > 20


async def test_a_slow_store_takes_bounded_time_and_no_thread_more(
    client, database, tmp_path, monkeypatch
):
    _land(database, 3)
    archive_and_drop(database, tmp_path, "trades", [day(0), day(1)])
    released, open_file = threading.Event(), Store.open

    def hang(self, path):
        assert released.wait(DEADLINE)
        return open_file(self, path)

    monkeypatch.setattr(Store, "open", hang)
    client._transport.app.state.archive._seconds = 0.3
    began = time.monotonic()
    most = api.archive.THREADS + api.archive.MOST_WAITING
    answers = await asyncio.gather(
        *(ask(client, _of_day(number % 2)) for number in range(most + 10)), ask(client, _of_day(2))
    )
    assert time.monotonic() - began < DEADLINE / 2
    assert [answer.status for answer in answers] == [503] * (most + 10) + [200]
    details = [json.loads(answer.body)["detail"] for answer in answers[:-1]]
    assert sum(detail.startswith("Too many requests for archived") for detail in details) >= 10
    assert sum(detail.startswith("The archive takes too long") for detail in details) > 0
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("archive")]
    assert len(threads) <= api.archive.THREADS
    released.set()
    client._transport.app.state.archive._seconds = 5
    assert (await ask(client, _of_day(0))).status == 200


async def test_many_requests_at_once_decode_a_row_group_once(
    client, database, tmp_path, monkeypatch
):
    _land(database, 1)
    archive_and_drop(database, tmp_path, "trades", [day(0)])
    decoded, read = [], row_groups.File.read

    def counted(self, number, columns):
        decoded.append(number)
        return read(self, number, columns)

    monkeypatch.setattr(row_groups.File, "read", counted)
    answers = await asyncio.gather(*(ask(client, _of_day(0)) for _ in range(30)))
    assert {answer.status for answer in answers} == {200}
    assert sorted(decoded) == sorted(set(decoded))
