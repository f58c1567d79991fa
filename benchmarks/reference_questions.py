"""The questions of the reference benchmark: every filter alone, and the common pairs."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from benchmarks.reference_rows import CATEGORIES, HUGE_SERIES

_STATUSES = (
    "initialized",
    "active",
    "inactive",
    "closed",
    "determined",
    "disputed",
    "amended",
    "finalized",
)
_WORDS = ("will", "bitcoin", "contest", "november")
_RARE_WORDS = ("name296", "name17", "kxbtc15m 26nov27", "november 27 name5", "zzz")

Query = Callable[[random.Random], Mapping[str, Any]]


class Kind(NamedTuple):
    """One kind of question: a list and what is asked of it, each time anew."""

    name: str
    path: str
    query: Query
    goal: bool = True


class Sample(NamedTuple):
    """Tickers to ask for, drawn from the database."""

    markets: list[str]
    events: list[str]
    series: list[str]


def kinds(sample: Sample) -> list[Kind]:
    """All kinds; the last are the worst that is known."""
    return [
        *_of_markets(sample),
        *_of_events(sample),
        Kind("all", "series", _any()),
        Kind("category", "series", _any(category=CATEGORIES)),
        Kind("tag", "series", _any(tag=("tag1", "tag39"))),
        Kind("word", "series", _any(search=("contest", "name296", "zzz"))),
        *_of_settlements(sample),
        Kind("one", "markets", _record(sample.markets)),
        Kind("one", "events", _record(sample.events)),
        Kind("one", "series", _record(sample.series)),
        Kind("one", "settlements", _record(sample.markets)),
        *[
            Kind("common words that never meet", path, _any(search="bitcoin contest"), goal=False)
            for path in ("markets", "events")
        ],
        Kind(
            "active, huge series, common word",
            "markets",
            _any(status="active", series_ticker=HUGE_SERIES, search="bitcoin"),
            goal=False,
        ),
        Kind(
            "common word a huge series lacks",
            "markets",
            _any(series_ticker=HUGE_SERIES, search="contest"),
            goal=False,
        ),
    ]


def _of_markets(sample: Sample) -> list[Kind]:
    day = ("min_close_time", "max_close_time")
    asked: dict[str, Query] = {
        "all": _any(),
        "1,000 a page": _any(limit="1000"),
        **{status: _any(status=status) for status in _STATUSES},
        "event": _any(event_ticker=sample.events),
        "series": _any(series_ticker=sample.series),
        "huge series": _any(series_ticker=HUGE_SERIES),
        "category": _any(category=CATEGORIES),
        "combos": _any(is_combo="true"),
        "no combos": _any(is_combo="false"),
        "closing on a day": _any(day),
        "common word": _any(search=_WORDS),
        "rare words": _any(search=_RARE_WORDS),
        "active, series": _any(status="active", series_ticker=sample.series),
        **{
            f"{status}, huge series": _any(status=status, series_ticker=HUGE_SERIES)
            for status in _STATUSES
        },
        "active, category": _any(status="active", category=CATEGORIES),
        "closed, category": _any(status="closed", category=CATEGORIES),
        "status, no combos": _any(status=_STATUSES, is_combo="false"),
        "active, common word": _any(status="active", search=_WORDS),
        "closed, common word": _any(status="closed", search=_WORDS),
        "status, rare words": _any(status=_STATUSES, search=_RARE_WORDS),
        "active, closing": _any(day, status="active"),
        "series, closing": _any(day, series_ticker=sample.series),
        "series, common word": _any(series_ticker=sample.series, search=_WORDS),
        "huge series, closing": _any(day, series_ticker=HUGE_SERIES),
        "huge series, common word": _any(series_ticker=HUGE_SERIES, search="bitcoin"),
        "huge series, rare words": _any(series_ticker=HUGE_SERIES, search=_RARE_WORDS),
    }
    return [Kind(name, "markets", query) for name, query in asked.items()]


def _of_events(sample: Sample) -> list[Kind]:
    statuses = ("open", "closed", "settled")
    asked: dict[str, Query] = {
        "all": _any(),
        **{status: _any(status=status) for status in statuses},
        "series": _any(series_ticker=sample.series),
        "huge series": _any(series_ticker=HUGE_SERIES),
        "category": _any(category=CATEGORIES),
        "common word": _any(search=_WORDS),
        "rare words": _any(search=_RARE_WORDS),
        **{f"{status}, category": _any(status=status, category=CATEGORIES) for status in statuses},
        **{
            f"{status}, huge series": _any(status=status, series_ticker=HUGE_SERIES)
            for status in statuses
        },
        "open, common word": _any(status="open", search=_WORDS),
        "open, rare words": _any(status="open", search=_RARE_WORDS),
    }
    return [Kind(name, "events", query) for name, query in asked.items()]


def _of_settlements(sample: Sample) -> list[Kind]:
    day = ("start_time", "end_time")
    results = ("yes", "no", "scalar", "void")
    statuses = ("determined", "disputed", "amended", "finalized")
    asked: dict[str, Query] = {
        "all": _any(),
        "1,000 a page": _any(limit="1000"),
        **{f"result {result}": _any(result=result) for result in results},
        **{status: _any(status=status) for status in statuses},
        "event": _any(event_ticker=sample.events),
        "series": _any(series_ticker=sample.series),
        "huge series": _any(series_ticker=HUGE_SERIES),
        "day": _any(day),
        "day, result": _any(day, result=results),
        "day, series": _any(day, series_ticker=sample.series),
        "series, result": _any(series_ticker=sample.series, result=results),
        "huge series, result": _any(series_ticker=HUGE_SERIES, result=results),
        "status, result": _any(status=statuses, result=results),
    }
    return [Kind(name, "settlements", query) for name, query in asked.items()]


def _any(day: tuple[str, str] | None = None, **fields: str | tuple[str, ...] | list[str]) -> Query:
    """A query of these fields, one of the values each; and of some day as [start, end)."""

    def query(dice: random.Random) -> dict[str, str]:
        asked = {
            name: values if isinstance(values, str) else dice.choice(values)
            for name, values in fields.items()
        }
        if day is not None:
            start = datetime.now(UTC) - timedelta(days=dice.uniform(-8, 85))
            asked |= {day[0]: start.isoformat(), day[1]: (start + timedelta(days=1)).isoformat()}
        return asked

    return query


def _record(tickers: list[str]) -> Query:
    """One record instead of a list; `/` stands for its ticker."""
    return lambda dice: {"/": dice.choice(tickers)}
