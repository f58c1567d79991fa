"""The demo key: made once, kept in the home folder, so that a first request works as printed."""

import hashlib
import os
from pathlib import Path

from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.plans import LOCAL
from kalshi_platform.storage.reads.keys import KEY_BY_HASH
from kalshi_platform.storage.writes.keys import create_key

_NAME = "demo"


def demo_key(settings: Settings) -> str:
    """The key of `home/demo_key`, or a new one where this database does not take that."""
    path = settings.home.absolute() / "demo_key"
    with connect(settings.url) as connection:
        if path.exists():
            key = path.read_text().strip()
            digest = hashlib.sha256(key.encode()).digest()
            row = connection.execute(KEY_BY_HASH, {"key_hash": digest}).fetchone()
            if row is not None:
                _, revoked, expires_at, rotated_until, *_ = row
                if not revoked and expires_at is None and rotated_until is None:
                    return key
        key = create_key(connection, _NAME, plan=LOCAL)
        connection.commit()
    _write_private(path, key)
    return key


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
