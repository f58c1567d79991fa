"""The OpenAPI document, completed: what every operation shares, and an example of each answer.

FastAPI describes what the routes declare. The headers, the problems and the examples are the same
everywhere and are added here once; examples are made from those of the fields, so that they cannot
be of another shape than the answers.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI

from api.errors import (
    BookNotRecorded,
    Busy,
    CreditsSpent,
    InvalidInput,
    OutcomePending,
    ProblemError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnknownEvent,
    UnknownMarket,
    UnknownSeries,
    problem_members,
)
from api.schemas import Problem
from kalshi_platform.storage.reads.status import Status

JsonObject = dict[str, Any]

_PROBLEM_TYPE = "application/problem+json"
_REQUEST_ID = "0b3f6a1c9d2e4f58a7c6b5d4e3f20191"
_WITH_DATA_STATUS = {
    ("post", "/trades"),
    ("get", "/candles/{ticker}"),
    ("get", "/quotes/{ticker}"),
    ("post", "/orderbook"),
    ("post", "/deltas"),
}


class _Example(NamedTuple):
    error: type[ProblemError]
    detail: str
    field: str | None = None
    members: Mapping[str, str | None] = {}


_NO_MARKET = _Example(UnknownMarket, "ticker: no market 'KXHIGHNY-26NOV20-T99' is known.", "ticker")
_NO_MARKET_IN_BODY = _Example(
    UnknownMarket, "market_ticker: no market 'KXHIGHNY-26NOV20-T99' is known.", "market_ticker"
)
_NO_BOOK = _Example(
    BookNotRecorded,
    "market_ticker: the order book of 'KXHIGHNY-26NOV20-T50' has never been recorded; only a"
    " chosen set of books is.",
    "market_ticker",
)
_NOT_FOUND = {
    "/trades": [_NO_MARKET_IN_BODY],
    "/candles/{ticker}": [_NO_MARKET],
    "/quotes/{ticker}": [_NO_MARKET],
    "/orderbook": [_NO_MARKET_IN_BODY, _NO_BOOK],
    "/deltas": [_NO_MARKET_IN_BODY, _NO_BOOK],
    "/markets/{ticker}": [_NO_MARKET],
    "/settlements/{ticker}": [
        _Example(
            OutcomePending,
            "ticker: 'KXHIGHNY-26NOV20-T50' has no outcome yet; it has been closed since"
            " 2026-11-21T00:00:00.000000Z.",
            "ticker",
            {"closed_at": "2026-11-21T00:00:00.000000Z"},
        ),
        _NO_MARKET,
    ],
    "/events/{event_ticker}": [
        _Example(
            UnknownEvent, "event_ticker: no event 'KXHIGHNY-26NOV99' is known.", "event_ticker"
        )
    ],
    "/series/{ticker}": [
        _Example(UnknownSeries, "ticker: no event has named a series 'KXNONE'.", "ticker")
    ],
}
_ANYWHERE: dict[int, list[_Example]] = {
    401: [
        _Example(
            Unauthorized, "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
        )
    ],
    402: [_Example(CreditsSpent, "The request costs 3 credits and 1 is left.")],
    422: [_Example(InvalidInput, "end_time must be later than start_time.", "end_time")],
    429: [_Example(TooManyRequests, "The plan allows 2 requests a second; try again in 1 s.")],
    500: [_Example(ProblemError, "The fault is logged under this request_id.")],
    503: [
        _Example(Busy, "All connections to the database are in use; try again in a moment."),
        _Example(Unavailable, "The database does not answer; try again in a few seconds."),
    ],
}


def _text(description: str, example: str, **schema: Any) -> JsonObject:
    return {
        "description": description,
        "schema": {"type": "string", **schema},
        "example": example,
        "required": True,
    }


def _number(description: str, example: int) -> JsonObject:
    return {
        "description": description,
        "schema": {"type": "integer", "minimum": 0},
        "example": example,
        "required": True,
    }


_EVERYWHERE = {
    "X-Request-Id": _text(
        "Names this request, in our log too; your own `X-Request-Id` (64 of `A-Za-z0-9._-`) if you"
        " send one.",
        _REQUEST_ID,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
}
_ALLOWANCE = {
    "RateLimit-Limit": _number("Requests a second that the plan allows.", 10),
    "RateLimit-Remaining": _number("Requests that may follow at once.", 9),
    "RateLimit-Reset": _number("Seconds until all are there again.", 1),
    "X-Credits-Cost": _number("Credits charged for this answer; 0 unless it is a 2xx.", 2),
    "X-Credits-Remaining": _number("Credits left, this month's and those granted.", 9998),
}
_DATA_STATUS = {
    "X-Data-Status": _text(
        "How complete the window is.", "complete", enum=["complete", "unverified", "gaps"]
    )
}
_RETRY_AFTER = {"Retry-After": _number("Seconds to wait before trying again.", 2)}
_CHALLENGE = {"WWW-Authenticate": _text("How to send a key.", 'Bearer realm="kalshi-platform"')}


def install_specification(app: FastAPI) -> None:
    """Have /openapi.json tell the whole; routes may still be added until it is first asked for."""
    described_by_fastapi = app.openapi

    def openapi() -> JsonObject:
        if app.openapi_schema is None:
            app.openapi_schema = completed(described_by_fastapi())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def completed(document: JsonObject) -> JsonObject:
    """FastAPI's document with shared headers, problems and examples; changed in place."""
    components = document["components"]["schemas"]
    components.setdefault("Problem", Problem.model_json_schema())
    _describe_health(document, components)
    for method, path, operation in operations(document):
        operation["operationId"] = _short_id(operation["operationId"], method, path)
        keyed = "security" in operation
        answers = operation["responses"]
        answers.setdefault("500", _problem(500))
        for status, answer in answers.items():
            if answer["description"] == "Successful Response":
                answer["description"] = "The answer."
            told = answer.get("headers", {})
            answer["headers"] = told | {
                name: header | told.get(name, {})
                for name, header in _headers(method, path, int(status), keyed=keyed).items()
            }
            contents = answer.get("content", {})
            if _PROBLEM_TYPE in contents:
                contents.pop("application/json", None)
            for media_type, content in contents.items():
                if media_type == _PROBLEM_TYPE:
                    known = _NOT_FOUND.get(path) if status == "404" else _ANYWHERE.get(int(status))
                    content["examples"] = _problem_examples(int(status), known or [])
                elif content.get("schema") and media_type == "application/json":
                    content["example"] = example_of(content["schema"], components)
        operation["responses"] = {status: answers[status] for status in sorted(answers)}
    return document


def operations(document: JsonObject) -> Iterator[tuple[str, str, JsonObject]]:
    """Method (lower case), path and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def example_of(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    """A value of a schema: the examples that its parts give, put together."""
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rsplit("/", 1)[1]], components)
    if "examples" in schema:
        return schema["examples"][0]
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            told = [part for part in schema[word] if part.get("type") != "null"]
            return example_of(told[0], components)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: example_of(part, components) for name, part in properties.items()}
        case "array":
            parts = schema.get("prefixItems") or [schema.get("items") or {}]
            return [example_of(part, components) for part in parts]
        case "boolean":
            return False
        case "integer" | "number":
            return 1
        case "string":
            return "…"
    return None


def _describe_health(document: JsonObject, components: JsonObject) -> None:
    """The body of /health, from the struct that it is made of."""
    answers = document["paths"]["/health"]["get"]["responses"]
    [_], parts = msgspec.json.schema_components(
        [Status], ref_template="#/components/schemas/{name}"
    )
    components.update(parts)
    health = components.pop("Status")
    health["properties"].pop("metrics")
    health["required"] = list(health["properties"])
    components["Health"] = health | {"title": "Health"}
    for status in ("200", "503"):
        answers[status]["content"] = {
            "application/json": {"schema": {"$ref": "#/components/schemas/Health"}}
        }


def _headers(method: str, path: str, status: int, *, keyed: bool) -> JsonObject:
    headers = dict(_EVERYWHERE)
    if status == 401:
        headers |= _CHALLENGE
    elif keyed and status < 300:
        headers |= _ALLOWANCE
    if status < 300 and (method, path) in _WITH_DATA_STATUS:
        headers |= _DATA_STATUS
    if keyed and status in (429, 503):
        headers |= _RETRY_AFTER
    return headers


def _problem(status: int) -> JsonObject:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {_PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _problem_examples(status: int, told: list[_Example]) -> JsonObject:
    if not told:
        phrase = HTTPStatus(status).phrase
        name = phrase.lower().replace(" ", "_")
        return {name: {"value": problem_members(name, phrase, status, phrase, _REQUEST_ID)}}
    return {
        example.error.name: {
            "summary": example.error.title,
            "value": problem_members(
                example.error.name,
                example.error.title,
                status,
                example.detail,
                _REQUEST_ID,
                field=example.field,
                members=example.members,
            ),
        }
        for example in told
    }


def _short_id(operation_id: str, method: str, path: str) -> str:
    """The route's own name: FastAPI appends path and method."""
    return operation_id.removesuffix(re.sub(r"\W", "_", path) + f"_{method}")
