"""The order books of one connection: what is wanted, what was asked for, and what became of it.

A bookkeeper without a socket: it says which command to send now, and is told what comes back. Each
command follows from the difference between what is wanted and what the exchange says is watched,
so one that was lost or refused is simply due again.

Source: docs.kalshi.com, WebSocket subscriptions, order books and errors (read 2026-10).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from kalshi_platform.exchange.book_allowance import Allowance
from kalshi_platform.exchange.book_snapshots import AwaitedSnapshots, GivenUp
from kalshi_platform.exchange.books import BookReport, Books
from kalshi_platform.exchange.sequence import Sequence

CHANNEL = "orderbook_delta"
# These end the subscription that they name: subscribe again.
SUBSCRIPTION_ENDED = frozenset({10, 25})
# The command was not carried out, and may be a little later.
NOT_NOW = frozenset({18, 27})

_MOST_AT_ONCE = 100
# Commands for snapshots whose refusal is still understood.
_MOST_ASKED = 100
_PACE_SECONDS = 0.2
_ACKNOWLEDGE_SECONDS = 10.0
_LONGEST_UNANSWERED_SECONDS = 300.0
# The answer to `unsubscribe` is waited for so long: commands may be handled out of order.
_UNSUBSCRIBE_SECONDS = 1.0
# A subscription that ends sooner than this after it was asked for is not asked for at once.
_SHORTEST_SUBSCRIPTION_SECONDS = 2.0
# An unknown ticker may become known.
_APART_SECONDS = 300.0

_UNKNOWN_SID = 7
_UNKNOWN_CHANNEL = 8
_ENDED = SUBSCRIPTION_ENDED | {_UNKNOWN_SID}


class Tell(Protocol):
    """Notes on the tape something that the connection did."""

    def __call__(self, event: str, **fields: str | int) -> None: ...


@dataclass
class _Change:
    """A change of the subscription that has not been answered yet."""

    command_id: int
    action: str
    tickers: tuple[str, ...]
    answer_by: float


class BookSubscription:
    """The books of one connection; instants (`now`) are seconds on one monotonic clock.

    Args:
        books: what is wanted, and where the report goes.
        next_id: numbers the connection's commands.
        tell: notes events on the tape.
        silence_seconds: books quieter than this are asked for a snapshot: quiet, or stopped?
    """

    def __init__(
        self, books: Books, next_id: Callable[[], int], tell: Tell, silence_seconds: float
    ) -> None:
        self.sid: int | None = None
        self.seen_at = 0.0
        """When the subscription last said anything."""
        self.moved_at = 0.0
        """When a book last changed: what nobody has to ask for."""
        self._books = books
        self._next_id = next_id
        self._tell = tell
        self._silence_seconds = silence_seconds
        self._numbers = Sequence()
        self._listed: set[str] = set()
        """What is watched, in the exchange's own words."""
        self._awaited = AwaitedSnapshots()
        self._allowance = Allowance()
        self._change: _Change | None = None
        self._snapshots_asked: dict[int, list[str]] = {}
        """Tickers by the id of the command that asked for their snapshots."""
        self._proof_id: int | None = None
        """The command that last asked for snapshots that nobody waits for."""
        self._asked_at: float | None = None
        """When the subscription was last asked for."""
        self._subscribe_at = 0.0
        self._quiet_until = 0.0
        self._unanswered_seconds = 0.0
        self._cause = ""
        """Why the subscription is asked for next time."""
        self._renewal = ""
        """Why it has to be left and asked for again."""
        self._forbidden = ""
        """Why there are no books on this connection at all."""
        self._reported: tuple[str, ...] | None = None
        """What was wanted when the report was made; None: it is out of date."""
        self._report()

    # What to send -----------------------------------------------------------------------------

    def next_command(self, now: float) -> dict[str, Any] | None:
        """The command that is due, if any; to be asked a few times a second."""
        self._lapse(now)
        command = None
        if now >= self._quiet_until:
            command = self._snapshots_due(now)
            if command is None and self._change is None:
                command = self._change_due(now)
            if command is not None:
                self._quiet_until = now + _PACE_SECONDS
        if self._reported is not self._books.wanted:
            self._report()
        return command

    def _snapshots_due(self, now: float) -> dict[str, Any] | None:
        while self._books.doubted:
            ticker = self._books.doubted.popleft()
            if ticker in self._listed and ticker not in self._awaited:
                self._awaited.doubt([ticker], "not known to the reader", now)
        if self._listed and not self._awaited and now - self.seen_at > self._silence_seconds:
            cause = f"silence for {self._silence_seconds:g} s"
            self._awaited.doubt([min(self._listed)], cause, now)
        due = self._awaited.due(now, _MOST_AT_ONCE)
        if due is None:
            return self._proof_due()
        command_id = self._next_id()
        self._snapshots_asked[command_id] = due.tickers
        if len(self._snapshots_asked) > _MOST_ASKED:
            # Nothing is answered to a command that was carried out.
            del self._snapshots_asked[min(self._snapshots_asked)]
        self._tell("snapshots_asked", cause=due.cause, markets=len(due.tickers))
        return self._update(command_id, "get_snapshot", due.tickers)

    def _proof_due(self) -> dict[str, Any] | None:
        """Fresh snapshots of books that are known: should none come, they are known as before."""
        asked: dict[str, None] = {}
        while self._books.outdated and len(asked) < _MOST_AT_ONCE:
            ticker = self._books.outdated.popleft()
            if ticker in self._listed and ticker not in self._awaited:
                asked[ticker] = None
        if not asked:
            return None
        self._proof_id = self._next_id()
        self._tell("snapshots_asked", cause="the last one is old", markets=len(asked))
        return self._update(self._proof_id, "get_snapshot", [*asked])

    def _change_due(self, now: float) -> dict[str, Any] | None:
        target = self._allowance.target(self._books.wanted)
        if self.sid is None:
            if not target or self._forbidden or now < self._subscribe_at:
                return None
            return self._subscribe(target[: self._allowance.room(0)], now)
        if self._renewal or not target:
            self._cause, self._renewal = self._renewal or "wanted again", ""
            command_id = self._ask("unsubscribe", [], now + _UNSUBSCRIBE_SECONDS)
            return _command(command_id, "unsubscribe", sids=[self.sid])
        # First those that leave: there may be no room for others.
        action, tickers = "delete_markets", sorted(self._listed.difference(target))[:_MOST_AT_ONCE]
        if not tickers:
            added = [ticker for ticker in target if ticker not in self._listed]
            action, tickers = "add_markets", added[: self._allowance.room(len(self._listed))]
        if not tickers:
            return None
        return self._update(self._ask(action, tickers, now + _ACKNOWLEDGE_SECONDS), action, tickers)

    def _subscribe(self, tickers: list[str], now: float) -> dict[str, Any]:
        yes_price = self._books.use_yes_price
        self._tell("subscribe", channel=CHANNEL, cause=self._cause, use_yes_price=int(yes_price))
        self._cause = "not acknowledged"
        self._asked_at = now
        return _command(
            self._ask("subscribe", tickers, now + _ACKNOWLEDGE_SECONDS),
            "subscribe",
            channels=[CHANNEL],
            market_tickers=tickers,
            use_yes_price=yes_price,
        )

    def _update(self, command_id: int, action: str, tickers: list[str]) -> dict[str, Any]:
        return _command(
            command_id,
            "update_subscription",
            sids=[self.sid],
            action=action,
            market_tickers=tickers,
        )

    def _ask(self, action: str, tickers: list[str], answer_by: float) -> int:
        self._change = _Change(self._next_id(), action, tuple(tickers), answer_by)
        return self._change.command_id

    # What comes back --------------------------------------------------------------------------

    def numbered(self, seq: int, now: float) -> None:
        """A frame of the subscription came; a number left out puts all books in doubt."""
        self.seen_at = now
        if not self._numbers.skips(seq):
            return
        self._awaited.doubt(self._listed, "sequence_jump", now)
        self._reported = None

    def snapshot(self, ticker: str) -> None:
        """The whole book of a market came."""
        if self._awaited.came(ticker):
            self._allowance.reasons.pop(ticker, None)
            self._reported = None

    def subscribed(self, command_id: int | None, sid: int, now: float) -> bool:
        """A subscription of this channel began; False if nobody here asked for it."""
        if self._asked_at is None:
            return False
        change = self._answered(command_id)
        self.sid, self._numbers, self.seen_at = sid, Sequence(), now
        self._answer_came()
        # The answer names no markets; those that are not really watched send no snapshot.
        self._list(set(change.tickers if change is not None else ()), now)
        return True

    def listed(
        self, command_id: int | None, sid: int, seq: int, tickers: list[str] | None, now: float
    ) -> bool:
        """The subscription was changed, and now has these tickers (None: not told).

        Returns:
            False if it is another one that was changed.
        """
        change = self._answered(command_id, sid)
        if change is None and sid != self.sid:
            return False
        if self.sid is None:
            # Subscribed already, and nobody knew: leave it, so that the tape tells its beginning.
            self.sid, self._numbers, self.seen_at = sid, Sequence(seq), now
            self._renewal = "subscribed twice"
        self._answer_came()
        asked = change.tickers if change is not None else ()
        if tickers is not None:
            left = set(tickers)
        elif change is not None and change.action == "delete_markets":
            left = self._listed.difference(asked)
        else:
            left = self._listed.union(asked)
        if change is not None and change.action != "delete_markets":
            for ticker in set(asked) - left:
                reason = "not in the exchange's list"
                self._allowance.set_apart(ticker, reason, now + _APART_SECONDS)
        self._list(left, now)
        return True

    def unsubscribed(self, sid: int) -> bool:
        """A subscription was left; False if it is another one."""
        if sid != self.sid:
            return False
        self._end()
        return True

    def error(
        self, command_id: int | None, sid: int | None, code: int, words: str, now: float
    ) -> bool:
        """An error came; False if it is about something else."""
        if command_id is not None and command_id == self._proof_id and code not in _ENDED:
            if code in NOT_NOW:
                self._quiet_until = now + self._allowance.pause()
            return True
        change = self._answered(command_id, sid)
        asked = None if command_id is None else self._snapshots_asked.pop(command_id, None)
        if change is None and asked is None and (sid is None or sid != self.sid):
            return False
        reason = f"code {code}: {words}"
        if code in NOT_NOW:
            self._quiet_until = now + self._allowance.pause()
            self._awaited.ask_at(asked or (), now)
        elif code in _ENDED:
            lasted = now - (self._asked_at or now)
            self._cause = reason
            at_once = lasted > _SHORTEST_SUBSCRIPTION_SECONDS
            self._subscribe_at = now if at_once else now + _ACKNOWLEDGE_SECONDS
            self._end()
        elif code == _UNKNOWN_CHANNEL:
            self._forbidden = reason
            self._end()
        elif asked is not None:
            # Where snapshots are not to be had this way, a new subscription brings them.
            self._renewal = reason
        elif change is not None:
            self._refused(change, code, reason, now)
        self._reported = None
        return True

    def ended(self) -> None:
        """The connection is over."""
        self._books.report = BookReport()

    # Bookkeeping ------------------------------------------------------------------------------

    def _answered(self, command_id: int | None, sid: int | None = None) -> _Change | None:
        """The change that an answer speaks of, which is no longer waited for.

        An answer without an id, but on the subscription, speaks of the only one there is.
        """
        change = self._change
        if change is None:
            return None
        unnamed = command_id is None and sid is not None and sid == self.sid
        if change.command_id != command_id and not unnamed:
            return None
        self._change = None
        return change

    def _answer_came(self) -> None:
        self._unanswered_seconds = 0.0
        self._allowance.accepted()

    def _list(self, tickers: set[str], now: float) -> None:
        added, removed = tickers - self._listed, self._listed - tickers
        self._listed = tickers
        self._awaited.keep_only(tickers)
        self._awaited.added(added, now)
        self._reported = None
        if added or removed:
            self._tell("books", added=len(added), removed=len(removed), watched=len(tickers))

    def _refused(self, change: _Change, code: int, reason: str, now: float) -> None:
        if change.action == "unsubscribe":
            self._end()
        elif change.action == "delete_markets":
            # Not there, then; the next list tells.
            self._list(self._listed.difference(change.tickers), now)
        elif self._allowance.refused(change.tickers, len(self._listed), code, reason, now):
            left_out = self._allowance.beyond(self._books.wanted)
            self._tell("books_refused", code=code, cause=reason, markets=max(1, len(left_out)))

    def _lapse(self, now: float) -> None:
        """Carry on where no answer came in time."""
        change = self._change
        if change is not None and now >= change.answer_by:
            self._change = None
            if change.action == "unsubscribe":
                self._end()
            else:
                self._quiet_until = now + self._unanswered_seconds
                self._unanswered_seconds = min(
                    _LONGEST_UNANSWERED_SECONDS, self._unanswered_seconds * 2 or 10.0
                )
        if late := self._awaited.given_up(now):
            self._without_snapshot(late, now)
        self._allowance.lapse(now, self._listed)

    def _without_snapshot(self, late: list[GivenUp], now: float) -> None:
        """Leave markets that do not answer alone for a while; see if it is all of them."""
        doubted = [one for one in late if not one.added]
        if doubted and all(self.seen_at <= one.since for one in doubted):
            # Nothing at all came any more: it is the subscription that has stopped.
            self._renewal = f"no snapshot: {doubted[0].cause}"
            return
        for one in late:
            # What was known before is added afresh; what never was may not exist.
            pause = _APART_SECONDS if one.added else 0.0
            self._allowance.set_apart(one.ticker, "no snapshot came", now + pause)
        self._reported = None

    def _end(self) -> None:
        self.sid = None
        self._change = None
        self._renewal = ""
        self._snapshots_asked.clear()
        self._listed = set()
        self._awaited = AwaitedSnapshots()
        self._reported = None

    def _report(self) -> None:
        wanted = self._reported = self._books.wanted
        self._allowance.keep_only(wanted)
        beyond = self._allowance.beyond(wanted)
        refused = dict.fromkeys(beyond, self._allowance.limit_reason)
        for ticker in wanted:
            if self._forbidden:
                refused[ticker] = self._forbidden
            elif (reason := self._allowance.reasons.get(ticker)) is not None:
                refused[ticker] = reason
        watched = frozenset(ticker for ticker in self._listed if ticker not in self._awaited)
        self._books.report = BookReport(True, watched, MappingProxyType(refused))


def _command(command_id: int, cmd: str, **params: Any) -> dict[str, Any]:
    return {"id": command_id, "cmd": cmd, "params": params}
