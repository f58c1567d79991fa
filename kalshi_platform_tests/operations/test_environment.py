"""Settings as environment variables, and .env.example."""

import re
from pathlib import Path

import pytest

from kalshi_platform.operations.environment import as_environment, variable_of
from kalshi_platform.operations.errors import sentence_for
from kalshi_platform.settings import SecretUnreadable, Settings

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


def test_a_secret_may_lie_in_a_file_that_the_environment_or_the_dotenv_file_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hook").write_text("https://hooks.example/T0/B0\n")
    (tmp_path / "database").write_text("postgresql://u:p@h/d\n")
    monkeypatch.setenv("KALSHI_ALERT_WEBHOOK_URL_FILE", str(tmp_path / "hook"))
    (tmp_path / ".env").write_text("DATABASE_URL_FILE=database\n")
    found = Settings()
    assert found.alert_webhook_url is not None
    assert found.alert_webhook_url.get_secret_value() == "https://hooks.example/T0/B0"
    assert found.url == "postgresql://u:p@h/d"
    monkeypatch.setenv("DATABASE_URL", "postgresql://other/d")
    assert Settings().url == "postgresql://other/d", "the variable itself wins"
    assert Settings(database_url="postgresql://given/d").url == "postgresql://given/d"


def test_an_empty_file_is_no_value_and_a_missing_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.setenv("KALSHI_ALERT_SMTP_URL_FILE", str(tmp_path / "empty"))
    assert Settings().alert_smtp_url is None
    monkeypatch.setenv("KALSHI_ALERT_SMTP_URL_FILE", str(tmp_path / "gone"))
    with pytest.raises(SecretUnreadable) as error:
        Settings()
    assert "KALSHI_ALERT_SMTP_URL_FILE" in (sentence_for(error.value) or "")
