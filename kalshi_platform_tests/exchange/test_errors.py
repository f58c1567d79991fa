"""Errors: every form of body is read, and each says whether to try again."""

from datetime import UTC, datetime

import pytest

from kalshi_platform.exchange.errors import (
    BadRequest,
    ClockSkew,
    ExchangeError,
    Forbidden,
    KeyUnusable,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unreachable,
    UnreadableAnswer,
    from_response,
    is_transient,
)

NOW = datetime(2026, 10, 15, 12, 0, 30, tzinfo=UTC)
NESTED = (
    '{"error":{"code":"bad_request","message":"bad request","details":"invalid status filter"}}'
)
FLAT = '{"code":"bad_request","message":"bad request","details":"invalid status filter"}'


@pytest.mark.parametrize("body", [NESTED, FLAT, NESTED.encode()])
def test_nested_and_flat_bodies_are_read_alike(body):
    error = from_response(400, body)
    assert type(error) is BadRequest
    assert (error.status, error.code, error.details) == (
        400,
        "bad_request",
        "invalid status filter",
    )
    assert "invalid status filter" in str(error)


def test_a_plain_text_in_error_is_read():
    assert "too many requests" in str(from_response(429, b'{"error":"too many requests"}'))


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"\xff\xfe", b"[1]", b"null"])
def test_a_body_in_no_known_form_is_still_an_error(body):
    assert type(from_response(502, body)) is Unavailable


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, BadRequest, False),
        (401, Unauthorized, False),
        (403, Forbidden, False),
        (404, NotFound, False),
        (409, BadRequest, False),
        (429, RateLimited, True),
        (500, Unavailable, True),
        (503, Unavailable, True),
        (504, Unavailable, True),
    ],
)
def test_the_status_decides_the_kind(status, kind, transient):
    error = from_response(status, NESTED)
    assert type(error) is kind
    assert is_transient(error) is transient


@pytest.mark.parametrize(
    ("date", "sentence"),
    [
        ("Thu, 15 Oct 2026 11:59:00 GMT", "is 90 s ahead of"),
        ("Thu, 15 Oct 2026 12:02:30 GMT", "is 120 s behind"),
        (None, "is too far from"),
        ("yesterday", "is too far from"),
    ],
)
def test_an_expired_timestamp_is_a_clock_to_set(date, sentence):
    error = from_response(
        401,
        '{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}',
        date=date,
        now=NOW,
    )
    assert type(error) is ClockSkew
    assert sentence in str(error)
    assert "Set it" in str(error)
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 15 Oct 2026 12:00:45 GMT", 15.0),
        ("Thu, 15 Oct 2026 11:00:45 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(header, seconds):
    for status in (429, 503):
        error = from_response(status, b"{}", retry_after=header, now=NOW)
        assert isinstance(error, RateLimited | Unavailable)
        assert error.retry_after_seconds == seconds


def test_an_endless_body_is_cut():
    assert len(str(from_response(500, b"x" * 100_000))) < 400


def test_no_answer_is_transient_and_an_unusable_key_is_not():
    assert is_transient(Unreachable("refused"))
    assert is_transient(ConnectionResetError())
    assert is_transient(TimeoutError())
    for error in (KeyUnusable("x"), UnreadableAnswer("x"), ExchangeError("x"), ValueError("x")):
        assert not is_transient(error)
