"""One process, one event loop: REST on one port, WebSocket on the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from websockets.asyncio.server import Server

REST_PATH = "/trade-api/v2"


class PortTaken(Exception):
    """A port is in use; the message names it and the way out."""


def bound_socket(host: str, port: int, option: str) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is spelled out.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortTaken(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            f"choose another port with {option} or stop what uses it"
        ) from error
    return sock


class RestServer:
    """Uvicorn inside our loop, without its signal handling."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        self._sock = sock
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server._serve([self._sock]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the REST server ended while starting")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        if self._task is not None:
            await self._task


async def run_until_stopped(
    rest: RestServer,
    sockets: Server,
    work: list[asyncio.Task[None]],
    ready: Mapping[str, Any],
) -> None:
    """Say ready, work until SIGINT or SIGTERM, then close everything.

    A task of `work` that fails ends the process with its error.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    await rest.start()
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    stopped = asyncio.create_task(stopping.wait())
    try:
        done, _ = await asyncio.wait([stopped, *work], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()
    finally:
        stopped.cancel()
        for task in work:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        sockets.close(code=1001)
        await rest.stop()
        await sockets.wait_closed()
