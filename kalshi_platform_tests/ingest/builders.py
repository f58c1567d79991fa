"""Lines of a tape, made by hand: one valid thing each; a test names only what it is about."""

import json
import uuid

CONNECTION = 1_790_000_000
START_NS = CONNECTION * 1_000_000_000


def line(frame, connection=CONNECTION, at_ms=0):
    received = START_NS + at_ms * 1_000_000
    text = json.dumps({"received_at_ns": received, "connection": connection, "frame": frame})
    return text.encode() + b"\n"


def text_line(text, connection=CONNECTION):
    return (
        json.dumps({"received_at_ns": START_NS, "connection": connection, "text": text}).encode()
        + b"\n"
    )


def event_line(event, connection=CONNECTION, **fields):
    return (
        json.dumps(
            {"received_at_ns": START_NS, "connection": connection, "event": event, **fields}
        ).encode()
        + b"\n"
    )


def subscribed(channel="trade", sid=1):
    return {"type": "subscribed", "id": 1, "msg": {"channel": channel, "sid": sid}}


def trade_id(number):
    return str(uuid.UUID(int=number))


def trade(seq, *, number=None, sid=1, **changes):
    message = {
        "trade_id": trade_id(seq if number is None else number),
        "market_ticker": "KXTEST-26OCT01-T1",
        "yes_price_dollars": "0.3600",
        "no_price_dollars": "0.6400",
        "count_fp": "1.50",
        "taker_outcome_side": "yes",
        "taker_book_side": "bid",
        "is_block_trade": False,
        "ts_ms": CONNECTION * 1000 + seq,
    } | changes
    return {"type": "trade", "sid": sid, "seq": seq, "msg": message}


def lifecycle(seq, *, sid=3, **changes):
    message = {"market_ticker": "KXTEST-26OCT01-T1", "event_type": "deactivated"} | changes
    return {"type": "market_lifecycle_v2", "sid": sid, "seq": seq, "msg": message}
