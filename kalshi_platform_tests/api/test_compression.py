"""Compressed answers: for those who ask, smaller, the same bytes inside, and held up by nobody."""

import asyncio
import gzip
import json
import time
import zlib

import httpx
import pytest
import zstandard
from fastapi import FastAPI

from api.compression import SMALLEST_BYTES, compressed, encoding_for
from kalshi_platform_tests.api.rows import TICKER, land, trade

QUESTION = {"market_ticker": TICKER, "limit": 1000}


@pytest.fixture
def page(database: str) -> None:
    land(database, *(trade(f"10:{n // 60:02}:{n % 60:02}", count_centis=n) for n in range(1, 1001)))


@pytest.fixture
async def raw(app: FastAPI, key: str):
    """A client that takes what it is told to take, and unpacks nothing by itself."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://api", headers={"X-API-Key": key}
    ) as client:
        yield client


async def ask(raw: httpx.AsyncClient, accept: str, **body) -> tuple[httpx.Response, bytes]:
    """The answer, and its bytes as they came."""
    request = raw.build_request(
        "POST", "/trades", json=QUESTION | body, headers={"Accept-Encoding": accept}
    )
    response = await raw.send(request, stream=True)
    return response, b"".join([part async for part in response.aiter_raw()])


def unpacked(encoding: str, content: bytes) -> bytes:
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompress(content)
    return gzip.decompress(content)


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("*", "zstd"),
        ("zstd;q=0, *;q=0.1", "gzip"),
        ("GZIP ; Q=0.7", "gzip"),
    ],
)
async def test_a_page_comes_as_the_client_likes_it(raw, page, accept, encoding):
    response, content = await ask(raw, accept)
    assert response.headers["content-encoding"] == encoding
    assert response.headers["vary"] == "Accept-Encoding"
    assert int(response.headers["content-length"]) == len(content)
    whole = unpacked(encoding, content)
    assert len(content) < len(whole) / 4
    plain, plain_content = await ask(raw, "identity")
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    assert json.loads(whole)["data"] == json.loads(plain_content)["data"]
    assert response.headers["x-data-status"] == plain.headers["x-data-status"]


@pytest.mark.parametrize("accept", ["", "identity", "br, deflate", "gzip;q=0", "*;q=0", "gzip;q=x"])
async def test_who_does_not_ask_gets_it_as_it_is(raw, page, accept):
    response, content = await ask(raw, accept)
    assert "content-encoding" not in response.headers
    assert len(json.loads(content)["data"]) == 1000


async def test_small_answers_stay_as_they_are(raw, page):
    response, content = await ask(raw, "gzip, zstd", limit=1)
    assert len(content) < SMALLEST_BYTES
    assert "content-encoding" not in response.headers
    assert len(json.loads(content)["data"]) == 1


async def test_documents_and_figures_are_compressed_too(raw):
    for path in ("/openapi.json", "/metrics", "/health"):
        request = raw.build_request("GET", path, headers={"Accept-Encoding": "gzip"})
        response = await raw.send(request, stream=True)
        content = b"".join([part async for part in response.aiter_raw()])
        if response.headers.get("content-encoding") is None:
            assert len(content) < SMALLEST_BYTES
        else:
            assert gzip.decompress(content)


def test_any_header_has_an_answer():
    for header in (",,,", "gzip;;q=1", "a" * 10_000, "gzip" + ",x" * 1_000, "\xff", "zstd;q=9"):
        encoding_for(header)
    assert encoding_for(",".join(["x"] * 1_000) + ",gzip") is None  # nobody sends so many


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
async def test_the_event_loop_is_not_held_up_by_a_page(encoding):
    body = json.dumps(
        [
            {
                "trade_id": f"{n * 2654435761 % 2**32:08x}-{n:04}",
                "ts": f"10:00:{n}",
                "count": n % 97,
            }
            for n in range(3_000)
        ]
    ).encode()
    assert len(body) > 150_000
    longest = []
    for _ in range(5):
        held = [0.0]
        done = asyncio.Event()

        async def watch(held=held, done=done) -> None:
            while not done.is_set():
                started = time.thread_time()
                await asyncio.sleep(0)
                held[0] = max(held[0], time.thread_time() - started)

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0)
        content = await compressed(body, encoding)
        done.set()
        await watcher
        longest.append(held[0])
        assert unpacked(encoding, content) == body
    # Of the loop's own thread; what other processes take from it is no fault of ours.
    assert min(longest) < 0.002, longest


def test_gzip_is_read_by_zlib_too():
    content = asyncio.run(compressed(b"x" * 10_000, "gzip"))
    assert zlib.decompress(content, wbits=31) == b"x" * 10_000
