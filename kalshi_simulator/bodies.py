"""Messages as bytes, made once however many clients hear them (protocol sections 2.5 and 3.3)."""

from __future__ import annotations

from kalshi_simulator.figures import SECOND_US, dollars, fixed_point, stamp
from kalshi_simulator.generation import BLOCK_TRADE, TAKER_YES

_SIDES = (
    '"taker_side":"no","taker_outcome_side":"no","taker_book_side":"ask"',
    '"taker_side":"yes","taker_outcome_side":"yes","taker_book_side":"bid"',
)


def trade_message(
    trade_id: str, ticker: str, price_e4: int, centis: int, flags: int, us: int
) -> bytes:
    """`msg` of the trade channel: milliseconds only."""
    block = "true" if flags & BLOCK_TRADE else "false"
    return (
        f'{{"trade_id":"{trade_id}","market_ticker":"{ticker}",'
        f'"yes_price_dollars":"{dollars(price_e4)}",'
        f'"no_price_dollars":"{dollars(10_000 - price_e4)}",'
        f'"count_fp":"{fixed_point(centis)}",{_SIDES[flags & TAKER_YES]},'
        f'"is_block_trade":{block},"ts":{us // SECOND_US},"ts_ms":{us // 1_000}}}'
    ).encode()


def trade_record(
    trade_id: str, ticker: str, price_e4: int, centis: int, flags: int, us: int
) -> str:
    """A trade as REST lists it: microseconds, zeros at the end cut."""
    block = "true" if flags & BLOCK_TRADE else "false"
    return (
        f'{{"trade_id":"{trade_id}","ticker":"{ticker}","count_fp":"{fixed_point(centis)}",'
        f'"yes_price_dollars":"{dollars(price_e4)}",'
        f'"no_price_dollars":"{dollars(10_000 - price_e4)}",'
        f'{_SIDES[flags & TAKER_YES]},"created_time":"{stamp(us)}","is_block_trade":{block}}}'
    )


def ticker_message(
    ticker: str,
    market_id: str,
    *,
    last_e4: int,
    last_centis: int,
    bid_e4: int,
    ask_e4: int,
    bid_centis: int,
    ask_centis: int,
    volume_centis: int,
    interest_centis: int,
    us: int,
) -> bytes:
    """`msg` of the ticker channel; dollar volumes are whole dollars of one dollar a contract."""
    return (
        f'{{"market_ticker":"{ticker}","market_id":"{market_id}",'
        f'"price_dollars":"{dollars(last_e4)}","yes_bid_dollars":"{dollars(bid_e4)}",'
        f'"yes_ask_dollars":"{dollars(ask_e4)}","volume_fp":"{fixed_point(volume_centis)}",'
        f'"open_interest_fp":"{fixed_point(interest_centis)}",'
        f'"dollar_volume":{volume_centis // 200},"dollar_open_interest":{interest_centis // 200},'
        f'"yes_bid_size_fp":"{fixed_point(bid_centis)}","yes_ask_size_fp":"{fixed_point(ask_centis)}",'
        f'"last_trade_size_fp":"{fixed_point(last_centis)}",'
        f'"ts":{us // SECOND_US},"ts_ms":{us // 1_000},"time":"{stamp(us)}"}}'
    ).encode()


def delta_head(ticker: str, market_id: str) -> str:
    """How `msg` of every orderbook_delta of a market begins."""
    return f'{{"market_ticker":"{ticker}","market_id":"{market_id}","price_dollars":"'


def delta_tail(us: int) -> str:
    """How `msg` of every orderbook_delta of an instant ends."""
    return f'","ts":"{stamp(us)}","ts_ms":{us // 1_000}}}'


def delta_message(head: str, side: str, price_e4: int, delta_centis: int, tail: str) -> bytes:
    """`msg` of orderbook_delta between a head and a tail."""
    return (
        f'{head}{dollars(price_e4)}","delta_fp":"{fixed_point(delta_centis)}","side":"{side}{tail}'
    ).encode()


def snapshot_message(
    ticker: str, market_id: str, yes: dict[int, int], no: dict[int, int], yes_price: bool
) -> bytes:
    """`msg` of orderbook_snapshot; a side without orders has no key."""
    parts = [f'"market_ticker":"{ticker}","market_id":"{market_id}"']
    if yes:
        parts.append(f'"yes_dollars_fp":{_levels(yes)}')
    if no:
        shown = {10_000 - e4: centis for e4, centis in no.items()} if yes_price else no
        parts.append(f'"no_dollars_fp":{_levels(shown)}')
    return ("{" + ",".join(parts) + "}").encode()


def _levels(side: dict[int, int]) -> str:
    levels = (f'["{dollars(e4)}","{fixed_point(side[e4])}"]' for e4 in sorted(side))
    return "[" + ",".join(levels) + "]"
