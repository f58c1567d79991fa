"""`kalshi-platform up`: the whole platform on one machine, from nothing to flowing data."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from kalshi_platform.operations.awaiting import wait_for_flow, wait_for_web
from kalshi_platform.operations.dagster_home import open_books
from kalshi_platform.operations.databases import prepare_databases
from kalshi_platform.operations.demo_key import demo_key
from kalshi_platform.operations.environment import variable_of
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.ground import only_up, refuse_full_disk, refuse_taken_ports
from kalshi_platform.operations.processes import end_processes
from kalshi_platform.operations.services import (
    platform_services,
    service_environment,
    simulator_service,
)
from kalshi_platform.operations.simulator import (
    HOST,
    exchange_of,
    simulator_rest_url,
    simulator_settings,
)
from kalshi_platform.operations.supervisor import Stopped, Supervisor
from kalshi_platform.settings import Settings
from kalshi_platform.storage.recorded_exchange import claim_home

_SIMULATOR_SECONDS = 60


def up(settings: Settings, say: Callable[[str], None] = print) -> None:
    """Start everything, wait until data flows, then watch until a signal asks for the end.

    Raises:
        Refusal: something is in the way; nothing is left running.
    """
    home = settings.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    _have_runtime_folder(home)
    with only_up(home) as lock:
        for process in end_processes(home):
            say(f"Killed {process.service} (process {process.pid}), left by an earlier run.")
        refuse_full_disk(home)
        refuse_taken_ports(_ports(settings))
        if not settings.simulated:
            _refuse_bad_exchange(settings)
        claim_home(home, exchange_of(settings))
        supervisor = Supervisor(home, say, lock)
        supervisor.catch_signals()
        try:
            _bring_up(settings, supervisor, say)
            while True:
                supervisor.wait(60)
        except Stopped:
            say("Stopping …")
        finally:
            try:
                supervisor.stop()
            except RuntimeError as error:
                raise Refusal(str(error)) from error
        say("Stopped; nothing is left running.")


def _bring_up(settings: Settings, supervisor: Supervisor, say: Callable[[str], None]) -> None:
    steps = _Steps(say)
    prepare_databases(settings, supervisor)
    steps.done("database ready, schema current")
    open_books(settings, say)
    if settings.simulated:
        settings = _with_simulator(settings, supervisor)
        steps.done("simulated exchange trades")
    environment = service_environment(settings)
    for service in platform_services(settings, environment):
        supervisor.start(service)
    key = demo_key(settings)
    wait_for_web(supervisor, f"http://{HOST}:{settings.api_port}/health", "api")
    steps.done("API answers")
    wait_for_web(
        supervisor, f"http://{HOST}:{settings.dagster_port}/server_info", "dagster-webserver"
    )
    steps.done("Dagster answers")
    ticker = wait_for_flow(settings, supervisor, key, say)
    if ticker is not None:
        steps.done("trades flow, and the candle of this minute is served")
    for line in summary(settings, key, ticker):
        say(line)


def summary(settings: Settings, key: str, ticker: str | None) -> list[str]:
    """What the operator reads when everything runs."""
    lines = [""]
    if settings.simulated:
        lines += [
            "SIMULATED DATA: no KALSHI_API_KEY_ID is set, so a made-up exchange is recorded.",
            "To record the real one, set KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH, and",
            "KALSHI_HOME to another folder: the two never share one.",
            "",
        ]
    lines += [
        f"  Dagster   http://{HOST}:{settings.dagster_port}",
        f"  API       http://{HOST}:{settings.api_port}/docs",
        f"  Demo key  {key}",
        f"  Logs      {settings.home.absolute() / 'logs'}",
        "",
    ]
    if ticker is not None:
        lines += [
            "Candles of the busiest market right now:",
            f'curl -s -H "Authorization: Bearer {key}" '
            f'"http://{HOST}:{settings.api_port}/candles/{ticker}?interval=1m"',
            "",
        ]
    return [*lines, "Ctrl-C stops everything."]


def _have_runtime_folder(home: Path) -> None:
    """Give libraries that ask for XDG_RUNTIME_DIR a folder, where the session has none."""
    folder = home / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))


def _ports(settings: Settings) -> dict[str, int]:
    fields = ["dagster_port", "dagster_code_port", "api_port"]
    if settings.simulated:
        fields += ["simulator_rest_port", "simulator_ws_port"]
    return {variable_of(field): getattr(settings, field) for field in fields}


def _refuse_bad_exchange(settings: Settings) -> None:
    from kalshi_platform.operations.doctor import exchange_checks

    for check in exchange_checks(settings):
        if not check.passed:
            raise Refusal(f"{check.found} {check.remedy}")


def _with_simulator(settings: Settings, supervisor: Supervisor) -> Settings:
    """Start the simulator; returns settings that name it as the exchange to record."""
    settings.simulator_folder.mkdir(parents=True, exist_ok=True)
    supervisor.start(simulator_service(settings))
    wait_for_web(
        supervisor,
        f"{simulator_rest_url(settings)}/exchange/status",
        "simulator",
        _SIMULATOR_SECONDS,
    )
    return simulator_settings(settings)


class _Steps:
    """Says each finished step with the seconds since the start."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._started_at = time.monotonic()

    def done(self, what: str) -> None:
        self._say(f"  {time.monotonic() - self._started_at:5.1f} s  {what}")
