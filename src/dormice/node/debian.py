"""The default image: a small Debian made with mmdebstrap, from the sources this host itself uses."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dormice.node.images import ImageFailure, ImageRecord, Progress, building, publish
from dormice.node.rootfs import finish_rootfs, write_inside
from dormice.node.tools import run_tool

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = (
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "git",
    "iproute2",
    "netbase",
    "passwd",
    "procps",
    "python3",
    "rsync",
)

_MIRRORS = (
    ("http://deb.debian.org/debian", SUITE),
    ("http://deb.debian.org/debian", f"{SUITE}-updates"),
    ("http://deb.debian.org/debian-security", f"{SUITE}-security"),
)
_NOT_INSTALLED = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
_NEEDED_ANYWAY = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
_SOURCE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>\S.*)")
_CARRIED_APT_OPTIONS = ("Acquire::Check-Date", "Acquire::Check-Valid-Until")
"""A host on a frozen mirror needs these, and so do its machines."""


@dataclass(frozen=True, slots=True)
class AptSource:
    uri: str
    suite: str

    def line(self) -> str:
        return f"deb [signed-by={KEYRING}] {self.uri} {self.suite} main"


def build_default(
    images_dir: Path,
    progress: Progress,
    *,
    ca: Sequence[Path] = (),
    suite: str = SUITE,
    mirror: str | None = None,
    name: str = "default",
) -> ImageRecord:
    """Build the image `name` from Debian packages and publish it; takes half a minute and about 400 MiB.

    `ca` are PEM files trusted inside besides Debian's own. Without `mirror` the host's Debian sources are used, and
    Debian's own mirrors on any other host. Needs root, mmdebstrap and the network. Raises ImageFailure.
    """
    for certificate in ca:
        if b"-----BEGIN CERTIFICATE-----" not in _read_certificate(certificate):
            raise ImageFailure(f"{certificate} holds no PEM certificate")
    sources = [AptSource(mirror, suite)] if mirror else host_sources(suite)
    options = _carried_apt_options()
    with building(images_dir, name, progress) as work:
        rootfs = work / "rootfs"
        progress(f"building {name} from {sources[0].uri} {suite}")
        _bootstrap(rootfs, suite, sources, options, progress)
        _trust(rootfs, ca, progress)
        (rootfs / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
        write_inside(rootfs, "etc/apt/apt.conf.d/90dormice", "".join(f"{line}\n" for line in options).encode())
        finish_rootfs(rootfs)
        record = publish(
            images_dir, name, rootfs, source=f"debian {suite} {sources[0].uri}", environment={"LANG": "C.UTF-8"}
        )
    progress(f"image {name} is ready: {record.size / 2**20:.0f} MiB")
    return record


def host_sources(suite: str, apt_dir: Path = Path("/etc/apt")) -> list[AptSource]:
    """The host's own sources of Debian `suite` (main only), or Debian's mirrors when it has none."""
    found: list[AptSource] = []
    for path in (apt_dir / "sources.list", *sorted((apt_dir / "sources.list.d").glob("*.list"))):
        if path.is_file():
            found += _one_line_sources(path.read_text(errors="replace"))
    for path in sorted((apt_dir / "sources.list.d").glob("*.sources")):
        found += _deb822_sources(path.read_text(errors="replace"))
    ours = [
        source for source in dict.fromkeys(found) if source.suite in (suite, f"{suite}-updates", f"{suite}-security")
    ]
    if any(source.suite == suite for source in ours):
        return ours
    return [AptSource(uri, name.replace(SUITE, suite)) for uri, name in _MIRRORS]


def _one_line_sources(text: str) -> Iterable[AptSource]:
    for line in text.splitlines():
        match = _SOURCE_LINE.match(line.strip())
        if match and "main" in match["components"].split() and _signed_by_debian(match["options"] or ""):
            yield AptSource(match["uri"], match["suite"])


def _deb822_sources(text: str) -> Iterable[AptSource]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        folded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in folded.splitlines())}
        signed_by = f"signed-by={fields['signed-by']}" if "signed-by" in fields else ""
        if fields.get("enabled", "yes") == "no" or "deb" not in fields.get("types", "").split():
            continue
        if "main" not in fields.get("components", "").split() or not _signed_by_debian(signed_by):
            continue
        for uri in fields.get("uris", "").split():
            yield from (AptSource(uri, suite) for suite in fields.get("suites", "").split())


def _signed_by_debian(options: str) -> bool:
    """A source signed by another key is not Debian's, even if its suite is called the same."""
    return "signed-by=" not in options or "debian-archive" in options


def _carried_apt_options() -> list[str]:
    try:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line for line in dump.splitlines() if line.partition(" ")[0] in _CARRIED_APT_OPTIONS]


def _bootstrap(
    rootfs: Path, suite: str, sources: Sequence[AptSource], options: Sequence[str], progress: Progress
) -> None:
    command = [
        # its own mount and pid namespaces: whatever ends the build also ends its mounts and processes
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *("mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase"),
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={option}" for option in options),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_INSTALLED),
        *(f"--dpkgopt=path-include={pattern}" for pattern in _NEEDED_ANYWAY),
        *(suite, str(rootfs)),
        *(source.line() for source in sources),
    ]
    run_tool(command, progress)


def _read_certificate(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageFailure(f"cannot read the certificate {path}: {error.strerror}") from error


def _trust(rootfs: Path, ca: Sequence[Path], progress: Progress) -> None:
    if not ca:
        return
    for index, certificate in enumerate(ca):
        target = f"usr/local/share/ca-certificates/host-{index}-{certificate.stem}.crt"
        write_inside(rootfs, target, _read_certificate(certificate))
    run_tool(["chroot", str(rootfs), "update-ca-certificates"], progress)
