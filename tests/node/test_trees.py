"""Trees that strangers have made: too deep for the stack, for a path and for descriptors."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import GUEST

from dormice.node.image_leftovers import delete_version
from dormice.node.images import Images, building, publish, remove_image
from dormice.node.process import ProcessRuntime
from dormice.node.rootfs import finish_rootfs
from dormice.node.trees import opened, remove_tree, walk

DEPTH = 1_200


def dig(directory: Path, depth: int = DEPTH) -> None:
    """Make directories below one another, as a program inside a machine can."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


@pytest.fixture(name="few_descriptors", autouse=True)
def _few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_all_of_a_deep_tree_is_found_from_the_bottom_up(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    dig(root)
    with opened(root) as fd:
        found = [(entry.name, entry.path.count("/")) for entry in walk(fd)]
    assert found[0] == ("file", DEPTH)
    assert found[1:] == [("d", depth) for depth in reversed(range(DEPTH))]
    remove_tree(root)
    assert not root.exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "kept").mkdir(parents=True)
    (root / "below").mkdir(parents=True)
    (root / "below" / "way").symlink_to(outside)
    (root / "broken").symlink_to("nowhere")
    with opened(root) as fd:
        kinds = {entry.path: stat.S_IFMT(entry.status.st_mode) for entry in walk(fd)}
    assert kinds == {"below/way": stat.S_IFLNK, "below": stat.S_IFDIR, "broken": stat.S_IFLNK}
    remove_tree(root)
    assert list(tmp_path.iterdir()) == [outside]
    assert (outside / "kept").is_dir()
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(OSError, match="link"):
        remove_tree(tmp_path / "link")


async def test_a_machine_whose_disk_is_deep_can_be_destroyed(tmp_path: Path) -> None:
    runtime = ProcessRuntime(data_dir=tmp_path / "data", run_dir=tmp_path / "run", guest=GUEST, use_cgroups=False)
    await runtime.open()
    disk = runtime._disk("dm-1")
    disk.mkdir(parents=True)
    dig(disk)
    await runtime.destroy("dm-1")
    assert not disk.exists()


def test_a_deep_tree_becomes_an_image_and_goes_away_again(tmp_path: Path) -> None:
    images = tmp_path / "images"
    with building(images, "mine", lambda _: None) as work:
        rootfs = work / "rootfs"
        (rootfs / "dev").mkdir(parents=True)
        dig(rootfs)
        dig(rootfs / "dev")
        finish_rootfs(rootfs)
        assert publish(images, "mine", rootfs, source="a test", environment={}).size > 0
    version = Images(images).resolve("mine").rootfs.parent
    assert not list((version / "rootfs" / "dev").iterdir())
    remove_image(images, "mine")
    assert delete_version(images, tmp_path, version)


def test_a_build_that_fails_with_a_deep_tree_stops_no_later_one(tmp_path: Path) -> None:
    def fail() -> None:
        with building(tmp_path, "mine", lambda _: None) as work:
            dig(work)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    left = tmp_path / ".building-killed"
    left.mkdir()
    dig(left)
    with building(tmp_path, "mine", lambda _: None):
        assert not left.exists()
