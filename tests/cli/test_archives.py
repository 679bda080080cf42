"""What a machine sends as an archive is not believed by `dormice cp`."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from dormice.cli.archives import BadArchive, pack, unpack

NOBODY = 65_534


def _tar(*members: tuple[str, bytes | None, str]) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind or tarfile.REGTYPE
            data = text.encode() if kind is None else b""
            info.size, info.linkname = len(data), "" if kind is None else text
            archive.addfile(info, io.BytesIO(data))
    made.seek(0)
    return made


@pytest.mark.parametrize(
    "archive",
    [
        _tar(("/absolute", None, "x")),
        _tar(("../up", None, "x")),
        _tar(("out", tarfile.SYMTYPE, ".."), ("out/up", None, "x")),
        _tar(("out", tarfile.SYMTYPE, "/tmp"), ("out/up", tarfile.DIRTYPE, "")),
        _tar(("hard", tarfile.LNKTYPE, "../secret")),
        _tar(("out", tarfile.SYMTYPE, ".."), ("hard", tarfile.LNKTYPE, "out/secret")),
        _tar(("pipe", tarfile.FIFOTYPE, "")),
        _tar(("device", tarfile.CHRTYPE, "")),
        io.BytesIO(b"no archive at all" * 100),
    ],
)
def test_nothing_is_written_outside_the_directory(archive: io.BytesIO, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises((BadArchive, OSError)):
        unpack(archive, tmp_path / "into")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "secret"]
    assert [path for path in (tmp_path / "into").rglob("*") if path.is_file() and not path.is_symlink()] == []


def test_a_file_that_replaces_a_link_does_not_write_through_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    unpack(_tar(("name", tarfile.SYMTYPE, "../victim"), ("name", None, "new")), tmp_path / "into")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert (tmp_path / "into/name").read_text() == "new"


def test_a_link_of_a_file_to_itself_takes_nothing_away(tmp_path: Path) -> None:
    unpack(_tar(("a", None, "kept"), ("./a", tarfile.LNKTYPE, "a"), ("b", tarfile.LNKTYPE, "a")), tmp_path)
    assert [(tmp_path / name).read_text() for name in ("a", "b")] == ["kept", "kept"]


def test_a_directory_that_cannot_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory(prefix="dormice-") as place:
        Path(place).chmod(0o755)
        (Path(place) / "shut").mkdir(mode=0o000)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError, match="shut"):
                list(pack(Path(place)))
        finally:
            if root:
                os.seteuid(0)


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / ("n" * 200) / ("m" * 200)).mkdir(parents=True)
    (tree / ("n" * 200) / ("m" * 200) / "file").write_bytes(os.urandom(3_000_000))
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\nname")).write_text("odd")
    (tree / "link").symlink_to("/nowhere")
    (tree / "run").write_text("#!/bin/sh")
    (tree / "run").chmod(0o700)
    os.mkfifo(tree / "pipe")
    unpack(io.BytesIO(b"".join(pack(tree))), tmp_path / "copy")
    found = {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*")}
    assert found == {path.relative_to(tree) for path in tree.rglob("*") if path.name != "pipe"}
    for path in found:
        made, original = tmp_path / "copy" / path, tree / path
        assert made.lstat().st_mode == original.lstat().st_mode
        if original.is_file():
            assert made.read_bytes() == original.read_bytes()
