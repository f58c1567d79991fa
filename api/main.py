"""The API as a process: `kalshi-platform api`."""

import logging

import structlog
import uvicorn

from api.app import create_app
from api.connections import GuardedProtocol
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
