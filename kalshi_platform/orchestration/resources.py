"""What assets and jobs reach for: the database and the exchange.

Values come from environment variables when a run starts, so that the UI shows their names, never
their values. `kalshi-platform up` exports them all.
"""

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
from sqlalchemy import Engine

from kalshi_platform.orchestration.processes import PROCESS_TAG, process_name
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect, database_engine
from kalshi_platform.storage.recorded_exchange import claim_database, claim_home, exchange_name

if TYPE_CHECKING:
    from kalshi_platform.exchange.rest import RestClient
    from kalshi_platform.ingest.service import RecordingOptions
    from kalshi_platform.storage.budget import Priority


class Database(dg.ConfigurableResource[Any]):
    """The platform's tables; not Dagster's own storage."""

    url: str

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Write this process into the run's tags: every run uses the database."""
        if context.run is not None and context.instance is not None:
            context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: process_name()})

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """A connection that commits, or rolls back, when its `with` block ends."""
        return connect(self.url, autocommit=autocommit)

    def engine(self) -> Engine:
        """For queries made by `transform`; dispose of it after use."""
        return database_engine(self.url, pool_size=1)


class Exchange(dg.ConfigurableResource[Any]):
    """Where the exchange is and who we are to it."""

    rest_url: str
    ws_url: str
    key_id: str
    private_key_path: str

    def rest(
        self,
        database: Database,
        stop: threading.Event | None = None,
        *,
        priority: "Priority | None" = None,
        retry_seconds: float = 60.0,
    ) -> "RestClient":
        """A REST client on the budget that all processes share; close it after use.

        Args:
            priority: among the calls of all processes; the last, that of long work, by default.
            retry_seconds: how long one call is repeated before its error is raised.

        Raises:
            OtherExchange: the database records another exchange.
        """
        from kalshi_platform.exchange.rest import RestClient
        from kalshi_platform.exchange.signing import Signer
        from kalshi_platform.storage.budget import PostgresBudget, Priority

        settings = Settings()
        with database.connect() as connection:
            claim_database(connection, self._name(settings))
        return RestClient(
            self.rest_url,
            Signer.from_pem(self.key_id, Path(self.private_key_path)),
            PostgresBudget(
                database.url,
                settings.rest_tokens_per_second,
                priority=priority or Priority.CENSUS,
            ),
            stop=stop,
            retry_seconds=retry_seconds,
        )

    def recording(self, database: Database, tape_folder: Path) -> "RecordingOptions":
        """What a recorder needs; its tuning comes from the settings as they are now.

        Raises:
            OtherExchange: the database or the tape is of another exchange.
        """
        from kalshi_platform.ingest.service import RecordingOptions

        settings = Settings()
        claim_home(tape_folder.parent, self._name(settings))
        # A database that is away must not keep frames from the tape, which has just been asked; of
        # one without tables the recorder tells itself.
        away = (psycopg.OperationalError, psycopg.errors.UndefinedTable)
        with contextlib.suppress(*away), database.connect() as connection:
            claim_database(connection, self._name(settings))
        return RecordingOptions(
            database_url=database.url,
            tape_folder=tape_folder,
            ws_url=self.ws_url,
            rest_url=self.rest_url,
            key_id=self.key_id,
            private_key_path=Path(self.private_key_path),
            flush_seconds=settings.flush_seconds,
            segment_seconds=settings.segment_seconds,
            silence_seconds=settings.silence_seconds,
            rest_tokens_per_second=settings.rest_tokens_per_second,
            books=settings.books,
            books_at_most=settings.books_at_most,
            books_use_yes_price=settings.books_use_yes_price,
        )

    def _name(self, settings: Settings) -> str:
        return exchange_name(self.rest_url, simulated=settings.simulated_exchange)


class Home(dg.ConfigurableResource[Any]):
    """The home folder, which holds the tape."""

    folder: str

    @property
    def tape_folder(self) -> Path:
        return Path(self.folder).absolute() / "tape"


def first_line(error: psycopg.Error) -> str:
    """The server's or libpq's sentence, without the hints below it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Resource, its field, the environment variable, the field of Settings that reads the same one.
ENVIRONMENT = (
    ("database", "url", "DATABASE_URL", "database_url"),
    ("exchange", "rest_url", "KALSHI_REST_URL", "rest_url"),
    ("exchange", "ws_url", "KALSHI_WS_URL", "ws_url"),
    ("exchange", "key_id", "KALSHI_API_KEY_ID", "api_key_id"),
    ("exchange", "private_key_path", "KALSHI_PRIVATE_KEY_PATH", "private_key_path"),
    ("home", "folder", "KALSHI_HOME", "home"),
)


def resources() -> dict[str, dg.ConfigurableResource[Any]]:
    """The resources by the names that assets and jobs ask for; nothing is read or opened yet."""
    fields: dict[str, dict[str, dg.EnvVar]] = {}
    for resource, field, variable, _ in ENVIRONMENT:
        fields.setdefault(resource, {})[field] = dg.EnvVar(variable)
    return {
        "database": Database(**fields["database"]),
        "exchange": Exchange(**fields["exchange"]),
        "home": Home(**fields["home"]),
    }
