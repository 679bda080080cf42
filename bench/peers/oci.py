"""The OCI runtime alone: an overlay mounted and a container started in it, with nothing around."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

from dormice.node import cgroups, mounts, oci, syscalls

FIRST_UID = 900_000_000
RANGE = 65_536
_NAMESPACES = ("user", "mount", "pid", "ipc", "uts", "network")


class OciPeer:
    """Starts containers with `crun run` (else `runc run`), each with a user namespace and an overlay of its own."""

    def __init__(self, directory: Path, image: Path, thread: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._image = image
        self._thread = thread
        self.program = shutil.which("crun") or shutil.which("runc") or "crun"

    def start_detached(self, *, bare: bool) -> float:
        """Return the seconds until a container that sleeps runs. `bare`: with the least configuration, not with ours."""
        return self._thread.submit(self._start_detached, bare=bare).result()

    def first_output(self, *, bare: bool) -> float:
        """Return the seconds until the first output of a container; `bare` as above."""
        return self._thread.submit(self._first_output, bare=bare).result()

    def _start_detached(self, *, bare: bool) -> float:
        with self._bundle(["sleep", "infinity"], bare=bare) as (name, bundle, began):
            self._run(["run", "--detach", "--bundle", str(bundle), name])
            took = perf_counter() - began
            self._run(["delete", "--force", name])
        return took

    def _first_output(self, *, bare: bool) -> float:
        with self._bundle(["echo", "hello"], bare=bare) as (name, bundle, began):
            command = self._command(["run", "--bundle", str(bundle), name])
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
                if process.stdout is None or not process.stdout.read(1):
                    raise RuntimeError("the container ended without output")
                took = perf_counter() - began
        return took

    def _command(self, arguments: list[str]) -> list[str]:
        options = ["--cgroup-manager=disabled"] if self.program.endswith("crun") else []
        return [self.program, *options, "--root", str(self._directory / "state"), *arguments]

    def _run(self, arguments: list[str]) -> None:
        subprocess.run(self._command(arguments), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @contextmanager
    def _bundle(self, command: list[str], *, bare: bool) -> Iterator[tuple[str, Path, float]]:
        """Prepare a bundle; the clock starts before its overlay is mounted."""
        name = uuid4().hex
        bundle = self._directory / name
        places = {part: bundle / part for part in ("rootfs", "upper", "work")}
        for place in places.values():
            place.mkdir(parents=True)
            place.chmod(0o755)
        configuration = _least(command) if bare else _ours(command, places["rootfs"])
        (bundle / "config.json").write_text(json.dumps(configuration))
        began = perf_counter()
        options = f"lowerdir={self._image},upperdir={places['upper']},workdir={places['work']}"
        syscalls.mount("overlay", str(places["rootfs"]), "overlay", 0, options)
        try:
            yield name, bundle, began
        finally:
            syscalls.umount2(places["rootfs"], syscalls.MNT_DETACH)
            shutil.rmtree(bundle, ignore_errors=True)


def _ours(command: list[str], rootfs: Path) -> dict[str, Any]:
    """What the node asks the runtime for (mounts, capabilities, seccomp), apart from what it prepares beforehand."""
    nothing = Path("/dev/null")
    bundle = oci.Bundle(
        hostname="bench",
        boot_id="",
        memory_mib=1024,
        rootfs=rootfs,
        guest=Path("/usr/bin/true"),
        userns=nothing,
        cgroup="/dormice-bench",
        owner=FIRST_UID,
    )
    configuration = oci.configuration(bundle)
    configuration["process"]["args"] = command
    private = [entry for entry in configuration["linux"]["namespaces"] if entry["type"] != "user"]
    configuration["linux"]["namespaces"] = [*private, {"type": "user"}, {"type": "network"}]
    return configuration


def _least(command: list[str]) -> dict[str, Any]:
    mapping = [{"containerID": 0, "hostID": FIRST_UID, "size": RANGE}]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": command,
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ],
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "namespaces": [{"type": namespace} for namespace in _NAMESPACES],
        },
    }


@contextmanager
def oci_peer(image: Path) -> Iterator[OciPeer]:
    """Provide one, in a temporary directory."""
    directory = Path(tempfile.mkdtemp(prefix="dormice-bench-oci-"))
    directory.chmod(0o711)
    namespace = mounts.MountNamespace()
    with ThreadPoolExecutor(1, initializer=namespace.enter) as thread:
        try:
            thread.submit(_hide_unified).result()
            yield OciPeer(directory, image, thread)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    namespace.close()


def _hide_unified() -> None:
    """Debian 12's crun refuses hosts that have cgroup2 beside v1 where it can see it."""
    if hybrid := cgroups.hybrid_mount(Path("/proc/thread-self/mountinfo").read_text()):
        mounts.hide(hybrid)
