"""Dagster's books: its home folder and its tables, ready before its services start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kalshi_platform.operations.databases import dagster_url, ensure_database
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.processes import CODE_SERVICE, marks
from kalshi_platform.operations.services import PROJECT, service_environment
from kalshi_platform.settings import Settings


def open_books(settings: Settings, say: Callable[[str], None]) -> None:
    """Make Dagster's tables before three services do so at once; close what died unnoticed.

    Raises:
        Refusal: there is no dagster.yaml, or Dagster's storage cannot be opened.
    """
    prepare_dagster_home(settings.dagster_home)
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


def make_books(settings: Settings, say: Callable[[str], None]) -> None:
    """Make Dagster's database where there is none, then open the books in it."""
    ensure_database(dagster_url(settings))
    open_books(settings, say)


def prepare_dagster_home(folder: Path) -> None:
    """Put the project's dagster.yaml where Dagster looks for it."""
    source = PROJECT / "dagster.yaml"
    if not source.exists():
        raise Refusal(f"{source} is missing: run this from a checkout of the project.")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / "dagster.yaml")
