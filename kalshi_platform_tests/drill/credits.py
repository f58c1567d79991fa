"""The drill of credits: many customers at once, while the servers that charge them are killed.

Two API processes serve one database. 20 keys ask, some of them with few credits; now and then a
process is killed -9 in the middle of its answers, and started again. The customers count what they
were given. Afterwards the ledger must balance to the credit:

- every answer that arrived was charged;
- what was charged beyond these is covered by questions whose answers were cut off by a kill;
- no key spent more than it had, and none that had enough was refused.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from api.costs import COSTS
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.plans import Plan
from kalshi_platform.storage.reads.keys import list_keys
from kalshi_platform.storage.reads.usage import Difference, ledger_differences
from kalshi_platform.storage.writes.keys import create_key, grant_credits
from kalshi_platform_tests.api.rows import TICKER, land, trade
from kalshi_platform_tests.ports import free_ports

KEYS = 20
_PLENTY = 100_000
_START_SECONDS = 60
_ANSWER_SECONDS = 180
_AT_ONCE = 100  # more only wait for each other, and for the few connections to the database


class Question(NamedTuple):
    """One request, and what its answer costs."""

    cost: int
    method: str
    path: str
    body: bytes = b""


_QUESTIONS = [
    Question(
        COSTS["POST /trades"], "POST", "/trades", json.dumps({"market_ticker": TICKER}).encode()
    ),
    Question(COSTS["GET /candles/{ticker}"], "GET", f"/candles/{TICKER}"),
    Question(COSTS["GET /series"], "GET", "/series"),
    Question(COSTS["GET /account"], "GET", "/account"),
    # Refused, so free.
    Question(0, "POST", "/trades", b'{"market_ticker": "KXNONE"}'),
    Question(0, "GET", "/candles/KXNONE"),
]


@dataclass
class CreditsVerdict:
    """What customers saw, held against what they were charged; credits by key."""

    given: dict[int, int]
    seen: Counter[int] = field(default_factory=Counter)
    cut: Counter[int] = field(default_factory=Counter)  # cost of questions without an answer
    charged: dict[int, int] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    seconds: float = 0

    def __bool__(self) -> bool:
        return not (self.wrong or self.differences)

    def __str__(self) -> str:
        text = (
            f"{sum(self.statuses.values()):,} requests, {self.seconds:.1f} s, {self.kills} kills:"
            f" {dict(sorted(self.statuses.items()))}\n"
            f"{sum(self.charged.values()):,} credits charged, {sum(self.seen.values()):,} answered"
            f" (without an answer: questions worth {sum(self.cut.values()):,}); "
            f"{len(self.refused)} keys ran out; {len(self.differences)} differences in the ledger"
        )
        return "\n  ".join([text, *map(str, self.differences[:5]), *self.wrong[:5]])


def credits_charged(options: argparse.Namespace) -> CreditsVerdict:
    """The part of the drill: 2,000 questions, with kills; uses `options.seed`."""
    print(f"== 2,000 questions of {KEYS} keys, servers killed, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="kalshi-drill-") as name:
        server = EmbeddedDatabase(Path(name) / "postgres")
        server.start()
        try:
            url = server.create_database("kalshi")
            migrate(url)
            verdict = credits_under_kills(
                url, Path(name), questions=2_000, kills=12, seed=options.seed
            )
        finally:
            server.stop()
    print(verdict)
    return verdict


def credits_under_kills(
    url: str, folder: Path, *, questions: int, kills: int, seed: int
) -> CreditsVerdict:
    """Ask on an otherwise unused database; `folder` takes the servers' logs."""
    land(url, trade("10:00:00"), trade("10:00:01"))
    dice = Random(seed)
    keys = _make_keys(url, questions, dice)
    verdict = CreditsVerdict(dict(keys.values()))
    began = time.monotonic()
    asyncio.run(_Drill(url, folder, keys, verdict, dice).run(questions, kills))
    verdict.seconds = time.monotonic() - began
    _judge(url, verdict)
    return verdict


def _make_keys(url: str, questions: int, dice: Random) -> dict[str, tuple[int, int]]:
    """By key: its number and its credits. Every other one has too few for what it will ask."""
    made = {}
    few = questions // KEYS
    with connect(url) as connection:
        for number in range(KEYS):
            monthly = dice.randint(few // 4, few) if number % 2 else _PLENTY
            key = create_key(connection, f"customer {number}", plan=Plan("drill", monthly, 10_000))
            key_id = list_keys(connection)[-1].key_id
            extra = dice.randint(1, few // 4) if number % 4 == 1 else 0
            if extra:
                grant_credits(connection, key_id, extra, "drill")
            made[key] = key_id, monthly + extra
    return made


def _judge(url: str, verdict: CreditsVerdict) -> None:
    with connect(url) as connection:
        verdict.differences = ledger_differences(connection)
        verdict.charged = dict.fromkeys(verdict.given, 0) | dict(
            connection.execute(
                "SELECT key_id, sum(credits)::bigint FROM api_usage GROUP BY key_id"
            ).fetchall()
        )
    for key_id, given in verdict.given.items():
        charged, seen, cut = verdict.charged[key_id], verdict.seen[key_id], verdict.cut[key_id]
        if not seen <= charged <= seen + cut:
            verdict.wrong.append(f"key {key_id}: {charged} charged, {seen} answered, {cut} cut off")
        if charged > given:
            verdict.wrong.append(f"key {key_id}: {charged} charged of {given}")
        if verdict.refused[key_id] and given - charged >= max(COSTS.values()):
            verdict.wrong.append(f"key {key_id}: refused with {given - charged} left")


class _Drill:
    """Servers, customers, and whoever kills."""

    def __init__(
        self,
        url: str,
        folder: Path,
        keys: Mapping[str, tuple[int, int]],
        verdict: CreditsVerdict,
        dice: Random,
    ) -> None:
        self._environment = os.environ | {"DATABASE_URL": url, "KALSHI_HOME": str(folder)}
        self._log = folder / "api.log"
        self._keys = keys
        self._verdict = verdict
        self._dice = dice
        self._ports = free_ports(2)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._answered = 0
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def run(self, questions: int, kills: int) -> None:
        async with self._servers():
            asked = [
                self._customer(key, self._dice.choice(_QUESTIONS), Random(self._dice.random()))
                for key in self._keys
                for _ in range(questions // len(self._keys))
            ]
            self._dice.shuffle(asked)
            await asyncio.gather(self._kill(questions, kills), *asked)

    @contextlib.asynccontextmanager
    async def _servers(self) -> AsyncIterator[None]:
        try:
            for port in self._ports:
                self._start(port)
            await asyncio.gather(*map(self._until_it_answers, self._ports))
            yield
        finally:
            for process in self._processes.values():
                process.terminate()
            for process in self._processes.values():
                process.wait(20)

    def _start(self, port: int) -> None:
        with self._log.open("ab") as log:
            self._processes[port] = subprocess.Popen(
                [sys.executable, "-m", "kalshi_platform.cli", "api"],
                env=self._environment | {"API_PORT": str(port)},
                stdout=log,
                stderr=log,
            )

    async def _until_it_answers(self, port: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                if self._processes[port].poll() is not None or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    async def _kill(self, questions: int, kills: int) -> None:
        """Kill -9, each time after so many more answers that others are on their way."""
        for _ in range(kills):
            until = self._answered + self._dice.randint(1, max(1, questions // (2 * kills)))
            while self._answered < min(until, questions - 1):
                await asyncio.sleep(0.001)
            port = self._dice.choice(self._ports)
            self._processes[port].kill()
            self._processes[port].wait()
            self._verdict.kills += 1
            self._start(port)
            await self._until_it_answers(port)

    async def _customer(self, key: str, question: Question, dice: Random) -> None:
        """Ask until there is an answer; whatever is cut off is asked again."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        async with self._at_once:
            while (status := await self._ask(key, question, dice)) in (None, 503):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{question.path}: {status}; {dict(self._verdict.statuses)}")
                await asyncio.sleep(dice.uniform(0.1, 0.5))
        self._answered += 1

    async def _ask(self, key: str, question: Question, dice: Random) -> int | None:
        """The status of the answer; None if there was none."""
        key_id, _ = self._keys[key]
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", dice.choice(self._ports), limit=1 << 20
            )
        except OSError:  # the server was killed, and nothing was asked
            return None
        try:
            writer.write(_as_http(key, question))
            async with asyncio.timeout(_ANSWER_SECONDS):
                status, cost = await _answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            self._verdict.cut[key_id] += question.cost
            self._verdict.statuses["cut off"] += 1
            return None
        finally:
            writer.close()
        self._verdict.statuses[str(status)] += 1
        self._verdict.seen[key_id] += cost
        if status == 402:
            self._verdict.refused[key_id] += 1
        if cost != (question.cost if status == 200 else 0):
            self._verdict.wrong.append(f"{question.path}: {status} cost {cost}")
        return status


def _as_http(key: str, question: Question) -> bytes:
    return (
        f"{question.method} {question.path} HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(question.body)}\r\n\r\n"
    ).encode() + question.body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and cost of an answer that arrived whole."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    await reader.readexactly(int(headers["content-length"]))
    return int(status.split()[1]), int(headers.get("x-credits-cost", "0"))
