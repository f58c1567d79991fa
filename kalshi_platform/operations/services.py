"""The services of `up`: their commands and their environment."""

import sys
from pathlib import Path

from kalshi_platform.operations.databases import dagster_url
from kalshi_platform.operations.environment import as_environment
from kalshi_platform.operations.processes import CODE_SERVICE
from kalshi_platform.operations.simulator import HOST
from kalshi_platform.operations.supervisor import Service
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import psycopg2_url

PROJECT = Path(__file__).parents[2]


def service_environment(settings: Settings) -> dict[str, str]:
    """The environment of every service: all settings, the database's URLs, Dagster's home."""
    return {
        **as_environment(settings),
        "DATABASE_URL": settings.url,
        "DAGSTER_PG_URL": psycopg2_url(dagster_url(settings)),
        "DAGSTER_HOME": str(settings.dagster_home),
        "PYTHONUNBUFFERED": "1",
    }


def platform_services(settings: Settings, environment: dict[str, str]) -> list[Service]:
    scripts = Path(sys.executable).parent
    workspace = str(PROJECT / "workspace.yaml")
    dagster = str(scripts / "dagster")
    commands = {
        CODE_SERVICE: (
            *(dagster, "api", "grpc", "-h", HOST, "-p", str(settings.dagster_code_port)),
            *("-m", "kalshi_platform.definitions"),
        ),
        "dagster-webserver": (
            *(str(scripts / "dagster-webserver"), "-h", HOST, "-p", str(settings.dagster_port)),
            *("-w", workspace),
        ),
        "dagster-daemon": (str(scripts / "dagster-daemon"), "run", "-w", workspace),
        "api": (sys.executable, "-m", "kalshi_platform.cli", "api"),
    }
    return [Service(name, command, environment) for name, command in commands.items()]


def simulator_service(settings: Settings) -> Service:
    """The made-up exchange, which goes on where it stopped."""
    folder = settings.simulator_folder
    return Service(
        "simulator",
        (
            *(str(Path(sys.executable).parent / "kalshi-simulator"), "serve"),
            *("--host", HOST, "--rest-port", str(settings.simulator_rest_port)),
            *("--ws-port", str(settings.simulator_ws_port)),
            *("--trades-per-second", f"{settings.simulator_trades_per_second:g}"),
            *("--credentials", str(folder / "credentials"), "--state", str(folder / "state")),
        ),
        {},
    )
