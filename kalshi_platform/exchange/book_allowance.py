"""What the exchange lets one connection watch: how many books, which ones, how fast it is asked."""

from collections.abc import Collection, Sequence

_MOST_AT_ONCE = 100
# An unknown ticker may become known, and a limit may be lifted.
_APART_SECONDS = 300.0
_LIMIT_SECONDS = 600.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0

_MARKET_LIMIT = 26


class Allowance:
    """Learns from refusals.

    How many books are allowed is nowhere published: a list that is refused is halved until one
    market too many is found. A list with a market that the exchange does not like is halved until
    that one stands alone. Instants are seconds on one monotonic clock.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        """Why a market was set apart; kept until its snapshot comes."""
        self.limit: int | None = None
        """So many books are allowed."""
        self.limit_reason = ""
        self._limit_until = 0.0
        self._too_many: int | None = None
        """So many were refused."""
        self._at_once = _MOST_AT_ONCE
        self._apart: dict[str, float] = {}
        self._pause_seconds = 0.0

    def target(self, wanted: Sequence[str]) -> list[str]:
        """Those of the wanted markets that should be watched now, in order."""
        return [ticker for ticker in wanted if ticker not in self._apart][: self.limit]

    def beyond(self, wanted: Sequence[str]) -> list[str]:
        """Those that the limit leaves out."""
        if self.limit is None:
            return []
        return [ticker for ticker in wanted if ticker not in self._apart][self.limit :]

    def room(self, watched: int) -> int:
        """How many markets one command may add to so many."""
        if self._too_many is None:
            return self._at_once
        return max(1, min(self._at_once, self._too_many - 1 - watched))

    def lapse(self, now: float, watched: Collection[str]) -> None:
        """What was refused long ago may be asked for again."""
        if self.limit is not None and now >= self._limit_until:
            self.limit = self._too_many = None
        # One that is still watched in vain is first left.
        self._apart = {
            ticker: until
            for ticker, until in self._apart.items()
            if now < until or ticker in watched
        }

    def set_apart(self, ticker: str, reason: str, until: float) -> None:
        """Leave a market alone for a while."""
        self.reasons[ticker] = reason
        self._apart[ticker] = until

    def keep_only(self, wanted: Collection[str]) -> None:
        """Forget why others were set apart."""
        if self.reasons:
            kept = set(wanted)
            self.reasons = {name: why for name, why in self.reasons.items() if name in kept}

    def accepted(self) -> None:
        """A command was carried out."""
        self._pause_seconds = 0.0
        self._at_once = min(_MOST_AT_ONCE, self._at_once * 2)

    def refused(
        self, tickers: Sequence[str], watched: int, code: int, reason: str, now: float
    ) -> bool:
        """Adding these to so many was refused; whether this settles what is to be left out."""
        if code == _MARKET_LIMIT:
            self._too_many = watched + len(tickers)
        if len(tickers) > 1:
            self._at_once = len(tickers) // 2
            return False
        self._at_once = 1
        if code == _MARKET_LIMIT:
            self.limit, self.limit_reason = watched, reason
            self._limit_until = now + _LIMIT_SECONDS
        else:
            self.set_apart(tickers[0], reason, now + _APART_SECONDS)
        return True

    def pause(self) -> float:
        """Commands come too fast: wait so many seconds, longer each time."""
        self._pause_seconds = min(
            _LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, self._pause_seconds * 2)
        )
        return self._pause_seconds
