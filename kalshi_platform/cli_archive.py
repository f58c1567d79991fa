"""`kalshi-platform archive …`: closed days as files."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kalshi_platform.settings import Settings

archive_app = typer.Typer(no_args_is_help=True, help="Closed days as files: write, look, drop.")

_DAYS = ["%Y-%m-%d"]
Table = Annotated[
    list[str] | None,
    typer.Option(help="A table of the archive; may be repeated.", show_default="all six"),
]
First = Annotated[datetime | None, typer.Option("--from", formats=_DAYS, help="First UTC day.")]
Last = Annotated[datetime | None, typer.Option("--to", formats=_DAYS, help="Last UTC day.")]


@archive_app.command("run")
def run(
    day: Annotated[datetime | None, typer.Option(formats=_DAYS, help="One UTC day.")] = None,
    first: First = None,
    last: Last = None,
    table: Table = None,
) -> None:
    """Write closed days as Parquet and read them back; without a day: all that have no file yet.

    Safe to stop and to repeat. Example: kalshi-platform archive run --day 2026-11-13
    """
    from kalshi_platform.operations.archive import archive_days

    settings = _settings()
    first, last = (day, day) if day is not None else (first, last)
    archive_days(settings, first and first.date(), last and last.date(), table or [])


@archive_app.command("list")
def list_days(first: First = None, last: Last = None) -> None:
    """List the archived days: rows, bytes, when they were read back, whether only the file is left.

    Example: kalshi-platform archive list
    """
    from kalshi_platform.operations.archive import print_archives

    print_archives(_settings(), first and first.date(), last and last.date())


@archive_app.command("verify")
def verify(
    day: Annotated[datetime | None, typer.Option(formats=_DAYS, help="One UTC day.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also restore the rows beside the table and sum them up.")
    ] = False,
) -> None:
    """Read the files again and compare them with what was noted; ends with 1 if one is damaged.

    Example: kalshi-platform archive verify --day 2026-11-13
    """
    from kalshi_platform.operations.archive import verify_days

    if not verify_days(_settings(), day and day.date(), deep=deep):
        raise typer.Exit(1)


@archive_app.command("restore")
def restore(
    day: Annotated[datetime, typer.Option(formats=_DAYS, help="UTC day.")],
    table: Table = None,
) -> None:
    """Bring a day that is in the archive only back into the database; it stays for a day.

    Example: kalshi-platform archive restore --day 2026-11-13 --table trades
    """
    from kalshi_platform.operations.archive import restore_tables

    restore_tables(_settings(), day.date(), table or [])


@archive_app.command("drop")
def drop(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Drop days and tape that are older than they are kept, if they are safe in the archive.

    The job `partitions_ahead_job` does it each hour. Example: kalshi-platform archive drop
    """
    from kalshi_platform.operations.archive import drop_days

    drop_days(_settings(), dry_run=dry_run)


def _settings() -> "Settings":
    from kalshi_platform.operations.asking import log_warnings_only
    from kalshi_platform.settings import Settings
    from kalshi_platform.storage.engine import connect
    from kalshi_platform.storage.migrate import require_current_schema

    log_warnings_only()
    settings = Settings()
    with connect(settings.url) as connection:
        require_current_schema(connection)
    return settings
