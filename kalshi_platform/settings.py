"""Every setting: name, default, unit, validation. Entry points read them and pass values down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.exc import ArgumentError

from kalshi_platform.ingest.book_choice import BookChoice
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import libpq_url

PRODUCTION_REST_URL = "https://external-api.kalshi.com/trade-api/v2"
PRODUCTION_WS_URL = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"

Port = Annotated[int, Field(ge=1, le=65535)]


class SecretUnreadable(ValueError):
    """A file that was named to hold a setting's value cannot be read."""


class SecretFiles(PydanticBaseSettingsSource):
    """A secret may lie in a file: `VARIABLE_FILE` names it where VARIABLE itself is not set.

    So it stands in no environment, where other programs and `docker inspect` would show it. A file
    without a text is no value.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], variables: Mapping[str, str | None]
    ) -> None:
        super().__init__(settings_cls)
        self._variables = variables
        """What environment and .env hold; names in small letters."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = _variable(self.config.get("env_prefix", ""), field_name, field)
        named = self._variables.get(f"{variable}_file".lower())
        if not named or self._variables.get(variable.lower()):
            return None, variable, False
        try:
            text = Path(named).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnreadable(
                f"{variable}_FILE names {named}, which cannot be read "
                f"({getattr(error, 'strerror', None) or 'not a text'}): give this user the right "
                "to it, or name another file."
            ) from error
        return text or None, variable, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            if field.annotation == SecretStr | None:
                value, variable, _ = self.get_field_value(field, name)
                if value is not None:
                    values[variable if field.validation_alias else name] = value
        return values


def _variable(prefix: str, name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"{prefix}{name}".upper()


class Settings(BaseSettings):
    """Read from the environment, then from `.env`; names are led by `KALSHI_` unless fixed here.

    Raises:
        SecretUnreadable: a file that holds a secret cannot be read.
    """

    model_config = SettingsConfigDict(
        env_prefix="KALSHI_",
        env_file=".env",
        env_ignore_empty=True,  # a line without a value in .env leaves the default
        extra="ignore",
        populate_by_name=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (ours takes its place)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        variables = {**dotenv_settings.env_vars, **env_settings.env_vars}
        files = SecretFiles(settings_cls, variables)
        return init_settings, env_settings, dotenv_settings, files

    home: Path = Field(
        Path(".kalshi"), description="embedded database, tape, Dagster home, demo key"
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "KALSHI_DATABASE_URL"),
        description="PostgreSQL URL; unset: an embedded PostgreSQL 18 under the home folder",
    )
    dagster_database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DAGSTER_PG_URL"),
        description="Dagster's own storage; unset: the database dagster on the same server",
    )
    rest_url: str = Field(PRODUCTION_REST_URL, description="the exchange's REST base URL")
    ws_url: str = Field(PRODUCTION_WS_URL, description="the exchange's WebSocket URL")
    api_key_id: str | None = Field(None, description="key id; unset: the simulator is recorded")
    private_key_path: Path | None = Field(None, description="PEM file, RSA or Ed25519")
    simulated_exchange: bool = Field(
        False,
        validation_alias=AliasChoices("KALSHI_SIMULATED"),
        description="the configured exchange is the simulator; set by `kalshi-platform up`",
    )
    stream_in_dagster: bool = Field(
        True, description="Dagster starts the recorder; off where `kalshi-platform record` runs"
    )
    rest_tokens_per_second: float = Field(
        200, gt=0, description="read budget of the account's tier"
    )
    flush_seconds: float = Field(0.1, gt=0, le=1, description="longest a frame waits in memory")
    segment_seconds: float = Field(300, gt=0, description="a new tape file every so often")
    silence_seconds: float = Field(60, gt=0, description="then a channel is subscribed anew")
    books: str = Field(
        "busiest:20",
        description="order books to watch: busiest:N, series:TICKER, market tickers; or none",
    )
    books_at_most: int = Field(500, ge=0, le=100_000, description="order books, never more")
    books_use_yes_price: bool = Field(
        False, description="ask for no-side prices of books in terms of yes; stored all the same"
    )
    quotes_days: int = Field(14, ge=2, description="days of quotes kept in the database")
    books_days: int = Field(14, ge=2, description="days of order books kept in the database")
    trades_days: int = Field(
        90, ge=2, description="days of trades and lifecycle messages kept in the database"
    )
    tape_days: int = Field(7, ge=2, description="days of tape that are kept")
    archive_url: str | None = Field(
        None,
        description="where closed days go as Parquet: a folder, or file://, s3://, gs://; "
        "unset: the folder archive under the home folder",
    )
    alert_webhook_url: SecretStr | None = Field(
        None, description="alerts are posted there as JSON, in Slack's format"
    )
    alert_smtp_url: SecretStr | None = Field(
        None, description="smtp://user:password@host:587 or smtps://…: alerts go out as mail"
    )
    alert_email_to: str | None = Field(None, description="addresses, with commas between them")
    alert_email_from: str | None = Field(None, description="unset: the first of those")
    alert_disk_percent: float = Field(
        90, gt=0, le=100, description="a disk filled beyond that is an alert"
    )
    dagster_url: str | None = Field(
        None, description="Dagster's address in links; unset: http://127.0.0.1:DAGSTER_PORT"
    )
    dagster_port: Port = Field(3000, validation_alias=AliasChoices("DAGSTER_PORT"))
    dagster_code_port: Port = Field(4266, validation_alias=AliasChoices("DAGSTER_CODE_PORT"))
    api_port: Port = Field(8000, validation_alias=AliasChoices("API_PORT"))
    simulator_rest_port: Port = Field(8090)
    simulator_ws_port: Port = Field(8091)
    simulator_trades_per_second: float = Field(5, gt=0)

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _is_postgres_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            text = url.get_secret_value()
            try:
                if not text.startswith(("postgres://", "postgresql://", "postgresql+")):
                    raise ValueError("another kind of address")
                conninfo_to_dict(libpq_url(text))
            except (ArgumentError, psycopg.ProgrammingError, ValueError):
                # Without the cause: it could quote the password.
                raise ValueError(
                    "it must read postgresql://user:password@host:5432/database"
                ) from None
        return url

    @field_validator("books")
    @classmethod
    def _names_books(cls, words: str) -> str:
        BookChoice.parse(words)
        return words

    @property
    def simulated(self) -> bool:
        """Whether the made-up exchange is recorded, as it is when no key is configured."""
        return self.simulated_exchange or self.api_key_id is None

    @property
    def tape_folder(self) -> Path:
        return self.home.absolute() / "tape"

    @property
    def archive(self) -> str:
        """The URL or absolute folder of the archive."""
        return self.archive_url or str(self.home.absolute() / "archive")

    @property
    def dagster_address(self) -> str:
        """Where Dagster's UI is, for links."""
        return self.dagster_url or f"http://127.0.0.1:{self.dagster_port}"

    @property
    def dagster_home(self) -> Path:
        return self.home.absolute() / "dagster"

    @property
    def simulator_folder(self) -> Path:
        return self.home.absolute() / "simulator"

    @property
    def embedded_database(self) -> EmbeddedDatabase | None:
        """The embedded server, unless a database is configured."""
        if self.database_url is not None:
            return None
        return EmbeddedDatabase(self.home.absolute() / "postgres")

    @property
    def url(self) -> str:
        """The database's URL, configured or embedded."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return EmbeddedDatabase(self.home.absolute() / "postgres").url()
