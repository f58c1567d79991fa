"""What can go wrong with a request, and how it is said: `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.database import DatabaseBusy, DatabaseUnavailable, StatementTooSlow
from api.schemas import Problem

# What a caller made up is not said back at any length.
_MOST_REASONS = 20
_LONGEST_FIELD = 100
_TYPE_PREFIX = "urn:kalshi-platform:problem:"


class ProblemError(Exception):
    """A request that cannot be answered; subclasses say why, and carry their status.

    Args:
        detail: one sentence for the caller, with the remedy where there is one.
        field: the input at fault, by the name the caller gave it.
        members: further members of the problem, by name.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    name = "internal"
    title = "Something went wrong on our side"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, str | None] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.headers = headers or {}
        self.members = members or {}


class InvalidInput(ProblemError):
    """A field of the request cannot be used."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    name = "invalid_input"
    title = "The request is not valid"


class UnknownMarket(ProblemError):
    """No message has ever named this market."""

    status = HTTPStatus.NOT_FOUND
    name = "unknown_market"
    title = "No such market"


class UnknownEvent(ProblemError):
    """Neither a market nor a list of the exchange has ever named this event."""

    status = HTTPStatus.NOT_FOUND
    name = "unknown_event"
    title = "No such event"


class UnknownSeries(ProblemError):
    """No event has named this series, or the exchange says that there is none."""

    status = HTTPStatus.NOT_FOUND
    name = "unknown_series"
    title = "No such series"


class OutcomePending(ProblemError):
    """The market is known and has no outcome yet."""

    status = HTTPStatus.NOT_FOUND
    name = "outcome_pending"
    title = "No outcome yet"


class BookNotRecorded(ProblemError):
    """The market is known, but its order book is not, or not at that instant."""

    status = HTTPStatus.NOT_FOUND
    name = "book_not_recorded"
    title = "No order book recorded"


def never_recorded(market_ticker: str) -> BookNotRecorded:
    """A known market whose order book nobody ever watched."""
    return BookNotRecorded(
        f"market_ticker: the order book of {market_ticker!r} has never been recorded;"
        " only a chosen set of books is.",
        field="market_ticker",
    )


class Unauthorized(ProblemError):
    """No key, or none that opens this door."""

    status = HTTPStatus.UNAUTHORIZED
    name = "unauthorized"
    title = "A valid API key is needed"


class CreditsSpent(ProblemError):
    """The key has fewer credits left than the request costs; nothing was charged."""

    status = HTTPStatus.PAYMENT_REQUIRED
    name = "credits_spent"
    title = "The credits are spent"


class TooManyRequests(ProblemError):
    """The key asks faster than its plan allows."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    name = "too_many_requests"
    title = "Too many requests"


class Unavailable(ProblemError):
    """The database cannot answer now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    name = "unavailable"
    title = "The data cannot be reached right now"


class Busy(ProblemError):
    """More is asked than can be answered at once."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    name = "busy"
    title = "Too much is being asked right now"


def problem_members(
    name: str,
    title: str,
    status: int,
    detail: str,
    request_id: str,
    *,
    field: str | None = None,
    errors: list[dict[str, str | None]] | None = None,
    members: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """One problem, member by member; absent ones are left out, as the RFC has it."""
    all_members: dict[str, Any] = {
        "type": _TYPE_PREFIX + name,
        "title": title,
        "status": int(status),
        "detail": detail,
        "field": field,
        "errors": errors,
        **(members or {}),
        "request_id": request_id,
    }
    return {key: value for key, value in all_members.items() if value is not None}


def problem_response(
    request_id: str,
    status: int,
    *,
    name: str,
    title: str,
    detail: str,
    field: str | None = None,
    errors: list[dict[str, str | None]] | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, str | None] | None = None,
) -> Response:
    """One problem as an answer."""
    told = problem_members(
        name, title, status, detail, request_id, field=field, errors=errors, members=members
    )
    return Response(
        msgspec.json.encode(told), int(status), headers, media_type="application/problem+json"
    )


def problems(*statuses: int, charged: bool = True) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a keyed route: which problems it answers with, besides 401, 429 and 503,
    and 402 where it costs credits."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "model": Problem,
            "content": {"application/problem+json": {"schema": {"$ref": _PROBLEM_SCHEMA}}},
        }
        for status in sorted({*statuses, 401, 429, 503} | ({402} if charged else set()))
    }


_PROBLEM_SCHEMA = "#/components/schemas/Problem"


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every known error as a problem; unknown ones are the middleware's."""

    @app.exception_handler(ProblemError)
    async def known(request: Request, error: ProblemError) -> Response:
        return problem_response(
            request.state.request_id,
            error.status,
            name=error.name,
            title=error.title,
            detail=error.detail,
            field=error.field,
            headers=error.headers,
            members=error.members,
        )

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        errors = [_reason(reason) for reason in error.errors()[:_MOST_REASONS]]
        return problem_response(
            request.state.request_id,
            InvalidInput.status,
            name=InvalidInput.name,
            title=InvalidInput.title,
            detail=str(errors[0]["detail"]),
            field=errors[0]["field"],
            errors=errors if len(errors) > 1 else None,
        )

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # FastAPI's word for a body that its JSON reader gives up on.
            return await known(
                request,
                InvalidInput(
                    "The body cannot be read: send JSON in UTF-8, not nested, no number longer"
                    " than 4,300 digits.",
                    field="body",
                ),
            )
        phrase = HTTPStatus(error.status_code).phrase
        return problem_response(
            request.state.request_id,
            error.status_code,
            name=phrase.lower().replace(" ", "_"),
            title=phrase,
            detail=f"{request.method} {request.url.path}: {error.detail}. See /docs.",
            headers=error.headers,
        )

    @app.exception_handler(DatabaseUnavailable)
    async def away(request: Request, _error: DatabaseUnavailable) -> Response:
        return await known(
            request,
            Unavailable(
                "The database does not answer; try again in a few seconds.",
                headers={"Retry-After": "2"},
            ),
        )

    @app.exception_handler(DatabaseBusy)
    async def busy(request: Request, _error: DatabaseBusy) -> Response:
        return await known(
            request,
            Busy(
                "All connections to the database are in use; try again in a moment.",
                headers={"Retry-After": "1"},
            ),
        )

    @app.exception_handler(StatementTooSlow)
    async def slow(request: Request, _error: StatementTooSlow) -> Response:
        return await known(
            request,
            Unavailable(
                "The database took too long; try again, or ask for a narrower window.",
                headers={"Retry-After": "5"},
            ),
        )


def _reason(reason: Mapping[str, Any]) -> dict[str, str | None]:
    """One pydantic error in the caller's words: where it is, and what is wrong."""
    place, *path = reason["loc"]
    if reason["type"] == "json_invalid":
        return {
            "field": "body",
            "detail": f"The body is not JSON: {reason['ctx']['error']} at character {path[0]}.",
        }
    field = (".".join(str(part) for part in path) or str(place))[:_LONGEST_FIELD]
    if reason["type"] == "extra_forbidden":
        return {"field": field, "detail": f"{field}: there is no such field."}
    if field == "body":
        return {
            "field": field,
            "detail": "The body must be a JSON object, sent with Content-Type: application/json.",
        }
    message = str(reason["msg"]).removeprefix("Value error, ")
    return {"field": field, "detail": f"{field}: {message[:1].lower()}{message[1:]}."}
