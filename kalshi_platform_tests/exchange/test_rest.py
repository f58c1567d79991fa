"""REST: what is asked and signed, what is repeated and for how long, how pages end."""

import base64
import json
import threading
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kalshi_platform.exchange.budget import LocalBudget
from kalshi_platform.exchange.calls import Count, Interrupted
from kalshi_platform.exchange.errors import (
    BadRequest,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unreachable,
    UnreadableAnswer,
)
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.exchange.signing import Signer
from kalshi_platform_tests.exchange.scripted import HANG_UP, Answer, ScriptedServer, scripted

CUTOFF = Answer(
    body=b'{"market_settled_ts":"2026-08-01T00:00:00Z","trades_created_ts":"2026-08-01T00:00:00Z"}'
)
LIMITED = Answer(429, b'{"error":"too many requests"}')
DOWN = Answer(503, b"<html>maintenance</html>")


def client(server: ScriptedServer, **options) -> RestClient:
    options = {"dice": lambda: 0.0, **options}
    return RestClient(server.url, None, LocalBudget(10_000), **options)


def trade(number: int) -> dict[str, object]:
    return {
        "trade_id": f"00000000-0000-0000-0000-{number:012}",
        "ticker": "KXTEST-B55.5",
        "count_fp": "0.33",
        "yes_price_dollars": "0.3650",
        "no_price_dollars": "0.6350",
        "taker_outcome_side": "no",
        "created_time": "2026-10-15T12:00:03.1Z",
        "is_block_trade": False,
    }


def page(*numbers: int, **fields) -> Answer:
    return Answer(body=json.dumps({"trades": [trade(n) for n in numbers], **fields}).encode())


def test_the_full_path_is_signed_without_the_query():
    key = Ed25519PrivateKey.generate()
    with scripted(page()) as server:
        rest = RestClient(server.url, Signer("an-id", key), LocalBudget(10_000))
        rest.trades_page("live", 1, 2)
    [asked] = server.asked
    stamp = asked.headers["KALSHI-ACCESS-TIMESTAMP"]
    key.public_key().verify(
        base64.b64decode(asked.headers["KALSHI-ACCESS-SIGNATURE"]),
        f"{stamp}GET/trade-api/v2/markets/trades".encode(),
    )
    assert asked.path == "/trade-api/v2/markets/trades"
    assert asked.query == {"min_ts": "1", "max_ts": "2", "limit": "1000"}


def test_no_key_sends_no_signature():
    with scripted(page()) as server:
        client(server).trades_page("historical", 1, 2)
    [asked] = server.asked
    assert asked.path == "/trade-api/v2/historical/trades"
    assert not [name for name in asked.headers if name.lower().startswith("kalshi")]


@pytest.mark.parametrize("last", [{"cursor": ""}, {"cursor": None}, {}])
def test_paging_ends_with_the_cursor_and_not_with_a_short_page(last):
    answers = [page(3, cursor="a"), page(cursor="b"), page(2, 1, **last)]
    with scripted(*answers) as server:
        pages = list(client(server).trade_pages("live", 1, 2))
    assert [len(one.trades) for one in pages] == [1, 0, 2]
    assert [asked.query.get("cursor") for asked in server.asked] == [None, "a", "b"]


def test_a_cursor_that_does_not_advance_is_an_error_and_no_endless_loop():
    with (
        scripted(page(cursor="a"), page(cursor="a")) as server,
        pytest.raises(UnreadableAnswer, match="does not advance"),
    ):
        list(client(server).trade_pages("live", 1, 2))


def test_a_trade_keeps_its_exact_numbers_and_an_unreadable_one_its_bytes():
    broken = {**trade(2), "yes_price_dollars": "1.5"}
    body = json.dumps({"trades": [trade(1), broken], "cursor": ""}).encode()
    with scripted(Answer(body=body)) as server:
        answer = client(server).trades_page("live", 1, 2)
    [read] = answer.trades
    assert (read.yes_price_micros, read.count_centis, read.taker_side) == (365_000, 33, "no")
    assert read.traded_at_micros == 1_792_065_603_100_000
    [(rejected, reason)] = answer.rejected
    assert json.loads(rejected) == broken
    assert "1.5" in reason


@pytest.mark.parametrize("body", [b"", b"not json", b"{}", b'{"trades": 3}', b"\xff"])
def test_an_answer_that_is_no_page_is_an_error(body):
    with scripted(Answer(body=body)) as server, pytest.raises(UnreadableAnswer):
        client(server).trades_page("live", 1, 2)


def test_what_passes_is_repeated_and_counted():
    answers = [LIMITED, DOWN, HANG_UP, Answer(500), Answer(504), CUTOFF]
    with scripted(*answers) as server:
        rest = client(server)
        began = time.monotonic()
        cutoff = rest.cutoff()
        passed = time.monotonic() - began
    assert cutoff.trades_created_ts == datetime(2026, 8, 1, tzinfo=UTC)
    # Half of 0.25, 0.5, 1, 2 and 4 seconds, as the dice say 0.
    assert 3.8 < passed < 7
    requests, retries = rest.drain_counts()
    path = "/historical/cutoff"
    outcomes = ["429", "503", "unreachable", "500", "504", "200"]
    assert requests == {Count(path, outcome): 1 for outcome in outcomes}
    assert retries == {path: 5}
    assert rest.drain_counts() == ({}, {})


def test_pauses_are_spread_by_the_dice():
    passed = []
    for number in (0.0, 0.999):
        with scripted(LIMITED, LIMITED, CUTOFF) as server:
            began = time.monotonic()
            client(server, dice=lambda number=number: number).cutoff()
            passed.append(time.monotonic() - began)
    assert passed[1] > passed[0] + 0.3


def test_retry_after_is_honoured_when_it_comes():
    limited = Answer(429, LIMITED.body, {"Retry-After": "1"})
    with scripted(limited, CUTOFF) as server:
        began = time.monotonic()
        client(server).cutoff()
    assert time.monotonic() - began >= 1.0


def test_a_wait_beyond_the_allowed_time_is_not_begun():
    limited = Answer(429, LIMITED.body, {"Retry-After": "3600"})
    with scripted(limited) as server, pytest.raises(RateLimited) as refused:
        client(server).cutoff()
    assert refused.value.retry_after_seconds == 3600


def test_repeating_ends_after_the_allowed_time():
    with scripted(*[DOWN] * 20) as server, pytest.raises(Unavailable, match="503"):
        client(server, retry_seconds=1.0).cutoff()
    assert 2 <= len(server.asked) <= 5


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequest), (401, Unauthorized), (404, NotFound)]
)
def test_what_will_not_pass_is_raised_at_once(status, kind):
    with scripted(Answer(status)) as server, pytest.raises(kind):
        client(server).cutoff()
    assert len(server.asked) == 1


def test_an_exchange_that_does_not_answer_is_unreachable():
    with scripted() as server:
        rest = client(server, retry_seconds=0.3)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
        rest.cutoff()


def test_an_answer_that_takes_too_long_is_given_up():
    listener = threading.Event()

    class Slow(ScriptedServer):
        def finish_request(self, request, client_address):
            listener.wait(5)

    server = Slow([])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with pytest.raises(Unreachable, match="ReadTimeout"):
            client(server, timeout_seconds=0.2, retry_seconds=0).cutoff()
    finally:
        listener.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_stopping_ends_a_wait_early():
    stop = threading.Event()
    limited = Answer(429, LIMITED.body, {"Retry-After": "30"})
    with scripted(limited) as server:
        rest = client(server, stop=stop)
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Interrupted):
            rest.cutoff()
    assert time.monotonic() - began < 5


def test_maintenance_is_an_exchange_status_and_no_error():
    body = b'{"exchange_active":false,"trading_active":false,"exchange_estimated_resume_time":"x"}'
    with scripted(Answer(503, body)) as server:
        status = client(server).exchange_status()
    assert (status.exchange_active, status.trading_active) == (False, False)


def test_a_broken_exchange_status_is_the_error_it_came_with():
    with scripted(DOWN) as server, pytest.raises(Unavailable):
        client(server).exchange_status()


def test_a_cutoff_without_its_time_is_an_error():
    with (
        scripted(Answer(body=b'{"market_settled_ts":"2026-08-01T00:00:00Z"}')) as server,
        pytest.raises(UnreadableAnswer, match="trades_created_ts"),
    ):
        client(server).cutoff()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(BadRequest, match="KALSHI_REST_URL"):
        RestClient("kalshi.com/trade-api/v2", None, LocalBudget(1))
