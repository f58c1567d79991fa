"""The tape: what was written is read back, and a torn tail costs only itself."""

import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.ingest.tape import (
    Position,
    TapeDamaged,
    TapeReader,
    TapeWriter,
    read_tape,
    segment_path,
    segments,
)


@given(st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=5), max_size=8), st.data())
def test_every_line_comes_back_from_any_position(tmp_path_factory, blocks, data):
    folder = tmp_path_factory.mktemp("tape")
    writer = TapeWriter(folder, segment_seconds=0 if data.draw(st.booleans()) else 300)
    written = [b"".join(line.hex().encode() + b"\n" for line in block) for block in blocks]
    for block in written:
        writer.write(block)
    writer.close()
    read = TapeReader(folder).blocks(1 << 30)
    assert [block.data for block in read] == written
    if read:
        chosen = data.draw(st.integers(0, len(read) - 1))
        rest = TapeReader(folder, read[chosen].end).blocks(1 << 30)
        assert [block.data for block in rest] == written[chosen + 1 :]


def test_a_reader_follows_the_writer(tmp_path):
    writer = TapeWriter(tmp_path, 300)
    reader = TapeReader(tmp_path)
    assert reader.blocks(100) == []
    writer.write(b"1\n")
    assert [block.data for block in reader.blocks(100)] == [b"1\n"]
    assert reader.blocks(100) == []
    writer.write(b"2\n")
    assert [block.data for block in reader.blocks(100)] == [b"2\n"]
    assert reader.backlog_bytes() == 0


def test_an_unfinished_block_is_waited_for_and_left_behind_once_a_newer_segment_exists(tmp_path):
    writer = TapeWriter(tmp_path, 300)
    writer.write(b"whole\n")
    writer.write(b"torn by a crash\n")
    writer.close()
    [segment] = segments(tmp_path)
    path = segment_path(tmp_path, segment)
    os.truncate(path, path.stat().st_size - 3)
    reader = TapeReader(tmp_path)
    assert [block.data for block in reader.blocks(100)] == [b"whole\n"]
    successor = TapeWriter(tmp_path, 300)
    successor.write(b"after\n")
    assert [block.data for block in reader.blocks(100)] == [b"after\n"]


def test_a_damaged_block_is_named_and_the_next_segment_still_read(tmp_path):
    writer = TapeWriter(tmp_path, 0)
    writer.write(b"first\n")
    writer.write(b"second\n")
    first, _ = segments(tmp_path)
    path = segment_path(tmp_path, first)
    path.write_bytes(b"\0" * path.stat().st_size)
    reader = TapeReader(tmp_path)
    with pytest.raises(TapeDamaged, match=str(first)):
        reader.blocks(100)
    assert [block.data for block in reader.blocks(100)] == [b"second\n"]


def test_what_lies_before_a_damaged_block_is_handed_out_first(tmp_path):
    writer = TapeWriter(tmp_path, 300)
    writer.write(b"good\n")
    whole = sum(path.stat().st_size for path in tmp_path.iterdir())
    writer.write(b"damaged\n")
    writer.close()
    [segment] = segments(tmp_path)
    path = segment_path(tmp_path, segment)
    path.write_bytes(path.read_bytes()[:whole] + b"\0" * 40)
    TapeWriter(tmp_path, 300).write(b"after\n")
    reader = TapeReader(tmp_path)
    assert [block.data for block in reader.blocks(1 << 20)] == [b"good\n"]
    with pytest.raises(TapeDamaged, match=f"{segment} at byte {whole}"):
        reader.blocks(1 << 20)
    assert [block.data for block in reader.blocks(1 << 20)] == [b"after\n"]


def test_a_line_ends_with_a_newline_alone(tmp_path):
    TapeWriter(tmp_path, 300).write(b"a\rb\x0bc\n\nd\n")
    assert list(read_tape(tmp_path)) == [b"a\rb\x0bc", b"", b"d"]


def test_a_position_whose_segment_was_removed_continues_with_the_next(tmp_path):
    writer = TapeWriter(tmp_path, 0)
    writer.write(b"first\n")
    writer.write(b"second\n")
    first, _ = segments(tmp_path)
    segment_path(tmp_path, first).unlink()
    reader = TapeReader(tmp_path, Position(first, 0))
    assert [block.data for block in reader.blocks(100)] == [b"second\n"]


def test_one_segment_can_be_read_alone(tmp_path):
    writer = TapeWriter(tmp_path, 0)
    writer.write(b"first\n")
    writer.write(b"second\n")
    first, _ = segments(tmp_path)
    assert list(read_tape(tmp_path, first)) == [b"first"]
    assert list(read_tape(tmp_path)) == [b"first", b"second"]


_FILL_THE_DISK = """
import random, sys
from pathlib import Path
from kalshi_platform.ingest.tape import TapeFull, TapeWriter
writer = TapeWriter(Path(sys.argv[1]), 300)
noise = random.Random(7)
try:
    while True:
        writer.write(noise.randbytes(3000).hex().encode() + b"\\n")
except TapeFull as error:
    sys.exit(str(error))
"""


def test_a_full_disk_stops_with_the_remedy_and_keeps_what_was_written(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run = subprocess.run(
        [sys.executable, "-c", _FILL_THE_DISK, str(tmp_path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "full" in run.stderr
    assert "KALSHI_HOME" in run.stderr
    lines = list(read_tape(tmp_path))
    assert len(lines) > 10
    assert all(len(line) == 6000 for line in lines)
