"""`kalshi-platform archive`: closed days written, listed, verified, restored, dropped by hand."""

from collections.abc import Collection, Sequence
from datetime import date, timedelta

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kalshi_platform.archive.days import days_to_archive, last_closed_day
from kalshi_platform.archive.dropping import days_kept, drop_old_days
from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.archive.restoring import NotArchived, restore_day
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.verifying import verify
from kalshi_platform.archive.writing import archive_day
from kalshi_platform.ingest.tape_retention import remove_old_segments
from kalshi_platform.operations.asking import progress_bar
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.archives import Archive, all_archives
from kalshi_platform.storage.reads.days import rows_of_day


def archive_days(
    settings: Settings, first: date | None, last: date | None, tables: Collection[str]
) -> None:
    """Archive the days `first` to `last`, both included, or all that wait; prints a line a file.

    Raises:
        Refusal: a table or a range of days that cannot be archived.
    """
    chosen = _tables(tables)
    with connect(settings.url) as connection:
        waiting = days_to_archive(connection)
    if first is None and last is None:
        wanted = [(day, table) for day, missing in waiting.items() for table in missing]
    else:
        days = _days(first or last, last or first)
        wanted = [(day, table) for day in days for table in chosen]
    wanted = [each for each in wanted if each[1] in chosen]
    store = store_of(settings)
    with progress_bar() as progress:
        for day, table in wanted:
            _archive_one(settings, store, table, day, progress)
        if not wanted:
            progress.console.print("Every closed day is archived.")


def print_archives(settings: Settings, first: date | None, last: date | None) -> None:
    """Print the archived days and what of each is in the database."""
    with connect(settings.url) as connection:
        archives = all_archives(connection, first, last)
    if not archives:
        print_line(f"Nothing is archived yet in {settings.archive}.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("day", "table", "rows", "MB", "read back", "rows are"):
        table.add_column(name, justify="right" if name in ("rows", "MB") else "left")
    for archive in archives:
        table.add_row(
            str(archive.day),
            archive.table_name,
            f"{archive.row_count:,}",
            f"{archive.size / 1e6:,.1f}",
            f"{archive.verified_at:%Y-%m-%d %H:%M}" if archive.verified_at else "DAMAGED",
            _where(archive),
        )
    Console().print(table)


def verify_days(settings: Settings, day: date | None, *, deep: bool) -> bool:
    """Read the files of a day, or all, again; whether all are right.

    Raises:
        Refusal: nothing is archived of the day.
    """
    with connect(settings.url) as connection:
        archives = all_archives(connection, day, day)
    if not archives:
        raise Refusal(f"Nothing is archived{f' of {day}' if day else ''}.")
    store = store_of(settings)
    right = True
    for archive in archives:
        verdict = verify(settings.url, store, archive, deep=deep)
        says = verdict.damage or "right"
        if verdict.has_changed:
            says += "; the table has changed since: it is written anew before it is dropped"
        print_line(f"{archive.day}  {archive.table_name}: {says}")
        right = right and verdict.damage is None
    return right


def restore_tables(settings: Settings, day: date, tables: Collection[str]) -> None:
    """Bring the day back into the database; prints a line a table.

    Raises:
        Refusal: nothing is archived of the day.
    """
    store = store_of(settings)
    with connect(settings.url) as connection:
        found = {archive.table_name for archive in all_archives(connection, day, day)}
    wanted = [table for table in _tables(tables) if table in found or tables]
    if not wanted:
        raise Refusal(f"Nothing is archived of {day}.")
    for table in wanted:
        try:
            was_brought_back = restore_day(settings.url, store, table, day)
        except NotArchived as error:
            raise Refusal(str(error)) from error
        says = "brought back" if was_brought_back else "was in the database already"
        print_line(f"{day}  {table}: {says}")


def drop_days(settings: Settings, *, dry_run: bool) -> None:
    """Drop the days and tape that are past their time; prints a line for each."""
    kept = days_kept(settings.quotes_days, settings.books_days, settings.trades_days)
    outcome = drop_old_days(settings.url, store_of(settings), kept, dry_run=dry_run)
    may = "would be " if dry_run else ""
    for back in outcome.restored:
        print_line(f"{back.day}  {back.table}: {may}brought back, {back.reason}")
    for gone in outcome.dropped:
        print_line(f"{gone.day}  {gone.table}: {may}dropped, {gone.bytes / 1e6:,.1f} MB")
    for left in outcome.left:
        print_line(f"{left.day}  {left.table}: stays, {left.reason}")
    if not settings.tape_folder.is_dir():
        return
    with connect(settings.url) as connection:
        tape = remove_old_segments(
            connection, settings.tape_folder, settings.tape_days, dry_run=dry_run
        )
    print_line(f"{tape.removed:,} files of the tape {may}removed, {tape.bytes_freed / 1e6:,.1f} MB")
    if tape.reason is not None:
        print_line(f"{tape.left:,} files of the tape stay: {tape.reason}")


def store_of(settings: Settings) -> Store:
    """The archive of the settings.

    Raises:
        Refusal: its URL is none that can be used.
    """
    try:
        return Store(settings.archive)
    except (ValueError, OSError) as error:
        raise Refusal(f"KALSHI_ARCHIVE_URL cannot be used: {error}", 2) from error


def print_line(line: str) -> None:
    Console().print(line, soft_wrap=True, highlight=False, markup=False)


def _archive_one(
    settings: Settings, store: Store, table: str, day: date, progress: Progress
) -> None:
    with connect(settings.url) as connection:
        rows = rows_of_day(connection, table, day).rows
    # Every row counts twice: written, and read back.
    task = progress.add_task(f"{day}  {table}", total=max(1, 2 * rows))
    outcome = archive_day(
        settings.url, store, table, day, on_rows=lambda more: progress.update(task, advance=more)
    )
    progress.remove_task(task)
    found = outcome.archive
    if found is None:
        says = "no rows, nothing to archive"
    else:
        done = "archived" if outcome.written else "is archived already"
        if found.dropped_at is not None:
            done = "is in the archive only"
        says = f"{done}, {found.row_count:,} rows, {found.size / 1e6:,.1f} MB"
    progress.console.print(f"{day}  {table}: {says}", soft_wrap=True, highlight=False)


def _where(archive: Archive) -> str:
    if archive.dropped_at is not None:
        return f"in the archive only, since {archive.dropped_at:%Y-%m-%d}"
    if archive.restored_at is not None:
        return f"in both, brought back {archive.restored_at:%Y-%m-%d %H:%M}"
    return "in both"


def _tables(names: Collection[str]) -> list[str]:
    for name in names:
        if name not in SORTED_BY:
            raise Refusal(f"--table {name} is not archived: give {', '.join(SORTED_BY)}.", 2)
    return [table for table in SORTED_BY if table in names or not names]


def _days(first: date | None, last: date | None) -> Sequence[date]:
    assert first is not None and last is not None, "one of them was given"
    if first > last:
        raise Refusal(f"--from {first} is after --to {last}: give the earlier day first.", 2)
    closed = last_closed_day()
    if last > closed:
        raise Refusal(
            f"{last} cannot be archived yet: late trades still come. The newest day that can be "
            f"is {closed} (UTC).",
            2,
        )
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
