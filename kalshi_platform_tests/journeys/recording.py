"""The recording service, run in a thread as the entry points run it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kalshi_platform.ingest.service import RecordingOptions, record
from kalshi_simulator.testing import RunningSimulator


@contextmanager
def recording(
    database: str, tape: Path, simulator: RunningSimulator, *, silence_seconds: float = 60
) -> Iterator[Callable[[], bool]]:
    """Record while the block runs; yields a question: is it still at work?

    What the service raised, if it did, is raised at the end.
    """
    stop = threading.Event()
    failure: list[Exception] = []
    options = RecordingOptions(
        database_url=database,
        tape_folder=tape,
        ws_url=simulator.ws_url,
        rest_url=simulator.rest_url,
        key_id=simulator.key_id,
        private_key_path=simulator.private_key_path,
        silence_seconds=silence_seconds,
        rest_tokens_per_second=20_000,
    )

    def work() -> None:
        try:
            record(options, stop)
        except Exception as error:  # noqa: BLE001  # raised again below, in the test's thread
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive(), "the service did not stop"
    if failure:
        raise failure[0]
