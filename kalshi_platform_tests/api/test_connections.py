"""Connections that hang, dawdle, flood or hang up: a real server, and other customers beside it."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform_tests.api.populated import TICKER, populate
from kalshi_platform_tests.api.serving import Served, served
from kalshi_platform_tests.waiting import until

# What takes half a minute in earnest takes a second or two here.
_SOON = """
import api.connections as limits, api.memory
api.memory.TRIM_SECONDS = 1.0
limits.REQUEST_SECONDS, limits.SEND_SECONDS, limits.MOST_CONNECTIONS = 2.0, 2.0, 400
limits.HARD_CONNECTIONS, limits.MOST_UNSENT_BYTES = 420, 16 * 2**20
"""
# A question that holds a connection of the pool for seconds: who asks for the market SLOW, waits.
_SLOW = """
from api.database import ReadDatabase
row_at_once = ReadDatabase.row
async def row(self, statement, parameters=None):
    if (parameters or {}).get("ticker") == "SLOW":
        await row_at_once(self, "SELECT pg_sleep(3.2)")
    return await row_at_once(self, statement, parameters)
ReadDatabase.row = row
"""


@pytest.fixture(scope="module")
def keyed(postgres: EmbeddedDatabase) -> tuple[str, str]:
    url = postgres.create_database("connections", template="migrated")
    return url, populate(url)


@pytest.fixture(scope="module")
def api(keyed: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("connections")
    with served(keyed[0], folder, before=_SOON + _SLOW) as running:
        yield running


@pytest.fixture
def key(keyed: tuple[str, str]) -> str:
    return keyed[1]


@pytest.fixture
def others(api: Served, key: str) -> Iterator[httpx.Client]:
    """A customer who minds his own business."""
    with httpx.Client(base_url=api.url, headers={"X-API-Key": key}, timeout=10) as client:
        yield client


def page(key: str, **body: object) -> bytes:
    content = json.dumps({"market_ticker": TICKER, "limit": 1000} | body).encode()
    return (
        f"POST /trades HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


@contextmanager
def connected(api: Served, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as client:
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(30)
        client.connect(("127.0.0.1", api.port))
        yield client


def all_of(client: socket.socket) -> bytes:
    """What comes until the other side closes."""
    content = b""
    try:
        while part := client.recv(65_536):
            content += part
    except ConnectionResetError:
        pass
    return content


def until_there_are(number: int, mark: bytes, client: socket.socket) -> bytes:
    """What comes until a mark came so many times."""
    content = b""
    while content.count(mark) < number:
        part = client.recv(65_536)
        assert part, content[-500:]
        content += part
    return content


def quick(client: httpx.Client) -> float:
    """How long an ordinary question takes; seconds."""
    started = time.perf_counter()
    assert client.post("/trades", json={"market_ticker": TICKER}).status_code == 200
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET /health HT",
        b"GET /health HTTP/1.1\r\nHost: api\r\nX-Slow: ",
        b"POST /trades HTTP/1.1\r\nHost: api\r\nContent-Length: 100\r\n\r\n{",
        b"\r\n\r\n",
    ],
)
def test_half_a_request_is_not_waited_for_long(api, half):
    with connected(api) as client:
        client.sendall(half)
        started = time.monotonic()
        all_of(client)  # an answer that the key is missing, or nothing
        assert time.monotonic() - started < 6


def test_a_request_that_drips_is_not_waited_for_either(api):
    with connected(api) as client:
        started = time.monotonic()
        with pytest.raises(OSError):
            for byte in page("kk_x") * 100:
                client.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - started < 6


def test_a_head_without_end_is_refused(api):
    with connected(api) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: api\r\nX-Long: " + b"a" * 40_000)
        answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in answer
    assert b"32,768 bytes" in answer


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00", b"NOT HTTP\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_a_problem_as_others(api, junk):
    with connected(api) as client:
        client.sendall(junk)
        answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["type"] == "urn:kalshi-platform:problem:not_http"
    assert b"uvicorn" not in answer


def test_many_requests_at_once_on_one_connection_are_all_answered_in_order(api, key):
    with connected(api) as client:
        client.sendall(b"".join(page(key, limit=number) for number in range(1, 31)))
        content = until_there_are(30, b'"response_time"', client)
    counts = [part.count(b'"trade_id"') for part in content.split(b'"response_time"')[:-1]]
    assert counts == [*range(1, 31)]


def test_heads_are_measured_one_by_one_however_many_come_at_once(api):
    question = b"GET /series HTTP/1.1\r\nHost: api\r\nX-Pad: " + b"a" * 900 + b"\r\n\r\n"
    with connected(api) as client:
        client.sendall(question * 60 + question[:500])
        until_there_are(60, b'"request_id"', client)
        client.sendall(question[500:])
        answer = until_there_are(1, b'"request_id"', client)
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
@pytest.mark.parametrize("pause", [0, 0.2])
def test_who_offers_another_protocol_is_answered_in_this_one(api, key, offer, pause):
    head, mark, content = page(key, limit=1).partition(b"\r\n\r\n")
    head += f"\r\nConnection: Upgrade\r\nUpgrade: {offer}".encode() + mark
    with connected(api) as client:
        for _ in range(2):
            client.sendall(head)
            time.sleep(pause)
            client.sendall(content)
            assert until_there_are(1, b'"response_time"', client).startswith(b"HTTP/1.1 200 ")
        client.sendall((head + content) * 3)
        answers = until_there_are(3, b'"response_time"', client)
    assert answers.count(b"HTTP/1.1 200 ") == 3


def test_an_offer_in_pieces_hides_no_request(api, key):
    head, mark, content = page(key, limit=1).partition(b"\r\n\r\n")
    with connected(api) as client:
        client.sendall(head + b"\r\nConnection: Upgrade\r\nUpgr")
        time.sleep(0.2)
        client.sendall(b"ade: h2c" + mark + content)
        answer = all_of(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_more_connections_than_files_allowed_by_habit(keyed, tmp_path):
    habit = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (128, r.getrlimit(r.RLIMIT_NOFILE)[1]))"
    )
    with served(keyed[0], tmp_path, before=habit) as api, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(api))
        assert httpx.get(f"{api.url}/account", headers={"X-API-Key": keyed[1]}).status_code == 200


def test_readers_of_a_byte_a_second_hurt_neither_memory_nor_others(api, key, others):
    window = "fill=null&limit=1440&end_time=2026-11-21T00:00:00Z"
    large = len(others.get(f"/candles/{TICKER}?{window}").content)
    assert large > 600_000, "more than the kernel takes off the server's hands"
    question = (
        f"GET /candles/{TICKER}?{window} HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n\r\n"
    ).encode()
    before, held_before = api.resident_kilobytes, api.open_files
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(api, receive_bytes=4_096)) for _ in range(200)]
        for client in slow:
            client.sendall(question)
        for client in slow:
            with suppress(ConnectionResetError):  # so many that the first were let go already
                client.recv(1)
        assert sorted(quick(others) for _ in range(20))[10] < 0.25
        until(lambda: (api.resident_kilobytes - before) * 1024 < 200 * large / 2, 5)
        until(lambda: api.open_files < held_before + 10, 8)
    assert quick(others) < 1


def test_who_reads_nothing_of_pipelined_pages_is_let_go(api, key, others):
    with connected(api, receive_bytes=4_096) as client:
        client.sendall(page(key) * 50)
        until(lambda: _is_reset(client), 12, every=0.5)
    assert quick(others) < 1


def _is_reset(client: socket.socket) -> bool:
    try:
        client.send(b"x")
    except OSError:
        return True
    return False


def test_hanging_up_ends_the_statement(api, key, keyed):
    def running() -> int:
        with connect(keyed[0]) as connection:
            [(count,)] = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3.2)%'"
                " AND state = 'active' AND pid <> pg_backend_pid()"
            ).fetchall()
        return int(count)

    with ExitStack() as stack:
        for _ in range(6):
            client = stack.enter_context(connected(api))
            client.sendall(
                f"GET /markets/SLOW HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\n\r\n".encode()
            )
        until(lambda: running() == 6, 3)
        asked = time.monotonic()
    until(lambda: running() == 0, 2)
    assert time.monotonic() - asked < 2.5, "by hanging up, not by running out"
    until(lambda: b'"status": 499' in api.log.read_bytes())
    assert b"Traceback" not in api.log.read_bytes()


def test_a_full_pool_is_busy_and_health_answers_beside_it(api, key, others):
    """200 questions that hold all connections for seconds: health within one."""
    question = (
        f"GET /markets/SLOW HTTP/1.1\r\nHost: api\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"
    ).encode()
    others.get("/health")
    with ExitStack() as stack:
        asking = [stack.enter_context(connected(api)) for _ in range(200)]
        for client in asking:
            client.sendall(question)
        asked = time.perf_counter()
        while (started := time.perf_counter()) < asked + 2:
            assert others.get("/health").json()["database"] == "ok"
            assert time.perf_counter() - started < 1
        answers = [all_of(client) for client in asking]
    # The first to be asked learn in the end that nobody knows this market.
    refused = [answer for answer in answers if not answer.startswith(b"HTTP/1.1 404 ")]
    assert len(refused) >= 180
    for answer in refused:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in head + b"\r\n"
        assert json.loads(body)["type"] == "urn:kalshi-platform:problem:busy"
        assert json.loads(body)["detail"].startswith("All connections to the database are in use")
    assert quick(others) < 1


def test_beyond_the_most_connections_operators_are_still_answered(api, key):
    with ExitStack() as stack:
        for _ in range(401):
            stack.enter_context(connected(api))
        with httpx.Client(base_url=api.url, headers={"X-API-Key": key}, timeout=10) as client:
            refused = client.get("/account")
            health = client.get("/health")
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:kalshi-platform:problem:busy"
    assert refused.headers["retry-after"] == "5"
    assert health.json()["database"] == "ok"
