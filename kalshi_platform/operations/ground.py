"""What must hold before anything starts: one `up` per home, free ports, space on the disk."""

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from kalshi_platform.operations.errors import Refusal

LEAST_FREE_BYTES = 1_000_000_000

# An `up` that was killed leaves a guardian that ends its processes; it holds the lock meanwhile.
_LOCK_SECONDS = 45


@contextlib.contextmanager
def only_up(home: Path, wait_seconds: float = _LOCK_SECONDS) -> Iterator[int]:
    """Hold the home folder's lock; yields its file descriptor, for the guardian to inherit.

    Raises:
        Refusal: another `up` runs in this home folder.
    """
    descriptor = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _locked(descriptor):
            holder = os.pread(descriptor, 32, 0).decode().strip()
            if _alive(holder) or time.monotonic() > deadline:
                raise Refusal(
                    f"Another `kalshi-platform up` (process {holder or 'unknown'}) runs with the "
                    f"home folder {home}: stop it first, or set KALSHI_HOME to another folder."
                )
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def running_up(home: Path) -> int | None:
    """Process id of the `up` that runs in this home folder, or None."""
    try:
        descriptor = os.open(home / "up.lock", os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # who may not open the home folder's lock runs no `up` in it
    try:
        if _locked(descriptor):
            return None
        holder = os.pread(descriptor, 32, 0).decode().strip()
        return int(holder) if holder.isdigit() else None
    finally:
        os.close(descriptor)


def taken(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT after a restart counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def refuse_taken_ports(ports: Mapping[str, int], host: str = "127.0.0.1") -> None:
    """Raise Refusal naming the port and its setting, if one is taken or asked for twice.

    Args:
        ports: port by the environment variable that sets it.
        host: the address that would be listened on.
    """
    first_asked: dict[int, str] = {}
    for variable, port in ports.items():
        if port in first_asked:
            raise Refusal(
                f"{first_asked[port]} and {variable} are both {port}: "
                f"set {variable} to another port.",
                exit_code=2,
            )
        first_asked[port] = variable
        if taken(port, host):
            raise Refusal(
                f"Port {port} is taken by another program: stop that program, "
                f"or set {variable} to a free port, as in {variable}={_free_port()}.",
                exit_code=2,
            )


def free_bytes(folder: Path) -> int:
    """Space left for ordinary users on the disk that holds `folder` or will hold it."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def refuse_full_disk(folder: Path, least: int = LEAST_FREE_BYTES) -> None:
    """Raise Refusal when the disk has less than `least` bytes left."""
    free = free_bytes(folder)
    if free < least:
        raise Refusal(
            f"The disk of {folder} has {free / 1e9:.1f} GB left and {least / 1e9:.1f} GB are "
            "needed: free some space, or set KALSHI_HOME to another disk."
        )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
