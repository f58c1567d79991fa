"""How full the disks are that the platform writes to."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# An alert about a disk ends this far below its limit.
MARGIN_PERCENT = 1.0


class Disk(NamedTuple):
    """A file system, by the folder that it was found through."""

    label: str
    folder: Path
    percent: float
    """Of what ordinary users may fill, as `df` says."""
    free_bytes: int


def disks_of(folders: Iterable[tuple[str, Path]]) -> list[Disk]:
    """The file systems of those folders that exist, each once."""
    found: dict[int, Disk] = {}
    for label, folder in folders:
        try:
            device, stand = folder.stat().st_dev, os.statvfs(folder)
        except FileNotFoundError:
            continue
        used = stand.f_blocks - stand.f_bfree
        reachable = used + stand.f_bavail
        percent = 100 * used / reachable if reachable else 0.0
        free = stand.f_bavail * stand.f_frsize
        found.setdefault(device, Disk(label, folder, percent, free))
    return list(found.values())


def full(disks: Iterable[Disk], limit_percent: float) -> list[Disk]:
    """Disks beyond the limit, and those so close below that an alert about them goes on."""
    return [disk for disk in disks if disk.percent > limit_percent - MARGIN_PERCENT]
