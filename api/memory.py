"""Memory of large answers goes back to the system soon after they are sent."""

import asyncio
import ctypes

TRIM_SECONDS = 10.0


async def give_back() -> None:
    """Every few seconds, for as long as the process serves.

    glibc keeps what was freed below one block that is still in use: after a burst of large pages
    122 MB where 25 MB are used. To keep no large block at all (its mmap threshold) would cost each
    page a fifth of its time.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:  # another C library has neither the habit nor the call
        await asyncio.sleep(TRIM_SECONDS)
        trim(0)
