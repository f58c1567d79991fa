"""`kalshi-platform`: one command for each thing an operator does.

Whatever is heavy is imported inside the command that needs it, so that --help is instant.
"""

import sys
import threading
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kalshi_platform.cli_archive import archive_app

if TYPE_CHECKING:
    from kalshi_platform.ingest.service import RecordingOptions
    from kalshi_platform.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Records the exchange Kalshi, keeps the record complete, and serves it.",
    epilog="Settings come from the environment or .env: see .env.example.",
)
keys_app = typer.Typer(no_args_is_help=True, help="The API's keys and their credits.")
tape_app = typer.Typer(no_args_is_help=True, help="Look at the recorded frames.")
alerts_app = typer.Typer(no_args_is_help=True, help="Look at alerts, and try where they go.")
app.add_typer(keys_app, name="keys")
app.add_typer(tape_app, name="tape")
app.add_typer(alerts_app, name="alerts")
app.add_typer(archive_app, name="archive")

_DAYS = ["%Y-%m-%d"]


def main() -> None:
    """Run a command; a known failure becomes one sentence on stderr and an exit code."""
    try:
        app()
    except Exception as error:
        from kalshi_platform.operations.errors import sentence_for

        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("kalshi-platform"))
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Records the exchange Kalshi, keeps the record complete, and serves it."""


@app.command()
def up() -> None:
    """Start everything on this machine and wait until data flows; Ctrl-C stops it all.

    Without a key a simulated exchange is recorded. Example: kalshi-platform up
    """
    from kalshi_platform.operations.up import up as run

    run(_settings(), lambda line: print(line, flush=True))


@app.command()
def record(
    tape_only: Annotated[
        bool, typer.Option("--tape-only", help="Write the tape; another process loads it.")
    ] = False,
) -> None:
    """Record the exchange as a service of its own, until SIGTERM or Ctrl-C.

    While another recorder is at work this one stands by. Example: kalshi-platform record
    """
    from kalshi_platform.operations.recording import record_in_turn

    settings = _exchange_settings()
    _require_schema(settings)
    _claim(settings)
    whole = not tape_only
    stop = _stop_on_signals()
    record_in_turn(_recording(settings), stop, load=whole, heal=whole)


@app.command()
def load() -> None:
    """Load the tape into the tables and heal its gaps, until SIGTERM or Ctrl-C.

    Example: kalshi-platform load
    """
    from kalshi_platform.ingest import service

    settings = _exchange_settings()
    _require_schema(settings)
    _claim(settings)
    service.load(_recording(settings), _stop_on_signals())


@app.command()
def backfill(
    first: Annotated[datetime, typer.Option("--from", formats=_DAYS, help="First UTC day.")],
    last: Annotated[datetime, typer.Option("--to", formats=_DAYS, help="Last UTC day.")],
    only: Annotated[
        list[str] | None,
        typer.Option(help="trades, candles or markets; may be repeated.", show_default="all three"),
    ] = None,
) -> None:
    """Fetch trades and markets of past days over REST, compare, heal; safe to stop and to repeat.

    Example: kalshi-platform backfill --from 2026-11-13 --to 2026-11-19
    """
    from kalshi_platform.operations.asking import log_warnings_only
    from kalshi_platform.operations.backfill import backfill as run
    from kalshi_platform.operations.backfill import parts_named

    log_warnings_only()
    parts = parts_named(only or [])
    settings = _exchange_settings()
    _require_schema(settings)
    _claim(settings)
    if not run(settings, first.date(), last.date(), _stop_on_signals(), parts):
        raise typer.Exit(1)


@app.command()
def reference() -> None:
    """Keep markets, events, series and outcomes in step with REST, until SIGTERM or Ctrl-C.

    While another process does, this one stands by. Example: kalshi-platform reference
    """
    from kalshi_platform.operations.reference import keep_reference

    settings = _exchange_settings()
    _require_schema(settings)
    _claim(settings)
    keep_reference(settings, _stop_on_signals())


@app.command()
def census() -> None:
    """Read every unsettled market, every event and every series; safe to stop and to repeat.

    Example: kalshi-platform census
    """
    from kalshi_platform.operations.asking import log_warnings_only
    from kalshi_platform.operations.reference import take_census

    log_warnings_only()
    settings = _exchange_settings()
    _require_schema(settings)
    _claim(settings)
    if not take_census(settings, _stop_on_signals()):
        raise typer.Exit(1)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say how it is: age and lag of each source and table, gaps, rejected messages, markets.

    Ends with 1 if the database does not answer. Example: kalshi-platform status --json
    """
    import msgspec

    from kalshi_platform.operations.status import show, status_lines, status_of

    found = status_of(_settings())
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        show(status_lines(found))
    if found.status == "down":
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Check key, clock, exchange, database, disk, ports and folders, and say what to do.

    Ends with 1 if anything fails. Example: kalshi-platform doctor
    """
    from kalshi_platform.operations.doctor import checks, line_of

    passed = True
    for check in checks(_settings()):
        print(line_of(check), flush=True)
        passed = passed and check.passed
    if not passed:
        raise typer.Exit(1)


@app.command()
def migrate(
    dagster: Annotated[
        bool, typer.Option("--dagster", help="Make Dagster's database, tables and home, too.")
    ] = False,
) -> None:
    """Bring the database to the newest schema.

    Example: DATABASE_URL=postgresql://… kalshi-platform migrate
    """
    from kalshi_platform.storage.migrate import migrate as run

    settings = _settings()
    print(f"The database has schema {run(settings.url)}.", flush=True)
    if dagster:
        from kalshi_platform.operations.dagster_home import make_books

        make_books(settings, print)
        print(f"Dagster's home is {settings.dagster_home}.")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, made by this.")],
) -> None:
    """Dump both databases into a folder, while everything runs.

    Example: kalshi-platform backup backups/2026-11-21
    """
    from kalshi_platform.operations.backup import backup as run

    run(_settings(), folder, print)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder made by `backup`.")],
    to: Annotated[
        str | None,
        typer.Option(help="Fill this server instead: postgresql://user:password@host/kalshi."),
    ] = None,
) -> None:
    """Fill empty databases from a backup: the configured ones, or those of another server.

    The embedded database is filled while `up` is stopped.
    Example: kalshi-platform restore backups/2026-11-21
    """
    from kalshi_platform.operations.backup import restore as run

    run(_settings(), folder, print, to)


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the API on API_PORT, until SIGTERM or Ctrl-C.

    Example: API_PORT=8000 kalshi-platform api --host 0.0.0.0
    """
    import contextlib

    import psycopg

    from api.main import serve
    from kalshi_platform.operations.ground import refuse_taken_ports

    settings = _settings()
    refuse_taken_ports({"API_PORT": settings.api_port}, host)
    # A database that is away may come back: /health tells of it meanwhile.
    with contextlib.suppress(psycopg.OperationalError):
        _require_schema(settings)
    serve(settings, host=host)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    plan: Annotated[
        str, typer.Option(help="free, basic, pro or local (no limit to meet).")
    ] = "free",
    monthly_credits: Annotated[
        int | None, typer.Option(min=0, max=10**12, help="In place of the plan's.")
    ] = None,
    requests_per_second: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="In place of the plan's.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=_DAYS, help="UTC day on which it ends.")
    ] = None,
) -> None:
    """Make a key and print it, the only time it is seen.

    Example: kalshi-platform keys create research --plan basic --expires 2027-12-31
    """
    from datetime import UTC

    from kalshi_platform.operations.errors import Refusal
    from kalshi_platform.storage import engine
    from kalshi_platform.storage.plans import PLANS
    from kalshi_platform.storage.writes import keys

    if plan not in PLANS:
        raise Refusal(f"--plan {plan}: there are {', '.join(PLANS)}.", 2)
    ends_at = None if expires is None else expires.replace(tzinfo=UTC)
    if ends_at is not None and ends_at <= datetime.now(UTC):
        raise Refusal(f"--expires {ends_at:%Y-%m-%d} has begun: give a later day (UTC).", 2)
    settings = _settings()
    _require_schema(settings)
    with engine.connect(settings.url) as connection:
        key = keys.create_key(
            connection,
            name,
            plan=PLANS[plan],
            monthly_credits=monthly_credits,
            requests_per_second=requests_per_second,
            expires_at=ends_at,
        )
    print(key)


@keys_app.command("list")
def list_keys() -> None:
    """List all keys with what they spent and have left. Example: kalshi-platform keys list"""
    from kalshi_platform.operations.customers import key_lines
    from kalshi_platform.storage import engine
    from kalshi_platform.storage.reads import keys

    settings = _settings()
    _require_schema(settings)
    with engine.connect(settings.url) as connection:
        for line in key_lines(keys.list_keys(connection)):
            print(line)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[int, typer.Argument(help="The number that `keys list` shows.")],
) -> None:
    """Revoke a key for good. Example: kalshi-platform keys revoke 3"""
    from kalshi_platform.operations.customers import not_in_force
    from kalshi_platform.storage import engine
    from kalshi_platform.storage.writes import keys

    with engine.connect(_settings().url) as connection:
        if not keys.revoke_key(connection, key_id):
            raise not_in_force(key_id)
    print(f"Key {key_id} is revoked; the API refuses it within ten seconds.")


@keys_app.command("rotate")
def rotate_key(
    key_id: Annotated[int, typer.Argument(help="The number that `keys list` shows.")],
    grace_hours: Annotated[
        float, typer.Option(min=0, max=8_760, help="So long the old key works, too.")
    ] = 24,
) -> None:
    """Give a key a new secret and print it; credits and usage stay.

    Example: kalshi-platform keys rotate 3 --grace-hours 48
    """
    from datetime import timedelta

    from kalshi_platform.operations.customers import not_in_force
    from kalshi_platform.storage import engine
    from kalshi_platform.storage.writes import keys

    settings = _settings()
    _require_schema(settings)
    with engine.connect(settings.url) as connection:
        key = keys.rotate_key(connection, key_id, timedelta(hours=grace_hours))
        if key is None:
            raise not_in_force(key_id)
    print(key)
    print(f"The key before works for {grace_hours:g} hours more.", file=sys.stderr)


@keys_app.command("grant")
def grant_credits(
    key_id: Annotated[int, typer.Argument(help="The number that `keys list` shows.")],
    amount: Annotated[int, typer.Argument(metavar="CREDITS", min=1, max=10**12, help="How many.")],
    note: Annotated[str | None, typer.Option(help="Why; kept with the grant.")] = None,
) -> None:
    """Give a key credits beyond its plan's, which do not expire.

    Example: kalshi-platform keys grant 3 50000 --note "trial"
    """
    from kalshi_platform.operations.customers import not_in_force
    from kalshi_platform.storage import engine
    from kalshi_platform.storage.writes import keys

    settings = _settings()
    _require_schema(settings)
    with engine.connect(settings.url) as connection:
        left = keys.grant_credits(connection, key_id, amount, note)
        if left is None:
            raise not_in_force(key_id)
    print(f"Key {key_id} has {left:,} granted credits; the API knows within ten seconds.")


@keys_app.command("usage")
def key_usage(
    key_id: Annotated[int, typer.Argument(help="The number that `keys list` shows.")],
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=_DAYS, help="First UTC day.", show_default="this month's"),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=_DAYS, help="Last UTC day.", show_default="today"),
    ] = None,
) -> None:
    """Say what a key used, by day and endpoint.

    Example: kalshi-platform keys usage 3 --from 2026-11-01 --to 2026-11-30
    """
    from datetime import UTC

    from kalshi_platform.operations.customers import usage_lines
    from kalshi_platform.storage import engine
    from kalshi_platform.storage.reads.usage import usage_between

    today = datetime.now(UTC).date()
    until = last.date() if last else today
    since = first.date() if first else until.replace(day=1)
    settings = _settings()
    _require_schema(settings)
    with engine.connect(settings.url) as connection:
        for line in usage_lines(usage_between(connection, key_id, since, until)):
            print(line)


@alerts_app.command("list")
def list_alerts(
    over: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
) -> None:
    """List what is wrong now, since when, and what to do. Example: kalshi-platform alerts list"""
    from kalshi_platform.operations.alerts import list_alerts as lines

    for line in lines(_settings(), over=over):
        print(line)


@alerts_app.command("test")
def try_alerts() -> None:
    """Send a made-up alert and its end through every channel; ends with 1 if any fails.

    Example: KALSHI_ALERT_WEBHOOK_URL=https://hooks.slack.com/… kalshi-platform alerts test
    """
    from kalshi_platform.operations.alerts import line_of, try_channels

    passed, channels = True, set()
    for tried in try_channels(_settings()):
        print(line_of(tried), flush=True)
        passed = passed and tried.arrived
        channels.add(tried.channel)
    if channels == {"log"}:
        print("Alerts go to the log alone: set KALSHI_ALERT_WEBHOOK_URL or KALSHI_ALERT_SMTP_URL.")
    if not passed:
        raise typer.Exit(1)


@alerts_app.command("listen")
def listen_for_alerts(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9009,
) -> None:
    """Print the alerts that are sent to a webhook on this machine, until Ctrl-C: to try them.

    Example: kalshi-platform alerts listen --port 9009
    """
    import contextlib

    from kalshi_platform.operations.ground import refuse_taken_ports
    from kalshi_platform.operations.listening import listener

    refuse_taken_ports({"--port": port} if port else {}, "127.0.0.1")
    with listener(port, lambda text: print(f"{text}\n", flush=True)) as server:
        print(f"KALSHI_ALERT_WEBHOOK_URL=http://127.0.0.1:{server.server_port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@tape_app.command("cat")
def cat_tape(
    segment: Annotated[
        list[int] | None, typer.Option(help="Only this segment (Unix ms); may be repeated.")
    ] = None,
) -> None:
    """Print recorded frames as JSON lines, oldest first.

    Example: kalshi-platform tape cat | head
    """
    from kalshi_platform.operations.tape import print_tape

    print_tape(_settings().tape_folder, segment)


def _settings() -> "Settings":
    from kalshi_platform.settings import Settings

    return Settings()


def _exchange_settings() -> "Settings":
    from kalshi_platform.operations.simulator import with_exchange

    return with_exchange(_settings())


def _claim(settings: "Settings") -> None:
    from kalshi_platform.operations.simulator import claim

    claim(settings)


def _require_schema(settings: "Settings") -> None:
    from kalshi_platform.storage.engine import connect
    from kalshi_platform.storage.migrate import require_current_schema

    with connect(settings.url) as connection:
        require_current_schema(connection)


def _recording(settings: "Settings") -> "RecordingOptions":
    from kalshi_platform.ingest.service import RecordingOptions

    assert settings.api_key_id is not None, "the settings name an exchange"
    assert settings.private_key_path is not None, "the settings name an exchange"
    return RecordingOptions(
        database_url=settings.url,
        tape_folder=settings.tape_folder,
        ws_url=settings.ws_url,
        rest_url=settings.rest_url,
        key_id=settings.api_key_id,
        private_key_path=Path(settings.private_key_path),
        flush_seconds=settings.flush_seconds,
        segment_seconds=settings.segment_seconds,
        silence_seconds=settings.silence_seconds,
        rest_tokens_per_second=settings.rest_tokens_per_second,
        books=settings.books,
        books_at_most=settings.books_at_most,
        books_use_yes_price=settings.books_use_yes_price,
    )


def _stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set.

    Python tells of them over a socket, whichever thread they strike: libraries have threads of
    their own. A thread waits there, since a handler would run in the main thread, which may be
    inside the event's own lock just then.
    """
    import signal
    import socket

    stop = threading.Event()
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        with heard, told:
            heard.recv(1)
            stop.set()
            # A second one needs nobody to hear it.
            threading.Event().wait()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop


if __name__ == "__main__":
    main()
