"""The API as customers meet it: a process of its own, on a port of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from kalshi_platform_tests.ports import free_ports
from kalshi_platform_tests.waiting import until

_SERVE = "from api.main import serve; from kalshi_platform.settings import Settings;"


@dataclass(frozen=True)
class Served:
    """A running API."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def resident_kilobytes(self) -> int:
        """Memory that the process holds right now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1])

    @property
    def open_files(self) -> int:
        """Files and sockets that the process holds right now."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextmanager
def served(database_url: str, folder: Path, *, before: str = "") -> Iterator[Served]:
    """The API on a database; `before` is Python that runs first, to shorten what takes long."""
    [port] = free_ports(1)
    log = folder / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{_SERVE} {before}\nserve(Settings())"],
            env=os.environ
            | {"DATABASE_URL": database_url, "API_PORT": str(port), "KALSHI_HOME": str(folder)},
            stdout=output,
            stderr=output,
        )
    api = Served(process, port, log)
    try:
        until(lambda: _answers(api), 30)
        yield api
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _answers(api: Served) -> bool:
    assert api.process.poll() is None, api.log.read_text()
    try:
        httpx.get(f"{api.url}/health", timeout=5)
    except httpx.TransportError:
        return False
    return True
