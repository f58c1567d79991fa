"""Lists of a million markets: `python -m benchmarks.reference`.

A scratch database holds 1,000,000 markets, 300,000 events, 5,000 series and 900,000 outcomes (see
`reference_rows.py`). One client asks the API, each kind of question from the first page and from
random places behind it; the goal is a median of 50 ms for every kind. The last kinds are what the
indexes serve worst, and stand outside the goal: they are there to be seen.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx

from api.cursors import encode_cursor
from api.inputs import unix_micros
from api.routes.events import EventsQuery
from api.routes.markets import MarketsQuery
from api.routes.series import SeriesQuery
from api.routes.settlements import SettlementsQuery
from benchmarks.api import running_api
from benchmarks.machine import scratch_database
from benchmarks.reference_questions import Kind, Sample, kinds
from benchmarks.reference_rows import HUGE_SERIES, load_reference
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.keys import create_key

GOAL_MS = 50.0
_QUERIES: dict[str, Any] = {
    "markets": MarketsQuery,
    "events": EventsQuery,
    "series": SeriesQuery,
    "settlements": SettlementsQuery,
}


def draw(url: str, dice: random.Random) -> Sample:
    """Tickers from all over the tables; sizes of series as they come."""
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT s.market_ticker, m.event_ticker, m.series_ticker FROM settlements AS s"
            " TABLESAMPLE BERNOULLI (0.2) REPEATABLE (1) JOIN markets AS m USING (market_ticker)"
            " WHERE NOT m.is_combo"
        ).fetchall()
    dice.shuffle(rows)
    return Sample(
        [row[0] for row in rows], [row[1] for row in rows],
        [row[2] for row in rows if row[2] != HUGE_SERIES],
    )  # fmt: skip


def url_of(kind: Kind, query: Mapping[str, Any], place: object) -> str:
    """The address of a question; with a place, of the page that follows it."""
    if "/" in query:
        return f"/{kind.path}/{query['/']}"
    asked = dict(query)
    if place is not None:
        bound = (kind.path, _QUERIES[kind.path](**query).filters())
        asked["cursor"] = encode_cursor(bound, place)
    return f"/{kind.path}?{urlencode(asked)}"


def place_in(path: str, sample: Sample, dice: random.Random) -> object:
    """Where some page ended."""
    if path == "settlements":
        instant = datetime.now(UTC) - timedelta(days=dice.uniform(0, 90))
        return [unix_micros(instant), dice.choice(sample.markets)]
    return dice.choice(getattr(sample, path))


def measure(
    client: httpx.Client, kind: Kind, sample: Sample, rounds: int, *, deep: bool
) -> list[float]:
    """Milliseconds of each request, sorted."""
    dice = random.Random(11)
    took = []
    for _ in range(rounds):
        place = place_in(kind.path, sample, dice) if deep else None
        url = url_of(kind, kind.query(dice), place)
        started = time.perf_counter()
        response = client.get(url)
        took.append((time.perf_counter() - started) * 1000)
        response.raise_for_status()
    return sorted(took)


def report(url: str, rounds: int) -> bool:
    """Print a line a kind; returns whether all medians reach the goal."""
    with connect(url) as connection:
        key = create_key(connection, "bench")
    sample = draw(url, random.Random(5))
    reached = True
    figures = f"{'median':>7} {'p99':>7} {'worst':>7}"
    print(f"{rounds} requests a kind and place, milliseconds; goal: median {GOAL_MS:g}")
    print(f"{'':44} {'first page':^23}   {'deep page':^23}")
    print(f"{'':44} {figures}   {figures}")
    with (
        running_api(url) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}) as client,
    ):
        for kind in kinds(sample):
            line = f"{kind.path:12} {kind.name:32}"
            single = "/" in kind.query(random.Random(1))
            missed = False
            for deep in (False,) if single else (False, True):
                took = measure(client, kind, sample, rounds, deep=deep)
                median = statistics.median(took)
                missed = missed or (kind.goal and median > GOAL_MS)
                p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
                line += f" {median:7.1f} {p99:7.1f} {took[-1]:7.1f}  "
            reached = reached and not missed
            print(line + (" MISSED" if missed else "" if kind.goal else " (no goal)"), flush=True)
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markets", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--url", help="a database that is loaded already")
    arguments = parser.parse_args()
    if arguments.url:
        return 0 if report(arguments.url, arguments.rounds) else 1
    with scratch_database() as url:
        started = time.perf_counter()
        load_reference(
            url,
            markets=arguments.markets,
            events=arguments.markets * 3 // 10,
            series=max(100, arguments.markets // 200),
        )
        print(f"{arguments.markets:,} markets loaded in {time.perf_counter() - started:.0f} s")
        return 0 if report(url, arguments.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
