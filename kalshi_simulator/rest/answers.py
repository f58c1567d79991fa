"""Answers and errors as the exchange writes them, and the reading of query parameters."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

Place = TypeVar("Place", bound=tuple[Any, ...])


class Problem(Exception):
    """An error answer: nested body, `details` optional (recorded form, protocol section 5)."""

    def __init__(self, status: int, code: str, message: str, details: str | None = None) -> None:
        super().__init__(details or message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details

    def response(self) -> Response:
        error = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return json_response({"error": error}, self.status)


def bad_request(details: str) -> Problem:
    return Problem(400, "bad_request", "bad request", details)


def not_found() -> Problem:
    return Problem(404, "not_found", "not found")


def json_response(content: Any, status: int = 200) -> Response:
    return raw_response(msgspec.json.encode(content), status)


def raw_response(content: bytes | str, status: int = 200) -> Response:
    """A JSON answer that is text already."""
    return Response(content, status, media_type="application/json")


def whole(request: Request, name: str) -> int | None:
    """An integer parameter, None when absent; 400 when it is not a number."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f"invalid {name}") from None


def needed(request: Request, name: str) -> int:
    """An integer parameter that must be there."""
    value = whole(request, name)
    if value is None:
        raise bad_request(f"{name} is required")
    return value


def limited(request: Request, default: int, most: int) -> int:
    """The page size; 400 outside 0 to `most`. 0 means the default."""
    value = whole(request, "limit")
    if value is None or value == 0:
        return default
    if not 0 < value <= most:
        raise bad_request(f"limit must be between 0 and {most}")
    return value


def yes_or_no(request: Request, name: str) -> bool | None:
    """A boolean parameter, None when absent."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return None
    if text not in ("true", "false"):
        raise bad_request(f"invalid {name}")
    return text == "true"


def make_cursor(*position: int | str) -> str:
    """An opaque mark of a place in a list."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(position)).decode().rstrip("=")


def read_cursor(request: Request, shape: type[Place]) -> Place | None:
    """The place a cursor marks, None without one; 400 when it is not one of ours."""
    text = request.query_params.get("cursor")
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        place: Place = msgspec.msgpack.decode(raw, type=shape)
    except (binascii.Error, ValueError, msgspec.DecodeError, msgspec.ValidationError):
        raise bad_request("invalid cursor") from None
    return place
