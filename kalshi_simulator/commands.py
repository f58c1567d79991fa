"""What clients may ask over the socket, and the answers (protocol sections 2.2 to 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from kalshi_simulator.subscriptions import (
    BOOK,
    CHANNELS,
    SNAPSHOT,
    TICKER,
    UNFILTERED,
    Client,
    Subscription,
    data_frame,
    error_frame,
    reply_frame,
)

_ACTIONS = ("add_markets", "delete_markets", "get_snapshot")


class Source(Protocol):
    """Where answers get data from."""

    def catch_up(self) -> None: ...

    def now_ms(self) -> int: ...

    def ticker_of_id(self, market_id: str) -> str | None: ...

    def is_known(self, ticker: str) -> bool: ...

    def snapshots(self, tickers: Iterable[str], use_yes_price: bool) -> list[bytes]: ...

    def tickers(self, wanted: Iterable[str] | None) -> list[bytes]: ...


def answers(client: Client, text: str | bytes, source: Source) -> list[tuple[bytes, str]]:
    """Carry out one command; frames to send, each with its type, in order."""
    try:
        command = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return [(error_frame(1, source.now_ms(), command=None), "error")]
    if not isinstance(command, dict):
        return [(error_frame(1, source.now_ms(), command=None), "error")]
    number = command.get("id")
    number = number if isinstance(number, int) and not isinstance(number, bool) else None
    handler = _HANDLERS.get(str(command.get("cmd")))
    params = command.get("params")
    if handler is None:
        return [(error_frame(5, source.now_ms(), command=number), "error")]
    if handler is not _list and not isinstance(params, dict):
        return [(error_frame(2, source.now_ms(), command=number), "error")]
    return list(handler(client, number, params or {}, source))


Answers = Iterator[tuple[bytes, str]]


def _tickers(params: dict[str, Any], source: Source) -> set[str] | None:
    """Market tickers named in a command; None when none are named."""
    named: set[str] = set()
    for name in ("market_ticker", "market_id"):
        if isinstance(value := params.get(name), str):
            named.add(_resolved(value, name, source))
    for name in ("market_tickers", "market_ids"):
        if isinstance(values := params.get(name), list):
            named |= {_resolved(str(value), name[:-1], source) for value in values}
    return named or None


def _resolved(value: str, name: str, source: Source) -> str:
    return value if name == "market_ticker" else source.ticker_of_id(value) or value


def _subscribe(client: Client, number: int | None, params: dict[str, Any], at: Source) -> Answers:
    channels = params.get("channels")
    if not isinstance(channels, list) or not channels:
        yield error_frame(3, at.now_ms(), command=number), "error"
        return
    tickers = _tickers(params, at)
    opened: list[tuple[Subscription, set[str] | None]] = []
    for channel in channels:
        if channel not in CHANNELS:
            yield error_frame(8, at.now_ms(), command=number), "error"
            continue
        if channel == BOOK and tickers is None:
            yield error_frame(14, at.now_ms(), command=number), "error"
            continue
        asked = _asked(channel, tickers, at)
        subscription = client.subscribed_to(channel)
        refusal = _refusal(client, channel, subscription, asked)
        if refusal is not None:
            frame = error_frame(refusal, at.now_ms(), command=number, subscription=subscription)
            yield frame, "error"
        elif subscription is None:
            subscription = client.open_subscription(channel, None if asked is None else set(asked))
            subscription.use_yes_price = params.get("use_yes_price") is True
            subscription.skip_ack = params.get("skip_ticker_ack") is True
            msg = {"channel": channel, "sid": subscription.sid}
            yield reply_frame("subscribed", at.now_ms(), command=number, msg=msg), "subscribed"
            opened.append((subscription, asked))
        else:
            opened.append((subscription, _added(subscription, asked)))
            yield _ok(subscription, number, at), "ok"
    for subscription, fresh in opened:
        yield from _first_data(subscription, fresh, params, at)


def _asked(channel: str, tickers: set[str] | None, at: Source) -> set[str] | None:
    """What a command asks of a channel; markets that nobody knows have no book to watch."""
    if channel in UNFILTERED or tickers is None:
        return None
    return {t for t in tickers if at.is_known(t)} if channel == BOOK else tickers


def _refusal(
    client: Client, channel: str, subscription: Subscription | None, asked: set[str] | None
) -> int | None:
    """The code with which a subscription, or the widening of one, is refused whole."""
    if subscription is not None and not client.may_command(subscription):
        return 27
    if channel != BOOK or client.limits.books is None:
        return None
    open_already = subscription.tickers if subscription is not None else None
    return 26 if len((asked or set()) | (open_already or set())) > client.limits.books else None


def _first_data(
    subscription: Subscription, tickers: set[str] | None, params: dict[str, Any], at: Source
) -> Answers:
    """Snapshots of markets that have just been added."""
    if subscription.channel == BOOK:
        yield from _snapshots(subscription, tickers or set(), None, at)
    elif subscription.channel == TICKER and params.get("send_initial_snapshot") is True:
        for body in at.tickers(tickers):
            yield data_frame(subscription, TICKER, body, at.now_ms()), TICKER


def _snapshots(
    subscription: Subscription, tickers: set[str], number: int | None, at: Source
) -> Answers:
    for body in at.snapshots(tickers, subscription.use_yes_price):
        yield data_frame(subscription, SNAPSHOT, body, at.now_ms(), number), SNAPSHOT


def _added(subscription: Subscription, asked: set[str] | None) -> set[str]:
    """Widen a subscription; the tickers that are new to it."""
    if subscription.tickers is None:
        return set()
    if asked is None:
        subscription.tickers = None
        return set()
    fresh = asked - subscription.tickers
    subscription.tickers |= asked
    return fresh


def _ok(subscription: Subscription, number: int | None, at: Source) -> bytes:
    msg: dict[str, Any] = {}
    if subscription.tickers is not None and not subscription.skip_ack:
        msg["market_tickers"] = sorted(subscription.tickers)
    return reply_frame("ok", at.now_ms(), command=number, subscription=subscription, msg=msg)


def _update(client: Client, number: int | None, params: dict[str, Any], at: Source) -> Answers:
    sid = params.get("sid")
    sids = params.get("sids")
    named = ([sid] if sid is not None else []) + (sids if isinstance(sids, list) else [])
    if len(named) != 1:
        yield error_frame(12, at.now_ms(), command=number), "error"
        return
    subscription = client.subscriptions.get(named[0]) if isinstance(named[0], int) else None
    if subscription is None:
        yield error_frame(7, at.now_ms(), command=number), "error"
        return

    def refused(code: int) -> tuple[bytes, str]:
        frame = error_frame(code, at.now_ms(), command=number, subscription=subscription)
        return frame, "error"

    action = params.get("action")
    if action is None:
        yield refused(15)
        return
    if action not in _ACTIONS or (action == "get_snapshot" and subscription.channel != BOOK):
        yield refused(13)
        return
    tickers = _asked(subscription.channel, _tickers(params, at), at)
    if tickers is None:
        yield refused(14)
        return
    adds = tickers if action == "add_markets" else set()
    if (code := _refusal(client, subscription.channel, subscription, adds)) is not None:
        yield refused(code)
    elif action == "get_snapshot":
        # Markets that are not watched are passed over without a word.
        yield from _snapshots(subscription, tickers & (subscription.tickers or set()), number, at)
    elif action == "add_markets":
        fresh = _added(subscription, tickers)
        yield _ok(subscription, number, at), "ok"
        yield from _first_data(subscription, fresh, params, at)
    else:
        if subscription.tickers is not None:
            subscription.tickers -= tickers
        yield _ok(subscription, number, at), "ok"


def _unsubscribe(client: Client, number: int | None, params: dict[str, Any], at: Source) -> Answers:
    sids = params.get("sids")
    if not isinstance(sids, list) or not sids:
        yield error_frame(4, at.now_ms(), command=number), "error"
        return
    for sid in sids:
        subscription = client.subscriptions.pop(sid, None) if isinstance(sid, int) else None
        if subscription is None:
            yield error_frame(7, at.now_ms(), command=number), "error"
        else:
            frame = reply_frame(
                "unsubscribed", at.now_ms(), command=number, subscription=subscription
            )
            yield frame, "unsubscribed"


def _list(client: Client, number: int | None, _params: dict[str, Any], at: Source) -> Answers:
    msg = [{"channel": s.channel, "sid": s.sid} for s in client.subscriptions.values()]
    yield reply_frame("ok", at.now_ms(), command=number, msg=msg), "ok"


_HANDLERS = {
    "subscribe": _subscribe,
    "update_subscription": _update,
    "unsubscribe": _unsubscribe,
    "list_subscriptions": _list,
}
