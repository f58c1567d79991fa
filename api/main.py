"""The API as a process: `kalshi-platform api`."""

import ctypes
import logging
import resource
from contextlib import suppress

import structlog
import uvicorn

from api.app import create_app
from api.connections import HARD_CONNECTIONS, GuardedProtocol
from kalshi_platform.settings import Settings


def serve(settings: Settings, host: str = "127.0.0.1") -> None:
    """Serve until SIGINT or SIGTERM; open requests get a few seconds to end.

    Args:
        settings: database, port, and whether the data is simulated.
        host: address to listen on; "0.0.0.0" in a container.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    _allow_files()
    _return_freed_pages()
    app = create_app(settings.url, simulated=settings.simulated, archive=settings.archive)
    uvicorn.run(
        app,
        host=host,
        port=settings.api_port,
        loop="uvloop",
        http=GuardedProtocol,
        ws="none",
        server_header=False,
        access_log=False,  # our own line carries the request's id and never a key
        log_level="warning",
        timeout_graceful_shutdown=5,
    )


def _allow_files() -> None:
    """As many open files as connections may come, where a shell's habit is 1,024."""
    needed = HARD_CONNECTIONS + 300
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        within = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (within, hard))


def _return_freed_pages() -> None:
    """Memory of large answers goes back to the system as soon as they are sent or let go.

    glibc moves its threshold for that up with the first large block that is freed; from then on
    one small block above many megabytes of free ones keeps them all (122 MB where 15 MB are used).
    """
    mmap_threshold, size = -3, 128 * 1024  # M_MMAP_THRESHOLD; its first value, which is now to stay
    with suppress(AttributeError):  # another C library has neither the habit nor the call
        ctypes.CDLL(None).mallopt(mmap_threshold, size)
