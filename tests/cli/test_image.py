"""`dormice image`, on a directory of images of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dormice.node.images import building, publish
from tests.cli.conftest import Dormice


@pytest.fixture(name="images")
def _images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    with building(directory, "small", lambda _line: None) as work:
        (work / "rootfs").mkdir()
        (work / "rootfs" / "file").write_bytes(b"x" * 4096)
        publish(directory, "small", work / "rootfs", source="a test", environment={"A": "1"})
    return directory


def test_images_are_listed_for_people_and_for_programs(dormice: Dormice, images: Path) -> None:
    head, row = dormice("image", "list", "--image-dir", str(images)).stdout.decode().splitlines()
    assert head.split() == ["NAME", "SIZE", "CREATED", "SOURCE"]
    assert row.split()[0] == "small"
    document = json.loads(dormice("image", "list", "--json", DORMICE_IMAGE_DIR=str(images)).stdout)
    assert (document["name"], document["source"], document["environment"]["A"]) == ("small", "a test", "1")


def test_an_image_is_removed_once(dormice: Dormice, images: Path) -> None:
    assert dormice("image", "remove", "small", "--image-dir", str(images)).returncode == 0
    again = dormice("image", "remove", "small", "--image-dir", str(images))
    assert (again.returncode, again.stderr) == (1, b"dormice image: there is no image 'small'\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["remove", "../etc"], b"not an image name: '../etc'"),
        (["import", "other", "/etc"], b"/etc is a directory without an oci-layout file"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(
    dormice: Dormice, images: Path, words: list[str], message: bytes
) -> None:
    done = dormice("image", *words, "--image-dir", str(images))
    assert done.returncode == 1
    assert done.stderr.startswith(b"dormice image: " + message)
    assert done.stderr.count(b"\n") == 1
