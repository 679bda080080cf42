"""What this host lacks to run machines, and the command that gets it.

Every check looks at the real thing where that is harmless (the rules are offered to nft, a packet filter is listed) and
changes nothing. `fail`: machines cannot run. `warn`: they can, but not as well, or only until something happens.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path

from dormice.node import firewall, nftables, uplink
from dormice.node.dns import Resolvers
from dormice.node.host_leftovers import Leftover
from dormice.node.images import DEFAULT_IMAGES_DIR, Images
from dormice.node.netlink import forget_flows
from dormice.node.network import DEFAULT_NETWORK
from dormice.node.runtime import RuntimeFailure

_OLDEST_KERNEL = (5, 19)
_CONTROLLERS = ("cpu", "memory", "pids")
_GIB = 1 << 30
_LITTLE_DISK_GIB, _NO_DISK_GIB = 10, 2
_FEW_CONNECTIONS = 65_536
_INOTIFY = {"max_user_instances": 8192, "max_user_watches": 524_288}
_TOOLS = {
    "mkfs.ext4": ("e2fsprogs", "makes machines' disks"),
    "nft": ("nftables", "loads the packet rules"),
    "unshare": ("util-linux", "builds images"),
}
_IMAGE_TOOLS = {
    "mmdebstrap": ("mmdebstrap", "builds the default image"),
    "umoci": ("umoci", "unpacks imported images"),
    "skopeo": ("skopeo", "reads imported images"),
}


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `fix` is a command or, where there is none, words; empty when there is nothing to fix."""

    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this host would run machines; the values of the settings of the same names."""

    data_dir: Path = Path("/var/lib/dormice")
    images_dir: Path = DEFAULT_IMAGES_DIR
    run_dir: Path = Path("/run/dormice")
    guest: Path | None = None
    """The guest's binary; None when there is none."""
    user: str = "dormice"
    instance: str = "dormice"
    network: IPv4Network = field(default=DEFAULT_NETWORK)
    leftovers: Callable[[], Sequence[Leftover]] = list
    """What `dormice gc` would remove. Raises OSError."""


def examine(place: Place) -> Iterator[Check]:
    """All checks, in the order in which they are worth fixing. Yields each as it is done; raises nothing."""
    for check in _CHECKS:
        yield check(place)


def can_run(checks: list[Check]) -> bool:
    """Whether machines can run: nothing failed."""
    return all(check.status is not Status.FAIL for check in checks)


def _ok(name: str, detail: str) -> Check:
    return Check(name, Status.OK, detail)


def _root(_place: Place) -> Check:
    if os.geteuid() == 0:
        return _ok("root", "running as root")
    return Check("root", Status.FAIL, "the node needs root; some checks below need it too", "sudo dormice doctor")


def _kernel(_place: Place) -> Check:
    release = platform.release()
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers >= _OLDEST_KERNEL:
        return _ok("kernel", release)
    oldest = ".".join(map(str, _OLDEST_KERNEL))
    return Check("kernel", Status.FAIL, f"{release}: overlays of idmapped mounts need {oldest}", "a newer kernel")


def _filesystems(_place: Place) -> Check:
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    missing = [name for name in ("overlay", "ext4", "cgroup2") if name not in known and not _loadable(name)]
    if missing:
        return Check("file systems", Status.FAIL, f"the kernel lacks: {', '.join(missing)}", "another kernel")
    return _ok("file systems", "overlay, ext4 and cgroup2")


def _namespaces(_place: Place) -> Check:
    missing = [name for name in ("user", "net", "pid", "mnt", "uts", "ipc", "cgroup") if not _exists(f"self/ns/{name}")]
    if missing:
        return Check("namespaces", Status.FAIL, f"the kernel lacks: {', '.join(missing)}", "another kernel")
    allowed = int(Path("/proc/sys/user/max_user_namespaces").read_text())
    if allowed < 1024:
        fix = "sysctl -w user.max_user_namespaces=15000"
        return Check("namespaces", Status.FAIL, f"only {allowed} user namespaces are allowed", fix)
    return _ok("namespaces", "all seven")


def _seccomp(_place: Place) -> Check:
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if actions.exists() and "errno" in actions.read_text().split():
        return _ok("seccomp", "filters can be set")
    return Check("seccomp", Status.FAIL, "the kernel cannot filter system calls", "a kernel with CONFIG_SECCOMP_FILTER")


def _cgroups(_place: Place) -> Check:
    found: dict[str, str] = {}
    for line in Path("/proc/cgroups").read_text().splitlines()[1:]:
        name, hierarchy, _, enabled = line.split()
        if enabled == "1":
            found[name] = "v2" if hierarchy == "0" else "v1"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            controllers = Path(line.split()[4]) / "cgroup.controllers"
            found |= dict.fromkeys(controllers.read_text().split() if controllers.exists() else (), "v2")
    missing = [name for name in _CONTROLLERS if name not in found]
    if missing:
        fix = f"boot with cgroup_enable={','.join(missing)}"
        return Check("cgroups", Status.FAIL, f"no controller for {', '.join(missing)}", fix)
    return _ok("cgroups", ", ".join(f"{name} on {found[name]}" for name in _CONTROLLERS))


def _loop(_place: Place) -> Check:
    if Path("/dev/loop-control").exists() or _loadable("loop"):
        return _ok("loop devices", "machines' disks can be attached")
    return Check("loop devices", Status.FAIL, "the kernel has no loop devices", "a kernel with CONFIG_BLK_DEV_LOOP")


def _oci_runtime(_place: Place) -> Check:
    for name in ("crun", "runc"):
        if shutil.which(name):
            version = _output(name, "--version").partition("\n")[0]
            return _ok("OCI runtime", version or name)
    return Check("OCI runtime", Status.FAIL, "neither crun nor runc is installed", "apt-get install -y crun")


def _tools(_place: Place) -> Check:
    return _installed("tools", _TOOLS, Status.FAIL)


def _image_tools(_place: Place) -> Check:
    return _installed("image tools", _IMAGE_TOOLS, Status.WARN)


def _installed(name: str, tools: dict[str, tuple[str, str]], otherwise: Status) -> Check:
    missing = {tool: about for tool, about in tools.items() if shutil.which(tool) is None}
    if not missing:
        return _ok(name, ", ".join(tools))
    why = "; ".join(f"{tool} {purpose}" for tool, (_, purpose) in missing.items())
    packages = " ".join(sorted({package for package, _ in missing.values()}))
    return Check(name, otherwise, f"not installed: {why}", f"apt-get install -y {packages}")


def _packet_rules(place: Place) -> Check:
    name = place.instance
    policy = nftables.Policy(name, f"{name}-", place.network, place.network.network_address + 1)
    try:
        nftables.check(policy)
    except OSError as error:
        return Check(
            "packet rules", Status.FAIL, str(error), "a kernel with nf_tables: fib, connlimit, reject, masquerade"
        )
    return _ok("packet rules", "nft takes them")


def _connections(place: Place) -> Check:
    try:
        forget_flows(place.network.network_address + 1)
        limit = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    except OSError as error:
        return Check("connection tracking", Status.FAIL, str(error), "modprobe -a nf_conntrack nf_conntrack_netlink")
    if limit < _FEW_CONNECTIONS:
        fix = f"sysctl -w net.netfilter.nf_conntrack_max={_FEW_CONNECTIONS * 4}"
        return Check("connection tracking", Status.WARN, f"all machines share {limit} connections", fix)
    return _ok("connection tracking", f"{limit} connections")


def _addresses(place: Place) -> Check:
    taken = uplink.routes_within(place.network, besides=place.instance)
    if not taken:
        return _ok("addresses", f"{place.network} is free")
    routes = ", ".join(map(str, taken))
    return Check("addresses", Status.FAIL, f"the host itself routes {routes}", "dormice up --network 10.214.0.0/16")


def _forwarding(_place: Place) -> Check:
    if uplink.forwarding():
        return _ok("forwarding", "ip_forward is on")
    return _ok("forwarding", "ip_forward is off; the node turns it on, for machines only")


def _other_rules(place: Place) -> Check:
    try:
        obstacles = firewall.obstacles(f"{place.instance}-")
    except OSError as error:
        return Check("other packet rules", Status.WARN, f"cannot list them: {error}", "apt-get install -y nftables")
    if not obstacles:
        return _ok("other packet rules", "nothing in the way of machines")
    detail = "; ".join(obstacle.what for obstacle in obstacles)
    return Check("other packet rules", Status.WARN, detail, "; ".join(obstacle.fix for obstacle in obstacles))


def _resolvers(_place: Place) -> Check:
    found = [address for address, _ in Resolvers().current()]
    if found:
        return _ok("nameservers", ", ".join(found))
    return Check("nameservers", Status.WARN, "machines will resolve no names", "name one in /etc/resolv.conf")


def _inotify(_place: Place) -> Check:
    files = {name: Path("/proc/sys/fs/inotify") / name for name in _INOTIFY}
    low = [name for name, file in files.items() if int(file.read_text()) < _INOTIFY[name]]
    if not low or os.access(files[low[0]], os.W_OK):
        return _ok("inotify", "enough for all machines" if not low else "the node raises its limits")
    fix = f"sysctl -w {' '.join(f'fs.inotify.{name}={_INOTIFY[name]}' for name in low)}"
    return Check("inotify", Status.WARN, f"machines will run out of {', '.join(low)}", fix)


def _run_dir(place: Place) -> Check:
    there = _nearest(place.run_dir)
    if os.access(there, os.W_OK):
        return _ok("run directory", str(place.run_dir))
    return Check("run directory", Status.FAIL, f"{there} cannot be written", f"mount -o remount,rw {there}")


def _disk_space(place: Place) -> Check:
    there = _nearest(place.data_dir)
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize / _GIB
    detail = f"{free:.0f} GiB free for {place.data_dir}"
    if free >= _LITTLE_DISK_GIB:
        return _ok("disk space", detail)
    level = Status.FAIL if free < _NO_DISK_GIB else Status.WARN
    return Check("disk space", level, detail, f"free space below {there}, or choose another --data-dir")


def _guest(place: Place) -> Check:
    if place.guest is not None and os.access(place.guest, os.X_OK):
        return _ok("guest", str(place.guest))
    return Check("guest", Status.FAIL, "the machines' process 1 is not built", "make install")


def _image(place: Place) -> Check:
    try:
        image = Images(place.images_dir).resolve("default")
    except (RuntimeFailure, PermissionError):
        fix = f"dormice image build --image-dir {place.images_dir}"
        return Check("default image", Status.FAIL, f"there is none in {place.images_dir}", fix)
    return _ok("default image", str(image.rootfs))


def _user(place: Place) -> Check:
    try:
        pwd.getpwnam(place.user)
    except KeyError:
        fix = f"useradd --system --home-dir {place.data_dir} --shell /usr/sbin/nologin {place.user}"
        return Check("server's user", Status.WARN, f"there is no user {place.user}: the server will be nobody", fix)
    return _ok("server's user", place.user)


def _leftovers(place: Place) -> Check:
    try:
        found = place.leftovers()
    except OSError as error:
        return Check("leftovers", Status.WARN, f"cannot be listed: {error}", "sudo dormice gc --dry-run")
    if not found:
        return _ok("leftovers", "crashes have left nothing")
    kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(one.kind for one in found).items())
    size = sum(one.size for one in found) >> 20
    return Check("leftovers", Status.WARN, f"crashes have left {kinds} ({size} MiB)", "dormice gc")


_CHECKS: tuple[Callable[[Place], Check], ...] = (
    _root,
    _kernel,
    _filesystems,
    _namespaces,
    _seccomp,
    _cgroups,
    _loop,
    _oci_runtime,
    _tools,
    _image_tools,
    _packet_rules,
    _connections,
    _addresses,
    _forwarding,
    _other_rules,
    _resolvers,
    _inotify,
    _run_dir,
    _disk_space,
    _guest,
    _image,
    _user,
    _leftovers,
)


def _exists(name: str) -> bool:
    return (Path("/proc") / name).exists()


def _loadable(module: str) -> bool:
    """Whether the kernel would load it by itself when it is needed."""
    if shutil.which("modprobe") is None:
        return False
    return subprocess.run(["modprobe", "--dry-run", "--quiet", module], check=False).returncode == 0


def _nearest(path: Path) -> Path:
    """The path itself or the closest directory above it that exists."""
    return next(there for there in (path, *path.parents) if there.exists())


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
