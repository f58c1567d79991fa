"""The verdict: the tables held against the exchange's own ledger."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from kalshi_platform.storage.engine import connect
from kalshi_simulator.testing import RunningSimulator

_SLICE = timedelta(minutes=10)


@dataclass
class Verdict:
    """What differs between `trades` and the ledger over a window."""

    ledger: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    different: list[tuple[object, object]] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not (self.missing or self.extra or self.different)

    def __str__(self) -> str:
        text = (
            f"{self.ledger:,} trades in the ledger: {len(self.missing)} missing, "
            f"{len(self.extra)} extra, {len(self.different)} different"
        )
        for name, examples in (
            ("missing", self.missing),
            ("extra", self.extra),
            ("different", self.different),
        ):
            text += "".join(f"\n  {name}: {example}" for example in examples[:5])
        return text


def trades_against_ledger(
    url: str, simulator: RunningSimulator, start: datetime, end: datetime
) -> Verdict:
    """Compare every trade of [start, end), field by field; times to the millisecond at least."""
    verdict = Verdict()
    for first, last in _slices(start, end):
        truth = {
            row["trade_id"]: (
                row["ticker"],
                int(Decimal(row["yes_price_dollars"]) * 1_000_000),
                int(Decimal(row["count_fp"]) * 100),
                row["taker_outcome_side"],
                row["is_block_trade"],
                datetime.fromisoformat(row["created_time"]),
            )
            for row in simulator.ledger_trades(first.isoformat(), last.isoformat())
        }
        verdict.ledger += len(truth)
        held = _held(url, first, last)
        for trade_id, (*values, exact_time) in held.items():
            real = truth.get(trade_id)
            if real is None:
                verdict.extra.append(trade_id)
                continue
            expected = list(real)
            if not exact_time:
                expected[5] = _cut_to_milliseconds(real[5])
            if values != expected:
                verdict.different.append((values, expected))
        verdict.missing += sorted(truth.keys() - held.keys())
    return verdict


def _held(url: str, start: datetime, end: datetime) -> dict[str, tuple[object, ...]]:
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT trade_id::text, market_ticker, yes_price_micros, count_centis, taker_side,"
            " is_block_trade, traded_at, exact_time FROM trades"
            " WHERE traded_on BETWEEN %(start)s::date AND %(end)s::date"
            " AND traded_at >= %(start)s AND traded_at < %(end)s",
            {"start": start, "end": end},
        )
        return {row[0]: row[1:] for row in rows}


def _cut_to_milliseconds(instant: datetime) -> datetime:
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _slices(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        yield start, min(start + _SLICE, end)
        start += _SLICE
