"""What crashes have left of an instance on this host, and how each thing is removed.

Only what provably belongs to nobody is found. A machine whose process 1 is alive keeps all that is its own; as long as a node runs,
everything that nodes make is its own; a disk goes only when the store says that its machine is no more. A store that was restored
does not know what was made since: of a disk that it does not know, a person has to say that it may go.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

from dormice.flock import try_lock
from dormice.node import host_leftovers, image_leftovers, image_use
from dormice.node.host_leftovers import Found, Leftover
from dormice.node.network import holds_name
from dormice.node.trees import remove_tree

_DRAFT = re.compile(r"api-key\.[0-9a-f]{8}")
_DRAFT_SECONDS = 60
"""A draft of the key file is written and renamed within milliseconds."""
_DISK_FILE = re.compile(
    r"((?:dm|snap)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.(?:ext4|base|growing|unsynced|log))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Where an instance lives; the values of the settings of the same names."""

    data_dir: Path
    run_dir: Path
    images_dir: Path
    name: str
    network: IPv4Network

    @property
    def lock(self) -> Path:
        """Held by the node for as long as it runs."""
        return self.data_dir / "node" / "lock"


@dataclass(frozen=True, slots=True)
class Machines:
    """What the store says: the machines and snapshots whose disks are to be kept, those of which it knows that they are no more,
    and since when (milliseconds) it knows any at all.
    """

    live: frozenset[str]
    gone: frozenset[str]
    since_ms: int


def node_runs(instance: Instance) -> bool:
    """Whether a node has the data directory or the instance's name. Touches no lock, so that nobody is refused one."""
    return holds_name(instance.name) or _is_locked(instance.lock)


def of_host(instance: Instance) -> Found:
    """What is left outside the data directory, and of disks half made. Only while no node runs. Raises OSError."""
    found = host_leftovers.find(instance.run_dir, instance.name, instance.network)
    half_made = (_file("temporary file", path) for path in _half_made(instance.data_dir / "node" / "disks"))
    return Found([*found.leftovers, *half_made], found.notes)


def of_files(instance: Instance, ask: Callable[[], Machines | None], *, unknown_disks: bool = False) -> Found:
    """What is left of disks, images and keys. `ask` asks the store, and answers None when it cannot be asked.

    With `unknown_disks`, also disks that the store does not know, unless they are older than it.
    """
    notes: list[str] = []
    drafts = (path for path in instance.data_dir.glob("api-key.*") if _DRAFT.fullmatch(path.name))
    leftovers = [_file("temporary file", path) for path in drafts if _age(path) > _DRAFT_SECONDS]
    leftovers += _disks(instance, ask, notes, unknown=unknown_disks)
    leftovers += _images(instance, notes)
    return Found(leftovers, notes)


def _disks(
    instance: Instance, ask: Callable[[], Machines | None], notes: list[str], *, unknown: bool
) -> Iterator[Leftover]:
    node = instance.data_dir / "node"
    files: dict[str, list[Path]] = {}
    places = (node / "disks" / "machines", node / "disks" / "snapshots", node / "process")
    for path in (path for place in places for path in place.glob("*-*")):
        if match := _DISK_FILE.fullmatch(path.name):
            files.setdefault(match[1], []).append(path)
    if not files:
        return
    # Only now: a machine or a snapshot is in the store before it has a disk, so whatever is live of those above is among the answer.
    machines = ask()
    if machines is None:
        notes.append(f"{len(files)} disks: the store cannot say whose they are")
        return
    for machine_id in sorted(files.keys() - machines.live):
        known = machine_id in machines.gone
        if not known and _made_at(machine_id) < machines.since_ms:
            notes.append(f"disk of {machine_id}: it is older than the store, which may be the wrong one")
        elif any(map(_in_use, files[machine_id])):
            notes.append(f"disk of {machine_id}: in use, although the store has no such machine")
        elif not (known or unknown):
            why = "the store does not know it, and may have been restored from before it was made"
            notes.append(f"disk of {machine_id}: {why} (--unknown-disks removes it)")
        else:
            remove = partial(_remove_all, files[machine_id])
            yield Leftover("disk", str(files[machine_id][0]), remove, sum(map(_size, files[machine_id])))


def _images(instance: Instance, notes: list[str]) -> Iterator[Leftover]:
    images, user = instance.images_dir, instance.data_dir / "node" / "disks" / "machines"
    for file in image_use.outdated(images):
        yield _file("temporary file", file)
    for half in image_leftovers.half_built(images):
        remove = partial(_or_busy, partial(image_leftovers.delete_half_built, images, half), half)
        yield Leftover("image", str(half), remove, _size(half))
    try:
        for version in image_leftovers.superseded(images, user):
            remove = partial(_or_busy, partial(image_leftovers.delete_version, images, user, version), version)
            yield Leftover("image", str(version), remove, _size(version))
    except image_use.Unmounted as unmounted:
        notes.append(f"superseded images: {unmounted}")


def _or_busy(delete: Callable[[], bool], path: Path) -> None:
    if not delete():
        raise BlockingIOError(f"{path} is in use, or an image is being built")


def _half_made(disks: Path) -> Iterator[Path]:
    yield from (disks / "pool").glob("*")
    yield from (disks / "templates").glob("*.new")
    yield from (disks / "machines").glob("*.new")
    yield from (disks / "snapshots").glob("*.new")


def _file(kind: str, path: Path) -> Leftover:
    return Leftover(kind, str(path), partial(path.unlink, missing_ok=True), _size(path))


def _remove_all(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes on disk, of everything below."""
    size = 0
    with contextlib.suppress(FileNotFoundError):
        size = path.lstat().st_blocks * 512
    for root, directories, files in os.walk(path):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(root, name)).st_blocks * 512  # noqa: PTH118 - os.walk speaks strings
    return size


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _made_at(machine_id: str) -> int:
    """When a machine or a snapshot was made, in milliseconds: its id begins with that."""
    return int(machine_id.partition("-")[2].replace("-", "")[:12], 16)


def _in_use(path: Path) -> bool:
    """Whether a loop device holds the file: its machine, or something of it, lives."""
    if path.suffix != ".ext4":
        return False
    with path.open("rb") as file:
        return not try_lock(file.fileno())


def _is_locked(path: Path) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(device in line.split() for line in Path("/proc/locks").read_text().splitlines())
