"""Images: importing what others made, hostile archives included, and keeping versions."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from dormice.node.debian import AptSource, host_sources
from dormice.node.image_import import _kind, import_image
from dormice.node.images import (
    ImageFailure,
    Images,
    building,
    list_images,
    publish,
    remove_image,
)
from dormice.node.rootfs import finish_rootfs
from dormice.node.runtime import RuntimeFailure

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="keeps owners and makes device nodes")
Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", *, mode: int = 0o644, uid: int = 0) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid = len(content), mode, uid, uid
    return info, content


def special(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.devmajor, info.devminor = kind, target, 1, 3
    info.mode = 0o777
    return info, b""


def archive(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def quiet(_line: str) -> None:
    pass


SYSTEM = (file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"), file("bin/tool", b"#!", mode=0o4755))


@needs_root
def test_a_tarball_of_files_becomes_an_image_with_owners_modes_and_links(tmp_path: Path) -> None:
    source = archive(
        tmp_path / "files.tar",
        *SYSTEM,
        file("home/user/note", b"hi", uid=1000),
        special("home/user/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("home/user/hard", tarfile.LNKTYPE, "home/user/note"),
        special("home/user/pipe", tarfile.FIFOTYPE),
    )
    record = import_image(tmp_path / "images", "mine", source, quiet)
    image = Images(tmp_path / "images").resolve("mine")
    assert (image.rootfs / "bin/tool").stat().st_mode & 0o7777 == 0o4755
    assert (image.rootfs / "home/user/note").stat().st_uid == 1000
    assert (image.rootfs / "home/user/note").stat().st_nlink == 2
    assert (image.rootfs / "home/user/link").readlink() == Path("/etc/passwd")
    assert (image.rootfs / "home/user/pipe").is_fifo()
    assert image.environment["PATH"].startswith("/usr/local/sbin")
    assert image.environment["HOME"] == "/root"
    assert record.source == "rootfs files.tar"
    assert record.size > 0


@needs_root
def test_every_image_has_the_directories_and_files_that_machines_need(tmp_path: Path) -> None:
    source = archive(tmp_path / "files.tar", *SYSTEM, special("etc/resolv.conf", tarfile.SYMTYPE, "../run/resolv.conf"))
    import_image(tmp_path / "images", "mine", source, quiet)
    rootfs = Images(tmp_path / "images").resolve("mine").rootfs
    for name in ("dev", "proc", "sys", "run", "root", "tmp"):
        assert (rootfs / name).is_dir()
    assert (rootfs / "tmp").stat().st_mode & 0o7777 == 0o1777
    for name in ("machine-id", "hostname", "resolv.conf"):
        assert (rootfs / "etc" / name).read_bytes() == b""
        assert not (rootfs / "etc" / name).is_symlink()


@needs_root
@pytest.mark.parametrize("compress", [gzip.compress], ids=["gzip"])
def test_a_compressed_tarball_is_read(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    plain = archive(tmp_path / "files.tar", *SYSTEM)
    packed = tmp_path / "files.tar.packed"
    packed.write_bytes(compress(plain.read_bytes()))
    assert import_image(tmp_path / "images", "mine", packed, quiet).name == "mine"


@needs_root
def test_device_nodes_are_left_out(tmp_path: Path) -> None:
    source = archive(
        tmp_path / "files.tar",
        *SYSTEM,
        special("dev/null", tarfile.CHRTYPE),
        special("home/disk", tarfile.BLKTYPE),
        special("home/memory", tarfile.CHRTYPE),
    )
    import_image(tmp_path / "images", "mine", source, quiet)
    rootfs = Images(tmp_path / "images").resolve("mine").rootfs
    assert list((rootfs / "dev").iterdir()) == []
    assert list((rootfs / "home").iterdir()) == []


ESCAPES = {
    "dots": lambda out: [
        file(f"../../../../../../..{out}/escaped", b"x"),
        file(f"bin/../../../../..{out}/escaped", b"x"),
    ],
    "absolute": lambda out: [file(f"{out}/escaped", b"x")],
    "symlink": lambda out: [special("way", tarfile.SYMTYPE, str(out)), file("way/escaped", b"x")],
    "relative symlink": lambda out: [
        special("opt/way", tarfile.SYMTYPE, f"../../../../../../../../..{out}"),
        file("opt/way/escaped", b"x"),
    ],
    "symlinked file": lambda out: [special("escaped", tarfile.SYMTYPE, f"{out}/escaped"), file("escaped", b"x")],
    "symlinked directory": lambda out: [special("etc", tarfile.SYMTYPE, str(out))],
    "root as a symlink": lambda out: [special(".", tarfile.SYMTYPE, str(out)), file("escaped", b"x")],
    "hard link": lambda out: [
        special("victim", tarfile.LNKTYPE, f"../../../../../../..{out}/victim"),
        file("victim", b"x"),
    ],
    "absolute hard link": lambda out: [special("victim", tarfile.LNKTYPE, f"{out}/victim"), file("victim", b"x")],
    "whiteout": lambda out: [special("way", tarfile.SYMTYPE, str(out)), file("way/.wh.victim")],
    "opaque": lambda out: [special("way", tarfile.SYMTYPE, str(out)), file("way/.wh..wh..opq")],
}


@needs_root
@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_crafted_archive_touches_nothing_outside(escape: str, first: bool, tmp_path: Path) -> None:  # noqa: FBT001
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    crafted = ESCAPES[escape](outside)
    members = [*crafted, *SYSTEM] if first else [*SYSTEM, *crafted]
    try:
        import_image(tmp_path / "images", "evil", archive(tmp_path / "evil.tar", *members), quiet)
    except ImageFailure:
        assert list_images(tmp_path / "images") == []
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_text() == "untouched"
    assert (outside / "victim").stat().st_nlink == 1
    assert not list((tmp_path / "images").glob(".building-*"))


@needs_root
@pytest.mark.parametrize("name", ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf"])
def test_a_pipe_in_place_of_a_file_holds_nobody_up(name: str, tmp_path: Path) -> None:
    crafted = archive(tmp_path / "files.tar", file("bin/tool"), special(name, tarfile.FIFOTYPE))
    assert import_image(tmp_path / "images", "mine", crafted, quiet).name == "mine"


@needs_root
def test_owners_that_no_machine_has_are_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "files.tar", *SYSTEM, file("home/far", b"", uid=70_000))
    with pytest.raises(ImageFailure, match="70000"):
        import_image(tmp_path / "images", "mine", source, quiet)


@needs_root
def test_attributes_of_overlayfs_are_stripped_and_file_capabilities_kept(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    (rootfs / "usr").mkdir(parents=True)
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    os.setxattr(rootfs / "usr", "trusted.overlay.redirect", b"/etc")
    os.setxattr(rootfs, "trusted.overlay.opaque", b"y")
    (rootfs / "usr/ping").write_bytes(b"")
    os.setxattr(rootfs / "usr/ping", "security.capability", capability)
    finish_rootfs(rootfs)
    assert os.listxattr(rootfs / "usr") == []
    assert os.listxattr(rootfs) == []
    assert os.getxattr(rootfs / "usr/ping", "security.capability") == capability


@pytest.fixture(name="layout", scope="module")
def _layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with one image that asks for an environment."""
    work = tmp_path_factory.mktemp("layout")
    archive(work / "layer.tar", *SYSTEM)
    for step in (
        ["init", "--layout", "layout"],
        ["new", "--image", "layout:first"],
        ["raw", "add-layer", "--image", "layout:first", "layer.tar"],
        ["config", "--image", "layout:first", "--config.env", "PATH=/opt/bin:/bin", "--config.env", "MOOD=calm"],
    ):
        subprocess.run(["umoci", *step], cwd=work, check=True, capture_output=True)
    return work / "layout"


def check_imported(images_dir: Path) -> None:
    image = Images(images_dir).resolve("mine")
    assert image.environment == {"PATH": "/opt/bin:/bin", "MOOD": "calm", "HOME": "/root"}
    assert (image.rootfs / "etc/passwd").read_bytes().startswith(b"root:")


@needs_root
def test_an_oci_layout_is_imported_with_its_environment(layout: Path, tmp_path: Path) -> None:
    import_image(tmp_path / "images", "mine", layout, quiet)
    check_imported(tmp_path / "images")


@needs_root
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_of_an_image_is_recognised_and_imported(kind: str, layout: Path, tmp_path: Path) -> None:
    saved = tmp_path / "image: saved.tar"
    (tmp_path / "short").symlink_to(layout)
    command = ["skopeo", "--insecure-policy", "copy", "oci:short:first", f"{kind}:saved.tar"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "saved.tar").rename(saved)
    record = import_image(tmp_path / "images", "mine", saved, quiet)
    assert record.source.startswith(kind)
    check_imported(tmp_path / "images")


@needs_root
def test_one_of_several_images_is_chosen_by_its_tag(layout: Path, tmp_path: Path) -> None:
    several = tmp_path / "several"
    subprocess.run(["cp", "-r", layout, several], check=True)
    subprocess.run(["umoci", "tag", "--image", f"{several}:first", "second"], check=True)
    with pytest.raises(ImageFailure, match="skopeo failed"):
        import_image(tmp_path / "images", "mine", several, quiet)
    import_image(tmp_path / "images", "mine", Path(f"{several}:second"), quiet)
    check_imported(tmp_path / "images")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08broken", b"x" * 2048, b"\x28\xb5\x2f\xfdzstd"])
def test_what_is_no_archive_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ImageFailure, match="file"):
        import_image(tmp_path / "images", "mine", tmp_path / "file", quiet)
    with pytest.raises(ImageFailure, match="there is no"):
        import_image(tmp_path / "images", "mine", tmp_path / "absent", quiet)
    with pytest.raises(ImageFailure, match="oci-layout"):
        import_image(tmp_path / "images", "mine", tmp_path, quiet)


def test_an_archive_is_not_believed(tmp_path: Path) -> None:
    """Neither memory nor stack nor time of whoever reads it grows with what its headers claim."""
    pax, far = tarfile.TarInfo("x"), tarfile.TarInfo("far")
    pax.type = tarfile.XHDTYPE
    nests = pax.tobuf(tarfile.USTAR_FORMAT) * 5_000
    far.size = 1 << 70
    pax.size = 1 << 28
    for name, content, fault in (
        ("claims", pax.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 28), "extension of 268435456 bytes"),
        ("nests", nests, "neither an image nor"),
        ("far", far.tobuf(tarfile.GNU_FORMAT), "ends too soon"),
    ):
        packed = tmp_path / name
        packed.write_bytes(gzip.compress(content, 1))
        with pytest.raises(ImageFailure, match=fault):
            import_image(tmp_path / "images", "mine", packed, quiet)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_stands_before_what_tells_an_archives_kind_is_passed_over(kind: Literal[0, 1, 2], tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    blob, content = file("blobs/sha256/" + "x" * 64, b"b" * 1000)
    deep = tarfile.TarInfo("blobs/" + "y" * 90 if kind == tarfile.USTAR_FORMAT else "blobs/" + "y" * 150)
    huge = tarfile.TarInfo("sparse")
    huge.pax_headers = {"size": "1024"} if kind == tarfile.PAX_FORMAT else {}
    with tarfile.open(path, "w", format=kind) as tar:
        tar.addfile(blob, io.BytesIO(content))
        tar.addfile(special("way", tarfile.SYMTYPE, "z" * 99)[0])
        tar.addfile(deep)
    data = path.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)
    if huge.pax_headers:  # the plain header says 0
        data += huge.tobuf(kind) + b"s" * 1024
    path.write_bytes(data + tarfile.TarInfo("oci-layout").tobuf(kind))
    assert _kind(path) == "oci-archive"


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "UPPER", "a" * 64, "default\n"])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure) as failure:
        Images(tmp_path).resolve(name)
    assert failure.value.code == "IMAGE_NOT_FOUND"
    with pytest.raises(ImageFailure, match="not an image name"):
        remove_image(tmp_path, name)


def made(images_dir: Path, name: str, content: str) -> None:
    with building(images_dir, name, quiet) as work:
        rootfs = work / "rootfs"
        rootfs.mkdir()
        (rootfs / "content").write_text(content)
        publish(images_dir, name, rootfs, source="a test", environment={})


def test_a_rebuild_leaves_the_files_of_running_machines_alone(tmp_path: Path) -> None:
    made(tmp_path, "mine", "old")
    old = Images(tmp_path).resolve("mine").rootfs
    made(tmp_path, "mine", "new")
    new = Images(tmp_path).resolve("mine").rootfs
    assert (old / "content").read_text() == "old"
    assert (new / "content").read_text() == "new"


def test_a_removed_image_is_not_found_and_its_files_go_when_unused(tmp_path: Path) -> None:
    made(tmp_path, "mine", "x")
    assert [record.name for record in list_images(tmp_path)] == ["mine"]
    remove_image(tmp_path, "mine")
    assert list_images(tmp_path) == []
    with pytest.raises(ImageFailure, match="no image"):
        remove_image(tmp_path, "mine")
    with pytest.raises(RuntimeFailure, match="dormice image import"):
        Images(tmp_path).resolve("mine")


def test_nobody_but_the_owner_looks_into_the_images(tmp_path: Path) -> None:
    made(tmp_path / "images", "mine", "x")
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o700


def test_a_failed_build_publishes_nothing_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".building-killed" / "rootfs").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="boom"), building(tmp_path, "mine", quiet):
        raise RuntimeError("boom")
    assert list_images(tmp_path) == []
    assert list(tmp_path.glob(".building-*")) == []


def test_two_builds_take_turns(tmp_path: Path) -> None:
    waiting = threading.Event()
    second = threading.Thread(target=lambda: made_second(tmp_path, waiting))
    with building(tmp_path, "mine", quiet) as work:
        second.start()
        assert waiting.wait(10)
        (work / "rootfs").mkdir()
        (work / "rootfs" / "content").write_text("first")
        publish(tmp_path, "mine", work / "rootfs", source="a test", environment={})
    second.join(10)
    assert (Images(tmp_path).resolve("mine").rootfs / "content").read_text() == "second"


def made_second(images_dir: Path, waiting: threading.Event) -> None:
    with building(images_dir, "mine", lambda _: waiting.set()) as work:
        (work / "rootfs").mkdir()
        (work / "rootfs" / "content").write_text("second")
        publish(images_dir, "mine", work / "rootfs", source="a test", environment={})


def test_the_hosts_debian_sources_are_found_in_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a/debian bookworm main contrib\n"
        "deb-src http://a/debian bookworm main\n"
        "deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://vendor/apt bookworm main\n"
        "deb http://b/debian trixie main\n"
    )
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\nURIs: http://c/debian\nSuites: bookworm-updates\n bookworm\nComponents: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://d/debian\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb\nURIs: http://e/debian\nSuites: bookworm\nComponents: main\nSigned-By: /vendor.gpg\n"
    )
    assert host_sources("bookworm", tmp_path) == [
        AptSource("http://a/debian", "bookworm"),
        AptSource("http://c/debian", "bookworm-updates"),
        AptSource("http://c/debian", "bookworm"),
    ]


def test_a_host_without_debian_sources_uses_debians_mirrors(tmp_path: Path) -> None:
    assert [source.suite for source in host_sources("bookworm", tmp_path)] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]


@needs_root
def test_a_version_stays_what_it_was_when_its_name_gets_another_one(tmp_path: Path) -> None:
    images = Images(tmp_path / "images")
    import_image(tmp_path / "images", "mine", archive(tmp_path / "one.tar", *SYSTEM, file("etc/which", b"one")), quiet)
    first = images.resolve("mine")
    import_image(tmp_path / "images", "mine", archive(tmp_path / "two.tar", *SYSTEM, file("etc/which", b"two")), quiet)
    assert (images.resolve("mine").rootfs / "etc/which").read_bytes() == b"two"
    assert (images.resolve(first.version).rootfs / "etc/which").read_bytes() == b"one"
    with pytest.raises(RuntimeFailure):
        images.resolve(f"../{first.version}")
