"""The API as a process: `kalshi-platform api`."""

import logging
import resource

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
