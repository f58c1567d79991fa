"""The API of a drill: a process of its own, and a client with a key."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.ports import free_ports

_START_SECONDS = 30


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[httpx.Client]:
    """The API over the database of `environment`, gone afterwards."""
    [port] = free_ports(1)
    with connect(environment["DATABASE_URL"]) as connection:
        key = create_key(connection, "drill")
    process = subprocess.Popen(
        [sys.executable, "-m", "kalshi_platform.cli", "api"],
        env=dict(environment) | {"API_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60
        ) as client:
            _wait_for(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.get("/health")
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
