"""What made-up markets are called: tickers, titles, strikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kalshi_simulator.figures import DAY_US, when
from kalshi_simulator.hashing import hash_of, text_seed, uuid_text
from kalshi_simulator.layout import Layout, SeriesPlan, Slot

_TEAMS = (
    "ARI", "ATL", "BAL", "BUF", "CAR", "CHI", "CIN", "CLE", "DAL", "DEN", "DET", "GB", "HOU", "IND",
    "JAC", "KC", "LA", "LAC", "LV", "MIA", "MIN", "NE", "NO", "NYG", "NYJ", "PHI", "PIT", "SEA",
    "SF", "TB", "TEN", "WAS",
)  # fmt: skip
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True)
class Names:
    """The words of one market. `strikes` holds the strike fields as the wire has them."""

    ticker: str
    event_ticker: str
    event_title: str
    event_subtitle: str
    title: str
    yes_sub_title: str
    no_sub_title: str
    strikes: dict[str, Any]


def names_of(layout: Layout, slot: Slot, instance: int, close_us: int) -> Names:
    """Names of a market, from the seed and the time it closes."""
    plan = slot.series
    draw = hash_of(layout.seed, text_seed(plan.ticker), slot.lane, instance)
    label = _label(plan, slot.lane, close_us, draw)
    event = f"{plan.ticker}-{label}"
    moment = f"{when(close_us):%b %d at %H:%M}"
    strikes: dict[str, Any]
    if plan.kind == "strike":
        strike_cents = (draw % 40_000_00) + 60_000_00 + slot.leg * 250_00
        strike = f"{strike_cents // 100}.{strike_cents % 100:02d}"
        words = f"${strike} or above"
        strikes = {"strike_type": "greater", "floor_strike": _number(strike_cents)}
        return Names(
            f"{event}-T{strike}", event, f"{plan.title}, {moment}", moment,
            f"Will the price be above {strike} on {moment}?", words, words, strikes,
        )  # fmt: skip
    if plan.kind == "range":
        low = 40 + draw % 40 + 2 * slot.leg
        words = f"{low} to {low + 1}"
        strikes = {"strike_type": "between", "floor_strike": low, "cap_strike": low + 1}
        return Names(
            f"{event}-B{low}.5", event, f"{plan.title} on {when(close_us):%b %d}",
            f"{when(close_us):%b %d}", f"Will the high be {words}?", words, words, strikes,
        )  # fmt: skip
    if plan.kind == "answer":
        answer = slot.leg + 2
        return Names(
            f"{event}-{answer}", event, f"{plan.title} on {moment}?", moment,
            f"Will 1+1 equal {answer}?", str(answer), str(answer), {"strike_type": "functional"},
        )  # fmt: skip
    if plan.kind == "rate":
        rate = 300 + 25 * slot.leg
        words = f"Above {rate // 100}.{rate % 100:02d}%"
        strikes = {"strike_type": "greater", "floor_strike": _number(rate)}
        return Names(
            f"{event}-T{rate // 100}.{rate % 100:02d}", event, f"{plan.title}, meeting {slot.lane}",
            f"{when(close_us):%b %Y}", f"Will the rate be {words.lower()}?", words, words, strikes,
        )  # fmt: skip
    if plan.kind == "combo":
        legs = f"yes leg {draw % 90},no leg {draw % 70}"
        return Names(
            f"{event}-E{hash_of(draw, slot.leg) >> 24:010X}", event, "Combo", "",
            legs, legs, legs, {"strike_type": "custom"},
        )  # fmt: skip
    away, home = _game(slot.lane)
    team = (away, home, "TIE")[slot.leg]
    strikes = {
        "strike_type": "structured",
        "custom_strike": {"football_team": uuid_text(text_seed(team), hash_of(text_seed(team)))},
    }
    return Names(
        f"{event}-{team}", event, f"{away} at {home}", f"{away} at {home} ({when(close_us):%b %d})",
        f"Will {team} win the {away} at {home} game?", team, team, strikes,
    )  # fmt: skip


def market_id(key: int) -> str:
    """The uuid by which the ticker channel also names a market."""
    return uuid_text(hash_of(key, 3), hash_of(key, 4))


def _number(hundredths: int) -> int | float:
    """A strike as the wire's bare number: neither a price nor a count."""
    return hundredths // 100 if hundredths % 100 == 0 else hundredths / 100


def _game(lane: int) -> tuple[str, str]:
    return _TEAMS[lane * 2 % len(_TEAMS)], _TEAMS[(lane * 2 + 1 + lane // 16) % len(_TEAMS)]


def _label(plan: SeriesPlan, lane: int, close_us: int, draw: int) -> str:
    close = when(close_us)
    day = f"{close:%y}{_MONTHS[close.month - 1]}{close:%d}"
    if plan.kind == "combo":
        return f"S2026{draw >> 20:011X}"
    if plan.kind == "team":
        return day + "".join(_game(lane))
    if plan.kind == "rate":
        return f"{day[:5]}{'ABCDEFGHIJ'[lane % 10] if lane else ''}"
    suffix = "" if lane == 0 else "ABCDEFGHIJ"[lane % 10]
    if plan.period_us and plan.period_us < DAY_US:
        return f"{day}{close:%H%M}{suffix}"
    return day + suffix
