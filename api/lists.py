"""Lists and single records that Postgres writes: one question each, passed through."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import Request, Response

from api.cursors import BadCursor, decode_cursor, encode_cursor
from api.database import ReadDatabase
from api.errors import InvalidInput
from api.pages import page_response
from kalshi_platform.storage.reads.trades import SEPARATOR

Position = TypeVar("Position")


def position_in(
    cursor: str | None, bound: tuple[object, ...], shape: type[Position]
) -> Position | None:
    """Where the page before ended; None without a cursor.

    Raises:
        InvalidInput: the cursor is none of ours, or belongs to another query.
    """
    if cursor is None:
        return None
    try:
        return decode_cursor(cursor, bound, shape)
    except BadCursor as error:
        raise InvalidInput(f"cursor {error}.", field="cursor") from error


async def list_page(
    request: Request,
    page: tuple[str, Mapping[str, Any]],
    *,
    bound: tuple[object, ...],
    limit: int,
) -> Response:
    """Answer with the page of a statement of `storage.reads.listing.page_of`."""
    database: ReadDatabase = request.app.state.lists
    row = await database.row(*page)
    assert row is not None, "an aggregate answers one row"
    records, found, position = row
    rows, next_cursor = records or b"", None
    if int(found or 0) > limit:
        assert position is not None, "a full page has a last record"
        rows = rows[: rows.rindex(SEPARATOR)]
        next_cursor = encode_cursor(bound, msgspec.json.decode(position))
    return page_response(request, rows, next_cursor)


async def record_of(
    request: Request, statement: str, ticker: str
) -> tuple[bytes | None, ...] | None:
    """The row of a statement that asks for one `ticker`; None where nothing is known of it."""
    database: ReadDatabase = request.app.state.lists
    return await database.row(statement, {"ticker": ticker})
