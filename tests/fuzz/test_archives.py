"""Images from strangers: whatever an archive holds, importing it makes an image or one error, and touches nothing else."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dormice.node.image_import import _kind, import_image
from dormice.node.images import ImageFailure, Images, list_images
from tests.fuzz.budget import fuzzed
from tests.fuzz.hostile import damaged

Member = tuple[tarfile.TarInfo, bytes]
OUT = "/dormice-fuzz-outside"
"""Stands for a directory outside of the image."""
PARTS = ("bin", "etc", "way", "..", ".", "", ".wh.etc", ".wh..wh..opq", "passwd", "x" * 100, "\u00fc", "dev", OUT[1:])
names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join) | st.sampled_from(
    ("/etc/passwd", "/", ".", "..", f"{OUT}/escaped", "../" * 12 + OUT[1:] + "/escaped", "a/" * 100 + "deep")
)
KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)


@st.composite
def members(draw: st.DrawFn) -> Member:
    info = tarfile.TarInfo(draw(names))
    info.type = draw(st.sampled_from(KINDS))
    info.linkname = draw(names) if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    info.mode = draw(st.sampled_from((0o644, 0o755, 0, 0o4755, 0o7777)))
    info.uid = draw(st.sampled_from((0, 1000, 65_535, 70_000)))
    content = draw(st.binary(max_size=3)) if info.isreg() else b""
    info.size = len(content)
    if draw(st.integers(0, 9)) == 0:
        info.pax_headers = draw(
            st.sampled_from(
                (
                    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s"},
                    {"GNU.sparse.map": "1,x", "GNU.sparse.size": "9"},
                    {"size": "nine", "mtime": "never"},
                    {"size": "99999999999999999999"},
                    {"SCHILY.xattr.trusted.overlay.redirect": "/etc"},
                    {"path": "a\0b", "linkpath": f"{OUT}/x"},
                )
            )
        )
    return info, content


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    written = io.BytesIO()
    with tarfile.open(
        fileobj=written, mode="w", format=draw(st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    ) as tar:
        for info, content in draw(st.lists(members(), max_size=6)):
            tar.addfile(info, io.BytesIO(content))
        if draw(st.booleans()):
            tar.addfile(tarfile.TarInfo("bin/sh"), io.BytesIO())
    return gzip.compress(written.getvalue(), 1) if draw(st.integers(0, 4)) == 0 else written.getvalue()


@fuzzed(examples=300)
@given(damaged(archives()))
def test_what_an_archive_is_can_be_told_or_not(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(ImageFailure):
            assert _kind(Path(file.name)) in {"oci-archive", "docker-archive", "rootfs"}


def _tree(directory: Path) -> list[tuple[str, os.stat_result, bytes]]:
    """All that is below, with everything that writing could change."""
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), (status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns), content))
    return found  # type: ignore[return-value]


def _below(rootfs: Path) -> None:
    """What machines are made of holds no device, and none of its directories is a way out."""
    for parent, directories, files in os.walk(rootfs):
        for name in (*directories, *files):
            status = os.lstat(Path(parent, name))
            assert not stat.S_ISCHR(status.st_mode)
            assert not stat.S_ISBLK(status.st_mode)
            assert status.st_uid < 65_536


@pytest.mark.skipif(os.geteuid() != 0, reason="keeps owners and makes device nodes")
def test_importing_touches_nothing_outside() -> None:
    outside = Path(OUT)
    outside.mkdir()
    try:
        (outside / "victim").write_text("untouched")
        (outside / "passwd").write_text("untouched")
        before = _tree(outside)

        @fuzzed(examples=12)
        @given(archives() | damaged(archives()))
        def check(data: bytes) -> None:
            with tempfile.TemporaryDirectory() as directory:
                images, source = Path(directory) / "images", Path(directory) / "source.tar"
                source.write_bytes(data)
                with suppress(ImageFailure):
                    import_image(images, "mine", source, lambda _: None)
                if images.exists():
                    for record in list_images(images):
                        _below(Images(images).resolve(record.name).rootfs)
                assert not images.exists() or not list(images.glob(".building-*"))
                assert sorted(path.name for path in Path(directory).iterdir()) in (
                    ["images", "source.tar"],
                    ["source.tar"],
                )
            assert _tree(outside) == before

        check()
    finally:
        for path in outside.iterdir():
            path.unlink()
        outside.rmdir()
