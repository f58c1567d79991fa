"""Lines of a tape that tell of order books, and what the database makes of them."""

from datetime import UTC, datetime

from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.ingest.builders import CONNECTION, event_line, line, subscribed
from kalshi_platform_tests.transform.book_rows import book

MARKET = "KXTEST-26OCT01-T1"
OTHER = "KXTEST-26OCT01-T2"
SID = 2
START_MS = CONNECTION * 1000


def instant(at_ms):
    """The instant so many milliseconds after the connection was opened."""
    return datetime.fromtimestamp((START_MS + at_ms) / 1000, UTC)


def ms(moment):
    """Milliseconds since the connection was opened; None stays None."""
    return None if moment is None else round(moment.timestamp() * 1000) - START_MS


def snapshot(seq, *, at_ms=0, market=MARKET, sid=SID, **sides):
    """A snapshot; sides as [[price, count] …] under `yes` and `no`, left out where empty."""
    message = {"market_ticker": market, "market_id": "00000000-0000-0000-0000-000000000000"}
    for side, levels in sides.items():
        if levels:
            message[f"{side}_dollars_fp"] = levels
    sent = {"sending_ts_ms": START_MS + at_ms}
    return {"type": "orderbook_snapshot", "sid": sid, "seq": seq, "msg": message} | sent


def delta(seq, *, at_ms=0, market=MARKET, sid=SID, **changes):
    message = {
        "market_ticker": market,
        "market_id": "00000000-0000-0000-0000-000000000000",
        "price_dollars": "0.3000",
        "delta_fp": "1.00",
        "side": "yes",
        "ts_ms": START_MS + at_ms,
    } | changes
    message = {name: value for name, value in message.items() if value is not None}
    sent = {"sending_ts_ms": START_MS + at_ms}
    return {"type": "orderbook_delta", "sid": sid, "seq": seq, "msg": message} | sent


def opening(sid=SID, connection=CONNECTION, at_ms=0, use_yes_price=0):
    """A connection is opened and its books are subscribed."""
    sent = {"sending_ts_ms": START_MS + at_ms}
    return [
        event_line("open", connection),
        subscribe_line(connection, use_yes_price),
        line(subscribed("orderbook_delta", sid) | sent, connection, at_ms),
    ]


def subscribe_line(connection=CONNECTION, use_yes_price=0, cause=""):
    return event_line(
        "subscribe",
        connection,
        channel="orderbook_delta",
        cause=cause,
        use_yes_price=use_yes_price,
    )


def lines(*frames, connection=CONNECTION, at_ms=0):
    return [line(frame, connection, at_ms) for frame in frames]


def reply(kind, seq, *, at_ms=0, sid=SID, **fields):
    sent = {"sending_ts_ms": START_MS + at_ms}
    return {"type": kind, "id": 9, "sid": sid, "seq": seq} | fields | sent


def watches(database, market=MARKET):
    """(start, end, cause) of each watch of a market, in ms since the connection was opened."""
    with connect(database) as connection:
        rows = connection.execute(
            "SELECT starts_at, ends_at, ended_by FROM book_watches WHERE market_ticker = %s"
            " ORDER BY watch_id",
            [market],
        ).fetchall()
    return [(ms(starts_at), ms(ends_at), ended_by) for starts_at, ends_at, ended_by in rows]


def book_at(database, at_ms, market=MARKET):
    """Both sides as contracts (centis) by price (micros); None where nothing is known."""
    with connect(database) as connection:
        return book(connection, instant(at_ms), market)
