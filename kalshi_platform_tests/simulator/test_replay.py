"""Replay: the recorded frames, byte for byte, in their connections and at their pace."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from websockets.exceptions import ConnectionClosed

from kalshi_platform_tests.simulator.talking import Talk
from kalshi_simulator.recording import RecordingError, count_frames, frames_of
from kalshi_simulator.testing import RunningSimulator, running_replay

SUBSCRIBED = '{"id":9,"type":"subscribed","msg":{"channel":"trade","sid":4}}'


def trade(seq: int) -> str:
    # Blanks and the order of keys must survive.
    return f'{{"type":"trade","sid":4, "seq":{seq},"msg":{{"yes_price_dollars":"0.3600"}}}}'


def book_frame(seq: int) -> str:
    kind = "orderbook_snapshot" if seq == 1 else "orderbook_delta"
    return f'{{"type":"{kind}","sid":4,"seq":{seq},"msg":{{"market_ticker":"KXREPLAY-A"}}}}'


def line(frame: str, at_ns: int = 0, **more: Any) -> str:
    extra = "".join(f'"{name}":{json.dumps(value)},' for name, value in more.items())
    return f'{{{extra}"received_at_ns":{at_ns},"frame":{frame}}}\n'


def recording(folder: Path, *lines: str, suffix: str = "") -> Path:
    path = folder / f"recording.ndjson{suffix}"
    data = "".join(lines).encode()
    if suffix == ".gz":
        data = gzip.compress(data)
    elif suffix == ".zst":
        # Two frames, as a tape has many.
        packer = zstandard.ZstdCompressor()
        data = packer.compress(data[:100]) + packer.compress(data[100:])
    path.write_bytes(data)
    return path


async def played(simulator: RunningSimulator) -> list[list[str]]:
    """What comes over each connection until every frame has come."""
    connections: list[list[str]] = []
    total = simulator.replay()["total"]
    while sum(map(len, connections)) < total:
        async with Talk(simulator) as talk:
            await talk.subscribe("trade")
            connections.append(talk.texts)
            try:
                while sum(map(len, connections)) < total:
                    await talk.receive()
            except ConnectionClosed:
                continue
    assert simulator.replay()["done"]
    return connections


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
async def test_every_frame_comes_as_recorded(tmp_path: Path, suffix: str):
    frames = [SUBSCRIBED, *(trade(seq) for seq in range(1, 300))]
    path = recording(tmp_path, *map(line, frames), suffix=suffix)
    with running_replay(path, speed=0) as simulator:
        assert simulator.replay() == {"sent": 0, "total": 300, "done": False, "connections": 0}
        assert await played(simulator) == [frames]
        assert simulator.replay()["sent"] == 300
        assert httpx.get(simulator.rest_url + "/markets/trades").json() == {
            "trades": [],
            "cursor": "",
        }


async def test_a_new_connection_in_the_recording_is_one_in_the_replay(tmp_path: Path):
    first, second = [SUBSCRIBED, trade(1), trade(2)], [SUBSCRIBED, trade(1)]
    path = recording(tmp_path, *map(line, first + second))
    with running_replay(path, speed=0) as simulator:
        assert await played(simulator) == [first, second]


async def test_a_tape_names_its_connections_and_holds_events_and_broken_frames(tmp_path: Path):
    path = recording(
        tmp_path,
        '{"received_at_ns":1,"connection":3,"event":{"kind":"open"}}\n',
        line(SUBSCRIBED, connection=3),
        '{"received_at_ns":2,"connection":3,"text":"{\\"cut"}\n',
        '{"received_at_ns":2,"connection":3,"event":"close"}\n',
        line(trade(2), connection=4),
    )
    with running_replay(path, speed=0) as simulator:
        assert await played(simulator) == [[SUBSCRIBED, '{"cut'], [trade(2)]]


async def test_commands_about_books_get_no_replies_and_disturb_nothing(tmp_path: Path):
    """Two connections of a recording with books; the client commands all the while."""
    chosen = '{"id":9,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":4}}'
    parts = [
        [chosen, *(book_frame(seq) for seq in range(1, 400))],
        [chosen, *(book_frame(seq) for seq in range(1, 200))],
    ]
    path = recording(tmp_path, *map(line, parts[0] + parts[1]))
    heard: list[list[str]] = []
    with running_replay(path, speed=0) as simulator:
        for _ in parts:
            async with Talk(simulator) as talk:
                heard.append(talk.texts)
                await talk.subscribe("trade", "ticker")
                await talk.subscribe("orderbook_delta", market_tickers=["KXREPLAY-A"])
                try:
                    while sum(map(len, heard)) < simulator.replay()["total"]:
                        await talk.receive()
                        for action in ("get_snapshot", "add_markets", "delete_markets"):
                            await talk.send(
                                "update_subscription",
                                sids=[4],
                                action=action,
                                market_tickers=["KXREPLAY-A"],
                            )
                        await talk.send("unsubscribe", sids=[4])
                        await talk.socket.send("{")
                except ConnectionClosed:
                    # The next one takes up the rest; what had been sent has come.
                    while True:
                        try:
                            await talk.receive()
                        except ConnectionClosed:
                            break
        assert heard == parts
        assert simulator.replay()["done"]
        async with Talk(simulator) as talk:
            await talk.subscribe("orderbook_delta", market_tickers=["KXREPLAY-A"])
            await (await talk.socket.ping())


async def test_the_pace_is_the_recorded_one_times_the_speed(tmp_path: Path):
    frames = [line(SUBSCRIBED), line(trade(1), 2_000_000_000), line(trade(2), 8_000_000_000)]
    with running_replay(recording(tmp_path, *frames), speed=10) as simulator:
        begun = time.monotonic()
        await played(simulator)
        assert 0.75 < time.monotonic() - begun < 5


async def test_nothing_is_sent_before_a_subscribe(tmp_path: Path):
    with running_replay(recording(tmp_path, line(SUBSCRIBED)), speed=0) as simulator:
        async with Talk(simulator) as talk:
            await talk.send("list_subscriptions")
            with pytest.raises(TimeoutError):
                await talk.receive(0.3)
            await talk.subscribe("trade")
            assert await talk.receive() == json.loads(SUBSCRIBED)


@pytest.mark.parametrize("broken", ["{", '{"received_at_ns":1}', '{"frame":{"a":1}'])
def test_a_broken_line_is_named(tmp_path: Path, broken: str):
    path = recording(tmp_path, line(SUBSCRIBED), broken + "\n")
    with pytest.raises(RecordingError, match="line 2"):
        count_frames(path)


def test_a_file_cut_short_is_an_error(tmp_path: Path):
    path = recording(tmp_path, *(line(trade(seq)) for seq in range(1, 2_000)), suffix=".gz")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(RecordingError):
        list(frames_of(path))
