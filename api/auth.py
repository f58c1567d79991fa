"""Who asks: an API key in `Authorization: Bearer` or `X-API-Key`, looked up by its hash."""

import hashlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from fastapi import Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from api.database import ReadDatabase
from api.errors import Unauthorized
from kalshi_platform.storage.reads.keys import KEY_BY_HASH

# A key that was revoked works for this long at most; so does the memory of an unknown one.
REMEMBERED_SECONDS = 10
_REMEMBERED_KEYS = 10_000

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="kalshi-platform"'}


class _Known(NamedTuple):
    until: float  # monotonic
    key_id: int | None
    revoked: bool
    expires_at: float | None  # Unix seconds


class Keys:
    """Checks keys against the database, remembering each answer for a few seconds."""

    def __init__(self, database: ReadDatabase, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[bytes, _Known] = {}

    async def check(self, key: str) -> int:
        """The id of a key in force.

        Raises:
            Unauthorized: it is unknown, revoked or expired.
        """
        key_hash = hashlib.sha256(key.encode()).digest()
        known = self._known.get(key_hash)
        if known is None or known.until < self._clock():
            known = await self._look_up(key_hash)
        if known.key_id is None:
            raise Unauthorized("This API key is unknown.", headers=_CHALLENGE)
        if known.revoked:
            raise Unauthorized("This API key was revoked.", headers=_CHALLENGE)
        if known.expires_at is not None and known.expires_at <= time.time():
            raise Unauthorized("This API key has expired.", headers=_CHALLENGE)
        return known.key_id

    async def _look_up(self, key_hash: bytes) -> _Known:
        row = await self._database.row(KEY_BY_HASH, {"key_hash": key_hash})
        until = self._clock() + REMEMBERED_SECONDS
        if row is None:
            known = _Known(until, None, False, None)
        else:
            key_id, revoked, expires_at = row
            assert key_id is not None
            known = _Known(
                until, int(key_id), revoked == b"t", float(expires_at) if expires_at else None
            )
        if len(self._known) >= _REMEMBERED_KEYS:
            self._known.clear()  # somebody guesses; memory stays bounded
        self._known[key_hash] = known
        return known


class KeyedRoute(APIRoute):
    """A route that asks for the key before it looks at anything else of the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def with_key(request: Request) -> Response:
            keys: Keys = request.app.state.keys
            request.state.key_id = await keys.check(_key_of(request))
            return await answer(request)

        return with_key


# For the documentation alone: either header opens every keyed route.
SECURITY = [
    Security(HTTPBearer(auto_error=False, description="A key from `kalshi-platform keys create`.")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
]


def _key_of(request: Request) -> str:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    key = bearer.strip() if scheme.lower() == "bearer" else ""
    key = key or request.headers.get("x-api-key", "").strip()
    if not key:
        raise Unauthorized(
            "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            headers=_CHALLENGE,
        )
    return key
