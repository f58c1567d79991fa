"""What must hold for one UTC day of markets, events and outcomes, as queries.

In the manner of `quality.py`: every query returns one row, `passed` first, then figures. Where rows
are worth naming, the last figure is `examples`: a JSON list of at most twenty of them, worst first.

Whether something is right is never decided by comparing the exchange's times with ours, whose
clocks may differ; how long we have waited is measured from when we learnt of it.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    case,
    cast,
    func,
    or_,
    select,
    true,
)

from kalshi_platform.storage import tables
from kalshi_platform.transform.quality import Check

# REST shows what the stream told within seconds; what is asked for in vain is asked again after 5,
# 10, 20 … s. Whatever waits longer than this, waits too long.
_PATIENCE = timedelta(minutes=10)
_EXAMPLES = 20
_ONE_DOLLAR = 1_000_000


def traded_markets_known(day: date) -> Select[Any]:
    """Whether the exchange has described every market that traded on the day."""
    markets = tables.markets
    traded = _traded(day)
    unknown = (
        select(
            traded.c.market_ticker,
            (markets.c.first_seen_at > func.now() - _PATIENCE).label("is_young"),
            _seconds(func.now() - markets.c.first_seen_at).label("waiting_seconds"),
            markets.c.not_found_at.is_not(None).label("not_found"),
        )
        .select_from(traded.outerjoin(markets, markets.c.market_ticker == traded.c.market_ticker))
        .where(traded.c.market_ticker.is_not(None), markets.c.metadata.is_(None))
        .cte("unknown")
    )
    # A market without a row is not young: the row is written with the trade.
    late = _count(unknown, unknown.c.is_young.is_not(True))
    return select(
        (late == 0).label("passed"),
        late.label("markets_unknown"),
        _count(unknown, unknown.c.is_young).label("markets_asked_for"),
        _count(traded, traded.c.market_ticker.is_not(None)).label("markets_traded"),
        _examples(unknown, unknown.c.waiting_seconds.desc().nulls_first(), unknown.c.market_ticker),
    )


def past_markets_have_outcomes(day: date) -> Select[Any]:
    """Whether every market that closed on the day has an outcome, or is being asked for it.

    One that is past its settlement time without an outcome is listed with its age: the exchange
    may take days. One without an outcome, or whose outcome is not final, that nobody will ask for
    again is forgotten.
    """
    markets, settlements = tables.markets, tables.settlements
    settles_at = markets.c.closes_at + func.make_interval(
        0, 0, 0, 0, 0, 0, func.coalesce(markets.c.settlement_timer_seconds, 0)
    )
    undecided = (
        select(
            markets.c.market_ticker,
            markets.c.closes_at,
            markets.c.read_attempts,
            markets.c.next_read_at,
            _seconds(func.now() - settles_at).label("overdue_seconds"),
            settlements.c.status.label("outcome_status"),
        )
        .select_from(
            markets.outerjoin(settlements, settlements.c.market_ticker == markets.c.market_ticker)
        )
        .where(
            _in_day(markets.c.closes_at, day),
            settlements.c.status.is_distinct_from("finalized"),
        )
        .cte("undecided")
    )
    overdue = undecided.c.outcome_status.is_(None) & (undecided.c.overdue_seconds > 0)
    forgotten = undecided.c.next_read_at.is_(None)
    listed = select(undecided).where(or_(overdue, forgotten)).cte("listed")
    forgotten_count = _count(undecided, forgotten)
    oldest = func.coalesce(func.max(listed.c.overdue_seconds), 0)
    return select(
        (forgotten_count == 0).label("passed"),
        forgotten_count.label("markets_forgotten"),
        _count(undecided, and_(overdue, ~forgotten)).label("markets_pending"),
        select(oldest).scalar_subquery().label("oldest_pending_seconds"),
        _examples(
            listed,
            listed.c.next_read_at.is_(None).desc(),
            listed.c.overdue_seconds.desc(),
        ),
    )


def outcome_value_matches_result(day: date) -> Select[Any]:
    """Whether a yes pays a dollar, a no nothing, and anything else something between.

    Words we do not know are allowed, a value not told is counted; a scalar is nothing without one.
    """
    settlements = tables.settlements
    value, result = settlements.c.settlement_value_micros, settlements.c.result
    is_right = case(
        (result == "yes", func.coalesce(value, _ONE_DOLLAR) == _ONE_DOLLAR),
        (result == "no", func.coalesce(value, 0) == 0),
        (result == "scalar", func.coalesce(value, -1).between(0, _ONE_DOLLAR)),
        (result == "", False),
        else_=func.coalesce(value, 0).between(0, _ONE_DOLLAR),
    )
    outcomes = (
        select(
            settlements.c.market_ticker,
            result,
            value,
            settlements.c.source,
            is_right.label("is_right"),
        )
        .where(_outcome_of_day(day))
        .cte("outcomes")
    )
    wrong = _listed(outcomes, ~outcomes.c.is_right)
    return select(
        (_count(wrong) == 0).label("passed"),
        _count(wrong).label("values_wrong"),
        _count(outcomes, outcomes.c.settlement_value_micros.is_(None)).label("values_untold"),
        _count(outcomes).label("outcomes"),
        _examples(wrong, wrong.c.market_ticker),
    )


def outcomes_are_their_last_version(day: date) -> Select[Any]:
    """Whether the history of each of the day's outcomes is without a hole and ends in it."""
    settlements, history = tables.settlements, tables.settlement_history
    said = ("status", "result", "settlement_value_micros")
    last = (
        select(history.c.version, *(history.c[name] for name in said))
        .where(history.c.market_ticker == settlements.c.market_ticker)
        .order_by(history.c.version.desc())
        .limit(1)
        .lateral("last")
    )
    versions = (
        select(func.count())
        .where(history.c.market_ticker == settlements.c.market_ticker)
        .scalar_subquery()
    )
    wrong = (
        select(
            settlements.c.market_ticker,
            settlements.c.status,
            settlements.c.result,
            last.c.status.label("last_status"),
            last.c.result.label("last_result"),
            versions.label("versions"),
        )
        .select_from(settlements.outerjoin(last, true()))
        .where(
            _outcome_of_day(day),
            or_(
                last.c.version.is_distinct_from(versions),
                *(settlements.c[name].is_distinct_from(last.c[name]) for name in said),
            ),
        )
        .cte("wrong")
    )
    return select(
        (_count(wrong) == 0).label("passed"),
        _count(wrong).label("outcomes_unlike_history"),
        _examples(wrong, wrong.c.market_ticker),
    )


def settlements_confirmed(day: date) -> Select[Any]:
    """Whether REST has said the same as the stream of every outcome known for ten minutes."""
    settlements = tables.settlements
    waiting = (
        select(
            settlements.c.market_ticker,
            settlements.c.status,
            settlements.c.result,
            (settlements.c.recorded_at > func.now() - _PATIENCE).label("is_young"),
            _seconds(func.now() - settlements.c.recorded_at).label("waiting_seconds"),
        )
        .where(_outcome_of_day(day), settlements.c.confirmed_at.is_(None))
        .cte("waiting")
    )
    late = _listed(waiting, ~waiting.c.is_young)
    return select(
        (_count(late) == 0).label("passed"),
        _count(late).label("outcomes_unconfirmed"),
        _count(waiting, waiting.c.is_young).label("outcomes_asked_for"),
        _examples(late, late.c.waiting_seconds.desc()),
    )


def events_belong_to_series(day: date) -> Select[Any]:
    """Whether the series that the day's events name is held, or known not to exist."""
    events, series = tables.events, tables.series
    named = (
        select(
            events.c.event_ticker,
            events.c.series_ticker,
            *_waiting_for(series, series.c.series_ticker),
        )
        .select_from(events.outerjoin(series, series.c.series_ticker == events.c.series_ticker))
        .where(_changed_on(events, day), events.c.series_ticker != "")
        .cte("named")
    )
    missing = _listed(named, named.c.is_missing)
    return select(
        (_count(missing) == 0).label("passed"),
        _count(missing).label("series_missing"),
        _count(named, named.c.is_young).label("series_asked_for"),
        _count(named, named.c.not_found).label("series_not_found"),
        _count(named).label("events_that_name_one"),
        _examples(missing, missing.c.event_ticker),
    )


def hierarchy_complete(day: date) -> Select[Any]:
    """Whether the event of each of the day's markets is held, and both name the same series."""
    markets, events = tables.markets, tables.events
    described = (
        select(
            markets.c.market_ticker,
            markets.c.event_ticker,
            markets.c.series_ticker,
            events.c.series_ticker.label("series_of_event"),
            *_waiting_for(events, events.c.event_ticker),
        )
        .select_from(markets.outerjoin(events, events.c.event_ticker == markets.c.event_ticker))
        .where(
            or_(_in_day(markets.c.created_at, day), _changed_on(markets, day)),
            # Of a market that has not been described nothing can be said.
            markets.c.metadata.is_not(None),
        )
        .cte("described")
    )
    differs = and_(
        described.c.series_of_event.is_not(None),
        described.c.series_ticker.is_distinct_from(described.c.series_of_event),
    )
    wrong = _listed(described, or_(described.c.is_missing, differs))
    return select(
        (_count(wrong) == 0).label("passed"),
        _count(described, described.c.is_missing).label("events_missing"),
        _count(described, differs).label("series_that_differ"),
        _count(described, described.c.is_young).label("events_asked_for"),
        _count(described, described.c.not_found).label("events_not_found"),
        _count(described).label("markets"),
        _examples(wrong, wrong.c.market_ticker),
    )


CHECKS = (
    Check("traded_markets_known", "Every market that traded is described.", traded_markets_known),
    Check("hierarchy_complete", "Every market's event is held.", hierarchy_complete),
    Check(
        "past_markets_have_outcomes",
        "Every market past its settlement time has an outcome or is being asked for it.",
        past_markets_have_outcomes,
    ),
    Check(
        "outcome_value_matches_result",
        "A yes pays a dollar, a no nothing, anything else something between.",
        outcome_value_matches_result,
    ),
    Check(
        "outcomes_are_their_last_version",
        "The history of every outcome is whole and ends in it.",
        outcomes_are_their_last_version,
    ),
    Check(
        "settlements_confirmed",
        "REST has confirmed every outcome known for ten minutes.",
        settlements_confirmed,
    ),
    Check(
        "events_belong_to_series",
        "The series that an event names is held, or known not to exist.",
        events_belong_to_series,
    ),
)


def _traded(day: date) -> CTE:
    """The markets that traded on the day, and one null.

    Steps from ticker to ticker through the index: a busy day has a thousand trades for each.
    """
    trades = tables.trades
    smallest = select(func.min(trades.c.market_ticker).label("market_ticker")).where(
        trades.c.traded_on == day
    )
    traded = smallest.cte("traded", recursive=True)
    following = smallest.where(trades.c.market_ticker > traded.c.market_ticker).scalar_subquery()
    return traded.union_all(select(following).where(traded.c.market_ticker.is_not(None)))


def _waiting_for(parent: Table, key: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    """How it is with the (outer joined) parent: not to be found, asked for, or missing."""
    held = parent.c.metadata.is_not(None)
    not_found = parent.c.not_found_at.is_not(None)
    is_new = parent.c.first_seen_at > func.now() - _PATIENCE
    is_young = and_(key.is_not(None), ~held, ~not_found, is_new)
    return (
        and_(~held, not_found).label("not_found"),
        is_young.label("is_young"),
        or_(key.is_(None), and_(~held, ~not_found, ~is_new)).label("is_missing"),
    )


def _listed(rows: CTE, condition: ColumnElement[bool]) -> CTE:
    columns = [column for column in rows.c if not column.name.startswith(("is_", "not_"))]
    return select(*columns).where(condition).cte("listed")


def _count(rows: CTE, condition: ColumnElement[bool] | None = None) -> ColumnElement[int]:
    query = select(func.count()).select_from(rows)
    return (query if condition is None else query.where(condition)).scalar_subquery()


def _examples(rows: CTE, *order: ColumnElement[Any]) -> ColumnElement[Any]:
    first = select(rows).order_by(*order).limit(_EXAMPLES).subquery("first")
    listed = select(func.json_agg(func.row_to_json(first.table_valued()))).select_from(first)
    return func.coalesce(listed.scalar_subquery(), func.json_build_array()).label("examples")


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.floor(func.extract("epoch", interval)), BigInteger)


def _outcome_of_day(day: date) -> ColumnElement[bool]:
    """Outcomes in force since that day, or paid on it."""
    settlements = tables.settlements
    return or_(_in_day(settlements.c.effective_at, day), _in_day(settlements.c.settled_at, day))


def _changed_on(table: Table, day: date) -> ColumnElement[bool]:
    """Last changed on the day by the exchange's clock; until it has told, first seen on it."""
    changed_at = table.c.exchange_updated_at
    return or_(
        _in_day(changed_at, day),
        and_(changed_at.is_(None), _in_day(table.c.first_seen_at, day)),
    )


def _in_day(instant: ColumnElement[Any], day: date) -> ColumnElement[bool]:
    start = datetime.combine(day, time(), UTC)
    return and_(instant >= start, instant < start + timedelta(days=1))
