"""The command line: what it prints, how it fails."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import pytest
import structlog
import zstandard

from kalshi_platform import cli
from kalshi_platform.operations.environment import variable_of
from kalshi_platform.operations.ground import taken
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.recorded_exchange import claim_database, claim_home
from kalshi_platform_tests.ports import free_ports
from kalshi_platform_tests.waiting import until

COMMANDS = (
    *(
        "up",
        "record",
        "load",
        "backfill",
        "reference",
        "census",
        "status",
        "doctor",
        "migrate",
        "api",
        "keys",
        "tape",
    ),
)


class Done(NamedTuple):
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


class Run(Protocol):
    def __call__(self, *arguments: str, **environment: str) -> Done: ...


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """Runs a command in this process, with nothing set but what the test names."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("KALSHI_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # no .env of a developer is read

    def command(*arguments: str, **environment: str) -> Done:
        capsys.readouterr()
        with monkeypatch.context() as changed:
            changed.setattr(sys, "argv", ["kalshi-platform", *arguments])
            for variable, value in environment.items():
                changed.setenv(variable, value)
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)
    structlog.reset_defaults()


def test_help_names_every_command_and_loads_nothing_heavy(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", done.stdout)] == []
    # What would make help slow is importing.
    heavy = "import sys, kalshi_platform.cli; print([m for m in " + (
        "('dagster', 'sqlalchemy', 'pydantic', 'httpx', 'psycopg', 'fastapi', 'pandas')"
        " if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]"


def test_help_tells_what_stands_for_an_option_left_out(run: Run) -> None:
    # A [default: …] in the help's own text would be taken for markup, and vanish.
    assert "(all three)" in run("backfill", "--help").stdout
    help_of_simulator = subprocess.run(
        [sys.executable, "-m", "kalshi_simulator.cli", "serve", "--help"],
        capture_output=True,
        text=True,
    ).stdout
    assert [word for word in ("(7)", "(half)", "(60)") if word not in help_of_simulator] == []


def test_the_version_is_the_packages(run: Run) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").stdout)


def test_keys_are_made_listed_and_revoked(run: Run, database: str) -> None:
    made = run(
        *("keys", "create", "research", "--expires", "2099-12-31", "--plan", "basic"),
        DATABASE_URL=database,
    )
    key = made.stdout.strip()
    assert key.startswith("kk_")
    [line] = run("keys", "list", DATABASE_URL=database).stdout.splitlines()
    number, prefix, _, *rest = line.split()
    assert key.startswith(prefix.removesuffix("…"))
    assert " ".join(rest) == (
        "in force, until 2099-12-31 basic: 0 spent, 1,000,000 left never used research"
    )
    revoked = run("keys", "revoke", number, DATABASE_URL=database)
    assert revoked.returncode == 0
    again = run("keys", "revoke", number, DATABASE_URL=database)
    assert again.returncode == 1
    assert again.stderr == f"No key {number} is in force: see `kalshi-platform keys list`.\n"
    assert "revoked" in run("keys", "list", DATABASE_URL=database).stdout


def test_a_key_is_rotated_credited_and_its_use_told(run: Run, database: str) -> None:
    def keys(*arguments: str) -> Done:
        return run("keys", *arguments, DATABASE_URL=database)

    first = keys("create", "research", "--monthly-credits", "5", "--requests-per-second", "3")
    rotated = keys("rotate", "1", "--grace-hours", "0.5")
    assert rotated.stdout.startswith("kk_")
    assert rotated.stdout != first.stdout
    assert rotated.stderr == "The key before works for 0.5 hours more.\n"
    granted = keys("grant", "1", "1000", "--note", "trial")
    assert granted.stdout == "Key 1 has 1,000 granted credits; the API knows within ten seconds.\n"
    assert "free: 0 spent, 1,005 left" in keys("list").stdout
    with connect(database) as connection:
        assert connection.execute(
            "SELECT plan, monthly_credits, requests_per_second, note"
            " FROM api_keys JOIN credit_grants USING (key_id)"
        ).fetchall() == [("free", 5, 3, "trial")]
        connection.execute(
            "INSERT INTO api_usage VALUES (1, '2026-11-02', 'POST /trades', 3, 6, 0)"
        )
    used = keys("usage", "1", "--from", "2026-11-01", "--to", "2026-11-30").stdout.splitlines()
    assert [line.split() for line in used] == [
        ["2026-11-02", "POST", "/trades", "3", "6"],
        ["requests,", "credits", "3", "6"],
    ]
    for refused in (("rotate", "2"), ("grant", "2", "5"), ("revoke", "2")):
        done = keys(*refused)
        assert done.returncode == 1
        assert done.stderr == "No key 2 is in force: see `kalshi-platform keys list`.\n"
    assert keys("create", "x", "--plan", "gold").stderr == (
        "--plan gold: there are free, basic, pro, local.\n"
    )


def test_a_key_that_has_expired_is_listed_as_such(run: Run, database: str) -> None:
    run("keys", "create", "research", "--expires", "2099-12-31", DATABASE_URL=database)
    with connect(database) as connection:
        connection.execute("UPDATE api_keys SET expires_at = '2026-01-02'")
    listed = run("keys", "list", DATABASE_URL=database).stdout
    assert "expired, since 2026-01-02  free: 0 spent" in listed


def test_a_key_cannot_be_made_that_has_expired(run: Run, database: str) -> None:
    done = run("keys", "create", "research", "--expires", "2026-01-02", DATABASE_URL=database)
    assert done.returncode == 2
    assert done.stderr == "--expires 2026-01-02 has begun: give a later day (UTC).\n"
    assert run("keys", "list", DATABASE_URL=database).stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        *(["record"], ["load"], ["reference"], ["census"]),
        ["backfill", "--from", "2026-11-01", "--to", "2026-11-01"],
    ],
)
def test_two_exchanges_are_kept_apart(run: Run, database: str, command: list[str]) -> None:
    with connect(database) as connection:
        claim_database(connection, "simulated")
    done = run(
        *command,
        DATABASE_URL=database,
        KALSHI_API_KEY_ID="x",
        KALSHI_PRIVATE_KEY_PATH="none.pem",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("This database holds simulated data: to record kalshi.com, set")


def test_up_does_not_record_the_real_exchange_over_simulated_data(run: Run, tmp_path: Path) -> None:
    claim_home(tmp_path, "kalshi.com")
    names = (
        *("API_PORT", "DAGSTER_PORT", "DAGSTER_CODE_PORT"),
        *("KALSHI_SIMULATOR_REST_PORT", "KALSHI_SIMULATOR_WS_PORT"),
    )
    done = run("up", **dict(zip(names, map(str, free_ports(5)), strict=True)))
    assert done.returncode == 1
    assert "This home holds data of kalshi.com" in done.stderr
    assert not (tmp_path / "postgres").exists()


def test_the_api_refuses_a_taken_port_and_an_old_schema(run: Run, empty_database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = run("api", DATABASE_URL=empty_database, API_PORT=str(port))
    assert (refused.returncode, f"Port {port} is taken" in refused.stderr) == (2, True)
    [port] = free_ports(1)
    refused = run("api", DATABASE_URL=empty_database, API_PORT=str(port))
    assert (refused.returncode, "migrate" in refused.stderr) == (1, True)


def test_migrate_says_the_schema_and_a_newer_one_is_refused(run: Run, empty_database: str) -> None:
    done = run("migrate", DATABASE_URL=empty_database)
    assert done.stdout.startswith("The database has schema ")
    with connect(empty_database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_future'")
    for command in (["migrate"], ["status"], ["keys", "create", "x"]):
        refused = run(*command, DATABASE_URL=empty_database)
        assert refused.returncode == 1
        assert "Install the newer release" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_status_is_the_same_for_people_and_programs(run: Run, database: str) -> None:
    text = run("status", DATABASE_URL=database)
    assert text.returncode == 0
    assert "no recorder runs" in text.stdout
    assert "SIMULATED" in text.stdout
    found = msgspec.json.decode(run("status", "--json", DATABASE_URL=database).stdout)
    assert found["status"] == "degraded"
    assert found["simulated"] is True
    assert found["open_gaps"] == 0


def test_status_without_a_database_says_so_and_fails(run: Run) -> None:
    done = run("status", "--json")
    assert done.returncode == 1
    assert msgspec.json.decode(done.stdout)["database"] == "unreachable"


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["migrate"], {}, "The embedded database does not run: start `kalshi-platform up`"),
        (["migrate"], {"DATABASE_URL": "postgresql://u@127.0.0.1:1/d"}, "Check DATABASE_URL"),
        (["status"], {"API_PORT": "none"}, "API_PORT is not usable"),
        (["status"], {"DATABASE_URL": "localhost:5432/kalshi"}, "must read postgresql://user"),
        (["status"], {"DATABASE_URL": "sqlite:///x"}, "must read postgresql://user"),
        (["status"], {"DATABASE_URL": "postgresql://h/d?nonsense=1"}, "must read postgresql://u"),
        (["record"], {}, "set KALSHI_API_KEY_ID and KALSHI_PRIVATE_KEY_PATH"),
        (["record"], {"KALSHI_API_KEY_ID": "x"}, "KALSHI_PRIVATE_KEY_PATH is not"),
        (["tape", "cat", "--segment", "1"], {}, "There is no segment 1"),
    ],
)
def test_what_is_wrong_is_one_sentence_on_stderr(
    run: Run, arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    done = run(*arguments, **environment)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("first", "last", "sentence"),
    [
        ("2026-11-02", "2026-11-01", "give the earlier day first"),
        ("2026-11-02", "2999-01-01", "is in the future"),
    ],
)
def test_backfill_refuses_days_that_cannot_be(
    run: Run, database: str, first: str, last: str, sentence: str
) -> None:
    done = run(
        *("backfill", "--from", first, "--to", last),
        DATABASE_URL=database,
        KALSHI_API_KEY_ID="x",
        KALSHI_PRIVATE_KEY_PATH="none.pem",
    )
    assert done.returncode == 2
    assert sentence in done.stderr


def test_backfill_refuses_parts_that_it_does_not_have(run: Run, database: str) -> None:
    days = ("--from", "2026-11-01", "--to", "2026-11-01")
    done = run("backfill", *days, "--only", "markets", "--only", "quotes", DATABASE_URL=database)
    assert done.returncode == 2
    assert done.stderr == "--only quotes is not known: give trades, candles, markets.\n"


def test_up_with_a_taken_port_names_it_and_ends_with_2(run: Run) -> None:
    [port] = free_ports(1)
    done = run("up", API_PORT=str(port), DAGSTER_PORT=str(port))
    assert done.returncode == 2
    assert (
        done.stderr == f"DAGSTER_PORT and API_PORT are both {port}: set API_PORT to another port.\n"
    )


def test_up_with_a_missing_key_file_ends_before_anything_starts(run: Run, tmp_path: Path) -> None:
    [port, *ports] = free_ports(4)
    done = run(
        "up",
        API_PORT=str(ports[0]),
        DAGSTER_PORT=str(ports[1]),
        DAGSTER_CODE_PORT=str(ports[2]),
        KALSHI_API_KEY_ID="x",
        KALSHI_PRIVATE_KEY_PATH="none.pem",
        KALSHI_REST_URL=f"http://127.0.0.1:{port}/trade-api/v2",
    )
    assert done.returncode == 1
    assert "none.pem cannot be read" in done.stderr
    assert not (tmp_path / "postgres").exists()


def test_tape_cat_prints_the_recorded_lines_in_order(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "tape"
    folder.mkdir()
    lines = [b'{"frame":{"n":%d}}\n' % number for number in range(4)]
    for segment, part in ((1000, lines[:2]), (2000, lines[2:])):
        blocks = [zstandard.compress(line) for line in part]
        (folder / f"{segment:013d}.ndjson.zst").write_bytes(b"".join(blocks))
    assert run("tape", "cat").stdout.encode() == b"".join(lines)
    only = run("tape", "cat", "--segment", "2000").stdout.encode()
    assert only == b"".join(lines[2:])


def test_the_api_ends_in_order_on_sigterm(database: str) -> None:
    [port] = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "kalshi_platform.cli", "api"],
        env={**os.environ, "DATABASE_URL": database, "API_PORT": str(port)},
        cwd=Path(__file__).parents[1],
    )
    try:
        until(lambda: taken(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
