"""Who uses which version of an image, so that superseded ones can be deleted.

    <images_dir>/.users/<hash>.json   a directory whose `*.base` files name the versions that its machines' disks were made on
    <images_dir>/.users/lock          shared while a node chooses a version and writes it down, exclusive while one is condemned

Several nodes may share the images. Each registers itself before it uses one, so whoever deletes can ask them all. A registered
directory that is not there may be on a file system that is not mounted just now: as long as that cannot be ruled out, nobody
can say what is in use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from dormice.node import copies

_USERS = ".users"


class _User(msgspec.Struct, frozen=True):
    """`device` is the number of the file system that the directory was on: tells a deleted one from one that is not mounted."""

    directory: str
    device: int


class Unmounted(Exception):
    """A directory that uses images is not to be seen; the message names it."""


@contextmanager
def held(images_dir: Path, user: Path) -> Iterator[None]:
    """No version is condemned in this block, and afterwards none that a `.base` file of `user` names. Raises OSError."""
    with _locked(images_dir, fcntl.LOCK_SH):
        file = images_dir / _USERS / f"{sha256(bytes(user)).hexdigest()[:16]}.json"
        entry = msgspec.json.encode(_User(str(user), user.stat().st_dev))
        if not file.exists() or file.read_bytes() != entry:
            new = file.with_name(f"{file.name}.{os.getpid()}")
            new.write_bytes(entry)
            copies.sync(new)
            new.rename(file)
            for gone in outdated(images_dir):
                gone.unlink(missing_ok=True)
        yield


@contextmanager
def condemning(images_dir: Path) -> Iterator[None]:
    """No node chooses a version in this block. Raises OSError."""
    with _locked(images_dir, fcntl.LOCK_EX):
        yield


def in_use(images_dir: Path, *users: Path) -> set[str]:
    """The versions that `users` and all registered directories name. Raises Unmounted."""
    found = set().union(*map(_bases, users))
    for file, entry in _entries(images_dir):
        if entry is None:
            raise Unmounted(
                f"{file} is damaged: make a machine and take a snapshot on each node that uses the images, or delete it"
            )
        if not _deleted(entry):
            found |= _bases(_seen(file, entry))
    return found


def outdated(images_dir: Path) -> list[Path]:
    """Registrations of directories that were deleted."""
    return [file for file, entry in _entries(images_dir) if entry is not None and _deleted(entry)]


def forget(images_dir: Path, directory: Path) -> None:
    """Take back what was registered in a directory that its owner has deleted. Raises OSError."""
    for file, entry in _entries(images_dir):
        if entry is not None and Path(entry.directory).is_relative_to(directory):
            file.unlink(missing_ok=True)


def _entries(images_dir: Path) -> Iterator[tuple[Path, _User | None]]:
    """All registrations; None for one that cannot be read, such as one that the host lost power over."""
    for file in sorted((images_dir / _USERS).glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # just removed, as outdated
            text = file.read_bytes()
            try:
                yield file, msgspec.json.decode(text, type=_User)
            except msgspec.DecodeError:
                yield file, None


def _deleted(entry: _User) -> bool:
    directory = Path(entry.directory)
    above = next(there for there in directory.parents if there.exists())
    return not directory.exists() and above.stat().st_dev == entry.device


def _seen(file: Path, entry: _User) -> Path:
    directory = Path(entry.directory)
    if not directory.exists() or directory.stat().st_dev != entry.device:
        raise Unmounted(
            f"{directory} uses images and is not to be seen: mount its file system, or delete {file} if it is gone for good"
        )
    return directory


def _bases(user: Path) -> set[str]:
    found = set()
    for file in user.glob("*.base"):
        with contextlib.suppress(FileNotFoundError):  # its machine was destroyed meanwhile
            found.add(file.read_text())
    return found


@contextmanager
def _locked(images_dir: Path, how: int) -> Iterator[None]:
    (images_dir / _USERS).mkdir(mode=0o700, exist_ok=True)
    with (images_dir / _USERS / "lock").open("w") as file:
        fcntl.flock(file, how)
        yield
