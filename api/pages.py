"""The envelope of every answer, put around records that are JSON already."""

import time

import msgspec
from fastapi import Request, Response


def page_response(
    request: Request, rows: bytes, next_cursor: str | None, data_status: str | None = None
) -> Response:
    """One page as it goes out.

    Args:
        rows: JSON objects with commas between them; may be empty.
        next_cursor: None on the last page.
        data_status: for X-Data-Status: `complete`, `unverified` or `gaps`; None for what is no
            series of records in time.
    """
    place = b'],"next_cursor":%b,"has_more":%b' % (
        msgspec.json.encode(next_cursor),
        b"false" if next_cursor is None else b"true",
    )
    return Response(
        b'{"data":[' + rows + place + _tail(request),
        media_type="application/json",
        headers=None if data_status is None else {"X-Data-Status": data_status},
    )


def record_response(request: Request, record: bytes, data_status: str | None = None) -> Response:
    """One record, JSON already, as it goes out; `data_status` as in `page_response`."""
    return Response(
        b'{"data":' + record + _tail(request),
        media_type="application/json",
        headers=None if data_status is None else {"X-Data-Status": data_status},
    )


def _tail(request: Request) -> bytes:
    return b',"request_id":%b,"response_time":%.6f}' % (
        msgspec.json.encode(request.state.request_id),
        time.perf_counter() - request.state.started,
    )
