"""GET /candles/{ticker}: trades, bid, ask and open interest per interval, oldest first."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.auth import SECURITY, KeyedRoute
from api.completeness import Completeness
from api.cursors import BadCursor, decode_cursor, encode_cursor
from api.database import ReadDatabase
from api.errors import InvalidInput, problems
from api.inputs import EARLIEST, LATEST, Cursor, Instant, Ticker, from_unix_micros, unix_micros
from api.markets import require_market
from api.pages import page_response
from api.schemas import Candle, Page
from kalshi_platform.storage.reads.candle_slots import Fill
from kalshi_platform.storage.reads.candles import candle_page_sql
from kalshi_platform.transform.candles import Interval

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["candles"])

DEFAULT_INTERVALS = 1_440
WIDEST_INTERVALS = 50_000
_MICROSECOND = timedelta(microseconds=1)


class _Place(NamedTuple):
    """What is left of a window, as it travels in a cursor; Unix microseconds."""

    next_start_micros: int
    end_micros: int


class CandlesQuery(BaseModel):
    """Which candles; see the parameters' descriptions."""

    model_config = ConfigDict(extra="forbid")

    interval: Annotated[
        Literal["1m", "1h", "1d"], Field(description="Width of a candle; UTC days.")
    ] = "1m"
    start_time: Annotated[
        Instant | None,
        Field(
            description="First instant at which a candle may start; left out: 1,440 before the end."
        ),
    ] = None
    end_time: Annotated[
        Instant | None,
        Field(description="First instant at which no candle starts any more; now if left out."),
    ] = None
    fill: Annotated[
        Literal["none", "null", "carry"],
        Field(
            description="What stands for an interval without trades and quotes: nothing, a candle"
            " of nulls, or one that carries the last close with volume 0, and bid, ask and open"
            " interest as they stood. With `carry`, a candle that was only quoted has the last"
            " close as its prices, too."
        ),
    ] = "none"
    cursor: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=5_000, description="Candles a page.")] = DEFAULT_INTERVALS

    @model_validator(mode="after")
    def _window_is_usable(self) -> "CandlesQuery":
        if self.cursor is not None:
            return self  # the cursor holds the window; "now" is another by this time
        # Raised as the request's own problem: pydantic would not name a field here.
        start, end = self.window(datetime.now(UTC))
        if start >= end:
            if self.end_time is None:
                raise InvalidInput("start_time lies in the future.", field="start_time")
            raise InvalidInput("end_time must be later than start_time.", field="end_time")
        if end - start > WIDEST_INTERVALS * self.width:
            raise InvalidInput(
                f"start_time: the window spans more than {WIDEST_INTERVALS:,} intervals of"
                f" {self.interval}; ask for a narrower one, or for wider candles.",
                field="start_time",
            )
        return self

    @property
    def width(self) -> timedelta:
        return timedelta(seconds=Interval.labelled(self.interval).seconds)

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """The window asked for, or the latest intervals including the one that runs."""
        end = self.end_time or _start_of_interval(now, self.width) + self.width
        return self.start_time or end - DEFAULT_INTERVALS * self.width, end


@router.get(
    "/candles/{ticker}",
    response_model=Page[Candle],
    responses=problems(404, 422),
    summary="A market's candles, oldest first",
)
async def list_candles(
    ticker: Annotated[Ticker, Path()], query: Annotated[CandlesQuery, Query()], request: Request
) -> Response:
    """Candles that start in `[start_time, end_time)`, the running interval included.

    An interval without trades and quotes has no candle unless `fill` asks for one. All trades
    count, block trades too. The newest candles are worked out from the trades and quotes as they
    stand this instant.
    """
    database: ReadDatabase = request.app.state.database
    completeness: Completeness = request.app.state.completeness
    bound = ("candles", ticker, query.interval, query.fill, query.start_time, query.end_time)
    start, end = _window(query, bound)
    # What happened before the first candle is asked for as of that candle's start.
    start = _start_of_interval(start + query.width - _MICROSECOND, query.width)
    row = await database.row(
        candle_page_sql(Interval.labelled(query.interval), Fill(query.fill)),
        {"market_ticker": ticker, "start": start, "end": end, "limit": query.limit},
    )
    assert row is not None, "an aggregate answers one row"
    body, row_count, has_more, last_starts_at = row
    if row_count == b"0" or query.fill != "none":
        await require_market(database, ticker, field="ticker")
    next_cursor = None
    if has_more == b"t":
        assert last_starts_at is not None, "a page with a successor has rows"
        next_start = datetime.fromisoformat(last_starts_at.decode()) + query.width
        next_cursor = encode_cursor(bound, _Place(unix_micros(next_start), unix_micros(end)))
    status = await completeness.of(start, end)
    return page_response(request, (body or b"[]")[1:-1], next_cursor, status)


def _window(query: CandlesQuery, bound: tuple[object, ...]) -> tuple[datetime, datetime]:
    """What is left of the window; a cursor remembers the end that "now" once stood for."""
    if query.cursor is None:
        return query.window(datetime.now(UTC))
    try:
        place = decode_cursor(query.cursor, bound, _Place)
        start, end = from_unix_micros(place.next_start_micros), from_unix_micros(place.end_micros)
        if not _is_rest_of_window(query, start, end):
            raise BadCursor("is none of ours; send next_cursor back as it came")
    except (BadCursor, OverflowError) as error:
        raise InvalidInput(f"cursor {error}.", field="cursor") from error
    return start, end


def _is_rest_of_window(query: CandlesQuery, start: datetime, end: datetime) -> bool:
    """Whether a first page could have left this window: a cursor can be made by anybody."""
    return (
        EARLIEST <= (query.start_time or EARLIEST) <= start < end
        and end <= (query.end_time or LATEST + query.width)
        and end - start <= WIDEST_INTERVALS * query.width
    )


def _start_of_interval(instant: datetime, width: timedelta) -> datetime:
    return instant - (instant - from_unix_micros(0)) % width
