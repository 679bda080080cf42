"""Images on this host: unpacked root file systems, shared read-only by every machine that runs them.

    <images_dir>/                 0700, root: nobody but the node looks in here
        <name>                    symlink to the current version
        .versions/<name>@<id>/    rootfs/ and image.json; never changed once published
        .building-*               a build under way, or what a killed one left (the next build removes it)
        .lock                     held by whoever builds, imports or removes
        .users/                   which versions are in use (image_use.py)

A rebuild publishes a new version and turns the symlink, so machines keep the files they were started on. Versions that
no machine uses go away with `dormice gc`.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dormice.flock import try_lock
from dormice.node import image_use
from dormice.node.ports import Image
from dormice.node.runtime import RuntimeFailure
from dormice.node.trees import opened, remove_tree, walk

DEFAULT_IMAGES_DIR = Path("/var/lib/dormice/images")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Progress = Callable[[str], None]
"""Called with one line of plain text whenever a build has news."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
VERSIONS = ".versions"
BUILDING = ".building-"


class ImageFailure(Exception):
    """An image could not be built, imported or removed; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What `image.json` holds. `size` in bytes on disk, `created` in RFC 3339 UTC."""

    name: str
    source: str
    created: str
    size: int
    environment: Mapping[str, str] = field(default_factory=dict)


class Images:
    """The image source of the node."""

    def __init__(self, images_dir: Path) -> None:
        self._dir = images_dir

    def resolve(self, name: str) -> Image:
        """The current version of the image `name`, or the version so called. Raises RuntimeFailure `IMAGE_NOT_FOUND`."""
        plain, at, _ = name.partition("@")
        if not _NAME.fullmatch(plain) or "/" in name:
            raise RuntimeFailure("IMAGE_NOT_FOUND", f"not an image name: {name!r}")
        try:
            version = (self._dir / VERSIONS / name if at else self._dir / name).resolve(strict=True)
            record = _read_record(version)
        except FileNotFoundError:
            hint = "dormice image build" if name == "default" else "dormice image import"
            raise RuntimeFailure("IMAGE_NOT_FOUND", f"there is no image {name!r} on this node; try `{hint}`") from None
        return Image(version / "rootfs", record.environment, version.name)

    def held(self, user: Path) -> AbstractContextManager[None]:
        """Protect what is chosen in the block, and written into a `.base` file of `user`, from deletion. Raises OSError."""
        return image_use.held(self._dir, user) if self._dir.is_dir() else nullcontext()


def list_images(images_dir: Path) -> list[ImageRecord]:
    """All images by name."""
    if not images_dir.is_dir():
        return []
    links = sorted(path for path in images_dir.iterdir() if path.is_symlink() and _NAME.fullmatch(path.name))
    return [_read_record(link) for link in links if link.exists()]


def remove_image(images_dir: Path, name: str) -> None:
    """Forget the image `name`. Its files stay until `dormice gc`. Raises ImageFailure when there is none."""
    check_name(name)
    with _lock(images_dir, _silent):
        try:
            (images_dir / name).unlink()
        except FileNotFoundError:
            raise ImageFailure(f"there is no image {name!r}") from None


@contextmanager
def exclusively(images_dir: Path) -> Iterator[bool]:
    """Whether nobody builds, imports or removes; if so, nobody does in this block."""
    with (images_dir / ".lock").open("w") as file:
        yield try_lock(file.fileno())


@contextmanager
def building(images_dir: Path, name: str, progress: Progress) -> Iterator[Path]:
    """A private directory to unpack `name` in. One build at a time: waits for another one under way."""
    check_name(name)
    with _lock(images_dir, progress):
        for left_over in images_dir.glob(f"{BUILDING}*"):
            remove_tree(left_over)
        work = Path(tempfile.mkdtemp(prefix=BUILDING, dir=images_dir))
        try:
            yield work
        finally:
            remove_tree(work)


def publish(images_dir: Path, name: str, rootfs: Path, *, source: str, environment: Mapping[str, str]) -> ImageRecord:
    """Make `rootfs` (inside a `building` directory) the current version of `name`, at once or not at all."""
    now = datetime.now(UTC)
    version = images_dir / VERSIONS / f"{name}@{now:%Y%m%d%H%M%S}-{secrets.token_hex(3)}"
    record = ImageRecord(
        name=name,
        source=source,
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        size=_size_on_disk(rootfs),
        environment={"PATH": DEFAULT_PATH, "HOME": "/root", **environment},
    )
    staged = rootfs.parent / "version"
    staged.mkdir()
    rootfs.rename(staged / "rootfs")
    (staged / "image.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    os.sync()  # the files must be on disk before the name points at them
    staged.rename(version)
    link = rootfs.parent / "link"
    link.symlink_to(version.relative_to(images_dir))
    link.rename(images_dir / name)
    return record


def check_name(name: str) -> None:
    """Raises ImageFailure unless `name` is 1 to 63 of a-z, 0-9, dot, dash and underscore."""
    if not _NAME.fullmatch(name):
        raise ImageFailure(f"not an image name: {name!r} (a-z, 0-9, '.', '-', '_'; at most 63 characters)")


def _read_record(version: Path) -> ImageRecord:
    return msgspec.json.decode((version / "image.json").read_bytes(), type=ImageRecord)


def _size_on_disk(root: Path) -> int:
    with opened(root) as fd:
        seen = {entry.status.st_ino: entry.status.st_blocks * 512 for entry in walk(fd)}
    return sum(seen.values())


@contextmanager
def _lock(images_dir: Path, progress: Progress) -> Iterator[None]:
    images_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    images_dir.chmod(0o700)
    (images_dir / VERSIONS).mkdir(mode=0o700, exist_ok=True)
    with (images_dir / ".lock").open("w") as file:
        if not try_lock(file.fileno()):
            progress("waiting for another image build to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _silent(_line: str) -> None:
    pass
