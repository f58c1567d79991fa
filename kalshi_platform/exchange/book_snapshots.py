"""Markets whose snapshot must come before their book is known: when to ask, when to give up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

_ASK_AGAIN_SECONDS = 5.0
# Of a market that was added the snapshot comes by itself.
_ADDED_SECONDS = 10.0
_DOUBTED_SECONDS = 15.0


@dataclass
class _Awaited:
    cause: str
    added: bool
    since: float
    ask_at: float
    give_up_at: float


class Due(NamedTuple):
    """Snapshots to ask for now, and why."""

    cause: str
    tickers: list[str]


class GivenUp(NamedTuple):
    """A market that did not answer in time: known before, or just added."""

    ticker: str
    cause: str
    added: bool
    since: float


class AwaitedSnapshots:
    """Which books are not known; instants are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._awaited: dict[str, _Awaited] = {}

    def __contains__(self, ticker: str) -> bool:
        return ticker in self._awaited

    def __bool__(self) -> bool:
        return bool(self._awaited)

    def added(self, tickers: Iterable[str], now: float) -> None:
        """These have been added to the subscription; what was lost on the way is asked for."""
        for ticker in tickers:
            self._awaited[ticker] = _Awaited(
                "not answered", True, now, now + _ASK_AGAIN_SECONDS, now + _ADDED_SECONDS
            )

    def doubt(self, tickers: Iterable[str], cause: str, now: float) -> None:
        """Of these something was lost: ask at once."""
        for ticker in tickers:
            self._awaited[ticker] = _Awaited(cause, False, now, now, now + _DOUBTED_SECONDS)

    def ask_at(self, tickers: Iterable[str], at: float) -> None:
        """The command that asked for these was not carried out: ask at an instant."""
        for ticker in tickers:
            if (one := self._awaited.get(ticker)) is not None:
                one.ask_at = at

    def came(self, ticker: str) -> bool:
        """The snapshot of a market has come; whether it was awaited."""
        return self._awaited.pop(ticker, None) is not None

    def keep_only(self, tickers: set[str]) -> None:
        """The others are not watched any more."""
        self._awaited = {ticker: one for ticker, one in self._awaited.items() if ticker in tickers}

    def due(self, now: float, most: int) -> Due | None:
        """What to ask for now; asked again in a while."""
        tickers = [ticker for ticker, one in self._awaited.items() if one.ask_at <= now][:most]
        if not tickers:
            return None
        self.ask_at(tickers, now + _ASK_AGAIN_SECONDS)
        return Due(self._awaited[tickers[0]].cause, tickers)

    def given_up(self, now: float) -> list[GivenUp]:
        """Markets that did not answer in time; they are not awaited any more."""
        late = [
            GivenUp(ticker, one.cause, one.added, one.since)
            for ticker, one in self._awaited.items()
            if one.give_up_at <= now
        ]
        for one in late:
            del self._awaited[one.ticker]
        return late
