"""A recording served by the simulator is recorded frame for frame, and so is our own tape of it."""

import json
import random

from kalshi_platform.ingest.tape import TapeWriter, read_tape
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.journeys.recording import recording
from kalshi_platform_tests.waiting import until as wait_until
from kalshi_simulator.testing import running_replay


def ticker(rng, number):
    """A ticker frame with sub-cent prices and fractional counts, unevenly spaced as JSON allows."""
    bid = rng.randrange(0, 9000)
    message = {
        "market_ticker": f"KXREPLAY-26OCT01-T{rng.randrange(3)}.5",
        "market_id": "a373a895-ee9c-4c56-b446-3ffb30993cd7",
        "price_dollars": f"0.{rng.randrange(1, 9999):04d}",
        "yes_bid_dollars": f"0.{bid:04d}",
        "yes_ask_dollars": f"0.{bid + 7:04d}",
        "volume_fp": f"{rng.randrange(10**6)}.{rng.randrange(100):02d}",
        "open_interest_fp": "119951.86",
        "dollar_volume": 312751,
        "dollar_open_interest": 59975,
        "yes_bid_size_fp": "1372.54",
        "yes_ask_size_fp": "94.09",
        "last_trade_size_fp": "15.00",
        "ts_ms": 1790000000000 + number,
    }
    separators = rng.choice([(",", ":"), (", ", ": ")])
    return json.dumps({"type": "ticker", "sid": 1, "msg": message}, separators=separators)


def make_recording(path, seed=7, count=400):
    """Two connections, each with its subscription; returns the frames as text."""
    rng = random.Random(seed)
    frames = []
    with path.open("w") as file:
        for connection in (1, 2):
            subscribed = '{"id":9,"msg":{"channel":"ticker","sid":1},"type":"subscribed"}'
            chosen = [subscribed, *(ticker(rng, n) for n in range(count))]
            for frame in chosen:
                file.write(
                    f'{{"received_at_ns":17900000{connection:02d}000000000,'
                    f'"connection":{connection},"frame":{frame}}}\n'
                )
            frames += chosen
    return frames


def frames_of(folder):
    return [
        line.split(b'"frame":', 1)[1][:-1].decode()
        for line in read_tape(folder)
        if b',"frame":' in line
    ]


def record_replay(database, tape, source):
    with running_replay(source, speed=0) as simulator, recording(database, tape, simulator):
        wait_until(lambda: simulator.replay()["done"], seconds=30)
        total = simulator.replay()["total"]
        wait_until(lambda: len(frames_of(tape)) == total, seconds=30)
    return frames_of(tape)


def test_a_recording_is_recorded_frame_for_frame_with_exact_numbers(database, tmp_path):
    source = tmp_path / "recording.ndjson"
    frames = make_recording(source)
    assert record_replay(database, tmp_path / "tape", source) == frames
    messages = [json.loads(frame)["msg"] for frame in frames if '"ticker",' in frame[:20]]
    with connect(database) as connection:
        quotes = connection.execute(
            "SELECT yes_bid_micros, volume_centis FROM quotes ORDER BY feed_order"
        ).fetchall()
        assert connection.execute("SELECT count(*) FROM rejected_messages").fetchone() == (0,)
        gaps = connection.execute("SELECT channel, status FROM gaps").fetchall()
    assert quotes == [
        (
            int(message["yes_bid_dollars"].replace("0.", "", 1)) * 100,
            int(message["volume_fp"].replace(".", "")),
        )
        for message in messages
    ]
    # The only gap is the reconnect that the recording itself holds.
    assert gaps == [("ticker", "explained")]


def test_our_own_tape_can_be_replayed(database, tmp_path):
    source = tmp_path / "recording.ndjson"
    frames = make_recording(source, count=50)
    tape = tmp_path / "first" / "tape"
    writer = TapeWriter(tape, 300)
    writer.write(b'{"received_at_ns":1,"connection":1,"event":"open"}\n')
    writer.write(source.read_bytes())
    writer.close()
    [segment] = tape.glob("*.zst")
    assert record_replay(database, tmp_path / "second", segment) == frames
