"""What can go wrong with the exchange, and what may be tried again.

    ExchangeError
    ├── KeyUnusable      the private key cannot be read or signs in a way the exchange does not know
    ├── Unauthorized     401: the key or its signature is refused
    │   └── ClockSkew    401: the signature's timestamp is too far from the exchange's clock
    ├── Forbidden        403: the key lacks the scope
    ├── BadRequest       400 and other 4xx: we asked wrongly
    ├── NotFound         404
    ├── UnreadableAnswer a 2xx whose body is not what the protocol promises
    ├── RateLimited      429                                     ┐
    ├── Unavailable      5xx                                     ├ transient
    └── Unreachable      no answer: refused, reset, timed out    ┘

Bodies of errors come in three forms: nested {"error": {"code", "message", "details"}} as recorded,
flat {"code", "message", "details"} as specified, and {"error": "text"} with 429
(docs.kalshi.com/api-reference, read 2026-10-15).
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

import msgspec

_LONGEST_EXCERPT = 200


class ExchangeError(Exception):
    """The exchange refused, failed, or could not be asked.

    `status` is the HTTP status, None where there was no answer; `code` and `details` are the
    exchange's own words where it sent any, `body` is its whole answer.
    """

    body: bytes = b""

    def __init__(
        self, message: str, *, status: int | None = None, code: str = "", details: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


class KeyUnusable(ExchangeError):
    """The private key cannot be read, or is of a kind the exchange does not take."""


class Unauthorized(ExchangeError):
    """The exchange does not accept the key or its signature."""


class ClockSkew(Unauthorized):
    """The clock of this machine is too far from the exchange's.

    `ahead_seconds` says by how much ours is ahead (negative: behind), None where unknown.
    """

    ahead_seconds: float | None = None


class Forbidden(ExchangeError):
    """The key is known but may not do this."""


class BadRequest(ExchangeError):
    """The exchange understood the request and will not answer it."""


class NotFound(ExchangeError):
    """The exchange has no such thing, or does not have it yet."""


class UnreadableAnswer(ExchangeError):
    """An answer of success that is not what the protocol promises."""


class RateLimited(ExchangeError):
    """Too many requests. `retry_after_seconds` is None unless the exchange said."""

    retry_after_seconds: float | None = None


class Unavailable(ExchangeError):
    """The exchange has trouble of its own, or is in maintenance."""

    retry_after_seconds: float | None = None


class Unreachable(ExchangeError):
    """No answer came."""


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later; if not, the process must stop."""
    return isinstance(
        error, RateLimited | Unavailable | Unreachable | ConnectionError | TimeoutError
    )


def from_response(
    status: int,
    body: bytes | str,
    *,
    date: str | None = None,
    retry_after: str | None = None,
    now: datetime | None = None,
) -> ExchangeError:
    """The error that an answer of `status` stands for, over REST or at the WebSocket's handshake.

    Args:
        status: HTTP status, 400 or more.
        body: as received; need not be JSON.
        date, retry_after: the headers of these names, where sent.
        now: the local time of receipt; the clock's where not given.
    """
    now = now or datetime.now(UTC)
    raw = body if isinstance(body, bytes) else body.encode()
    code, message, details = _read_body(body)
    told = details or message or code or "no reason given"
    kind, sentence = _reading(status, told)
    if status == 401 and "header_timestamp_expired" in (code, message, details):
        ahead = _ahead_seconds(date, now)
        skew = ClockSkew(_clock_sentence(ahead), status=status, code=code, details=details)
        skew.ahead_seconds = ahead
        skew.body = raw
        return skew
    error = kind(sentence, status=status, code=code, details=details)
    error.body = raw
    if isinstance(error, RateLimited | Unavailable):
        error.retry_after_seconds = _seconds(retry_after, now)
    return error


def _reading(status: int, told: str) -> tuple[type[ExchangeError], str]:
    if status == 401:
        return Unauthorized, (
            f"The exchange refuses the key ({told}). Check that KALSHI_API_KEY_ID and the file at "
            "KALSHI_PRIVATE_KEY_PATH belong together and to this environment (production or demo)."
        )
    if status == 403:
        return Forbidden, f"The exchange forbids this ({told}). Give the key the scope read."
    if status == 404:
        return NotFound, f"The exchange does not have it ({told})."
    if status == 429:
        return RateLimited, f"The exchange limits our requests ({told})."
    if status >= 500:
        return Unavailable, f"The exchange has trouble: it answers {status} ({told})."
    return BadRequest, f"The exchange does not take the request: it answers {status} ({told})."


def _read_body(body: bytes | str) -> tuple[str, str, str]:
    """Code, message and details from any form of body; an unknown form becomes the message."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode(errors="replace") if isinstance(body, bytes) else body
        return "", text.strip()[:_LONGEST_EXCERPT], ""
    if isinstance(decoded, dict):
        told = decoded.get("error", decoded)
        if isinstance(told, dict):
            return _text(told.get("code")), _text(told.get("message")), _text(told.get("details"))
        return "", _text(told), ""
    return "", _text(decoded), ""


def _text(value: object) -> str:
    return "" if value is None else str(value)[:_LONGEST_EXCERPT]


def _ahead_seconds(date: str | None, now: datetime) -> float | None:
    theirs = _instant(date)
    return None if theirs is None else (now - theirs).total_seconds()


def _clock_sentence(ahead: float | None) -> str:
    if ahead is None:
        how = "is too far from the exchange's"
    elif ahead >= 0:
        how = f"is {ahead:.0f} s ahead of the exchange's"
    else:
        how = f"is {-ahead:.0f} s behind the exchange's"
    return f"This machine's clock {how}. Set it (for example: sudo timedatectl set-ntp true)."


def _seconds(retry_after: str | None, now: datetime) -> float | None:
    """Retry-After, which is a number of seconds or a date; None where absent or neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        until = _instant(retry_after)
        return None if until is None else max(0.0, (until - now).total_seconds())
    return max(0.0, seconds) if isfinite(seconds) else None


def _instant(http_date: str | None) -> datetime | None:
    if http_date is None:
        return None
    try:
        parsed = parsedate_to_datetime(http_date)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
