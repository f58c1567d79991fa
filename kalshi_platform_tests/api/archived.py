"""Days moved from the database to an archive and back; answers that must not notice."""

import json
import random
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psycopg

from kalshi_platform.archive.layout import partition_name
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.storage import tables
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import attach

FIRST_DAY = date(2026, 11, 2)
ODD_TICKERS = ("KX", "KX-É\\\"{},'%", "KX%s", "kx lower", "KX" + 150 * "Z")
# What an answer may say anew each time.
_PASSING = re.compile(rb',"request_id":"[^"]*"(,"response_time":[0-9.]+)?\}$')
_PASSING_HEADERS = ("x-request-id", "date", "content-length", "ratelimit", "x-credits")


class Question(NamedTuple):
    """One request; `body` is the query of a GET."""

    method: str
    path: str
    body: dict[str, Any]


class Answer(NamedTuple):
    """What must be the same whenever the same is asked."""

    status: int
    headers: dict[str, str]
    body: bytes


def day(number: int) -> date:
    return FIRST_DAY + timedelta(days=number)


def start_of(on: date) -> datetime:
    return datetime(on.year, on.month, on.day, tzinfo=UTC)


def moments(dice: random.Random, count: int, days: int) -> list[datetime]:
    """Instants of the days, many of them shared, some at the very edges of a day."""
    few = [start_of(day(0)) + dice.random() * timedelta(days=days) for _ in range(count // 3)]
    edges = [start_of(day(number)) for number in range(days)]
    edges += [edge + timedelta(days=1) - timedelta(microseconds=1) for edge in edges]
    return [dice.choice(edges if dice.random() < 0.05 else few) for _ in range(count)]


def markets(count: int) -> list[str]:
    return [*ODD_TICKERS, *(f"KXT-{number:03}" for number in range(count))]


def random_uuid(dice: random.Random) -> UUID:
    return UUID(int=dice.getrandbits(128))


def archive(url: str, folder: Path, table: str, on: date) -> None:
    """Write the day's file; its rows stay in the database."""
    assert archive_day(url, Store(str(folder)), table, on).archive is not None


def drop(connection: psycopg.Connection[Any], table: str, on: date) -> None:
    """What housekeeping does in the end; the rows are kept aside, for `restore`."""
    partition = partition_name(table, on)
    connection.execute(f"DROP TABLE IF EXISTS aside_{partition}".encode())
    connection.execute(f"CREATE TABLE aside_{partition} AS TABLE {partition}".encode())
    connection.execute(f"DROP TABLE {partition}".encode())
    connection.execute(
        "UPDATE archives SET dropped_at = now() WHERE table_name = %s AND day = %s", [table, on]
    )


def restore(connection: psycopg.Connection[Any], table: str, on: date) -> None:
    """Bring the dropped rows back, in another order than they were in."""
    partition = partition_name(table, on)
    made = f"CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    connection.execute(made.encode())
    connection.execute(
        f"INSERT INTO {partition} SELECT * FROM aside_{partition} ORDER BY random()".encode()
    )
    attach(connection, tables.metadata.tables[table], partition, on, on + timedelta(days=1))
    connection.execute(
        "UPDATE archives SET dropped_at = NULL WHERE table_name = %s AND day = %s", [table, on]
    )


def archive_and_drop(url: str, folder: Path, table: str, days: Iterable[date]) -> None:
    for on in days:
        archive(url, folder, table, on)
        with connect(url) as connection:
            drop(connection, table, on)


async def ask(client: httpx.AsyncClient, question: Question) -> Answer:
    sent = {"json" if question.method == "POST" else "params": question.body}
    response = await client.request(question.method, question.path, **sent)
    headers = {
        name: value
        for name, value in response.headers.items()
        if not name.startswith(_PASSING_HEADERS)
    }
    return Answer(response.status_code, headers, _PASSING.sub(b"}", response.content))


async def walk(client: httpx.AsyncClient, question: Question, most: int = 200) -> list[Answer]:
    """All pages; a cursor is sent back until there is none."""
    answers = [await ask(client, question)]
    while len(answers) < most and (cursor := next_cursor(answers[-1])):
        answers.append(await ask(client, following(question, cursor)))
    return answers


def next_cursor(answer: Answer) -> str | None:
    cursor: str | None = json.loads(answer.body).get("next_cursor")
    return cursor


def following(question: Question, cursor: str) -> Question:
    return question._replace(body=question.body | {"cursor": cursor})


def windows(dice: random.Random, days: int) -> Iterator[dict[str, str]]:
    """Windows without end: open, of a day, of some hours, over midnight, of an instant."""
    while True:
        start = start_of(day(0)) + dice.random() * timedelta(days=days)
        if dice.random() < 0.3:
            start = start_of(start.date())
        width = dice.choice([timedelta(days=9), timedelta(days=1), timedelta(hours=5)])
        window = {"start_time": start.isoformat(), "end_time": (start + width).isoformat()}
        for name in list(window):
            if dice.random() < 0.25:
                del window[name]
        yield window
