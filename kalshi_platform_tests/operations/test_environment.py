"""Settings as environment variables, and .env.example."""

import re
from pathlib import Path

import pytest

from kalshi_platform.operations.environment import as_environment, variable_of
from kalshi_platform.settings import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's own reaches these tests."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_names_every_setting_once_with_its_default() -> None:
    named = re.findall(r"^([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(variable_of(field) for field in Settings.model_fields)
    assert Settings(_env_file=EXAMPLE) == Settings()


def test_a_service_reads_the_settings_that_it_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = Settings(
        home=tmp_path,
        database_url="postgresql://u:p@h/d",
        api_key_id="id",
        private_key_path=tmp_path / "key.pem",
        simulated_exchange=True,
        api_port=8123,
    )
    for variable, value in as_environment(given).items():
        monkeypatch.setenv(variable, value)
    assert Settings() == given
    assert Settings().simulated


def test_an_empty_variable_leaves_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KALSHI_API_KEY_ID", "")
    monkeypatch.setenv("DATABASE_URL", "")
    assert Settings().api_key_id is None
    assert Settings().simulated
    assert Settings().embedded_database is not None
