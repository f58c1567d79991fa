"""Requests whose body is larger than any question: refused before they are read."""

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY_BYTES = 65_536


class BodyLimit:
    """ASGI middleware: reading a longer body raises a 413, at its announcement if it has one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        taken = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
        refused = taken > LONGEST_BODY_BYTES
        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if refused or taken > LONGEST_BODY_BYTES:
                # FastAPI's own: it lets this one through from where it reads the body.
                raise HTTPException(
                    413, f"the body may have {LONGEST_BODY_BYTES:,} bytes", {"Connection": "close"}
                )
            return message

        await self._app(scope, receive_some, send)
