"""Keys: which one a request carries, and what it may do; looked up by its hash."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from api.database import ReadDatabase
from api.errors import Unauthorized
from kalshi_platform.storage.reads.keys import KEY_BY_HASH

# A key that was revoked works for this long at most; so does the memory of an unknown one, and
# that of a key whose credits are spent.
REMEMBERED_SECONDS = 10
_REMEMBERED_KEYS = 10_000

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="kalshi-platform"'}


@dataclass(slots=True)
class Known:
    """A key as it was when it was looked up; `credits_left` follows its charges."""

    key_id: int
    requests_per_second: int
    credits_left: int
    revoked: bool
    expires_at: float | None  # Unix seconds
    rotated_until: float | None  # the end of a key that has a successor


class Keys:
    """Checks keys against the database, remembering each answer for a few seconds.

    `database` must be on a role that may read keys and balances.
    """

    def __init__(self, database: ReadDatabase, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        # By hash: until when (monotonic), and the key or None for an unknown one.
        self._known: dict[bytes, tuple[float, Known | None]] = {}
        # However many ask at once with a key, it is looked up once.
        self._asking: dict[bytes, asyncio.Task[Known | None]] = {}

    async def check(self, key: str) -> Known:
        """What is known of a key in force.

        Raises:
            Unauthorized: it is unknown, revoked or expired.
        """
        key_hash = hashlib.sha256(key.encode()).digest()
        until, known = self._known.get(key_hash, (0.0, None))
        if until < self._clock():
            asking = self._asking.get(key_hash)
            if asking is None:
                asking = self._asking[key_hash] = asyncio.create_task(self._look_up(key_hash))
                asking.add_done_callback(lambda _: self._asking.pop(key_hash))
            # Whoever hangs up does not take the others' answer along.
            known = await asyncio.shield(asking)
        if known is None:
            raise Unauthorized("This API key is unknown.", headers=_CHALLENGE)
        if known.revoked:
            raise Unauthorized("This API key was revoked.", headers=_CHALLENGE)
        now = time.time()
        if known.expires_at is not None and known.expires_at <= now:
            raise Unauthorized("This API key has expired.", headers=_CHALLENGE)
        if known.rotated_until is not None and known.rotated_until <= now:
            raise Unauthorized(
                "This API key was replaced, and its time is over: use the new one.",
                headers=_CHALLENGE,
            )
        return known

    async def _look_up(self, key_hash: bytes) -> Known | None:
        row = await self._database.row(KEY_BY_HASH, {"key_hash": key_hash})
        known = None
        if row is not None:
            key_id, revoked, expires_at, rotated_until, requests_per_second, credits_left = row
            assert key_id and requests_per_second and credits_left, "columns that are never null"
            known = Known(
                int(key_id),
                int(requests_per_second),
                int(credits_left),
                revoked == b"t",
                float(expires_at) if expires_at else None,
                float(rotated_until) if rotated_until else None,
            )
        if len(self._known) >= _REMEMBERED_KEYS:
            self._known.clear()  # somebody guesses; memory stays bounded
        self._known[key_hash] = (self._clock() + REMEMBERED_SECONDS, known)
        return known


def key_of(request: Request) -> str:
    """The key that a request carries.

    Raises:
        Unauthorized: it carries none.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    key = bearer.strip() if scheme.lower() == "bearer" else ""
    key = key or request.headers.get("x-api-key", "").strip()
    if not key:
        raise Unauthorized(
            "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            headers=_CHALLENGE,
        )
    return key
