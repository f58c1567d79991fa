"""The envelope of every page, put around rows that are JSON already."""

import time

import msgspec
from fastapi import Request, Response


def page_response(
    request: Request, rows: bytes, next_cursor: str | None, data_status: str
) -> Response:
    """One page as it goes out.

    Args:
        rows: JSON objects with commas between them; may be empty.
        next_cursor: None on the last page.
        data_status: for X-Data-Status: `complete`, `unverified` or `gaps`.
    """
    tail = b'],"next_cursor":%b,"has_more":%b,"request_id":%b,"response_time":%.6f}' % (
        msgspec.json.encode(next_cursor),
        b"false" if next_cursor is None else b"true",
        msgspec.json.encode(request.state.request_id),
        time.perf_counter() - request.state.started,
    )
    return Response(
        b'{"data":[' + rows + tail,
        media_type="application/json",
        headers={"X-Data-Status": data_status},
    )
