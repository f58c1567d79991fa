"""The verdict on reference data: series, events, markets and outcomes held against the ledger.

The exchange's clock must stand still while they are compared (`RunningSimulator.hold`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import RunningSimulator

Row = dict[str, Any]
# Status, result, value in micros, Unix second from which it held.
Version = tuple[str, str, int | None, int]
Fields = Callable[[Row], Row]


@dataclass
class ReferenceVerdict:
    """What differs between the tables and the ledger."""

    compared: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    unseen: int = 0
    """Versions that no message and no answer told: superseded while the stream had a gap."""

    @property
    def right(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in self.compared.items())
        text = f"{counted} compared with the ledger: {len(self.differences)} differ"
        if self.unseen:
            text += f" ({self.unseen} superseded versions were never told)"
        return text + "".join(f"\n  {line}" for line in self.differences[:20])


def reference_against_ledger(
    url: str, simulator: RunningSimulator, since: datetime, *, with_gaps: bool = False
) -> ReferenceVerdict:
    """Compare everything that lived after `since`, field by field.

    Args:
        since: on the exchange's clock; from then on every message was sent to us.
        with_gaps: the stream may have lost messages, so a version that was superseded meanwhile
            may be missing; it is counted.
    """
    verdict = ReferenceVerdict()
    now = datetime.fromisoformat(simulator.stats()["now"])
    ledger = {name: simulator.ledger(name) for name in ("series", "events", "markets")}
    outcomes = {row["ticker"]: row for row in simulator.ledger("settlements")}
    tables = _tables(url)
    traded_combos = {row["market_ticker"] for row in tables["traded_combos"]}
    expected = {
        row["ticker"]: row
        for row in ledger["markets"]
        if _lived_after(row, since)
        and (not row["ticker"].startswith("KXMVE") or row["ticker"] in traded_combos)
    }
    held = {row["market_ticker"]: row for row in tables["markets"]}
    known = {row["ticker"] for row in ledger["markets"]}
    verdict.differences += [
        f"markets: {ticker} is not of this world" for ticker in held.keys() - known
    ]
    combos = {ticker for ticker, row in held.items() if row["is_combo"]}
    verdict.differences += [
        f"markets: combo {ticker} is held but never traded" for ticker in combos - traded_combos
    ]
    _compare(verdict, "markets", expected, held, _market, _held_market(now))
    events = {row["event_ticker"] for row in expected.values()}
    _compare(
        verdict,
        "events",
        {row["event_ticker"]: row for row in ledger["events"] if row["event_ticker"] in events},
        {row["event_ticker"]: row for row in tables["events"]},
        _event,
        lambda row: {name: row[name] for name in _EVENT},
    )
    _compare(
        verdict,
        "series",
        {row["ticker"]: row for row in ledger["series"]},
        {row["series_ticker"]: row for row in tables["series"]},
        _series,
        lambda row: {name: row[name] for name in _SERIES},
    )
    with_outcome = {
        ticker: outcomes[ticker]
        for ticker in expected
        if ticker in outcomes and outcomes[ticker]["versions"]
    }
    settled = {row["market_ticker"]: row for row in tables["settlements"]}
    verdict.differences += [
        f"settlements: {ticker} has no outcome yet"
        for ticker in settled.keys() & expected.keys()
        if ticker not in with_outcome
    ]
    _compare(verdict, "settlements", with_outcome, settled, _outcome, _held_outcome)
    _compare_history(verdict, with_outcome, tables["settlement_history"], since, with_gaps)
    return verdict


def _compare(
    verdict: ReferenceVerdict,
    name: str,
    expected: dict[str, Row],
    held: dict[str, Row],
    wanted: Fields,
    found: Fields,
) -> None:
    verdict.compared[name] = len(expected)
    for key, row in expected.items():
        if key not in held:
            verdict.differences.append(f"{name}: {key} is missing")
            continue
        theirs, ours = wanted(row), found(held[key])
        verdict.differences += [
            f"{name}: {key} {column} is {ours[column]!r}, the ledger says {value!r}"
            for column, value in theirs.items()
            if ours[column] != value
        ]


def _lived_after(row: Row, since: datetime) -> bool:
    settled = row.get("settlement_ts")
    return settled is None or datetime.fromisoformat(settled) >= since


def _tables(url: str) -> dict[str, list[Row]]:
    queries = {
        name: f"SELECT * FROM {name}"
        for name in ("series", "events", "markets", "settlements", "settlement_history")
    }
    queries["settlement_history"] += " ORDER BY market_ticker, version"
    queries["traded_combos"] = (
        "SELECT DISTINCT market_ticker FROM trades WHERE market_ticker LIKE 'KXMVE%'"
    )
    with connect(url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return {name: cursor.execute(query.encode()).fetchall() for name, query in queries.items()}


_TEXTS = (
    *("event_ticker", "market_type", "title", "yes_sub_title", "no_sub_title", "strike_type"),
    *("functional_strike", "custom_strike", "price_level_structure", "price_ranges"),
    *("can_close_early", "settlement_timer_seconds"),
)
_INSTANTS = {
    "created_at": "created_time",
    "opens_at": "open_time",
    "closes_at": "close_time",
    "expected_expires_at": "expected_expiration_time",
}


def _market(row: Row) -> Row:
    return {
        **{name: row.get(name) for name in _TEXTS},
        **{name: _instant(row.get(wire)) for name, wire in _INSTANTS.items()},
        **{name: _exact(row.get(name)) for name in ("floor_strike", "cap_strike")},
        "status": row["status"],
    }


def _held_market(now: datetime) -> Fields:
    def fields(row: Row) -> Row:
        return {
            **{name: row[name] for name in (*_TEXTS, *_INSTANTS, "floor_strike", "cap_strike")},
            "status": _status(row, now),
        }

    return fields


def _status(row: Row, now: datetime) -> str:
    """What the view derives, on the exchange's clock instead of ours."""
    if row["outcome_status"] is not None:
        return str(row["outcome_status"])
    if row["opens_at"] is None or row["closes_at"] is None:
        return f"unknown ({row['told_status']})"
    if now >= row["closes_at"]:
        return "closed"
    if now < row["opens_at"]:
        return "initialized"
    return "inactive" if row["is_paused"] else "active"


_EVENT = ("series_ticker", "title", "sub_title", "category", "mutually_exclusive", "strike_date")


def _event(row: Row) -> Row:
    return {
        **{name: row.get(name) for name in _EVENT},
        "series_ticker": row.get("series_ticker") or "",
        "strike_date": _instant(row.get("strike_date")),
    }


_SERIES = ("title", "frequency", "category", "tags", "fee_type", "fee_multiplier")


def _series(row: Row) -> Row:
    fields = {name: row.get(name) for name in _SERIES}
    return fields | {"fee_multiplier": _exact(row.get("fee_multiplier"))}


def _outcome(row: Row) -> Row:
    return {
        "status": row["status"],
        "result": row["result"],
        "value": _micros(row["settlement_value_dollars"]),
        "settled_at": _instant(row.get("settlement_ts")),
        "is_confirmed": True,
    }


def _held_outcome(row: Row) -> Row:
    return {
        "status": row["status"],
        "result": row["result"],
        "value": row["settlement_value_micros"],
        "settled_at": row["settled_at"],
        "is_confirmed": row["confirmed_at"] is not None,
    }


def _compare_history(
    verdict: ReferenceVerdict,
    outcomes: dict[str, Row],
    history: list[Row],
    since: datetime,
    with_gaps: bool,
) -> None:
    held: dict[str, list[Version]] = {}
    for row in history:
        held.setdefault(row["market_ticker"], []).append(
            (
                row["status"],
                row["result"],
                row["settlement_value_micros"],
                int(row["effective_at"].timestamp()),
            )
        )
    begin = int(since.timestamp())
    verdict.compared["settlement_history"] = 0
    for ticker, outcome in outcomes.items():
        told = [
            (_version(version), version["told_by"] == "lifecycle")
            for version in outcome["versions"]
            if datetime.fromisoformat(version["at"]) >= since
        ]
        verdict.compared["settlement_history"] += len(told)
        ours = [version for version in held.get(ticker, []) if version[3] >= begin]
        # What REST alone shows, and only for a while, need not have been seen.
        wanted = [version for version, on_stream in told if on_stream or version in ours]
        if ours == wanted:
            continue
        if with_gaps and _is_rest_of(ours, wanted):
            verdict.unseen += len(wanted) - len(ours)
            continue
        verdict.differences.append(
            f"settlement_history: {ticker} is {ours}, the ledger says {told}"
        )


def _is_rest_of(ours: list[Version], told: list[Version]) -> bool:
    """Whether ours are the told ones without some that were superseded.

    An amendment whose predecessor was lost on the way looks like a first determination.
    """
    plain = [("determined", *v[1:]) if v[0] == "amended" else v for v in ours]
    wanted = [("determined", *v[1:]) if v[0] == "amended" else v for v in told]
    return plain == [v for v in wanted if v in plain] and plain[-1:] == wanted[-1:]


def _version(version: Row) -> Version:
    at = int(datetime.fromisoformat(version["at"]).timestamp())
    return version["status"], version["result"], _micros(version["settlement_value_dollars"]), at


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _exact(number: object) -> Decimal | None:
    return None if number is None else Decimal(str(number))


def _micros(dollars: str | None) -> int | None:
    return None if dollars is None else int(Decimal(dollars) * 1_000_000)
