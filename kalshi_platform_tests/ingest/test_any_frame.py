"""Whatever the exchange sends, the loader goes on, and every line is loaded or refused."""

import json
import random
from datetime import datetime

import pytest

from kalshi_platform.exchange.connection import Connection
from kalshi_platform.ingest.batch import Batch
from kalshi_platform.ingest.feed import FeedState
from kalshi_platform.ingest.recorder import Recorder
from kalshi_platform.ingest.tape import Block, Position, TapeWriter, read_tape
from kalshi_platform_tests.ingest.book_lines import delta, snapshot
from kalshi_platform_tests.ingest.builders import (
    CONNECTION,
    START_NS,
    lifecycle,
    line,
    subscribed,
    trade,
)
from kalshi_platform_tests.ingest.test_loader import load, rows

ABSURD = (
    -1, 0, 1 << 31, 1 << 32, 1 << 53, 1 << 63, 1 << 64, 10**40, 1.5, 1e300, True, None, "", "\0",
    "a\0b", "x" * 5000, "é", "🙂", "\u2028", [], {}, CONNECTION, CONNECTION * 10**6,
    CONNECTION * 10**9, "1e5", "٣.٠٠", "9" * 5000,
)  # fmt: skip
JUNK = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\n", b"\r", b"\r\n", b"\t", b'"', b"}", b"[", b",", b"\\",
    b"\\u0000", b"\\ud800", b"9" * 5000, b"\xc3", b"\xe2\x80\xa8",
)  # fmt: skip


def ticker_frame(sid=2):
    message = {"market_ticker": "KXTEST-26OCT01-T1", "ts_ms": CONNECTION * 1000}
    message |= dict.fromkeys(("price_dollars", "yes_bid_dollars", "yes_ask_dollars"), "0.5000")
    for name in ("yes_bid_size", "yes_ask_size", "last_trade_size", "volume", "open_interest"):
        message[f"{name}_fp"] = "1.00"
    message |= {"dollar_volume": 1, "dollar_open_interest": 1}
    return {"type": "ticker", "sid": sid, "msg": message}


_TABLES = {
    "trade": "raw_trades",
    "quote": "quotes",
    "lifecycle": "lifecycle_events",
    "delta": "book_deltas",
    "snapshot": "book_snapshots",
}


class Tape:
    """A recorder's lines, taken from a connection's hands as a stream would give them."""

    def __init__(self, folder):
        self.recorder = Recorder(
            database_url="postgresql://nobody@127.0.0.1:1/none",
            tape_folder=folder,
            ws_url="ws://127.0.0.1:1/",
            signer=None,
            flush_seconds=1,
            segment_seconds=300,
            silence_seconds=60,
        )
        self.connection = Connection(None, CONNECTION, ("trade",), self.recorder, 60)

    def take(self, *frames: object) -> None:
        for frame in frames:
            data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
            self.connection._take(START_NS, data)

    def lines(self) -> bytes:
        return b"".join(self.recorder._take_lines())


def mutated(rng: random.Random) -> bytes:
    """A valid frame with something wrong in its values, its bytes, or both."""
    frame = rng.choice(
        [
            trade(rng.randrange(1, 50), sending_ts_ms=1),
            lifecycle(rng.randrange(1, 50)),
            ticker_frame(),
            delta(rng.randrange(1, 50), sid=4),
            snapshot(rng.randrange(1, 50), sid=4, yes=[["0.3000", "5.00"]]),
            subscribed(rng.choice(["trade", "ticker"]), rng.randrange(4)),
            {"type": "ok", "id": 1, "sid": 1, "seq": rng.randrange(50)},
            {"type": "unsubscribed", "id": 1, "sid": 1, "seq": rng.randrange(50)},
            {"type": "error", "id": 1, "sid": 1, "seq": 4, "msg": {"code": 10, "msg": "gone"}},
        ]
    )
    frame["sending_ts_ms"] = CONNECTION * 1000
    for _ in range(rng.randrange(3)):
        place = rng.choice([frame, frame.get("msg", frame)])
        if not isinstance(place, dict) or not place:
            continue
        name = rng.choice([*place, "unheard of", "title\0"])
        if rng.random() < 0.2:
            place.pop(name, None)
        else:
            place[name] = rng.choice(ABSURD)
    data = json.dumps(frame, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randrange(len(data) + 1)
        cut = rng.choice([0, 0, 1, 30])
        data = data[:at] + rng.choice([b"", *JUNK]) + data[at + cut :]
    return data


def nested(depth: int) -> bytes:
    return b'{"type":"market_lifecycle_v2","sid":3,"seq":1,"msg":{"x":%b}}' % (
        b"[" * depth + b"]" * depth
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_frame_stops_the_loader_and_none_is_lost_from_sight(database, tmp_path, seed):
    rng = random.Random(seed)
    tape = Tape(tmp_path)
    writer = TapeWriter(tmp_path, 300)
    for block in range(25):
        frames: list[object] = [mutated(rng) for _ in range(40)]
        frames += [rng.randbytes(rng.randrange(200)) for _ in range(3)]
        frames += [nested(rng.choice([10, 900, 100_000])) for _ in range(rng.randrange(2))]
        known = [subscribed("trade", 1), subscribed("market_lifecycle_v2", 3)]
        known.append(subscribed("orderbook_delta", 4))
        tape.take(*known, *frames)
        lines = tape.lines()
        assert lines.count(b"\n") == len(frames) + len(known)
        if block % 5 == 4:
            # A tape written by an older recorder may hold anything.
            old = [mutated(rng).replace(b"\n", b"") for _ in range(25)]
            lines += b"".join(frame + b"\n" for frame in old[:5])
            lines += b"".join(raw_line(frame) for frame in old[5:])
        writer.write(lines)
    writer.close()
    load(database, tmp_path)
    load(database, tmp_path)
    read = list(read_tape(tmp_path))
    _, fates = one_by_one(*(one + b"\n" for one in read))
    assert {fate: fates.count(fate) for fate in _TABLES} == {
        fate: rows(database, f"SELECT count(*) FROM {table}")[0][0]
        for fate, table in _TABLES.items()
    }
    [(refused,)] = rows(database, "SELECT count(*) FROM rejected_messages")
    assert refused == fates.count("refused") > 100
    by_channel = "SELECT sum(value) FROM ingestion_metrics WHERE name = 'rejected_total'"
    assert rows(database, by_channel) == [(refused,)]
    for one, fate in zip(read, fates, strict=True):
        if fate == "":
            # Replies leave no row, and neither does a lifecycle message that is repeated, or a
            # book's that is repeated or overtaken.
            kind = json.loads(one.decode(errors="replace"), parse_int=str)["frame"]["type"]
            assert kind in {
                "subscribed", "ok", "unsubscribed", "error",
                "market_lifecycle_v2", "orderbook_delta", "orderbook_snapshot",
            }  # fmt: skip


def one_by_one(*lines: bytes) -> tuple[Batch, list[str]]:
    """What became of each line, read in blocks of its own."""
    batch = Batch(FeedState(), set(), datetime.fromisoformat("2026-10-01T00:00:00+00:00"))
    fates = []
    for number, data in enumerate(lines):
        before = counts(batch)
        batch.read(Block(Position(1, number), Position(1, number + 1), data))
        fates.append("+".join(name for name, now in counts(batch).items() if now > before[name]))
    return batch, fates


def counts(batch: Batch) -> dict[str, int]:
    return {
        "trade": len(batch.trades),
        "lifecycle": len(batch.lifecycle),
        "quote": len(batch.quotes),
        "delta": len(batch.books.deltas),
        "snapshot": len(batch.books.snapshots),
        "refused": len(batch.rejected),
    }


def raw_line(frame: bytes) -> bytes:
    return line({"type": "X"}).replace(b'{"type": "X"}', frame)


def test_bytes_that_are_no_utf_8_are_refused_where_they_are_and_nowhere_else(tmp_path):
    bad = json.dumps(trade(2)).encode().replace(b"yes", b"y\xffs")
    batch, fates = one_by_one(line(subscribed()), raw_line(bad) + line(trade(1)))
    assert fates == ["", "trade+refused"]
    assert batch.rejected[0].message == bad
    tape = Tape(tmp_path)
    tape.take(bad, bad.replace(b'"trade"', b'"tra\xffde"'))
    first, second = tape.lines().splitlines()
    assert "\\xff" in json.loads(first)["text"]
    assert "\\xff" in json.loads(second)["text"]


def test_a_reply_that_cannot_be_read_is_passed_over(tmp_path):
    tape = Tape(tmp_path)
    tape.take(
        b'{"type":"error","msg":{"code":10,"msg":"\xff"}}',
        {"type": "error", "msg": {"code": 1 << 70}},
        b'{"type":"subscribed","msg":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    )
    assert tape.lines().count(b"\n") == 3


@pytest.mark.parametrize("unit", [1, 10**6, 10**9, 10**30])
def test_a_sending_time_in_another_unit_is_not_believed(unit):
    at = {"sending_ts_ms": CONNECTION * unit}
    batch, fates = one_by_one(
        line(subscribed()),
        line(subscribed("market_lifecycle_v2", 3)),
        line(trade(1) | at),
        line(lifecycle(1) | at),
        line(lifecycle(2, event_type=5) | at),
        line(subscribed() | at, connection=CONNECTION + 100, at_ms=100_000),
    )
    assert fates == ["", "", "trade", "lifecycle", "refused", ""]
    assert batch.lifecycle[0].sent_at is None
    *_, outage = batch.gaps
    assert outage.channel == "trade"
    assert (outage.ends_at - outage.starts_at).total_seconds() == pytest.approx(100, abs=0.01)


def test_a_number_that_no_integer_of_the_database_holds_is_not_kept():
    batch, fates = one_by_one(line(subscribed()), line(trade(1 << 63)), line(trade(1, count_fp=5)))
    assert fates == ["", "refused", "refused"]
    assert all(gap.last_seq is None for gap in batch.gaps)


def test_a_zero_character_in_a_reason_or_a_cause_reaches_the_tables_as_an_escape(
    database, tmp_path
):
    tape = Tape(tmp_path)
    tape.take(subscribed(), trade(1), {"type": "a\0b"}, trade(2, market_ticker="a\0b"))
    tape.recorder.event(CONNECTION, "close", cause="closed: \0 \ud800")
    tape.connection._number += 1
    tape.take(subscribed(), {"type": "trade", "sid": 1, "seq": 1, "msg": {"yes\0": 0}})
    writer = TapeWriter(tmp_path, 300)
    old = {"received_at_ns": START_NS, "connection": CONNECTION + 1, "event": "close"}
    writer.write(tape.lines() + json.dumps(old | {"cause": "old \0"}).encode() + b"\n")
    writer.close()
    load(database, tmp_path)
    reasons = [reason for (reason,) in rows(database, "SELECT reason FROM rejected_messages")]
    assert len(reasons) == 3
    assert any("a\\x00b" in reason for reason in reasons)
    causes = {cause for (cause,) in rows(database, "SELECT cause FROM gaps")}
    assert "disconnect: closed: \\x00 \\ud800" in causes
    [(position,)] = rows(database, "SELECT position FROM ingestion_checkpoints")
    assert position["feed"]["cause"] == "disconnect: old \\x00"


def test_a_line_that_says_nothing_is_refused():
    nothing = b'{"received_at_ns":%d,"connection":1}\n' % START_NS
    assert one_by_one(nothing, b"\n", b"{}\n", nothing.replace(b":1}", b":1} 5"))[1] == [
        "refused",
        "",
        "refused",
        "refused",
    ]


def test_a_carriage_return_ends_no_line():
    spaced = json.dumps(trade(2, price="x")).encode().replace(b", ", b",\r")
    broken = raw_line(json.dumps(trade(3, count_fp=5)).encode().replace(b", ", b",\r"))
    batch, fates = one_by_one(
        line(subscribed()) + raw_line(json.dumps(trade(1)).encode().replace(b", ", b",\r")),
        raw_line(spaced) + broken + line(trade(4)),
        raw_line(json.dumps(trade(5, trade_id="none")).encode().replace(b", ", b",\r")),
    )
    assert fates == ["trade", "trade+refused", "refused"]
    assert [json.loads(row.message)["seq"] for row in batch.rejected] == [3, 5]


def test_the_recorder_puts_a_frame_on_one_line(tmp_path):
    tape = Tape(tmp_path)
    tape.take(json.dumps(trade(1), indent=1).encode(), b'{"type":"a",\r"b":1}')
    lines = tape.lines().splitlines()
    assert [json.loads(one)["frame"]["type"] for one in lines] == ["trade", "a"]
