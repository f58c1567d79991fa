"""Delivery: what is due goes out on all channels at once, and is noted as soon as it has arrived.

A message that arrived is never sent again. One whose process died between the channel's answer and
the note of it is sent once more: there is no way to know.
"""

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import monotonic
from typing import NamedTuple

import psycopg

from kalshi_platform.alerting.channels import Channel, NotDelivered
from kalshi_platform.alerting.messages import Message
from kalshi_platform.storage.writes import alerts as writes
from kalshi_platform.storage.writes.alerts import Delivery

# The turn of whoever delivers is over then; what has not answered counts as failed.
TURN_SECONDS = 8.0
_AT_ONCE = 8
_MOST_A_TURN = 50


class Delivered(NamedTuple):
    """How many messages went out in a turn, and which did not."""

    arrived: int
    failed: list[str]
    """`webhook: refused with 403 Forbidden`."""


def deliver_due(
    connection: psycopg.Connection,
    channels: Mapping[str, Channel],
    *,
    seconds: float = TURN_SECONDS,
) -> Delivered:
    """Send what is due, for so many seconds at most.

    Args:
        connection: in autocommit mode, so that each note stands at once; its session should hold
            the lease of those who deliver.
        channels: by name; messages for others are given up.
    """
    deadline = monotonic() + seconds
    under_way: dict[Future[str], Delivery] = {}
    arrived, failed = 0, []
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="alert-delivery")
    try:
        for due in writes.due_deliveries(connection, _MOST_A_TURN):
            channel = channels.get(due.channel)
            if channel is None:
                writes.give_up(connection, due, "this channel is not configured any more")
            else:
                message = Message(due.alert, due.event)
                under_way[pool.submit(channel.send, message)] = due
        while under_way and (left := deadline - monotonic()) > 0:
            for done in wait(under_way, left, FIRST_COMPLETED).done:
                error = _note(connection, under_way.pop(done), done)
                if error is None:
                    arrived += 1
                else:
                    failed.append(error)
        for future, due in under_way.items():
            if not future.cancel():
                sentence = f"no answer within {seconds:.0f} s"
                writes.note_failed(connection, due, sentence, None)
                failed.append(f"{due.channel}: {sentence}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return Delivered(arrived, failed)


def _note(connection: psycopg.Connection, due: Delivery, done: Future[str]) -> str | None:
    """Write down how it went; the error, if there was one."""
    error = done.exception()
    if error is None:
        writes.note_delivered(connection, due)
        return None
    if not isinstance(error, NotDelivered):
        # Noted first, so that the fault of one channel does not keep the others from their turn.
        writes.note_failed(connection, due, f"a fault of ours ({type(error).__name__})", None)
        raise error
    writes.note_failed(connection, due, str(error), error.retry_seconds)
    return f"{due.channel}: {error}"
