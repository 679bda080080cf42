"""What nobody needs among the images: superseded versions, and what killed builds and deletions have left."""

from __future__ import annotations

from pathlib import Path

from dormice.node.image_use import condemning, in_use
from dormice.node.images import BUILDING, VERSIONS, exclusively
from dormice.node.trees import remove_tree

_CONDEMNED = ".condemned-"


def superseded(images_dir: Path, user: Path) -> list[Path]:
    """The versions that carry no name and that no registered directory, nor `user`, uses. Raises Unmounted, OSError."""
    versions = images_dir / VERSIONS
    if not versions.is_dir():
        return []
    named = {link.resolve().name for link in images_dir.iterdir() if link.is_symlink()}
    needed = named | in_use(images_dir, user)
    return sorted(version for version in versions.iterdir() if version.name not in needed)


def delete_version(images_dir: Path, user: Path, version: Path) -> bool:
    """Delete a version, if it still is superseded; says whether. False also while an image is built. Raises as above."""
    with exclusively(images_dir) as alone:
        if not alone:
            return False
        with condemning(images_dir):
            if version not in superseded(images_dir, user):
                return False
            if not version.name.startswith(_CONDEMNED):
                version = version.rename(version.with_name(_CONDEMNED + version.name))
        remove_tree(version)
    return True


def half_built(images_dir: Path) -> list[Path]:
    """What killed builds have left; empty while one is under way."""
    if not (images_dir / VERSIONS).is_dir():
        return []
    with exclusively(images_dir) as alone:
        return sorted(images_dir.glob(f"{BUILDING}*")) if alone else []


def delete_half_built(images_dir: Path, directory: Path) -> bool:
    """Delete such a directory; False while a build is under way, whose own it may be. Raises OSError."""
    with exclusively(images_dir) as alone:
        if alone:
            remove_tree(directory)
        return alone
