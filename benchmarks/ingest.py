"""Socket → committed and queryable trades in one process, as a ratio to raw COPY.

    python -m benchmarks.ingest [--trades 400000] [--rounds 5]

The limit: the same trades as ready-made COPY BINARY bytes into the same indexed table, 20,000 rows
a transaction. The contender: a WebSocket server in another process sends them as fast as they are
taken; recorder and loader (one process) put them on the tape and into `raw_trades` and `trades`.
One trade in 200 is the first of its market: 20 million trades a day in 100,000 new markets.
Then latency: messages sent at a fixed rate, from sending until a reader of `trades` sees them.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.machine import scratch_database
from kalshi_platform.exchange.messages import Trade
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.ingest.loader import Loader
from kalshi_platform.ingest.recorder import Recorder
from kalshi_platform.ingest.service import take_short_turns
from kalshi_platform.storage import tables
from kalshi_platform.storage.bulk import copy_binary
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.markets import name_markets
from kalshi_platform.storage.writes.trades import (
    TradeRows,
    ensure_trade_partitions,
    merge_trades,
)

TICKERS = 20_000
LIMIT_BATCH = 20_000
FRAMES_A_CHUNK = 50


def tickers() -> list[str]:
    return [f"KXSERIES{n % 100}-26NOV20-T{n}.50" for n in range(TICKERS)]


def synthetic_trades(count: int, seed: int, spread_seconds: int = 60) -> list[Trade]:
    """Trades of the last minute in 20,000 markets, active as Zipf(1) says."""
    rng = Random(seed)
    chosen = rng.choices(tickers(), [1 / (n + 1) for n in range(TICKERS)], k=count)
    start = (int(time.time()) - spread_seconds) * 1_000_000
    step = spread_seconds * 1000 / count
    return [
        Trade(
            str(UUID(int=rng.getrandbits(128))),
            ticker,
            rng.randrange(1, 100) * 10_000,
            rng.randrange(1, 100_000),
            rng.choice(("yes", "no")),
            False,
            start + int(number * step) * 1000,
            False,
        )
        for number, ticker in enumerate(chosen)
    ]


def frame_of(trade: Trade, seq: int) -> bytes:
    yes = trade.yes_price_micros
    message = {
        "trade_id": trade.trade_id,
        "market_ticker": trade.market_ticker,
        "yes_price_dollars": f"{yes / 1e6:.4f}",
        "no_price_dollars": f"{1 - yes / 1e6:.4f}",
        "count_fp": f"{trade.count_centis / 100:.2f}",
        "taker_side": trade.taker_side,
        "taker_outcome_side": trade.taker_side,
        "taker_book_side": "bid" if trade.taker_side == "yes" else "ask",
        "is_block_trade": False,
        "ts": trade.traded_at_micros // 1_000_000,
        "ts_ms": trade.traded_at_micros // 1000,
    }
    frame = {"type": "trade", "sid": 1, "seq": seq, "msg": message}
    return json.dumps(frame, separators=(",", ":")).encode()


def websocket_bytes(payload: bytes) -> bytes:
    """A text frame as a server sends it: unmasked, longer than 125 and shorter than 64 Ki bytes."""
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


def send(chunks: list[bytes], per_second: float | None, port: "multiprocessing.Queue[int]") -> None:
    """Serve one client, in a process of its own: after it subscribes to trades, all frames."""

    async def handle(websocket: ServerConnection) -> None:
        async for command in websocket:
            asked = json.loads(command)
            if asked["params"].get("channels") == ["trade"]:
                break
        reply = {"type": "subscribed", "id": asked["id"], "msg": {"channel": "trade", "sid": 1}}
        await websocket.send(json.dumps(reply))
        started = time.monotonic()
        for number, chunk in enumerate(chunks):
            if per_second is not None:
                due = started + number * FRAMES_A_CHUNK / per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            websocket.transport.write(chunk)
            if websocket.transport.get_write_buffer_size() > 1 << 20:
                await websocket.drain()
        await websocket.wait_closed()

    async def run() -> None:
        async with serve(handle, "127.0.0.1", 0, ping_interval=None, compression=None) as server:
            port.put(next(iter(server.sockets)).getsockname()[1])
            await server.serve_forever()

    asyncio.run(run())


def through_the_socket(url: str, trades: list[Trade], folder: Path) -> float:
    """Seconds from the first frame until a reader sees all trades."""
    frames = [frame_of(trade, seq) for seq, trade in enumerate(trades, 1)]
    with _Recording(url, frames, None, folder), connect(url, autocommit=True) as reader:
        # The loader's own count is committed with the rows, and costs nothing to ask for.
        while True:
            row = reader.execute(
                "SELECT value FROM ingestion_metrics WHERE name = 'messages_total'"
            ).fetchone()
            if row is not None and row[0] >= len(trades):
                break
            time.sleep(0.02)
        now = datetime.now(UTC)
        [first] = reader.execute("SELECT min(received_at) FROM raw_trades").fetchone()
        assert reader.execute("SELECT count(*) FROM trades").fetchone() == (len(trades),)
        return (now - first).total_seconds()


def latency(url: str, per_second: int, seconds: float, folder: Path) -> tuple[float, float]:
    """(p50, p99) milliseconds from a frame's receipt to its commit, at a steady rate."""
    trades = synthetic_trades(int(per_second * seconds), seed=3)
    frames = [frame_of(trade, seq) for seq, trade in enumerate(trades, 1)]
    with _Recording(url, frames, per_second, folder), connect(url, autocommit=True) as reader:
        seen: dict[str, float] = {}
        committed: list[tuple[float, int]] = []
        while len(seen) < 1:
            [count] = reader.execute("SELECT count(*) FROM raw_trades").fetchone()
            committed.append((time.time(), count))
            if count >= len(trades):
                break
            time.sleep(0.002)
        received = [
            at.timestamp()
            for (at,) in reader.execute("SELECT received_at FROM raw_trades ORDER BY received_at")
        ]
    delays = []
    position = 0
    for at, count in committed:
        delays += [(at - moment) * 1000 for moment in received[position:count]]
        position = max(position, count)
    delays.sort()
    return delays[len(delays) // 2], delays[int(len(delays) * 0.99)]


class _Recording:
    """A sender in its own process; recorder and loader in this one."""

    def __init__(self, url: str, frames: list[bytes], per_second: float | None, folder: Path):
        key = folder / "key.pem"
        key.write_bytes(
            Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        chunks = [
            b"".join(map(websocket_bytes, frames[first : first + FRAMES_A_CHUNK]))
            for first in range(0, len(frames), FRAMES_A_CHUNK)
        ]
        context = multiprocessing.get_context("spawn")
        port: multiprocessing.Queue[int] = context.Queue()
        self._sender = context.Process(target=send, args=(chunks, per_second, port), daemon=True)
        self._sender.start()
        self._stop = threading.Event()
        flushed = threading.Event()
        recorder = Recorder(
            database_url=url,
            tape_folder=folder / "tape",
            ws_url=f"ws://127.0.0.1:{port.get()}/trade-api/ws/v2",
            signer=Signer.from_pem("bench", key),
            flush_seconds=0.1,
            segment_seconds=300,
            silence_seconds=60,
            flushed=flushed,
        )
        loader = Loader(url, folder / "tape", flushed)
        self._threads = [
            threading.Thread(target=lambda: asyncio.run(recorder.run(self._stop))),
            threading.Thread(target=loader.run, args=[self._stop]),
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._sender.terminate()
        self._sender.join()


def encoded(trades: list[Trade]) -> TradeRows:
    now = time.time_ns() // 1000
    rows = TradeRows("ws", now)
    rows.place(connection=1, tape_segment=1, tape_offset=1)
    for seq, trade in enumerate(trades, 1):
        rows.add(trade, now, seq)
    return rows


def limit(url: str, trades: list[Trade]) -> float:
    """Seconds to COPY ready-made rows into the indexed `trades`, 20,000 a transaction."""
    columns = [column.name for column in tables.trades.columns]
    names = ", ".join(columns)
    with connect(url) as connection:
        ensure_trade_partitions(connection, trades, datetime.now(UTC))
        merge_trades(connection, encoded(trades))
        batches = []
        for first in range(0, len(trades), LIMIT_BATCH):
            last = first + LIMIT_BATCH
            query = (
                f"COPY (SELECT {names} FROM trades"
                f" WHERE feed_order & 4294967295 > {first} AND feed_order & 4294967295 <= {last}"
                " ORDER BY feed_order) TO STDOUT (FORMAT BINARY)"
            )
            with connection.cursor() as cursor, cursor.copy(query) as copy:
                data = b"".join(bytes(part) for part in copy)
            batches.append(data[19:-2])  # without header and trailer
        connection.execute("TRUNCATE trades, raw_trades, stale_candles")
        connection.commit()
        started = time.perf_counter()
        for data in batches:
            copy_binary(connection, "trades", columns, [data])
            connection.commit()
        return time.perf_counter() - started


def empty(url: str) -> None:
    """No trades; all but one in ten markets are known."""
    with connect(url) as connection:
        connection.execute(
            "TRUNCATE trades, raw_trades, stale_candles, ingestion_checkpoints, gaps, markets,"
            " ingestion_metrics"
        )
        name_markets(connection, [ticker for n, ticker in enumerate(tickers()) if n % 10])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    take_short_turns()
    with scratch_database() as url, tempfile.TemporaryDirectory() as scratch:
        ratios, rates = [], []
        trades = synthetic_trades(options.trades, seed=1)
        for number in range(options.rounds):
            empty(url)
            copy_seconds = limit(url, trades)
            empty(url)
            folder = Path(scratch) / f"round-{number}"
            folder.mkdir()
            seconds = through_the_socket(url, trades, folder)
            ratios.append(copy_seconds / seconds)
            rates.append(len(trades) / seconds)
            print(
                f"round {number + 1}: COPY {len(trades) / copy_seconds:,.0f} rows/s, "
                f"socket to queryable {rates[-1]:,.0f} rows/s, ratio {ratios[-1]:.2f}"
            )
        print(f"socket to queryable / COPY: {statistics.median(ratios):.2f} (target 0.5, then 0.6)")
        for rate in (1_000, 5_000, 10_000):
            empty(url)
            folder = Path(scratch) / f"latency-{rate}"
            folder.mkdir()
            middle, late = latency(url, rate, 4, folder)
            print(f"latency at {rate:,} messages/s: p50 {middle:.0f} ms, p99 {late:.0f} ms")


if __name__ == "__main__":
    main()
