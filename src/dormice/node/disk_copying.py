"""Copying the disks of machines, whether they run or not. Blocking; the caller holds the locks of both sides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dormice.crash_points import CrashPoint, reached
from dormice.domain.ids import SNAPSHOT_PREFIX
from dormice.node.disks import Disks
from dormice.node.places import Places
from dormice.node.ports import ImageSource


class DiskCopying:
    """Makes disks and snapshots from disks."""

    def __init__(self, disks: Disks, images: ImageSource, run_dir: Path) -> None:
        self._disks = disks
        self._images = images
        self._run_dir = run_dir

    def disk(self, machine_id: str, origin: str, storage_gib: int) -> None:
        """Make a machine's disk as a copy of a snapshot's or another machine's, if it has none. Raises RuntimeFailure, OSError."""
        if not self._disks.has(machine_id):
            with self._still(origin):
                self._disks.copy(origin, machine_id, storage_gib)
            reached(CrashPoint.DISK_COPIED)

    def snapshot(self, machine_id: str, snapshot_id: str) -> int:
        """Keep a copy of a machine's disk, if there is none yet; the bytes it takes up. Raises RuntimeFailure, OSError."""
        copies = self._disks.copies
        if (size := copies.size(snapshot_id)) is not None:
            return size
        with self._images.held(copies.directory):
            pass  # from now on those who delete images look for what snapshots use
        with self._still(machine_id):
            size = self._disks.take_snapshot(machine_id, snapshot_id)
        reached(CrashPoint.SNAPSHOT_TAKEN)
        return size

    def resume(self, machine_id: str) -> None:
        """Let a live machine's disk go on, should a node and its watchdog have been killed while it was held still. Raises OSError."""
        places = Places(self._run_dir / machine_id)
        if places.still.exists():
            self._disks.thaw(machine_id, places.private / "still")
            places.still.unlink()

    @contextlib.contextmanager
    def _still(self, origin: str) -> Iterator[None]:
        """Nobody writes to a disk in this block. A mark says so to the next node."""
        if origin.startswith(SNAPSHOT_PREFIX):  # nobody ever does
            yield
            return
        places = Places(self._run_dir / origin)
        with contextlib.ExitStack() as after:
            if places.private.exists():  # otherwise no machine runs on it
                places.still.touch()
                after.callback(places.still.unlink, missing_ok=True)
            after.enter_context(self._disks.still(origin, places.private / "still"))
            reached(CrashPoint.DISK_STILL)
            yield
