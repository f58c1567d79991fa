"""How far our candles agree with the exchange's: column by column, and what explains the rest.

Both sides list only intervals in which something happened. Where one side has no candle, nothing
traded there and its quotes stood still, which can be compared as well as a candle.

What differs is told apart by its cause: inside a recorded gap it was to be expected; an open or
close that trades of one instant could all be is undecided, since REST lists them by id and not in
order of execution; where we had no quote yet there is nothing to compare. All else is different.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

TRADE_COLUMNS = ("open_micros", "high_micros", "low_micros", "close_micros", "volume_centis")
QUOTE_COLUMNS = (
    "yes_bid_open_micros",
    "yes_bid_high_micros",
    "yes_bid_low_micros",
    "yes_bid_close_micros",
    "yes_ask_open_micros",
    "yes_ask_high_micros",
    "yes_ask_low_micros",
    "yes_ask_close_micros",
    "open_interest_centis",
)
COLUMNS = (*TRADE_COLUMNS, *QUOTE_COLUMNS)

Candle = Mapping[str, Any]
"""COLUMNS by name; one of ours also has `quoted_at` and `quote_gap`."""
Key = tuple[str, int]
"""Market and start of the interval (Unix seconds)."""
Candles = Mapping[Key, Candle]

_MOST_DIFFERENCES = 1_000


class Verdict(Enum):
    EQUAL = "equal"
    IN_GAP = "in a gap"
    UNDECIDED = "undecided"
    DIFFERENT = "different"


class Gap(NamedTuple):
    """An interval in which messages were lost, of one market or (None) of all."""

    market_ticker: str | None
    starts_at: datetime
    ends_at: datetime


class Difference(NamedTuple):
    """A value that nothing explains; None where a side has none."""

    interval: str
    market_ticker: str
    starts_at: datetime
    column: str
    theirs: int | None
    ours: int | None


@dataclass(frozen=True)
class Evidence:
    """What may explain a difference."""

    standing: Mapping[str, Candle] = field(default_factory=dict)
    """Per market our last candle before the first of those compared."""
    first_quoted_at: Mapping[str, datetime] = field(default_factory=dict)
    """Per market our first quote ever; a market without one is missing here."""
    ties: Collection[tuple[str, int, str]] = frozenset()
    """Market, start, and open_micros or close_micros, where several trades could be it."""
    quote_gaps: Sequence[Gap] = ()
    trade_gaps: Sequence[Gap] = ()
    """Those that wait to be healed."""
    quotes_kept: bool = True
    """Whether the quotes of the time are there; else `first_quoted_at` says nothing."""


@dataclass
class Agreement:
    """What a comparison found; may be added up."""

    verdicts: Counter[tuple[str, str, Verdict]] = field(default_factory=Counter)
    """How often, by interval, column and verdict."""
    differences: list[Difference] = field(default_factory=list)
    """The first thousand."""
    not_quoted: int = 0
    """Intervals whose quotes were not compared, since we had none."""

    @property
    def compared(self) -> int:
        return self.verdicts.total()

    def count(self, verdict: Verdict) -> int:
        """Values with this verdict, of all columns and intervals."""
        return sum(count for (_, _, found), count in self.verdicts.items() if found is verdict)

    def add(self, other: "Agreement") -> None:
        self.verdicts.update(other.verdicts)
        self.not_quoted += other.not_quoted
        room = _MOST_DIFFERENCES - len(self.differences)
        self.differences += other.differences[:room]


def compare(
    interval: str, seconds: int, theirs: Candles, ours: Candles, evidence: Evidence
) -> Agreement:
    """Compare all candles of some markets over the same time, on both sides complete.

    Args:
        interval: its name in the result.
        seconds: its width.
        theirs, ours: what each side lists; both without intervals that have not ended.
    """
    found = Agreement()
    for ticker, starts in sorted(_starts(theirs, ours).items()):
        mine: Candle | None = evidence.standing.get(ticker)
        his: Candle | None = None
        for start in starts:
            key = ticker, start
            listed = ours.get(key), theirs.get(key)
            mine = _candle(listed[0], mine)
            his = _candle(listed[1], his)
            place = _Place(interval, ticker, start, seconds, evidence)
            for column, verdict in (
                *_trades(place, his or {}, mine or {}),
                *_quotes(place, his, mine, found),
            ):
                found.verdicts[interval, column, verdict] += 1
                if verdict is Verdict.DIFFERENT and len(found.differences) < _MOST_DIFFERENCES:
                    values = ((side or {}).get(column) for side in (his, mine))
                    found.differences.append(
                        Difference(interval, ticker, place.at, column, *values)
                    )
    return found


@dataclass(frozen=True)
class _Place:
    """One interval of one market."""

    interval: str
    ticker: str
    start: int
    seconds: int
    evidence: Evidence

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.start, UTC)

    @property
    def end(self) -> datetime:
        return datetime.fromtimestamp(self.start + self.seconds, UTC)

    def is_in(self, gaps: Iterable[Gap], since: datetime) -> bool:
        """Whether one of the gaps touches the time from `since` to the interval's end."""
        return any(
            gap.market_ticker in (None, self.ticker)
            and gap.ends_at > since
            and gap.starts_at < self.end
            for gap in gaps
        )


def _starts(*sides: Candles) -> dict[str, list[int]]:
    found: dict[str, set[int]] = {}
    for side in sides:
        for ticker, start in side:
            found.setdefault(ticker, set()).add(start)
    return {ticker: sorted(starts) for ticker, starts in found.items()}


def _candle(listed: Candle | None, before: Candle | None) -> Candle | None:
    """The candle of an interval, or what an interval without one says: nothing has moved."""
    if listed is not None or before is None:
        return listed
    still: dict[str, Any] = dict.fromkeys(TRADE_COLUMNS[:4])
    still["volume_centis"] = 0
    for side in ("yes_bid", "yes_ask"):
        stood = before[f"{side}_close_micros"]
        still |= {f"{side}_{name}_micros": stood for name in ("open", "high", "low", "close")}
    still["open_interest_centis"] = before["open_interest_centis"]
    # That it was read off the candle before is for `_quotes`: its flag is not of this interval.
    return still | {"quoted_at": before.get("quoted_at"), "quote_gap": None}


def _trades(place: _Place, his: Candle, mine: Candle) -> Iterator[tuple[str, Verdict]]:
    volumes = [side.get("volume_centis") or 0 for side in (his, mine)]
    if volumes == [0, 0]:
        return
    for column in TRADE_COLUMNS:
        values = [side.get(column) for side in (his, mine)]
        if column == "volume_centis":
            values = volumes
        if values[0] == values[1]:
            yield column, Verdict.EQUAL
        elif (place.ticker, place.start, column) in place.evidence.ties:
            yield column, Verdict.UNDECIDED
        elif place.is_in(place.evidence.trade_gaps, place.at):
            yield column, Verdict.IN_GAP
        else:
            yield column, Verdict.DIFFERENT


def _quotes(
    place: _Place, his: Candle | None, mine: Candle | None, found: Agreement
) -> Iterator[tuple[str, Verdict]]:
    # Before its first candle of the time we asked for, theirs is not known.
    if his is None or his["yes_bid_close_micros"] is None:
        return
    if mine is None or mine["yes_bid_close_micros"] is None or _first_quote_in(place):
        found.not_quoted += 1
        return
    in_gap = mine.get("quote_gap")
    if in_gap is None:
        in_gap = place.is_in(place.evidence.quote_gaps, mine.get("quoted_at") or place.at)
    for column in QUOTE_COLUMNS:
        if his[column] == mine[column]:
            yield column, Verdict.EQUAL
        else:
            yield column, Verdict.IN_GAP if in_gap else Verdict.DIFFERENT


def _first_quote_in(place: _Place) -> bool:
    """Whether nothing stood at the interval's start as far as we know: we came later."""
    first = place.evidence.first_quoted_at.get(place.ticker)
    return place.evidence.quotes_kept and (first is None or first > place.at)
