"""Charges, written before the answers they are for leave: many requests, one transaction.

All charges that wait are one batch; while it is being committed the next one gathers. So a request
costs at most one short write, under load a fraction of one, and requests of one key do not queue
behind its row.
"""

import asyncio
import itertools
import time
import uuid
from collections import deque
from typing import NamedTuple

import structlog

from api.charge_database import ChargeDatabase
from api.database import DatabaseUnavailable
from kalshi_platform.storage.writes.metering import Charge, Outcome

_log = structlog.get_logger(__name__)

# An answer waits for its charge so long at most, then it is a 503 instead.
PATIENCE_SECONDS = 5
_MOST_CHARGES = 500  # in one batch
# Batches begin so far apart at least: charges gather meanwhile, and a batch costs the same for many
# as for one. A charge that comes alone does not wait.
_SPACING_SECONDS = 0.005
# Between attempts while the database is away; the first is repeated at once, since a connection may
# have died while nothing was charged. And while another process holds all keys that wait.
_PAUSES_SECONDS = (0.0, 0.02, 0.05, 0.1)
_HELD_PAUSE_SECONDS = 0.002


class Verdict(NamedTuple):
    """What became of a charge."""

    charged: bool
    left: int | None  # credits of the key afterwards; None if not known


class _Waiting(NamedTuple):
    charge: Charge
    until: float  # monotonic
    verdict: "asyncio.Future[Verdict]"


class Meter:
    """The charges of one process."""

    def __init__(self, database: ChargeDatabase) -> None:
        self._database = database
        self._meter_id = uuid.uuid4()
        self._batch = 0
        self._next_at = 0.0  # monotonic
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def charge(self, key_id: int, endpoint: str, cost: int) -> Verdict:
        """Charge a key `cost` credits, at least one.

        When this returns, the charge is committed or was refused.

        Raises:
            DatabaseUnavailable: it could not be written. If the answer to its commit was lost and
                nobody could be asked since, it may have been.
        """
        waiting = _Waiting(
            Charge(key_id, endpoint, cost),
            time.monotonic() + PATIENCE_SECONDS,
            asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="meter")
        return await waiting.verdict

    async def close(self) -> None:
        """Write what waits, and forget this meter; nothing may be charged afterwards."""
        if self._worker is not None:
            await self._worker
        if self._batch:
            try:
                await self._database.close_meter(self._meter_id)
            except DatabaseUnavailable as error:
                _log.warning("meter_not_closed", error=str(error))

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._next_at - time.monotonic())
                self._next_at = time.monotonic() + _SPACING_SECONDS
                most = min(len(self._waiting), _MOST_CHARGES)
                taken = [self._waiting.popleft() for _ in range(most)]
                # Whoever has hung up meanwhile gets no answer, and pays for none.
                batch = [waiting for waiting in taken if not waiting.verdict.done()]
                if batch:
                    await self._settle(batch)
        finally:
            self._worker = None

    async def _settle(self, batch: list[_Waiting]) -> None:
        self._batch += 1
        try:
            outcome = await self._written(batch)
        except DatabaseUnavailable as error:
            _log.warning("charges_not_written", charges=len(batch), error=str(error))
            _fail(batch, DatabaseUnavailable("the charge could not be written"))
            return
        except Exception as error:  # noqa: BLE001  (a fault of ours: raised where each waits)
            _fail(batch, error)
            return
        again = []
        for place, waiting in enumerate(batch):
            charge, until, verdict = waiting
            left = outcome.left.get(charge.key_id)
            if place in outcome.charged:
                _answer(verdict, Verdict(True, left))
            elif left is not None and left < charge.credits:
                _answer(verdict, Verdict(False, left))
            elif until < time.monotonic():
                _fail([waiting], DatabaseUnavailable("the key's balance is locked"))
            else:
                # Another process held the key; or it stood behind one that cost more than was left.
                again.append(waiting)
        self._waiting.extend(again)  # at the end: who waits for a held key keeps nobody waiting
        if again and not outcome.charged:
            await asyncio.sleep(_HELD_PAUSE_SECONDS)

    async def _written(self, batch: list[_Waiting]) -> Outcome:
        """Send a batch until its outcome is known, or its charges have waited long enough."""
        charges = [waiting.charge for waiting in batch]
        until = max(waiting.until for waiting in batch)
        for attempt in itertools.count():
            try:
                return await self._database.charge(self._meter_id, self._batch, charges)
            except DatabaseUnavailable:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_PAUSES_SECONDS[min(attempt, len(_PAUSES_SECONDS) - 1)])
        raise AssertionError("counting has no end")


def _answer(verdict: "asyncio.Future[Verdict]", value: Verdict) -> None:
    if not verdict.done():  # whoever asked may have gone
        verdict.set_result(value)


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        if not waiting.verdict.done():
            waiting.verdict.set_exception(error)
