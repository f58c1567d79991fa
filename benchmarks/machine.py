"""The ground a benchmark stands on: a scratch database on an embedded server of its own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.migrate import migrate


@contextmanager
def scratch_database() -> Iterator[str]:
    """URL of a migrated database that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kalshi-bench-") as folder:
        server = EmbeddedDatabase(Path(folder) / "postgres")
        server.start()
        try:
            url = server.create_database("bench")
            migrate(url)
            yield url
        finally:
            server.stop()
