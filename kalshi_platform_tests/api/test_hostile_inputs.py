"""Whatever is sent: the right status, nothing of the inside, the server alive, nothing changed.

A list of hostile strings goes into every parameter, field and cursor that the OpenAPI document
names, over a socket to a server of its own.
"""

import hashlib
import http.client
import json
import random
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from api.app import create_app
from api.cursors import encode_cursor
from api.specification import operations
from kalshi_platform.storage import tables
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.keys import create_key, revoke_key
from kalshi_platform_tests.api.populated import TICKER, populate
from kalshi_platform_tests.api.serving import Served, served

_TEXTS = [
    "' OR '1'='1",
    "'; DROP TABLE trades; --",
    '"; DELETE FROM api_keys; --',
    "x' UNION ALL SELECT key_hash::text, 1, 1 FROM api_keys --",
    "\\'; COPY trades TO PROGRAM 'id' --",
    "$$; SELECT 1; $$",
    "%(market_ticker)s",
    "%s%s%s%n",
    "{0.__class__}",
    "{{7*7}}${7*7}",
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "file:///etc/passwd",
    "<script>alert(1)</script>",
    "() { :; }; echo x",
    "\r\nX-Injected: 1",
    "\x00",
    "a\x00b",
    "\x1b[31m",
    "\ufffe\uffff",
    "\u202eabc",
    "🜁" * 60,
    "ä" * 200,
    "A" * 201,
    "A" * 5_000,
    "1" * 4_400,
    "9" * 30,
    "-1",
    "0",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    "[]",
    "{}",
    " ",
    "",
    "%",
    "_",
    "*:*",
    "a & b | !c <-> :*",
    "2026-02-30T00:00:00Z",
    "2026-11-20T18:00:00",
    "99999-01-01T00:00:00Z",
    "0000-00-00",
    "1999-12-31T23:59:59Z",
    "-62135596801",
    "１２３",
    "0x10",
    "1_000",
]
_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**18,
    10**30,
    -(10**30),
    1e308,
    float("nan"),
    float("inf"),
    [],
    [TICKER],
    {},
    {"$gt": ""},
    {"market_ticker": TICKER},
    *_TEXTS,
]
# Of a driver, a database, a language or our files: nothing that a customer should ever read.
_INSIDE = (
    *("Traceback", 'File "', "site-packages", "psycopg", "sqlalchemy", "asyncpg", "pydantic"),
    *("string_agg", "kalshi_reader", "kalshi_meter", "pg_catalog", "syntax error", 'relation "'),
    *("SQLSTATE", "api/routes", "storage/reads", "uvicorn", "starlette"),
)
_RIGHT = {200, 401, 404, 405, 422}


class Sent(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Asker:
    """A connection to the API that sends what it is told to, however wrong."""

    def __init__(self, api: Served, key: str | None) -> None:
        self._api = api
        self._key = key
        self._connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Sent:
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {"X-API-Key": self._key} if self._key else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            # http.client would refuse what a hostile client sends.
            self._connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in sent.items():
                self._connection.putheader(name, value.encode("latin-1", "replace"))
            if body is not None:
                self._connection.putheader("Content-Length", str(len(body)))
            self._connection.endheaders(body)
            response = self._connection.getresponse()
            content = response.read()
        except (http.client.HTTPException, ConnectionError):
            self._connection.close()
            raise
        told = {name.lower(): value for name, value in response.getheaders()}
        return Sent(response.status, told, content)


@pytest.fixture(scope="module")
def keyed(postgres: EmbeddedDatabase) -> tuple[str, str]:
    url = postgres.create_database("hostile", template="migrated")
    return url, populate(url)


@pytest.fixture(scope="module")
def api(keyed: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(keyed[0], tmp_path_factory.mktemp("hostile")) as running:
        yield running


@pytest.fixture
def asker(api: Served, keyed: tuple[str, str]) -> Asker:
    return Asker(api, keyed[1])


@pytest.fixture(autouse=True)
def _nothing_changes(api: Served, keyed: tuple[str, str]) -> Iterator[None]:
    counts = _rows(keyed[0])
    yield
    assert api.process.poll() is None
    assert Asker(api, None).ask("GET", "/metrics").status == 200
    assert _rows(keyed[0]) == counts


def _rows(url: str) -> dict[str, int]:
    """Rows by table, but for what charges write."""
    written = {"api_balances", "api_usage", "api_meters"}
    with connect(url) as connection:
        return {
            table.name: connection.execute(
                f"SELECT count(*) FROM {table.name}".encode()
            ).fetchall()[0][0]
            for table in tables.metadata.sorted_tables
            if table.name not in written
        }


_DOCUMENT = create_app("postgresql://nobody@203.0.113.1/none", simulated=True).openapi()
_OPERATIONS = {f"{method.upper()} {path}": told for method, path, told in operations(_DOCUMENT)}
_KEYED = [name for name, told in _OPERATIONS.items() if "security" in told]


def good(operation: str) -> tuple[str, str, dict[str, Any] | None]:
    """Method, path and body of a request that is answered."""
    method, path = operation.split()
    path = path.replace("{event_ticker}", "KXHIGHNY-26NOV20")
    path = path.replace("{ticker}", "KXHIGHNY" if path.startswith("/series") else TICKER)
    if method == "GET":
        return method, path, None
    return method, path, {"market_ticker": TICKER}


def inputs(operation: str) -> list[tuple[str, str]]:
    """(in, name) of every input that the document names."""
    told = _OPERATIONS[operation]
    named = [(part["in"], part["name"]) for part in told.get("parameters", [])]
    if body := told.get("requestBody"):
        reference = body["content"]["application/json"]["schema"]["$ref"]
        schema = _DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[1]]
        named += [("body", name) for name in schema["properties"]]
    return named


def hold(answer: Sent, *, sent: str = "", allowed: set[int] = _RIGHT) -> None:
    """An answer that may be given to anybody."""
    assert answer.status in allowed, (answer, sent)
    assert "x-request-id" in answer.headers
    assert "x-injected" not in answer.headers
    kind = answer.headers["content-type"]
    assert kind == ("application/json" if answer.status == 200 else "application/problem+json")
    text = answer.body.decode()
    if answer.status != 200:
        told = json.loads(text)
        assert told["status"] == answer.status
        assert told["request_id"] == answer.headers["x-request-id"]
        assert len(text) < 3 * len(sent) + 3_000
    for word in _INSIDE:
        assert word not in text, (word, text, sent)


@pytest.mark.parametrize("operation", _KEYED)
def test_hostile_text_in_every_input_is_only_text(asker, operation):
    method, path, body = good(operation)
    hold(asker.ask(method, path, None if body is None else json.dumps(body).encode()))
    for place, name in inputs(operation):
        if place == "query":
            for text in _TEXTS:
                hold(asker.ask(method, f"{path}?{name}={quote(text, safe='')}"), sent=text)
        elif place == "path":
            pattern = operation.split()[1]
            for text in _TEXTS:
                target = pattern.replace(f"{{{name}}}", quote(text, safe=""))
                hold(asker.ask(method, target), sent=text)
        elif place == "body":
            for value in _VALUES:
                sent = json.dumps((body or {}) | {name: value})
                hold(asker.ask(method, path, sent.encode()), sent=sent)


@pytest.mark.parametrize("operation", _KEYED)
def test_what_is_no_utf_8_is_only_bytes(asker, operation):
    method, path, body = good(operation)
    for bad in ("%ff%fe", "%c0%af", "%ed%a0%80", "%00", "%F4%90%80%80"):
        for place, name in inputs(operation):
            if place == "query":
                hold(asker.ask(method, f"{path}?{name}={bad}"))
            elif place == "path":
                hold(asker.ask(method, operation.split()[1].replace(f"{{{name}}}", bad)))
        hold(asker.ask(method, f"{path}?{bad}={bad}", None if body is None else b"{}"))
    for header in ("\xff\xfe", "a" * 10_000, "x" * 65):
        content = None if body is None else json.dumps(body).encode()
        answer = asker.ask(method, path, content, X_Request_Id=header)
        hold(answer)
        assert answer.headers["x-request-id"] != header


@pytest.mark.parametrize("operation", [name for name in _KEYED if name.startswith("POST")])
def test_bodies_that_are_no_question_are_refused(asker, operation):
    method, path, body = good(operation)
    fine = json.dumps(body)
    for content in (
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"market_ticker": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b'{"market_ticker": "\\ud800"}',
        b'{"market_ticker": "\\u0000"}',
        b'{"limit": ' + b"9" * 5_000 + b"}",
        b'{"market_ticker": NaN}',
        fine[:-1].encode() + b', "limit": NaN}',
        fine[:-1].encode() + b', "unknown": 1}',
        fine[:-1].encode() + b', "__proto__": {}}',
        fine.encode() + fine.encode(),
    ):
        hold(asker.ask(method, path, content), sent=content[:100].decode("latin-1"), allowed={422})
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "x", ""):
        hold(asker.ask(method, path, fine.encode(), Content_Type=kind), allowed={422})
    answer = asker.ask(method, path, b'{"market_ticker": "' + b"A" * 70_000 + b'"}')
    hold(answer, allowed={413}, sent="A" * 1_000)


@pytest.mark.parametrize("operation", _KEYED)
def test_cursors_can_be_made_by_anybody(asker, operation):
    """Their hashes are no secret: every position must be good for an answer or a refusal."""
    method, path, body = good(operation)
    if ("query", "cursor") not in inputs(operation) and ("body", "cursor") not in inputs(operation):
        return
    dice = random.Random(11)
    extreme = [0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**18, 10**40]
    texts = ["", "\x00", "a\x00b", "' OR 1=1 --", "ä" * 500, "\ufffe", TICKER]
    positions: list[Any] = [
        *extreme,
        *texts,
        None,
        {},
        *([first, second] for first in extreme for second in (extreme[2], texts[3], None)),
        *([first, text] for first in extreme for text in texts),
        *([dice.choice(extreme), dice.choice([None, *extreme]), "0" * 32] for _ in range(20)),
        [1_795_197_600_000_000, 2**70, "5c1f4a66-1d3c-4f7d-8a7e-0c6a3f3b2f10"],
        [1_795_197_600_000_000, None, "5c1f4a66-1d3c-4f7d-8a7e-0c6a3f3b2f10"],
    ]
    cursors = [encode_cursor(bound, position) for bound in _bounds(path) for position in positions]
    cursors += ["".join(dice.choices(string.printable, k=dice.randint(1, 90))) for _ in range(40)]
    cursors += ["A" * 1_001, "=" * 20, "AAAA"]
    for cursor in cursors:
        if body is None:
            hold(asker.ask(method, f"{path}?cursor={quote(cursor, safe='')}"), sent=cursor)
        else:
            content = json.dumps(body | {"cursor": cursor})
            hold(asker.ask(method, path, content.encode()), sent=cursor)


def _bounds(path: str) -> list[tuple[object, ...]]:
    """What a cursor of that path is bound to, without any filter."""
    from kalshi_platform.storage.reads.events import EventFilters
    from kalshi_platform.storage.reads.markets import MarketFilters
    from kalshi_platform.storage.reads.series import SeriesFilters
    from kalshi_platform.storage.reads.settlements import SettlementFilters

    name = path.split("/")[1]
    filters: dict[str, Any] = {
        "events": EventFilters,
        "markets": MarketFilters,
        "series": SeriesFilters,
        "settlements": SettlementFilters,
    }
    if name in filters:
        return [(name, filters[name]())]
    if name == "candles":
        return [(name, TICKER, "1m", "none", None, None)]
    return [(name, TICKER, None, None)]


@pytest.mark.parametrize("operation", _KEYED)
def test_gigantic_and_repeated_inputs_are_refused_or_answered(asker, operation):
    method, path, body = good(operation)
    content = None if body is None else json.dumps(body).encode()
    hold(asker.ask(method, f"{path}?{'x' * 20_000}=1", content))
    hold(asker.ask(method, f"{path}?" + "&".join(f"a{n}=1" for n in range(3_000)), content))
    named = {name for _, name in inputs(operation)}
    for name in named & {"limit", "depth"}:
        for huge in (10**6, 10**18, 10**30):
            if body is None:
                hold(asker.ask(method, f"{path}?{name}={huge}"), allowed={422})
                hold(asker.ask(method, f"{path}?{name}=1&{name}={huge}"), allowed={422})
            else:
                sent = json.dumps(body | {name: huge})
                hold(asker.ask(method, path, sent.encode()), allowed={422})
                twice = json.dumps(body)[:-1] + f', "{name}": 1, "{name}": {huge}}}'
                hold(asker.ask(method, path, twice.encode()), allowed={422})
    many = [("X-Filler-" + str(n), "x") for n in range(500)]
    hold(asker.ask(method, path, content, **dict(many)))


def test_keys_that_open_nothing_open_no_operation(api, keyed):
    url, key = keyed
    with connect(url) as connection:
        expired = create_key(
            connection, "expired", expires_at=datetime.now(UTC) - timedelta(seconds=1)
        )
        revoked = create_key(connection, "revoked")
        hashed = hashlib.sha256(revoked.encode()).digest()
        [(revoked_id,)] = connection.execute(
            "SELECT key_id FROM api_keys WHERE key_hash = %s", [hashed]
        ).fetchall()
        assert revoke_key(connection, revoked_id)
    anonymous = Asker(api, None)
    refused = [
        {},
        *({"X_API_Key": wrong} for wrong in (expired, revoked, key[:-1], key + "x", key.upper())),
        *({"X_API_Key": text} for text in (" ", "kk_", "ä" * 40, "'; --", "a" * 8_000)),
        *(
            {"Authorization": f"Bearer {wrong}"}
            for wrong in (expired, revoked, "", "kk_" + "a" * 43)
        ),
        *({"Authorization": text} for text in ("Basic a2s6", "Bearer", key, f"Digest {key}")),
    ]
    try:
        for operation in _KEYED:
            method, path, body = good(operation)
            content = None if body is None else json.dumps(body).encode()
            for headers in refused:
                answer = anonymous.ask(method, path, content, **headers)
                hold(answer, allowed={401})
                assert answer.headers["www-authenticate"] == 'Bearer realm="kalshi-platform"'
                assert b'"data"' not in answer.body
            # Not even whether the question is a good one is told to strangers.
            bad = None if body is None else b'{"limit": "no"}'
            hold(anonymous.ask(method, f"{path}?limit=no", bad), allowed={401})
            for headers in ({"X_API_Key": key}, {"Authorization": f"bearer  {key}"}):
                hold(anonymous.ask(method, path, content, **headers), allowed={200})
        assert key not in api.log.read_text()
    finally:
        with connect(url) as connection:
            connection.execute("DELETE FROM api_keys WHERE name IN ('expired', 'revoked')")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND"])
def test_other_methods_are_refused_everywhere(asker, method):
    for operation in _OPERATIONS:
        _, path, _ = good(operation)
        answer = asker.ask(method, path)
        hold(answer, allowed={405})
        assert operation.split()[0] in answer.headers["allow"]


def test_paths_that_are_none_are_not_found(asker):
    for path in ("/", "//", "/docs/assets/../../app.py", "/docs/assets/%2e%2e/%2e%2e/main.py"):
        hold(asker.ask("GET", path), allowed={404})
    for path in ("/.env", "/trades/", "/candles/", "/candles//", "/%2e%2e/etc/passwd", "/*"):
        hold(asker.ask("GET", path), allowed={404, 405})
