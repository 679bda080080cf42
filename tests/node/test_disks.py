"""Disks: exact, promised no more than there is, and never attached twice."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from dormice.node.disks import GIB, Disks
from dormice.node.runtime import RuntimeFailure

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")


def opened(directory: Path, *, reserve_bytes: int = 0, pool_size: int = 0) -> Disks:
    disks = Disks(directory, reserve_bytes=reserve_bytes, pool_size=pool_size)
    disks.open()
    return disks


@pytest.fixture(name="disks")
def _disks(tmp_path: Path) -> Disks:
    return opened(tmp_path)


@contextmanager
def attached(disks: Disks, name: str) -> Iterator[int]:
    mount = disks.attach(name)
    try:
        yield mount
    finally:
        os.close(mount)
        assert disks.wait_released(name, 10)


def _size(mount: int) -> int:
    stats = os.statvfs(f"/proc/self/fd/{mount}")
    return stats.f_blocks * stats.f_frsize


def test_a_new_disk_takes_next_to_nothing_of_the_host(disks: Disks, tmp_path: Path) -> None:
    disks.create("dm-a", 50)
    stat = (tmp_path / "machines/dm-a.ext4").stat()
    assert stat.st_size == 50 * GIB
    assert stat.st_blocks * 512 < 8 << 20


def test_what_is_written_is_there_when_it_is_attached_again(disks: Disks) -> None:
    disks.create("dm-a", 1)
    with attached(disks, "dm-a") as mount:
        os.mkdir("kept", dir_fd=mount)
    with attached(disks, "dm-a") as mount:
        assert os.stat("kept", dir_fd=mount)


def test_a_disk_ends_where_it_was_promised_to(disks: Disks) -> None:
    disks.create("dm-a", 1)
    with attached(disks, "dm-a") as mount:
        fd = os.open("big", os.O_WRONLY | os.O_CREAT, dir_fd=mount)
        with pytest.raises(OSError, match="No space") as full:
            os.posix_fallocate(fd, 0, GIB)
        os.close(fd)
        assert full.value.errno == errno.ENOSPC
        assert 0.9 * GIB < _size(mount) <= GIB


def test_an_attached_disk_is_not_attached_again(disks: Disks, tmp_path: Path) -> None:
    disks.create("dm-a", 1)
    with attached(disks, "dm-a"):
        for again in (disks, opened(tmp_path)):
            with pytest.raises(RuntimeFailure) as refused:
                again.attach("dm-a")
            assert refused.value.code == "STILL_RUNNING"
            assert not again.wait_released("dm-a", 0.0)


def test_more_than_the_host_has_is_not_promised(tmp_path: Path) -> None:
    host = os.statvfs(tmp_path)
    free = host.f_bavail * host.f_frsize
    disks = opened(tmp_path, reserve_bytes=free - 5 * GIB)
    disks.create("dm-a", 2)
    disks.create("dm-b", 2)
    with pytest.raises(RuntimeFailure) as refused:
        disks.create("dm-c", 2)
    assert refused.value.code == "STORAGE_EXHAUSTED"
    with pytest.raises(RuntimeFailure):
        disks.create("dm-a", 4)
    disks.delete("dm-b")
    disks.create("dm-c", 2)


def test_a_disk_that_was_given_more_room_uses_it_and_keeps_its_files(disks: Disks) -> None:
    disks.create("dm-a", 1)
    with attached(disks, "dm-a") as mount:
        os.mkdir("kept", dir_fd=mount)
    disks.create("dm-a", 3)
    with attached(disks, "dm-a") as mount:
        assert _size(mount) > 2.9 * GIB
        assert os.stat("kept", dir_fd=mount)


def test_a_disk_never_shrinks(disks: Disks, tmp_path: Path) -> None:
    disks.create("dm-a", 2)
    disks.create("dm-a", 1)
    assert (tmp_path / "machines/dm-a.ext4").stat().st_size == 2 * GIB


def test_the_pool_holds_disks_of_the_size_asked_for_last(tmp_path: Path) -> None:
    disks = opened(tmp_path, pool_size=2)
    disks.create("dm-a", 1)
    disks.refill()
    ready = set((tmp_path / "pool").iterdir())
    assert len(ready) == 2
    disks.create("dm-b", 1)
    assert set((tmp_path / "pool").iterdir()) < ready
    opened(tmp_path)
    assert list((tmp_path / "pool").iterdir()) == []


def test_a_pool_is_not_left_behind(tmp_path: Path) -> None:
    disks = opened(tmp_path, pool_size=2)
    disks.create("dm-a", 1)
    disks.refill()
    disks.close()
    assert list((tmp_path / "pool").iterdir()) == []
    assert (tmp_path / "machines/dm-a.ext4").exists()


def test_a_disk_that_never_was_is_released_and_deleted(disks: Disks) -> None:
    assert disks.wait_released("dm-a", 0.0)
    disks.delete("dm-a")


def test_a_disk_remembers_what_it_was_made_on_until_it_is_deleted(disks: Disks) -> None:
    disks.set_base("machine", "default@1")
    assert disks.base("machine") is None, "a start that failed before there was a disk promised nothing"
    disks.create("machine", 1)
    assert disks.base("machine") == "default@1"
    disks.delete("machine")
    disks.create("machine", 1)
    assert disks.base("machine") is None


def test_a_disk_that_the_kernel_found_damaged_is_mended_before_it_is_used(disks: Disks, tmp_path: Path) -> None:
    disks.create("dm-a", 1)
    image = tmp_path / "machines/dm-a.ext4"
    with attached(disks, "dm-a") as mount:
        for name in ("kept", "broken"):
            os.mkdir(name, dir_fd=mount)
            os.close(os.open(f"{name}/file", os.O_WRONLY | os.O_CREAT, dir_fd=mount))
    # What an aborted journal leaves: the mark, and something that does not fit together.
    for request in ("clri /broken", "set_super_value state 2"):
        subprocess.run(["debugfs", "-w", "-R", request, str(image)], check=True, capture_output=True)
    with attached(disks, "dm-a") as mount:
        assert Path(f"/proc/self/fd/{mount}/kept/file").exists()
        os.mkdir("new", dir_fd=mount)
    said = subprocess.run(["e2fsck", "-f", "-n", str(image)], check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_a_full_host_starts_no_machine(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)
    try:
        disks = opened(place)
        (place / "machines/dm-a.ext4").touch()
        with (place / "fill").open("wb") as fill:
            fill.write(bytes(60 << 20))
        with pytest.raises(RuntimeFailure, match="no room") as refused:
            disks.attach("dm-a")
        assert (refused.value.code, refused.value.retryable) == ("STORAGE_EXHAUSTED", True)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_what_a_disk_was_made_on_is_never_guessed(disks: Disks, tmp_path: Path) -> None:
    disks.set_base("dm-a", "default@1")
    disks.create("dm-a", 1)
    assert disks.take_snapshot("dm-a", "snap-a")
    # What a file is that was named, but not written out, before the host lost power.
    uses: list[tuple[str, Callable[[], object]]] = [
        ("machines", lambda: disks.base("dm-a")),
        ("machines", lambda: disks.copy("dm-a", "dm-b", 1)),
        ("snapshots", lambda: disks.copy("snap-a", "dm-b", 1)),
    ]
    for directory, use in uses:
        for base in (tmp_path / directory).glob("*.base"):
            base.write_text("")
        with pytest.raises(RuntimeFailure, match=r"went down before .*\.base") as lost:
            use()
        assert lost.value.code == "DISK_LOST"


def test_a_copy_of_a_disk_that_has_not_grown_yet_grows(disks: Disks) -> None:
    disks.set_base("dm-a", "default@1")
    disks.create("dm-a", 1)
    disks.create("dm-a", 2)
    disks.take_snapshot("dm-a", "snap-a")
    for origin, copy in (("dm-a", "dm-b"), ("snap-a", "dm-c")):
        disks.copy(origin, copy, 2)
        with attached(disks, copy) as mount:
            assert _size(mount) > 1.9 * GIB


@contextmanager
def written_out(directory: Path) -> Iterator[set[str]]:
    """The files below a directory that are synced in this block, by their descriptors."""
    found: set[str] = set()

    def seen(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is os.fsync:
            file = Path(f"/proc/self/fd/{frame.f_locals['fd']}").readlink()
            found.add(str(file.relative_to(directory)))

    sys.setprofile(seen)
    try:
        yield found
    finally:
        sys.setprofile(None)


def test_what_a_disk_was_made_on_is_written_out(disks: Disks, tmp_path: Path) -> None:
    with written_out(tmp_path) as written:
        disks.set_base("dm-a", "default@1")
        disks.create("dm-a", 1)
        disks.refill()
    assert {"machines/dm-a.base", "machines"} <= written
    with written_out(tmp_path) as written:
        disks.take_snapshot("dm-a", "snap-a")
    assert {"snapshots/snap-a.base", "snapshots"} <= written
    with written_out(tmp_path) as written:
        disks.copy("dm-a", "dm-b", 1)
        disks.settle("dm-b")
    assert {"machines/dm-b.ext4", "machines/dm-b.base", "machines"} <= written
