"""`kalshi-platform tape cat`: the recorded frames as they lie on the tape."""

import sys
from collections.abc import Sequence
from pathlib import Path

from kalshi_platform.ingest.tape import Position, TapeReader, segments
from kalshi_platform.operations.errors import Refusal

_BYTES_A_TURN = 4 << 20


def print_tape(folder: Path, only: Sequence[int] | None = None) -> None:
    """Write the lines of the tape's segments to stdout.

    Args:
        folder: the tape.
        only: numbers of the segments to print; None prints all.
    """
    known = segments(folder)
    unknown = sorted(set(only or ()) - set(known))
    if unknown:
        raise Refusal(
            f"There is no segment {unknown[0]} in {folder}; it has "
            f"{len(known)}{f', {known[0]} to {known[-1]}' if known else ''}."
        )
    for segment in only or known:
        _print_segment(folder, segment)


def _print_segment(folder: Path, segment: int) -> None:
    reader = TapeReader(folder, Position(segment, 0))
    try:
        while blocks := reader.blocks(_BYTES_A_TURN):
            for block in blocks:
                if block.start.segment != segment:
                    return
                sys.stdout.buffer.write(block.data)
    finally:
        reader.close()
        sys.stdout.buffer.flush()
