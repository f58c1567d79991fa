"""`kalshi-platform up`: the whole platform on one machine, from nothing to flowing data."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg

from kalshi_platform.operations.demo_key import demo_key
from kalshi_platform.operations.environment import as_environment, variable_of
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.ground import only_up, refuse_full_disk, refuse_taken_ports
from kalshi_platform.operations.processes import CODE_SERVICE, end_processes, marks
from kalshi_platform.operations.simulator import (
    HOST,
    exchange_of,
    simulator_rest_url,
    simulator_settings,
)
from kalshi_platform.operations.supervisor import Service, Stopped, Supervisor
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect, psycopg2_url, sibling_database
from kalshi_platform.storage.migrate import migrate
from kalshi_platform.storage.reads.activity import busiest_market
from kalshi_platform.storage.recorded_exchange import claim_database, claim_home

_PROJECT = Path(__file__).parents[2]
_SIMULATOR_SECONDS = 60
_FLOW_SECONDS = 180
_BUSY_SECONDS = 6
_BUSY_WINDOW = timedelta(minutes=5)


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
    _with_databases(settings, supervisor)
    steps.done("database ready, schema current")
    prepare_dagster_home(settings.dagster_home)
    _open_books(settings, say)
    if settings.simulated:
        settings = _with_simulator(settings, supervisor)
        steps.done("simulated exchange trades")
    environment = service_environment(settings)
    for service in _services(settings, environment):
        supervisor.start(service)
    key = demo_key(settings)
    _wait_for_web(supervisor, f"http://{HOST}:{settings.api_port}/health", "api")
    steps.done("API answers")
    _wait_for_web(
        supervisor, f"http://{HOST}:{settings.dagster_port}/server_info", "dagster-webserver"
    )
    steps.done("Dagster answers")
    ticker = _wait_for_flow(settings, supervisor, key, say)
    if ticker is not None:
        steps.done("trades flow, and the candle of this minute is served")
    for line in summary(settings, key, ticker):
        say(line)


def service_environment(settings: Settings) -> dict[str, str]:
    """The environment of every service: all settings, the database's URLs, Dagster's home."""
    dagster_url = (
        settings.dagster_database_url.get_secret_value()
        if settings.dagster_database_url is not None
        else sibling_database(settings.url, "dagster")
    )
    return {
        **as_environment(settings),
        "DATABASE_URL": settings.url,
        "DAGSTER_PG_URL": psycopg2_url(dagster_url),
        "DAGSTER_HOME": str(settings.dagster_home),
        "PYTHONUNBUFFERED": "1",
    }


def prepare_dagster_home(folder: Path) -> None:
    """Put the project's dagster.yaml where Dagster looks for it."""
    source = _PROJECT / "dagster.yaml"
    if not source.exists():
        raise Refusal(f"{source} is missing: run `up` from a checkout of the project.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / "dagster.yaml")


def _open_books(settings: Settings, say: Callable[[str], None]) -> None:
    """Make Dagster's tables before three services do so at once; close what died unnoticed."""
    command = [sys.executable, "-m", "kalshi_platform.orchestration.opening"]
    if settings.embedded_database is not None and settings.dagster_database_url is None:
        # Nobody else can reach these books, and the processes of this home have been ended.
        command.append("--close-all")
    done = subprocess.run(
        command,
        env={
            **os.environ,
            **service_environment(settings),
            **marks(settings.home.absolute(), CODE_SERVICE),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Refusal(f"Dagster's storage cannot be opened: {lines[-1]} See DAGSTER_PG_URL.")
    for line in done.stdout.splitlines():
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


def _services(settings: Settings, environment: dict[str, str]) -> list[Service]:
    scripts = Path(sys.executable).parent
    workspace = str(_PROJECT / "workspace.yaml")
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


def _with_databases(settings: Settings, supervisor: Supervisor) -> None:
    """Start the embedded database unless another is configured; make and migrate what is needed."""
    embedded = settings.embedded_database
    if embedded is not None:
        try:
            supervisor.keep_database(embedded)
        except RuntimeError as error:
            raise Refusal(str(error)) from error
    for url in (settings.url, sibling_database(settings.url, "dagster")):
        if settings.dagster_database_url is None or url == settings.url:
            _ensure_database(url)
    supervisor.wait(0)
    migrate(settings.url)
    with connect(settings.url) as connection:
        claim_database(connection, exchange_of(settings))


def _ensure_database(url: str) -> None:
    try:
        connect(url).close()
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error):
            raise
        _create_database(url)


def _create_database(url: str) -> None:
    from psycopg import sql
    from sqlalchemy import make_url

    name = make_url(url.replace("postgres://", "postgresql://", 1)).database or "postgres"
    try:
        with connect(sibling_database(url, "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refusal(
            f"There is no database {name}, and the user of DATABASE_URL may not make one: create "
            f"it (CREATE DATABASE {name}), or GRANT that user CREATEDB; DAGSTER_PG_URL may name "
            "another one for Dagster."
        ) from error


def _with_simulator(settings: Settings, supervisor: Supervisor) -> Settings:
    """Start the simulator; returns settings that name it as the exchange to record."""
    folder = settings.simulator_folder
    folder.mkdir(parents=True, exist_ok=True)
    supervisor.start(
        Service(
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
    )
    _wait_for_web(
        supervisor,
        f"{simulator_rest_url(settings)}/exchange/status",
        "simulator",
        _SIMULATOR_SECONDS,
    )
    return simulator_settings(settings)


def _wait_for_web(
    supervisor: Supervisor, url: str, service: str, seconds: float = _FLOW_SECONDS
) -> None:
    """Wait until a service answers at all; what it answers is its own affair."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            httpx.get(url, timeout=2)
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise Refusal(
                    f"{service} does not answer at {url} after {seconds:g} s ({error}): "
                    f"its log {supervisor.log_path(service)} says why."
                ) from error
        else:
            return
        supervisor.wait(0.2)


def _wait_for_flow(
    settings: Settings, supervisor: Supervisor, key: str, say: Callable[[str], None]
) -> str | None:
    """Wait until the API serves a candle of the current minute; returns its market.

    The first trades say little about which market is busy, so a few seconds of them are awaited.
    A quiet exchange is no failure: after a while this says so and returns None or the market.
    """
    deadline = time.monotonic() + _FLOW_SECONDS
    first_seen_at: float | None = None
    ticker: str | None = None
    while time.monotonic() < deadline:
        # A database that went away is watched elsewhere; this only waits for it.
        with (
            contextlib.suppress(psycopg.OperationalError),
            connect(settings.url) as connection,
        ):
            ticker = busiest_market(connection, datetime.now(UTC) - _BUSY_WINDOW)
        if ticker is not None:
            first_seen_at = first_seen_at or time.monotonic()
            watched = time.monotonic() - first_seen_at > _BUSY_SECONDS
            if watched and _serves_this_minute(settings, key, ticker):
                return ticker
        supervisor.wait(0.5)
    missing = (
        "no trade was recorded" if ticker is None else f"{ticker} has no candle of this minute"
    )
    say(f"After {_FLOW_SECONDS} s {missing}; `kalshi-platform status` shows what each part does.")
    return ticker


def _serves_this_minute(settings: Settings, key: str, ticker: str) -> bool:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    try:
        answer = httpx.get(
            f"http://{HOST}:{settings.api_port}/candles/{ticker}",
            params={"interval": "1m", "start_time": (now - timedelta(minutes=5)).isoformat()},
            headers={"Authorization": f"Bearer {key}"},
            timeout=5,
        )
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    return any(datetime.fromisoformat(candle["bucket"]) >= now for candle in answer.json()["data"])


class _Steps:
    """Says each finished step with the seconds since the start."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._started_at = time.monotonic()

    def done(self, what: str) -> None:
        self._say(f"  {time.monotonic() - self._started_at:5.1f} s  {what}")
