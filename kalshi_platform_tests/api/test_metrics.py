"""GET /metrics: complete, in Prometheus' form, and true to what was loaded."""

import json
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.exposition import COMPUTED, HISTOGRAMS, STORED
from kalshi_platform.ingest.figures import ROWS
from kalshi_platform.storage.budget import PostgresBudget
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import LOADER, Lease
from kalshi_platform_tests.api.health_rows import feed, received, told
from kalshi_platform_tests.api.rows import at, land, open_gap, trade
from kalshi_platform_tests.ingest import builders
from kalshi_platform_tests.ingest.test_loader import load, write

PROJECT = Path(__file__).parents[2]
_UNITS = ("_seconds", "_bytes", "_total", "_tokens", "_rows", "_per_second")


async def families(client: httpx.AsyncClient) -> dict[str, Metric]:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def values(found: dict[str, Metric], name: str) -> dict[tuple[tuple[str, str], ...], float]:
    family = found[re.sub("_(total|bucket|sum|count)$", "", name)]
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for sample in family.samples
        if sample.name == name
    }


async def test_each_family_has_a_type_and_a_help_and_comes_once(anonymous, database):
    land(database, trade())
    for channel in ("trade", "ticker"):
        feed(database, channel, age=3)
    text = (await anonymous.get("/metrics")).text
    heads = re.findall(r"^# (HELP|TYPE) (\w+) (.+)$", text, re.MULTILINE)
    named = [name for kind, name, _ in heads if kind == "TYPE"]
    assert len(named) == len(set(named))
    assert [name for kind, name, _ in heads if kind == "HELP"] == named
    for line in text.splitlines():
        if not line.startswith("#"):
            name = re.match(r"\w+", line)
            assert name is not None
            base = re.sub(r"_(bucket|sum|count|created)$", "", name[0])
            assert name[0] in named or base in named, line


def test_names_follow_the_conventions():
    for family in (*STORED.values(), *COMPUTED):
        assert re.fullmatch(r"[a-z][a-z0-9_]+", family.name)
        assert family.name.endswith("_total") is (family.kind == "counter"), family.name
        assert family.help.endswith("."), family.name
        for wrong in ("milli", "_ms", "_minutes_", "kilobytes"):
            assert wrong not in family.name
    exported = [family.name for family in (*STORED.values(), *COMPUTED)]
    assert len(exported) == len(set(exported))


def test_every_figure_that_a_process_writes_is_described():
    """Names are literals in the code: each that looks like a figure's must be in the catalogue."""
    pattern = re.compile(r'\(\s*"([a-z_]+)",\s*(?:f?[\'"]|label\()')
    written = set()
    for folder in ("ingest", "storage"):
        for path in (PROJECT / "kalshi_platform" / folder).rglob("*.py"):
            written |= set(pattern.findall(path.read_text()))
            written |= set(re.findall(r'\["([a-z_]+)", (?:f?[\'"]|label\()', path.read_text()))
    figures = {name for name in written if name.endswith(_UNITS) or name.startswith("books_")}
    assert {"messages_total", "tape_backlog_bytes", "books_watched", "rejected_total"} <= figures
    stored = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum")}
    assert figures - set(STORED) - stored == set()


def loaded(url: str, folder: Path, *frames: bytes) -> None:
    """Write frames to a tape as the recorder does, and load it."""
    opening = b'{"received_at_ns":%d,"connection":%d,"frame":'
    head = opening % (builders.START_NS, builders.CONNECTION)
    write(folder, [head + frame + b"}\n" for frame in frames])
    load(url, folder)


def frame(message: dict) -> bytes:
    return json.dumps(message).encode()


async def test_what_a_loader_loads_is_told_by_channel(anonymous, database, tmp_path):
    trades = [frame(builders.trade(number)) for number in (1, 2, 3)]
    trades.append(frame(builders.trade(4, yes_price_dollars="dear")))
    loaded(database, tmp_path, frame(builders.subscribed()), *trades)
    lease = Lease(database, LOADER)
    assert lease.acquire()
    found = await families(anonymous)
    lease.release()
    trade_of_ws = (("channel", "trade"), ("source", "ws"))
    assert values(found, "ingestion_messages_total")[trade_of_ws] == 3
    assert values(found, "ingestion_rejected_total")[trade_of_ws] == 1
    sent = sum(map(len, trades))
    assert values(found, "ingestion_message_bytes_total")[trade_of_ws] == sent
    assert values(found, "ingestion_loaded_lag_seconds").keys() == {trade_of_ws}
    most = values(found, "ingestion_loaded_lag_max_seconds")
    last = values(found, "ingestion_loaded_lag_seconds")
    assert most[trade_of_ws] >= last[trade_of_ws]
    assert values(found, "ingestion_tape_backlog_bytes")[()] == 0
    assert values(found, "ingestion_tape_backlog_seconds")[()] == 0
    assert values(found, "ingestion_batch_rows_count")[()] == 1
    assert values(found, "ingestion_batch_rows_sum")[()] == 4
    buckets = values(found, "ingestion_batch_rows_bucket")
    assert list(buckets.values()) == [1] * (len(ROWS) + 1)
    assert (("le", "+Inf"),) in buckets
    assert values(found, "ingestion_gaps_detected_total")[trade_of_ws] == 1


async def test_bytes_are_those_received_however_the_frames_are_mixed(anonymous, database, tmp_path):
    trades = [frame(builders.trade(number)) for number in range(1, 40)]
    changes = [frame(builders.lifecycle(number)) for number in range(1, 9)]
    opening = [frame(builders.subscribed()), frame(builders.subscribed("market_lifecycle_v2", 3))]
    head = b'{"received_at_ns":%d,"connection":%d,"frame":'
    head %= (builders.START_NS, builders.CONNECTION)
    blocks = [opening, trades[:20], [*trades[20:], *changes[:4], b"17"], changes[4:]]
    write(tmp_path, *([head + one + b"}\n" for one in block] for block in blocks))
    load(database, tmp_path)
    sizes = values(await families(anonymous), "ingestion_message_bytes_total")
    assert {dict(labels)["channel"]: size for labels, size in sizes.items()} == {
        "trade": sum(map(len, trades)),
        "market_lifecycle_v2": sum(map(len, changes)),
        "other": sum(map(len, opening)) + len(b"17"),
    }


async def test_counters_go_on_where_the_loader_before_left_them(anonymous, database, tmp_path):
    for number in (1, 2, 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        loaded(database, folder, frame(builders.subscribed()), frame(builders.trade(number)))
        with connect(database) as connection:
            connection.execute("DELETE FROM ingestion_checkpoints")
    found = await families(anonymous)
    messages = values(found, "ingestion_messages_total")
    assert messages[(("channel", "trade"), ("source", "ws"))] == 3
    assert values(found, "ingestion_batch_seconds_count")[()] == 3


async def test_open_gaps_are_told_by_channel_with_the_age_of_the_oldest(anonymous, database):
    with open_gap(database, at("10:00:00"), at("10:01:00")):
        found = await families(anonymous)
    assert values(found, "ingestion_open_gaps")[()] == 1
    assert values(found, "ingestion_channel_open_gaps") == {
        (("channel", "ticker"),): 0,
        (("channel", "trade"),): 1,
    }
    assert values(found, "ingestion_oldest_open_gap_seconds")[()] >= 0


async def test_the_budget_of_rest_is_what_is_left_of_it(anonymous, database):
    budget = PostgresBudget(database, 200)
    budget.reserve(1_000)
    found = await families(anonymous)
    budget.close()
    rate = values(found, "rest_budget_tokens_per_second")[()]
    assert rate == 160
    # Reserved ahead; refilled since at that rate.
    left = values(found, "rest_budget_tokens")[()]
    assert -1_000 <= left < values(found, "rest_budget_capacity_tokens")[()]


async def test_refusals_of_rest_are_added_up(anonymous, database):
    for endpoint, outcome, number in (
        ("/markets", "200", 7),
        ("/markets", "429", 2),
        ("/historical/trades", "429", 1),
    ):
        labels = f'endpoint="{endpoint}",outcome="{outcome}"'
        told(database, "rest_requests_total", labels, float(number))
    found = await families(anonymous)
    assert values(found, "rest_rate_limited_total")[()] == 3
    asked = values(found, "rest_requests_total")
    assert asked[(("endpoint", "/markets"), ("outcome", "200"))] == 7


async def test_tables_have_their_age_and_limit(anonymous, database):
    received(database, "raw_trades", age=5)
    found = await families(anonymous)
    assert 5 <= values(found, "table_age_seconds")[(("table", "raw_trades"),)] < 60
    assert values(found, "table_age_limit_seconds")[(("table", "raw_trades"),)] == 60
    assert (("table", "quotes"),) not in values(found, "table_age_seconds")


@pytest.mark.parametrize("channel", ['evil",x="1', "a\nb", "größe", "x" * 500])
async def test_a_channel_that_the_wire_makes_up_spoils_no_line(
    anonymous, database, tmp_path, channel
):
    message = frame(builders.subscribed(channel=channel))
    loaded(database, tmp_path, message, frame(builders.lifecycle(1, sid=1)))
    labels = values(await families(anonymous), "ingestion_messages_total")
    assert labels
    assert all(len(value) < 70 for pairs in labels for _, value in pairs)
