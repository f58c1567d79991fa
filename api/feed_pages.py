"""Pages of what the feed told of one market: the window asked for, cursors, the answer."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.archive import Archive, PageStatement, archived_page
from api.cursors import encode_cursor
from api.errors import InvalidInput
from api.inputs import Cursor, Instant, from_unix_micros, unix_micros
from api.lists import position_in
from kalshi_platform.storage.reads.feed_pages import FeedPosition
from kalshi_platform.storage.reads.trades import SEPARATOR


class FeedWindow(BaseModel):
    """A half-open window, [start_time, end_time); an open side has no bound."""

    model_config = ConfigDict(extra="forbid")

    start_time: Annotated[Instant | None, Field(description="First instant of the window.")] = None
    end_time: Annotated[Instant | None, Field(description="First instant after the window.")] = None
    cursor: Cursor | None = None

    @model_validator(mode="after")
    def _window_runs_forward(self) -> Self:
        if self.start_time and self.end_time and self.start_time >= self.end_time:
            # Raised as the request's own problem: pydantic would not name a field here.
            raise InvalidInput("end_time must be later than start_time.", field="end_time")
        return self


class FeedRows(NamedTuple):
    """One page: JSON objects with commas between them, and where the next begins."""

    rows: bytes
    next_cursor: str | None


class _Place(NamedTuple):
    """A FeedPosition as it travels in a cursor."""

    at_micros: int
    feed_order: int


async def feed_rows(
    archive: Archive,
    table: str,
    columns: Mapping[str, str],
    statement_of: PageStatement[FeedPosition],
    name: str,
    market_ticker: str,
    window: FeedWindow,
    limit: int,
) -> FeedRows:
    """The page that the window and its cursor ask for.

    Args:
        table, columns: what the statement reads.
        name: of the question, for its cursors.

    Raises:
        InvalidInput: the cursor is none of ours, or belongs to another query.
        Unavailable: a file of the archive is needed and cannot be read.
    """
    bound = (name, market_ticker, window.start_time, window.end_time)
    row = await archived_page(
        archive,
        table,
        [*columns],
        statement_of,
        market_ticker,
        start=window.start_time,
        end=window.end_time,
        after=_position(window.cursor, bound),
        limit=limit,
    )
    records, found, at, feed_order = row
    if int(found or 0) <= limit:
        return FeedRows(records or b"", None)
    assert records and at and feed_order, "a page with a successor is full"
    place = _Place(unix_micros(datetime.fromisoformat(at.decode())), int(feed_order))
    return FeedRows(records[: records.rindex(SEPARATOR)], encode_cursor(bound, place))


def _position(cursor: str | None, bound: tuple[object, ...]) -> FeedPosition | None:
    place = position_in(cursor, bound, _Place)
    if place is None:
        return None
    try:
        return FeedPosition(from_unix_micros(place.at_micros), place.feed_order)
    except OverflowError as error:
        raise InvalidInput("cursor is none of ours.", field="cursor") from error
