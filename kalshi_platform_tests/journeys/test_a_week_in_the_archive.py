"""A week of simulated days archives, verifies, drops; the API answers as before."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from api.app import create_app
from kalshi_platform.archive.days import days_to_archive, last_closed_day
from kalshi_platform.archive.dropping import days_kept, drop_old_days
from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.archive.restoring import restore_dropped
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.verifying import verify
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.ingest.sweep import sweep_day
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.archives import all_archives, dropped_days
from kalshi_platform.storage.writes.candles import rebuild_day, refresh_candles
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.api.archived import Answer, Question, walk
from kalshi_platform_tests.ingest.truth import client, expected, held, ledger
from kalshi_simulator.testing import running_simulator


async def test_a_week_of_simulated_days_is_archived_verified_dropped_and_served(database, tmp_path):
    last = last_closed_day()
    week = [last - timedelta(days=back) for back in range(6, -1, -1)]
    store = Store(str(tmp_path))
    with running_simulator(
        seed=41,
        trades_per_second=1,
        history_trades_per_second=0.02,
        history_days=11,
        live_days=11,
        read_tokens_per_second=50_000,
    ) as simulator:
        rest = client(simulator)
        for day in week:
            assert sweep_day(database, rest, day).added > 500
        begins = datetime.combine(week[0], time(), UTC)
        told = expected(ledger(simulator, begins, begins + timedelta(days=7)))
    with connect(database) as connection:
        refresh_candles(connection)
        key = create_key(connection, "week")
        rows = connection.execute(
            "SELECT market_ticker FROM candles_1d GROUP BY 1 ORDER BY sum(trade_count) DESC LIMIT 7"
        )
        markets = [ticker for (ticker,) in rows][::3]
    assert held(database, begins, begins + timedelta(days=7)) == told
    before = await _answers(database, tmp_path, key, markets, begins)

    with connect(database) as connection:
        waiting = days_to_archive(connection)
    assert set(week) <= set(waiting)
    for day, names in waiting.items():
        for table in names:
            assert archive_day(database, store, table, day).written
    with connect(database) as connection:
        assert days_to_archive(connection) == {}
        archives = all_archives(connection)
    for archive in archives:
        verdict = verify(database, store, archive, deep=True)
        assert (verdict.damage, verdict.has_changed) == (None, False)
    outcome = drop_old_days(database, store, days_kept(2, 2, 2))
    assert (outcome.left, outcome.restored) == ([], [])
    assert {(archive.table_name, archive.day) for archive in archives} == {
        (table, day) for table, day, _ in outcome.dropped
    }
    assert held(database, begins, begins + timedelta(days=7)) == {}
    with connect(database) as connection:
        assert dropped_days(connection, "trades", week) == week
    assert await _answers(database, tmp_path, key, markets, begins) == before

    for table in SORTED_BY:
        restore_dropped(database, store.url, table, week)
    assert held(database, begins, begins + timedelta(days=7)) == told
    with connect(database) as connection:
        for day in week:
            assert rebuild_day(connection, day).changed == 0
    assert await _answers(database, tmp_path, key, markets, begins) == before


async def _answers(
    database: str, folder: Any, key: str, markets: list[str], begins: datetime
) -> list[list[Answer]]:
    """What a customer is told of the week, page by page, by an API started for it."""
    window = {
        "start_time": begins.isoformat(),
        "end_time": (begins + timedelta(days=7)).isoformat(),
    }
    questions = []
    for ticker in markets:
        path = quote(ticker)
        questions += [
            Question("POST", "/trades", {"market_ticker": ticker, "limit": 250}),
            Question("POST", "/trades", {"market_ticker": ticker, "limit": 1000, **window}),
            Question("GET", f"/markets/{path}", {}),
            *(
                Question("GET", f"/candles/{path}", {"interval": width, "fill": fill, **window})
                for width in ("1m", "1h", "1d")
                for fill in ("none", "carry")
            ),
        ]
    app = create_app(database, simulated=True, archive=str(folder), connections=2)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://api", headers={"X-API-Key": key}
        ) as asker,
    ):
        answers = [await walk(asker, question, most=4) for question in questions]
    assert {page.status for pages in answers for page in pages} == {200}
    return answers
