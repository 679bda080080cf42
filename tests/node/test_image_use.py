"""Versions of images go once nobody needs them: no name, no machine of any node that shares the images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Event, Thread

import pytest
from tests.wait import wait_until

from dormice.node.image_leftovers import delete_half_built, delete_version, half_built, superseded
from dormice.node.image_use import Unmounted, outdated
from dormice.node.images import Images, building, publish, remove_image


def made(images_dir: Path, name: str = "mine") -> Path:
    """Build a version; its directory."""
    with building(images_dir, name, lambda _: None) as work:
        (work / "rootfs").mkdir()
        publish(images_dir, name, work / "rootfs", source="a test", environment={})
    return Images(images_dir).resolve(name).rootfs.parent


@pytest.fixture(name="images")
def _images(tmp_path: Path) -> Path:
    return tmp_path / "images"


def node(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def disk_on(images: Path, user: Path, name: str = "mine") -> None:
    """What a node does before it makes a machine's disk."""
    source = Images(images)
    with source.held(user):
        (user / "dm-1.base").write_text(source.resolve(name).version)


def test_a_registration_that_the_host_lost_power_over_keeps_what_may_be_used(images: Path, tmp_path: Path) -> None:
    ours, other = node(tmp_path / "ours"), node(tmp_path / "other")
    old = made(images)
    disk_on(images, other)
    [registered] = (images / ".users").glob("*.json")
    registered.write_bytes(b"")
    made(images)
    with pytest.raises(Unmounted, match=f"{registered} is damaged"):
        superseded(images, ours)
    assert outdated(images) == []
    disk_on(images, other)
    assert superseded(images, ours) == [old]


def test_a_version_goes_when_it_has_neither_name_nor_machine(images: Path, tmp_path: Path) -> None:
    ours, other = node(tmp_path / "ours"), node(tmp_path / "other")
    old = made(images)
    disk_on(images, other)
    assert superseded(images, ours) == []
    new = made(images)
    assert superseded(images, ours) == []  # the other node's machine still lives on it
    assert not delete_version(images, ours, old)
    (other / "dm-1.base").unlink()
    assert superseded(images, ours) == [old]
    assert delete_version(images, ours, old)
    assert not old.exists()
    assert not delete_version(images, ours, new)
    remove_image(images, "mine")
    assert delete_version(images, ours, new)
    assert list((images / ".versions").iterdir()) == []


def test_a_node_that_never_registered_is_asked_when_it_is_ours(images: Path, tmp_path: Path) -> None:
    ours = node(tmp_path / "ours")
    old = made(images)
    (ours / "dm-1.base").write_text(old.name)
    made(images)
    assert superseded(images, ours) == []


def test_as_long_as_a_user_is_not_to_be_seen_nothing_is_superseded(images: Path, tmp_path: Path) -> None:
    ours, other = node(tmp_path / "ours"), node(tmp_path / "volume" / "other")
    old = made(images)
    disk_on(images, other)
    made(images)
    [file] = (images / ".users").glob("*.json")
    entry = json.loads(file.read_text())
    file.write_text(json.dumps({**entry, "device": entry["device"] + 1}))  # as if a volume were not mounted
    for _ in range(2):
        with pytest.raises(Unmounted, match="volume/other"):
            superseded(images, ours)
        assert outdated(images) == []
        shutil.rmtree(tmp_path / "volume" / "other", ignore_errors=True)
    file.write_text(json.dumps(entry))  # on the file system that is here, it is gone for good
    assert outdated(images) == [file]
    assert superseded(images, ours) == [old]


def test_a_new_registration_takes_the_place_of_outdated_ones(images: Path, tmp_path: Path) -> None:
    made(images)
    for number in range(3):
        disk_on(images, node(tmp_path / str(number)))
        shutil.rmtree(tmp_path / str(number))
    assert len(list((images / ".users").glob("*.json"))) == 1


def test_nothing_is_condemned_while_a_node_chooses(images: Path, tmp_path: Path) -> None:
    ours = node(tmp_path / "ours")
    old = made(images)
    chosen, deleted = Event(), []

    def delete() -> None:
        chosen.wait()
        deleted.append(delete_version(images, ours, old))

    deleting = Thread(target=delete)
    deleting.start()
    source = Images(images)
    with source.held(ours):
        version = source.resolve("mine").version
        made(images)  # superseded from here on, and nobody has written down that it is needed
        chosen.set()
        wait_until(lambda: " -> FLOCK" in Path("/proc/locks").read_text() or deleted, 10, "somebody waits for the lock")
        assert not deleted
        (ours / "dm-1.base").write_text(version)
    deleting.join()
    assert deleted == [False]
    assert old.exists()


def test_what_a_killed_build_left_goes_and_a_build_under_way_stays(images: Path) -> None:
    made(images)
    left = images / ".building-old"
    left.mkdir()
    assert half_built(images) == [left]
    assert delete_half_built(images, left)
    with building(images, "mine", lambda _: None) as work:
        assert half_built(images) == []
        assert not delete_half_built(images, work)
        assert work.exists()


def test_a_deletion_that_was_killed_is_finished(images: Path, tmp_path: Path) -> None:
    ours = node(tmp_path / "ours")
    old = made(images)
    made(images)
    half = old.rename(old.with_name(f".condemned-{old.name}"))
    assert superseded(images, ours) == [half]
    assert delete_version(images, ours, half)
    assert not half.exists()


def test_without_images_there_is_nothing(tmp_path: Path) -> None:
    assert superseded(tmp_path / "none", tmp_path) == []
    assert half_built(tmp_path / "none") == []
    assert outdated(tmp_path / "none") == []
