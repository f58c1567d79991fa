"""Who is let in: the handshake of a WebSocket, and the answer to one that is refused."""

from __future__ import annotations

import http
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from kalshi_simulator.signing import Gatekeeper, Refused

WS_PATH = "/trade-api/ws/v2"


def admission(
    gatekeeper: Gatekeeper, connection: ServerConnection, request: Request
) -> Response | None:
    """Check a handshake: None lets it in, with the key id as the connection's user name."""
    path = request.path.partition("?")[0]
    if path != WS_PATH:
        return problem(404, "not_found", "not found", None)
    try:
        connection.username = gatekeeper.check(request.headers, "GET", path)
    except Refused as refusal:
        return problem(401, refusal.code, "unauthorized", refusal.details)
    return None


def problem(status: int, code: str, message: str, details: str | None) -> Response:
    """The answer to a handshake that is refused, in the exchange's shape."""
    error: dict[str, Any] = {"code": code, "message": message}
    if details is not None:
        error["details"] = details
    body = msgspec.json.encode({"error": error})
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
    headers["Connection"] = "close"
    return Response(status, http.HTTPStatus(status).phrase, headers, body)
