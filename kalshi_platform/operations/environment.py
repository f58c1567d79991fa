"""Settings as environment variables: how `up` hands them to its services."""

from pathlib import Path

from pydantic import AliasChoices, SecretStr

from kalshi_platform.settings import Settings


def variable_of(field: str) -> str:
    """The environment variable a setting is read from; a variable's own name is returned as is."""
    info = Settings.model_fields.get(field)
    if info is None:
        return field
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"{Settings.model_config.get('env_prefix', '')}{field}".upper()


def as_environment(settings: Settings) -> dict[str, str]:
    """Every setting that has a value, by variable; a service that reads them gets the same."""
    values: dict[str, str] = {}
    for field in Settings.model_fields:
        value = getattr(settings, field)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, Path):
            value = value.absolute()
        elif isinstance(value, bool):
            value = int(value)
        values[variable_of(field)] = str(value)
    return values
