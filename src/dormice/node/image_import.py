"""Images from elsewhere: an OCI layout, an archive of one, what `docker save` writes, or a plain tarball of files.

Whatever it is becomes an OCI layout first and is unpacked by umoci, which keeps every path inside the root. Then it is
treated like any stranger's tree (`rootfs.py`). A hostile archive can fill the disk, but reach nothing outside.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from dormice.node.images import ImageFailure, ImageRecord, Progress, building, publish
from dormice.node.rootfs import finish_rootfs
from dormice.node.tools import run_tool

_LAYOUT = "layout:image"
_SYSTEM_DIRECTORIES = {"bin", "dev", "etc", "home", "lib", "lib64", "opt", "root", "sbin", "tmp", "usr", "var"}
_NOT_CARRIED = {"TERM"}
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]+")
_BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_EXTENSION_BYTES = 1 << 20
_SIZE_RECORD = re.compile(rb"(?:^|\n)[0-9]+ size=([0-9]{1,18})\n")
"""In a pax header: the size of what follows, where the plain header has no room for it."""


class _Descriptor(msgspec.Struct):
    digest: str


class _Index(msgspec.Struct):
    manifests: list[_Descriptor]


class _Manifest(msgspec.Struct):
    config: _Descriptor


class _Asked(msgspec.Struct):
    Env: list[str] | None = None


class _Configuration(msgspec.Struct):
    config: _Asked | None = None


def import_image(images_dir: Path, name: str, source: Path, progress: Progress) -> ImageRecord:
    """Make an image of `source` and publish it as `name`. Needs root, umoci, and skopeo for all but plain tarballs.

    `source` may end in `:TAG` to choose from several images. Raises ImageFailure.
    """
    path, tag = _split(source)
    kind = _kind(path)
    with building(images_dir, name, progress) as work:
        # The tools take PATH:TAG: by working where everything has a short name, no path of the host is parsed.
        (work / "source").symlink_to(path.absolute())
        if kind == "rootfs":
            _layout_of_files(work, progress)
        else:
            progress(f"reading {path} ({kind})")
            wanted = f"{kind}:source:{tag}" if tag else f"{kind}:source"
            run_tool(["skopeo", "--insecure-policy", "copy", "--quiet", wanted, f"oci:{_LAYOUT}"], progress, cwd=work)
        progress("unpacking")
        # Raw: otherwise it reads /etc/passwd of the image, which may be a pipe that nobody ever writes to.
        run_tool(["umoci", "raw", "unpack", "--image", _LAYOUT, "rootfs"], progress, cwd=work)
        rootfs = work / "rootfs"
        finish_rootfs(rootfs)
        record = publish(
            images_dir,
            name,
            rootfs,
            source=f"{kind} {path.name}",
            environment=_environment(work / "layout"),
        )
    progress(f"image {name} is ready: {record.size / 2**20:.0f} MiB")
    return record


def _split(source: Path) -> tuple[Path, str]:
    if source.exists():
        return source, ""
    path, _, tag = str(source).rpartition(":")
    if not path or not Path(path).exists():
        raise ImageFailure(f"there is no {source}")
    return Path(path), tag


def _kind(path: Path) -> str:
    """Skopeo's word for what lies at `path`, or `rootfs` for plain files."""
    if path.is_dir():
        if (path / "oci-layout").is_file():
            return "oci"
        raise ImageFailure(f"{path} is a directory without an oci-layout file")
    try:
        with _uncompressed(path) as archive:
            for name in _names(archive):
                parts = PurePosixPath(name.lstrip("/")).parts
                if parts == ("oci-layout",):
                    return "oci-archive"
                if parts == ("manifest.json",):
                    return "docker-archive"
                if parts and parts[0] in _SYSTEM_DIRECTORIES:
                    return "rootfs"
    except _BROKEN as error:
        raise ImageFailure(f"{path} is no tar archive that can be read: {error}") from error
    raise ImageFailure(f"{path} holds neither an image nor the files of a system")


def _names(archive: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
    """Yield the names in a tar archive's plain headers; none that we look for needs an extended one. Raises TarError.

    The library reads whole archives too, but believes their headers: it takes what they claim into memory, nests as deep as
    they do, and goes where they say, for ever.
    """
    size_to_come: int | None = None
    while header := archive.read(tarfile.BLOCKSIZE):
        if not any(header):
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if member.type in _EXTENSIONS:
            if not 0 <= member.size <= _EXTENSION_BYTES:
                raise tarfile.ReadError(f"a header with an extension of {member.size} bytes")
            found = _SIZE_RECORD.search(archive.read(_whole_blocks(member.size)))
            size_to_come = int(found[1]) if found else size_to_come
            continue
        yield member.name
        more = member.type == tarfile.GNUTYPE_SPARSE and header[482]
        while more:
            more = _exactly(archive, tarfile.BLOCKSIZE)[504]
        has_content = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
        left = _whole_blocks(size_to_come if size_to_come is not None else member.size) if has_content else 0
        size_to_come = None
        while left:
            left -= len(_exactly(archive, min(left, 1 << 20)))


def _whole_blocks(size: int) -> int:
    if size < 0:
        raise tarfile.ReadError(f"a size of {size} bytes")
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _exactly(archive: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    data = archive.read(size)
    if len(data) < size:
        raise tarfile.ReadError("it ends too soon")
    return data


def _layout_of_files(work: Path, progress: Progress) -> None:
    progress("reading a tarball of files")
    try:
        with _uncompressed(work / "source") as archive, (work / "layer.tar").open("wb") as layer:
            shutil.copyfileobj(archive, layer, 1 << 20)
    except _BROKEN as error:
        raise ImageFailure(f"cannot unpack the archive: {error}") from error
    for step in (
        ["init", "--layout", "layout"],
        ["new", "--image", _LAYOUT],
        ["raw", "add-layer", "--image", _LAYOUT, "layer.tar"],
    ):
        run_tool(["umoci", *step], progress, cwd=work)
    (work / "layer.tar").unlink()


def _uncompressed(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise ImageFailure(f"{path} is compressed with zstd: unpack it first (zstd -d)")
    return path.open("rb")


def _environment(layout: Path) -> Mapping[str, str]:
    """The environment that the only image of a layout asks for, without what cannot be one. Raises ImageFailure."""
    try:
        index = msgspec.json.decode((layout / "index.json").read_bytes(), type=_Index)
        manifest = msgspec.json.decode(_blob(layout, index.manifests[0].digest), type=_Manifest)
        asked = msgspec.json.decode(_blob(layout, manifest.config.digest), type=_Configuration).config
    except (OSError, IndexError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageFailure(f"the image's configuration cannot be read: {error}") from error
    pairs = [entry.partition("=") for entry in (asked.Env if asked is not None else None) or ()]
    return {
        key: value
        for key, separator, value in pairs
        if key and separator and "\0" not in key + value and key not in _NOT_CARRIED
    }


def _blob(layout: Path, digest: str) -> bytes:
    if not _DIGEST.fullmatch(digest):
        raise ImageFailure(f"not a digest: {digest[:100]!r}")
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()
