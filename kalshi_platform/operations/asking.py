"""What the commands that ask REST for long have in common: a client in its class, a bar, quiet."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.settings import Settings
from kalshi_platform.storage.budget import PostgresBudget, Priority

STOPPED = "Stopped; run the same command again to continue."


@contextmanager
def client(
    settings: Settings, priority: Priority, stop: threading.Event, *, retry_seconds: float = 60.0
) -> Iterator[RestClient]:
    """A REST client on the budget that all processes share.

    Args:
        settings: those of an exchange.
        retry_seconds: how long a call that meets an outage is repeated.
    """
    assert settings.api_key_id is not None, "the settings name an exchange"
    assert settings.private_key_path is not None, "the settings name an exchange"
    signer = Signer.from_pem(settings.api_key_id, settings.private_key_path)
    budget = PostgresBudget(settings.url, settings.rest_tokens_per_second, priority=priority)
    try:
        with RestClient(
            settings.rest_url, signer, budget, stop=stop, retry_seconds=retry_seconds
        ) as rest:
            yield rest
    finally:
        budget.close()


def progress_bar() -> Progress:
    """A bar with its share, the time passed and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(),
    )


def shown_in(progress: Progress, task: TaskID) -> Callable[[float], None]:
    """A function that is told the fraction done and moves the task's bar there."""

    def show(done: float) -> None:
        progress.update(task, completed=done)

    return show


def log_warnings_only() -> None:
    """Let the lines below a bar say what is done; what goes wrong still shows."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
