"""What is called known is true: books against an exchange that loses, repeats and turns round."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from kalshi_platform.ingest.batch import Batch
from kalshi_platform.ingest.feed import FeedState
from kalshi_platform.ingest.tape import Block, Position
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.writes.own_snapshots import take_snapshots
from kalshi_platform_tests.ingest.book_lines import (
    MARKET,
    OTHER,
    START_MS,
    delta,
    instant,
    opening,
    reply,
    snapshot,
)
from kalshi_platform_tests.ingest.builders import CONNECTION, event_line, line, subscribed
from kalshi_platform_tests.transform.book_rows import books, sides

MARKETS = (MARKET, OTHER)
END_MS = 1_000
OWN_SNAPSHOT, CUT = b"own snapshot", b"cut"


@dataclass
class Exchange:
    """Books that change, and the lines of a tape that tell of them, more or less."""

    now_ms: int = 0
    connection: int = CONNECTION
    sid: int = 2
    seq: int = 0
    tape: list[bytes] = field(default_factory=list)
    books: dict[str, dict[tuple[str, int], int]] = field(default_factory=dict)
    history: list[tuple[int, str, tuple[str, int], int]] = field(default_factory=list)
    subscribed: set[str] = field(default_factory=set)
    listening: bool = False
    held: bytes | None = None
    """A frame that comes after the next one."""

    def open(self) -> None:
        self.seq = 0
        self.tape += opening(self.sid, self.connection, self.now_ms)
        self.listening = True
        self.subscribed = set(MARKETS)
        for market in MARKETS:
            self.snapshot(market)

    def send(self, frame: dict[str, Any], fate: str = "sent") -> None:
        """Give a numbered frame its number and put it on the tape, or not."""
        if not self.listening:
            return
        self.seq += 1
        frame |= {"seq": self.seq, "sid": self.sid}
        data = line(frame, self.connection, self.now_ms)
        if fate == "late":
            self.release()
            self.held = data
            return
        if fate != "lost":
            self.tape.append(data)
        if fate == "twice":
            self.tape.append(data)
        self.release()

    def release(self) -> None:
        if self.held is not None:
            self.tape.append(self.held)
            self.held = None

    def change(self, market: str, level: tuple[str, int], size: int, fate: str, sent: int) -> None:
        book = self.books.setdefault(market, {})
        change = size - book.get(level, 0)
        book[level] = size
        self.history.append((self.now_ms, market, level, change))
        if market not in self.subscribed:
            return
        frame = delta(
            0,
            at_ms=self.now_ms,
            market=market,
            side=level[0],
            price_dollars=f"{level[1] / 1_000_000:.4f}",
            delta_fp=f"{change / 100:.2f}",
        )
        frame["sending_ts_ms"] += sent
        if fate == "unreadable":
            frame["msg"]["delta_fp"] = "much"
        elif fate == "nameless":
            frame["msg"]["market_ticker"] = 5
        self.send(frame, fate)

    def snapshot(self, market: str, fate: str = "sent", sent: int = 0) -> None:
        if market not in self.subscribed:
            return
        told = {
            side: [
                [f"{price / 1_000_000:.4f}", f"{size / 100:.2f}"]
                for (its, price), size in sorted(self.books.get(market, {}).items())
                if its == side and size
            ]
            for side in ("yes", "no")
        }
        self.send(snapshot(0, at_ms=self.now_ms + sent, market=market, **told), fate)

    def disconnect(self, *, silently: bool) -> None:
        self.release()
        if not silently:
            self.tape.append(event_line("close", self.connection, cause="connection lost"))
        self.listening = False
        self.connection += 1
        self.sid = 1

    def overflow(self) -> None:
        self.send(reply("error", 0, at_ms=self.now_ms, msg={"code": 25, "msg": "overflow"}))
        self.listening = False
        self.sid += 1

    def choose(self, market: str, *, watched: bool) -> None:
        if watched == (market in self.subscribed):
            return
        self.subscribed ^= {market}
        listed = {"msg": {"market_tickers": sorted(self.subscribed)}}
        self.send(reply("ok", 0, at_ms=self.now_ms, **listed))
        if watched:
            self.snapshot(market)

    def resume(self) -> None:
        if not self.listening:
            sent = {"sending_ts_ms": START_MS + self.now_ms}
            frame = subscribed("orderbook_delta", self.sid) | sent
            self.release()
            self.tape.append(line(frame, self.connection, self.now_ms))
            self.listening, self.seq = True, 0
            self.subscribed = set(MARKETS)
            for market in MARKETS:
                self.snapshot(market)

    def book(self, market: str, at_ms: int) -> tuple[dict[int, int], dict[int, int]]:
        sizes: dict[tuple[str, int], int] = {}
        for changed_at, its, level, change in self.history:
            if its == market and changed_at <= at_ms:
                sizes[level] = sizes.get(level, 0) + change
        return tuple(  # type: ignore[return-value]
            {price: size for (its, price), size in sorted(sizes.items()) if its == side and size}
            for side in ("yes", "no")
        )


FATES = ["sent"] * 20 + ["late", "late", "twice", "twice", "lost", "unreadable", "nameless"]
LEVELS = [(side, price) for side in ("yes", "no") for price in (300_000, 310_000)]


def played(seed: int) -> Exchange:
    """An exchange with a restless minute behind it; in the end all is told once more."""
    rng = random.Random(seed)
    exchange = Exchange()
    exchange.open()
    for _ in range(rng.randrange(80)):
        exchange.now_ms += rng.randrange(4)
        market, dice = rng.choice(MARKETS), rng.random()
        if dice < 0.65:
            size = rng.randrange(4) * 100
            exchange.change(
                market, rng.choice(LEVELS), size, rng.choice(FATES), sent=rng.randrange(5)
            )
        elif dice < 0.80:
            fate = rng.choice(["sent", "sent", "sent", "lost", "late", "twice"])
            exchange.snapshot(market, fate, sent=rng.randrange(5))
        elif dice < 0.86:
            exchange.tape.append(OWN_SNAPSHOT + market.encode())
        elif dice < 0.90:
            exchange.tape.append(CUT)
        elif dice < 0.91:
            exchange.disconnect(silently=rng.random() < 0.5)
        elif dice < 0.92:
            exchange.overflow()
        elif dice < 0.95:
            exchange.resume()
        else:
            exchange.choose(market, watched=rng.random() < 0.7)
    exchange.now_ms += 10
    exchange.resume()
    for market in MARKETS:
        exchange.choose(market, watched=True)
        # Two: the first may be held up by a frame that is late.
        exchange.snapshot(market)
        exchange.snapshot(market)
    return exchange


def played_losing_silently(seed: int) -> Exchange:
    """An exchange some of whose changes are neither sent nor numbered; in the end all is told."""
    rng = random.Random(seed)
    exchange = Exchange()
    exchange.open()
    never_told = dict.fromkeys(MARKETS, 0)
    for _ in range(rng.randrange(60)):
        exchange.now_ms += rng.randrange(4)
        market, dice = rng.choice(MARKETS), rng.random()
        if dice < 0.05:
            # It grows, so that no two of these make up for each other.
            never_told[market] += 100
            exchange.listening = False
            exchange.change(market, ("yes", 900_000), never_told[market], "sent", 0)
            exchange.listening = True
        elif dice < 0.70:
            size = rng.randrange(4) * 100
            fate = rng.choice(["sent", "sent", "sent", "twice"])
            exchange.change(market, rng.choice(LEVELS), size, fate, sent=0)
        elif dice < 0.80:
            exchange.snapshot(market)
        elif dice < 0.90:
            exchange.tape.append(OWN_SNAPSHOT + market.encode())
        else:
            exchange.tape.append(CUT)
    exchange.now_ms += 10
    for market in MARKETS:
        exchange.snapshot(market)
    return exchange


def load(connection: psycopg.Connection[Any], tape: list[bytes]) -> None:
    """Load a tape in the caller's transaction, in the pieces that it is cut into."""
    state, piece = FeedState(), []
    for position, data in enumerate([*tape, CUT]):
        if not data.startswith((OWN_SNAPSHOT, CUT)):
            piece.append(data)
            continue
        if piece:
            batch = Batch(state, set(), datetime.now(UTC))
            batch.read(Block(Position(1, position), Position(1, position + 1), b"".join(piece)))
            batch.write(connection)
            piece = []
            saved = json.dumps(msgspec.to_builtins(state, str_keys=True))
            state = msgspec.convert(json.loads(saved), FeedState, strict=False)
        if data.startswith(OWN_SNAPSHOT):
            take_snapshots(connection, [data.removeprefix(OWN_SNAPSHOT).decode()])


def known(connection: psycopg.Connection[Any]) -> set[tuple[str, int]]:
    """Every (market, ms) at which a watch claims to know the book."""
    rows = connection.execute(
        "SELECT market_ticker, (extract(epoch FROM starts_at) * 1000)::bigint,"
        " (extract(epoch FROM coalesce(ends_at, %s)) * 1000)::bigint FROM book_watches",
        [instant(END_MS)],
    )
    return {
        (market, at_ms - START_MS) for market, start, end in rows for at_ms in range(start, end)
    }


def loaded_rows(connection: psycopg.Connection[Any]) -> list[Any]:
    """Everything loaded, without what tells the pieces apart."""
    return [
        connection.execute(question).fetchall()
        for question in (
            "SELECT * FROM book_deltas ORDER BY feed_order",
            "SELECT * FROM book_snapshots ORDER BY feed_order",
            "SELECT market_ticker, starts_at, ends_at, start_order, connection, sid, ended_by"
            " FROM book_watches ORDER BY watch_id",
            # Refusals that follow each other in one piece are one gap.
            "SELECT channel, cause, market_ticker, range_agg(tstzrange(starts_at, ends_at, '[]'))"
            " FROM gaps GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
    ]


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedDatabase) -> str:
    url = postgres.create_database(__name__.rsplit(".", 1)[1], template="migrated")
    with connect(url) as connection:
        ensure_partitions(connection, [instant(0).date(), datetime.now(UTC).date()])
    return url


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(shared_database) as opened:
        yield opened
        opened.rollback()


seeds = some.integers(0, 2**32)
many = settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@many
@given(seed=seeds)
@pytest.mark.parametrize("play", [played, played_losing_silently])
def test_a_book_that_is_called_known_is_the_exchanges(connection, play, seed):
    exchange = play(seed)
    load(connection, exchange.tape)
    claimed = known(connection)
    moments = {(market, instant(at_ms)): (market, at_ms) for market, at_ms in claimed}
    found = books(connection, moments)
    connection.rollback()
    for moment, (market, at_ms) in moments.items():
        assert sides(found[moment]) == exchange.book(market, at_ms), (market, at_ms)
        assert (found[moment].lowest_centis or 0) >= 0
    # Whatever has happened, a snapshot makes it known again.
    assert {(market, exchange.now_ms) for market in MARKETS} <= claimed


@many
@given(seed=seeds)
@pytest.mark.parametrize("play", [played, played_losing_silently])
def test_a_tape_in_pieces_makes_the_same_rows(connection, play, seed):
    tape = play(seed).tape
    load(connection, [data for data in tape if not data.startswith(OWN_SNAPSHOT)])
    in_pieces = loaded_rows(connection)
    connection.rollback()
    load(connection, [data for data in tape if not data.startswith((OWN_SNAPSHOT, CUT))])
    whole = loaded_rows(connection)
    connection.rollback()
    assert in_pieces == whole
