"""What docker-compose.yml and the Dockerfile promise, read off the files."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.operations.environment import variable_of
from kalshi_platform.settings import Settings
from kalshi_platform_tests.operations.composed import (
    ROOT,
    image_files,
    interpolated,
    read_compose,
    seconds,
)

COMPOSE = read_compose({})
SERVICES: dict[str, Any] = COMPOSE["services"]
ONCE = {"password", "migrate"}  # they end when their work is done
OURS = set(SERVICES) - {"postgres"}


def test_the_services_are_those_of_the_documentation() -> None:
    assert list(SERVICES) == [
        *("password", "postgres", "migrate", "recorder", "code"),
        *("webserver", "daemon", "api", "simulator"),
    ]
    assert SERVICES["simulator"]["profiles"] == ["simulator"]
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["simulator"]


def test_every_container_runs_a_command_that_exists() -> None:
    scripts = {script.name for script in entry_points(group="console_scripts")}
    for name in OURS - {"password"}:
        assert SERVICES[name]["command"][0] in scripts, name
    for path, source in image_files().items():
        assert os.access(source, os.X_OK), path
    assert SERVICES["password"]["entrypoint"][0] in image_files()


def test_every_service_that_lasts_is_watched_started_again_and_given_time_to_end() -> None:
    for name in set(SERVICES) - ONCE:
        service = SERVICES[name]
        assert service["restart"] == "unless-stopped", name
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert 0 < seconds(check["timeout"]) <= 30, name
        assert seconds(service["stop_grace_period"]) >= 15, name
        assert re.fullmatch(r"\d+g", service["deploy"]["resources"]["limits"]["memory"]), name
    assert {SERVICES[name]["restart"] for name in ONCE} == {"no"}


def test_nothing_runs_as_root_or_may_become_it_or_writes_outside_of_volumes() -> None:
    for name, service in SERVICES.items():
        assert service["user"] == ("postgres" if name == "postgres" else "1000:1000"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
    assert re.findall(r"^USER (.+)$", dockerfile(), re.MULTILINE) == ["1000:1000"]


def test_logs_are_rotated() -> None:
    for name, service in SERVICES.items():
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_images_are_pinned() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert SERVICES["postgres"]["image"] == "postgres:18"
    assert {SERVICES[name]["image"] for name in OURS} == {f"kalshi-platform:{version}"}
    [base] = re.findall(r"^FROM (.+)$", dockerfile(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)


def test_volumes_are_named_and_only_secrets_come_from_this_machine() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert used == set(COMPOSE["volumes"])
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    given = {name: set(service.get("secrets", ())) for name, service in SERVICES.items()}
    assert given["recorder"] == {"private_key"}
    assert given["code"] == {"private_key", "alert_webhook_url", "alert_smtp_url"}
    assert given["password"] == {"database_password"}
    assert [name for name in given if given[name]] == ["password", "recorder", "code"]


def test_no_secret_stands_in_the_file_or_reaches_an_environment() -> None:
    configured = {
        "KALSHI_API_KEY_ID": "an-id",
        "KALSHI_PRIVATE_KEY_PATH": "key.pem",
        "POSTGRES_PASSWORD_FILE": "password.txt",
        "KALSHI_ALERT_WEBHOOK_URL_FILE": "hook.txt",
        "KALSHI_ALERT_SMTP_URL_FILE": "smtp.txt",
    }
    compose = read_compose(configured)
    assert {name: secret["file"] for name, secret in compose["secrets"].items()} == {
        "database_password": "password.txt",
        "private_key": "key.pem",
        "alert_webhook_url": "hook.txt",
        "alert_smtp_url": "smtp.txt",
    }
    secrets = {variable_of(name) for name, field in secret_fields()}
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), (name, variable)
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY", variable) and variable.endswith("_FILE"):
                assert str(value).startswith("/"), (name, variable)
            assert variable not in secrets - {"DATABASE_URL", "DAGSTER_PG_URL"}, (name, variable)
    assert (ROOT / COMPOSE["secrets"]["private_key"]["file"]).read_bytes() == b""


def test_containers_take_every_setting_and_one_recorder() -> None:
    for name in OURS - {"password"}:
        assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}], name
        environment = SERVICES[name]["environment"]
        assert environment["KALSHI_STREAM_IN_DAGSTER"] == "0"
        own = {variable_of(field) for field in Settings.model_fields}
        beside = {"DAGSTER_HOME", "PGPASSFILE", "SIMULATOR_REST_URL", "SIMULATOR_WS_URL"}
        files = {"KALSHI_ALERT_WEBHOOK_URL_FILE", "KALSHI_ALERT_SMTP_URL_FILE"}
        assert set(environment) <= own | beside | files, name


def test_nothing_starts_before_the_schema_is_there() -> None:
    for name in OURS - ONCE - {"simulator"}:
        needed = SERVICES[name]["depends_on"]
        assert needed["migrate"] == {"condition": "service_completed_successfully"}, name
        assert needed["simulator"] == {"condition": "service_healthy", "required": False}, name
        assert needed["postgres"] == {"condition": "service_healthy"}, name
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_code_servers_container_passes_its_stop_on(tmp_path: Path) -> None:
    python = tmp_path / "python"  # shows what it is asked to do
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    assert SERVICES["code"]["command"][:3] == ["dagster", "api", "grpc"]
    probe = subprocess.run(
        [ROOT / "docker" / "entrypoint.sh", "dagster", "api", "grpc", "-p", "1"],
        env={"PATH": str(tmp_path), "KALSHI_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert probe.stdout.split() == [
        *("-m", "kalshi_platform.operations.interrupting", "--close-runs"),
        *("dagster", "api", "grpc", "-p", "1"),
    ]


def test_the_password_is_made_once_or_the_operators(tmp_path: Path) -> None:
    none, own = tmp_path / "none", tmp_path / "own"
    none.touch()
    own.write_text("a:b\\c é\n")

    def made(configured: Path) -> tuple[str, str]:
        subprocess.run([ROOT / "docker" / "password.sh", configured, tmp_path], check=True)
        assert (tmp_path / "pgpass").stat().st_mode & 0o777 == 0o600, "libpq refuses another"
        return (tmp_path / "database_password").read_text(), (tmp_path / "pgpass").read_text()

    password, line = made(none)
    assert len(password) > 30
    assert line == f"*:*:*:*:{password}\n"
    assert made(none) == (password, line)
    assert made(own) == ("a:b\\c é", "*:*:*:*:a\\:b\\\\c é\n")
    assert made(none)[0] == "a:b\\c é", "it stays until another one is named"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A:-x}", "x"),
        ("${B:-x}", "b"),
        ("${B:+x}", "x"),
        ("${A:+x}", ""),
        ("${A:-http://h:${B:-1}}/y", "http://h:b/y"),
        ("a $$ b", "a $ b"),
    ],
)
def test_variables_are_put_in_as_compose_does(text: str, value: str) -> None:
    assert interpolated(text, {"B": "b"}) == value


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def secret_fields() -> list[tuple[str, Any]]:
    return [
        (name, field)
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    ]
