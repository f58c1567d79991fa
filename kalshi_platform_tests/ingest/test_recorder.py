"""The recorder's end: what was received is on the tape, in order, however it is stopped."""

import asyncio
import errno
import os
import threading

import pytest

from kalshi_platform.ingest import tape
from kalshi_platform.ingest.recorder import Recorder
from kalshi_platform.ingest.tape import TapeFull, TapeWriter, read_tape
from kalshi_platform_tests.waiting import until


class Quiet:
    """A stream on which nothing happens."""

    async def run(self):
        await asyncio.Event().wait()


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(
        database_url="postgresql://nobody@127.0.0.1:1/none",
        tape_folder=tmp_path,
        ws_url="ws://127.0.0.1:1/",
        signer=None,
        flush_seconds=0.01,
        segment_seconds=300,
        silence_seconds=60,
    )
    recorder._stream = Quiet()
    return recorder


def running(recorder, stop):
    failures = []

    def run():
        try:
            asyncio.run(recorder.run(stop))
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_a_stop_while_the_disk_is_slow_keeps_every_line_in_order(tmp_path, recorder, monkeypatch):
    writing, go_on = threading.Event(), threading.Event()
    write, at_once = TapeWriter.write, []

    def slowly(self, lines):
        at_once.append(lines)
        writing.set()
        assert go_on.wait(20)
        write(self, lines)
        at_once.remove(lines)
        assert not at_once

    monkeypatch.setattr(TapeWriter, "write", slowly)
    stop = threading.Event()
    recorder.frame(1, 1, b"1")
    thread, failures = running(recorder, stop)
    assert writing.wait(20)
    recorder.frame(1, 2, b"2")
    stop.set()
    thread.join(0.5)
    assert thread.is_alive()
    go_on.set()
    thread.join(20)
    assert not failures
    assert [line[-2:-1] for line in read_tape(tmp_path)] == [b"1", b"2"]


def test_after_a_failed_write_nothing_more_is_written_and_everything_is_given_back(
    tmp_path, recorder, monkeypatch
):
    released = []
    monkeypatch.setattr(recorder._lease, "release", lambda: released.append(True))
    thread, failures = running(recorder, threading.Event())
    recorder.frame(1, 1, b"1")
    until(lambda: list(tmp_path.glob("*.zst")) and list(read_tape(tmp_path)))
    with monkeypatch.context() as patch:

        def full(file):
            recorder.frame(1, 3, b"3")
            raise OSError(errno.ENOSPC, "no space")

        patch.setattr(tape.os, "fdatasync", full)
        recorder.frame(1, 2, b"2")
        thread.join(20)
    [failure] = failures
    assert isinstance(failure, TapeFull)
    assert [line[-2:-1] for line in read_tape(tmp_path)] == [b"1"]
    assert released
    os.close(recorder._lock_folder())


def test_a_disk_without_room_for_a_new_segment_is_full(tmp_path, monkeypatch):
    def no_space(*arguments):
        raise OSError(errno.ENOSPC, "no space")

    writer = TapeWriter(tmp_path, 300)
    monkeypatch.setattr(tape.os, "open", no_space)
    with pytest.raises(TapeFull, match="KALSHI_HOME"):
        writer.write(b"1\n")
    assert writer.broken
