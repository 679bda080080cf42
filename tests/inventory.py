"""Everything that a Dormice has on its host, counted by what it is: what a leak would add to."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.live import Live

_VARIES = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|\d+")
MiB = 1 << 20
POOLED_THREADS = 24
"""So many threads a role may start for its pools, when it needs them: one more is not a leak, one for each machine is."""


@dataclass
class Inventory:
    """Counts by kind and name, ids and numbers left out; memory in bytes by role."""

    things: dict[str, Counter[str]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def more_than(self, before: Inventory) -> dict[str, Counter[str]]:
        """What is here and was not there."""
        more = {kind: counted - before.things[kind] for kind, counted in self.things.items()}
        return {kind: counted for kind, counted in more.items() if counted}


def take(live: Live) -> Inventory:
    """Count. While something is under way it may count that."""
    directory, roles = str(live.directory), {role: live.part(role) for role in ("server", "node")}
    found = Inventory()
    found.things = {
        "process": _counted(_command(pid) for pid in live.processes() if not _awaits_init(pid)),
        "mount of the host": _counted(_mounts("/proc/self/mountinfo", directory)),
        "cgroup": _counted(map(str, _cgroups(live.instance))),
        "interface": _counted(name for name in os.listdir("/sys/class/net") if name.startswith(live.instance)),  # noqa: PTH208
        "network namespace": _counted(os.listdir("/run/netns") if os.path.isdir("/run/netns") else ()),  # noqa: PTH112, PTH208
        "packet rules": _counted(_rules(live.instance)),
        "loop device": _counted(_loops(directory)),
        "file": _counted(str(path) for top in (live.data, live.directory / "run") for path in top.rglob("*")),
    }
    for role, pid in roles.items():
        process = Path(f"/proc/{pid}")
        found.things[f"descriptor of the {role}"] = _counted(_links(process / "fd"))
        found.things[f"thread of the {role}"] = Counter({"thread": max(POOLED_THREADS, len(_threads(process)))})
        private = (_mounts(str(file), directory) for file in sorted((process / "task").glob("*/mountinfo")))
        found.things[f"mount of the {role}"] = _counted({mount for mounts in private for mount in mounts})
        found.memory[role] = _resident(process)
    return found


def _counted(names: Iterable[str]) -> Counter[str]:
    return Counter(_VARIES.sub("#", name) for name in names)


def _command(pid: int) -> str:
    return " ".join(_texts([Path(f"/proc/{pid}/cmdline")])).replace("\0", " ")


def _awaits_init(pid: int) -> bool:
    """Whether it is dead, and only the host's init has not taken note of it yet."""
    return any(text.rpartition(")")[2].split()[:2] == ["Z", "1"] for text in _texts([Path(f"/proc/{pid}/stat")]))


def _mounts(file: str, directory: str) -> list[str]:
    return [line.split()[4] for text in _texts([Path(file)]) for line in text.splitlines() if directory in line]


def _cgroups(instance: str) -> list[Path]:
    # os.walk, unlike rglob, minds nothing that others remove meanwhile.
    walked = (Path(directory) for directory, _, _ in os.walk("/sys/fs/cgroup"))
    return [path for path in walked if instance in path.parts]


def _rules(instance: str) -> list[str]:
    command = ["nft", "--terse", "--stateless", "list", "table", "inet", instance]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def _loops(directory: str) -> list[str]:
    return [text for text in _texts(Path("/sys/block").glob("loop*/loop/backing_file")) if directory in text]


def _threads(process: Path) -> list[str]:
    return os.listdir(process / "task")  # noqa: PTH208


def _links(directory: Path) -> list[str]:
    found = []
    for name in os.listdir(directory):  # noqa: PTH208
        try:
            found.append(os.readlink(directory / name))  # noqa: PTH115
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _texts(files: Iterable[Path]) -> list[str]:
    found = []
    for file in files:
        try:
            found.append(file.read_text().strip())
        except OSError:  # ended or detached meanwhile
            continue
    return found


def _resident(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
