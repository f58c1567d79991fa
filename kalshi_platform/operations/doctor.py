"""`kalshi-platform doctor`: looks at everything the platform stands on and says what to do."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kalshi_platform.exchange.errors import (
    ClockSkew,
    ExchangeError,
    KeyUnusable,
    from_response,
)
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.operations.environment import variable_of
from kalshi_platform.operations.errors import Refusal, sentence_for
from kalshi_platform.operations.ground import LEAST_FREE_BYTES, free_bytes, running_up, taken
from kalshi_platform.operations.simulator import simulator_settings, with_exchange
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import SchemaMismatch, require_current_schema
from kalshi_platform.storage.reads.usage import Difference, ledger_differences

# The exchange accepts 10 s and refuses 60 s (measured by others); half of the first is our alarm.
MOST_SKEW_SECONDS = 5.0

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found and, where it is not as it should be, what to do."""

    name: str
    passed: bool
    found: str
    remedy: str = ""


def checks(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which a start would meet them."""
    up = running_up(settings.home.absolute())
    yield _folder("home folder", settings.home.absolute())
    yield _folder("tape folder", settings.tape_folder)
    yield _disk(settings.home.absolute())
    yield _archive(settings.archive)
    yield from _ports(settings, up)
    yield from _database(settings, up)
    yield _alerts(settings)
    if settings.api_key_id is not None:
        yield from exchange_checks(settings)
    elif up is not None:
        yield from exchange_checks(simulator_settings(settings))
    else:
        yield Check("exchange", True, "no key is set: `up` starts and records a simulated exchange")


def exchange_checks(settings: Settings) -> Iterator[Check]:
    """Key file, exchange, clock and key, for settings that name an exchange."""
    signer: Signer | None = None
    try:
        settings = with_exchange(settings)
        assert settings.api_key_id is not None
        assert settings.private_key_path is not None
        path = settings.private_key_path
        signer = Signer.from_pem(settings.api_key_id, path)
    except (Refusal, KeyUnusable) as error:
        yield Check("key file", False, str(error))
    else:
        yield Check("key file", True, f"{path} is readable ({_kind(path)})")
    with httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
        try:
            sent_at = time.time()
            answer = client.get(f"{settings.rest_url}/exchange/status")
            ahead = _ahead_seconds(answer, (sent_at + time.time()) / 2)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            yield Check(
                "exchange",
                False,
                f"{settings.rest_url} cannot be reached ({error or type(error).__name__}).",
                "Check the network and KALSHI_REST_URL.",
            )
            return
        yield _status(settings.rest_url, answer)
        yield _clock(ahead)
        if signer is not None:
            yield _key(client, settings.rest_url, signer)


def _folder(name: str, folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check(
            name,
            False,
            f"{folder} cannot be written ({error.strerror}).",
            "Set KALSHI_HOME to a folder that this user may write.",
        )
    return Check(name, True, f"{folder} can be written")


def _disk(home: Path) -> Check:
    free = free_bytes(home)
    return Check(
        "disk",
        free >= LEAST_FREE_BYTES,
        f"{free / 1e9:.1f} GB free",
        f"At least {LEAST_FREE_BYTES / 1e9:.1f} GB are needed: free some space, "
        "or set KALSHI_HOME to another disk.",
    )


def _archive(url: str) -> Check:
    """Writes a small file there, reads it back and takes it away."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    text = b"written by kalshi-platform doctor"
    shown = _without_secrets(url)
    try:
        if "://" in url:
            store, root = FileSystem.from_uri(url)
        else:
            store, root = LocalFileSystem(), url
        place = f"{root.rstrip('/')}/.doctor-{time.time_ns()}"
        if isinstance(store, LocalFileSystem):
            store.create_dir(root, recursive=True)
        with store.open_output_stream(place, compression=None) as file:
            file.write(text)
        with store.open_input_stream(place, compression=None) as file:
            found = file.read()
        store.delete_file(place)
    except (OSError, ValueError) as error:
        return Check(
            "archive",
            False,
            f"{shown} cannot be written: {str(error).splitlines()[0].replace(url, shown)}.",
            "Set KALSHI_ARCHIVE_URL to a folder or bucket that this user may write.",
        )
    if found != text:
        return Check("archive", False, f"{shown} gave back something else.")
    return Check("archive", True, f"{shown} can be written and read")


def _without_secrets(url: str) -> str:
    """The URL without user, password and query, where a bucket's keys may stand."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _ports(settings: Settings, up: int | None) -> Iterator[Check]:
    fields = ["dagster_port", "dagster_code_port", "api_port"]
    if settings.simulated:
        fields += ["simulator_rest_port", "simulator_ws_port"]
    for field in fields:
        port, variable = getattr(settings, field), variable_of(field)
        name = f"port {port}"
        if not taken(port):
            yield Check(name, True, f"free ({variable})")
        elif up is not None:
            yield Check(name, True, f"used by the running `up`, process {up} ({variable})")
        else:
            yield Check(
                name,
                False,
                "taken by another program.",
                f"Stop that program, or set {variable} to a free port.",
            )


def _database(settings: Settings, up: int | None) -> Iterator[Check]:
    embedded = settings.embedded_database
    if embedded is not None and embedded.pid() is None and up is None:
        yield Check("database", True, "the embedded one, not running now; `up` starts it")
        return
    try:
        with connect(settings.url) as connection:
            version = connection.info.server_version // 10_000
            yield Check("database", True, f"PostgreSQL {version} answers")
            try:
                require_current_schema(connection)
            except SchemaMismatch as error:
                yield Check("schema", False, str(error))
            else:
                yield Check("schema", True, "current")
                yield _credits(ledger_differences(connection))
    except psycopg.Error as error:
        yield Check("database", False, sentence_for(error) or str(error))


def _credits(differences: list[Difference]) -> Check:
    if not differences:
        return Check("credits", True, "balances, usage and grants agree to the credit")
    key_id, what, expected, found = differences[0]
    return Check(
        "credits",
        False,
        f"{len(differences)} things do not add up, first key {key_id}: {what}: {found} instead of"
        f" {expected}.",
        "Nothing of the platform writes that: look who changed api_balances or api_usage.",
    )


def _alerts(settings: Settings) -> Check:
    channels = []
    if settings.alert_webhook_url is not None:
        channels.append("to a webhook")
    if settings.alert_smtp_url is not None:
        if not settings.alert_email_to:
            return Check(
                "alerts",
                False,
                "KALSHI_ALERT_SMTP_URL is set, but no address.",
                "Set KALSHI_ALERT_EMAIL_TO.",
            )
        channels.append("as mail")
    if not channels:
        found = (
            "they go to the log alone: KALSHI_ALERT_WEBHOOK_URL or KALSHI_ALERT_SMTP_URL "
            "brings them to you"
        )
        return Check("alerts", True, found)
    return Check(
        "alerts", True, f"they go {' and '.join(channels)}; `kalshi-platform alerts test` tries"
    )


def _status(rest_url: str, answer: httpx.Response) -> Check:
    # In maintenance the exchange answers 5xx with the same body: it is there all the same.
    try:
        body = answer.json()
        active = body["exchange_active"], body["trading_active"]
    except (ValueError, KeyError, TypeError):
        return Check(
            "exchange",
            False,
            f"{rest_url} answers {answer.status_code}, but not as the exchange would.",
            "Check KALSHI_REST_URL: it ends in /trade-api/v2.",
        )
    state = {(True, True): "open", (True, False): "open, trading paused"}.get(active, "closed now")
    return Check("exchange", True, f"{rest_url} answers; it is {state}")


def _ahead_seconds(answer: httpx.Response, at: float) -> float | None:
    """By how much our clock is ahead of the answer's Date header, which has whole seconds."""
    date = answer.headers.get("Date")
    return None if date is None else at - (parsedate_to_datetime(date).timestamp() + 0.5)


def _clock(ahead: float | None) -> Check:
    if ahead is None:
        return Check("clock", True, "the exchange sends no Date header to compare with")
    direction = "ahead of" if ahead >= 0 else "behind"
    return Check(
        "clock",
        abs(ahead) <= MOST_SKEW_SECONDS,
        f"{abs(ahead):.1f} s {direction} the exchange's, to within a second.",
        "Set this machine's clock (for example: sudo timedatectl set-ntp true).",
    )


def _key(client: httpx.Client, rest_url: str, signer: Signer) -> Check:
    url = f"{rest_url}/account/limits"
    try:
        answer = client.get(url, headers=signer.headers("GET", urlsplit(url).path))
    except httpx.TransportError as error:
        return Check("key", False, f"{url} cannot be reached ({error}).", "Try again.")
    if answer.is_success:
        return Check("key", True, f"{signer.key_id} is accepted")
    refused: ExchangeError = from_response(
        answer.status_code, answer.content, date=answer.headers.get("Date")
    )
    return Check("clock" if isinstance(refused, ClockSkew) else "key", False, str(refused))


def _kind(path: Path) -> str:
    key = load_pem_private_key(path.read_bytes(), password=None)
    return "Ed25519" if isinstance(key, Ed25519PrivateKey) else "RSA"


def line_of(check: Check) -> str:
    """The check as the operator reads it."""
    mark = "ok    " if check.passed else "FAILED"
    remedy = f" {check.remedy}" if check.remedy and not check.passed else ""
    return f"{mark}  {check.name}: {check.found}{remedy}"
