"""What a node that is no more has left on the host: cgroups, run directories, records, interfaces, rules, addresses, mounts.

Asked only while no node of the instance runs. Its machines may: each has a record of a process that is alive.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from dormice.node import nftables, process, records, syscalls, uplink
from dormice.node.cgroups import Cgroups, Unified, discover, remove_tree
from dormice.node.mounts import MachineRoot
from dormice.node.netlink import LOOPBACK_INDEX, RouteSocket, forget_flows
from dormice.node.network import holders
from dormice.node.records import Record
from dormice.node.slots import cgroup_name

_MACHINE_ID = re.compile(r"dm-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that belongs to nobody. `remove` raises OSError; `size` in bytes on disk."""

    kind: str
    what: str
    remove: Callable[[], None]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """In the order of removal. `notes` say what was left alone, and why."""

    leftovers: list[Leftover] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(run_dir: Path, name: str, network: IPv4Network) -> Found:
    """What is left. What only root may see and change is there only for root. Raises OSError."""
    leftovers = list(_of_processes(run_dir / "process"))
    if os.geteuid() != 0:
        return Found(leftovers)
    alive = _alive(run_dir)
    cgroups, strangers = _cgroups(run_dir, name, alive)
    if strangers:
        # Machines of a run directory that is not this one, perhaps: then all that bears the name may be theirs.
        return Found(
            leftovers, [f"processes in the cgroups {name}/{', '.join(strangers)}: no record in {run_dir} says whose"]
        )
    leftovers += [
        *cgroups,
        *_mounts(run_dir, alive),
        *_directories(run_dir, alive),
        *_networks(run_dir / "networks", name, network, alive),
    ]
    return Found(leftovers)


def _alive(run_dir: Path) -> dict[str, Record]:
    """The records of machines whose process 1 lives."""
    found = {}
    for directory in _machine_directories(run_dir):
        record = records.read(_record_in(directory))
        if record is not None and _lives(record):
            found[directory.name] = record
    return found


def _record_in(directory: Path) -> Path:
    return directory / "private" / "record.json"


def _lives(record: Record) -> bool:
    return record.process is not None and records.identify(record.process.pid) == record.process


def _machine_directories(run_dir: Path) -> list[Path]:
    if not run_dir.is_dir():
        return []
    return sorted(path for path in run_dir.iterdir() if _MACHINE_ID.fullmatch(path.name))


def _cgroups(run_dir: Path, name: str, alive: dict[str, Record]) -> tuple[list[Leftover], list[str]]:
    """What is left of cgroups, and those whose processes no record explains."""
    dead = [records.read(_record_in(path)) for path in _machine_directories(run_dir) if path.name not in alive]
    # A start that was under way may have been carried out after all: its record says whose processes these are.
    ours = {cgroup_name(record.uid_base) for record in dead if record is not None}
    kept = {cgroup_name(record.uid_base) for record in alive.values()}
    with _opened_cgroups(name) as cgroups:
        left = sorted(cgroups.names() - kept)
        strangers = [machine for machine in left if machine not in ours and cgroups.populated(machine)]
        found = [Leftover("cgroup", f"{name}/{machine}", partial(_end_cgroup, name, machine)) for machine in left]
        if not kept and cgroups.exists():
            found.append(Leftover("cgroup", name, partial(_end_cgroups, name)))
    return found, strangers


@contextmanager
def _opened_cgroups(name: str) -> Iterator[Cgroups]:
    unified = Unified()
    try:
        yield Cgroups(discover(unified.path, Path("/proc/self/mountinfo").read_text()), name)
    finally:
        unified.close()


def _end_cgroup(name: str, machine: str) -> None:
    with _opened_cgroups(name) as cgroups:
        cgroups.kill(machine)
        cgroups.remove(machine)


def _end_cgroups(name: str) -> None:
    with _opened_cgroups(name) as cgroups:
        cgroups.leave()


def _mounts(run_dir: Path, alive: dict[str, Record]) -> Iterator[Leftover]:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = Path(line.split(" ")[4])
        if run_dir in point.parents and not alive.keys() & set(point.parts):
            yield Leftover("mount", str(point), partial(syscalls.umount2, point, syscalls.MNT_DETACH))


def _directories(run_dir: Path, alive: dict[str, Record]) -> Iterator[Leftover]:
    for directory in _machine_directories(run_dir):
        if directory.name not in alive:
            yield Leftover("run directory", str(directory), partial(_remove_directory, directory))
    for record in sorted((run_dir / "oci").glob("dm-*")):
        if record.name not in alive:
            yield Leftover("container record", str(record), partial(_remove_tree, record))


def _remove_directory(directory: Path) -> None:
    MachineRoot(directory).remove_mountpoints()
    _remove_tree(directory / "private")
    directory.rmdir()


def _remove_tree(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # a runtime that ends late removes its own
        shutil.rmtree(directory)


def _networks(owners: Path, name: str, network: IPv4Network, alive: dict[str, Record]) -> Iterator[Leftover]:
    used = set()
    for owner in sorted(owners.glob("dm-*")):
        if owner.name in alive:
            used.add(str(owner.readlink()) if owner.is_symlink() else "")
        else:
            yield Leftover("network record", str(owner), partial(owner.unlink, missing_ok=True))
    for interface in sorted(found for _, found in socket.if_nameindex() if found.startswith(f"{name}-")):
        if interface not in used:
            yield Leftover("interface", interface, partial(_remove_interface, interface, network))
    if used:
        return
    if nftables.loaded(name):
        yield Leftover("packet rules", f"table inet {name}", partial(_remove_rules, name))
    gateway = network.network_address + 1
    if uplink.address_labelled(f"lo:{name}") == gateway:
        yield Leftover("address", f"{gateway} on lo", partial(_remove_gateway, gateway))
    if ("*", network) in uplink.routes():
        yield Leftover("route", f"unreachable {network}", partial(_remove_route, network))
    if holders() == 0 and nftables.loaded(nftables.GUARD):
        yield Leftover("packet rules", f"table inet {nftables.GUARD}, ip_forward", _stop_forwarding)


def _remove_interface(interface: str, network: IPv4Network) -> None:
    with RouteSocket() as host:
        host.delete_link(interface)
    forget_flows(network.network_address + int(interface.rpartition("-")[2]))


def _remove_rules(name: str) -> None:
    nftables.forget_docker(f"{name}-")
    nftables.unload(name)


def _remove_gateway(gateway: IPv4Address) -> None:
    with RouteSocket() as host:
        host.delete_address(LOOPBACK_INDEX, gateway)


def _remove_route(network: IPv4Network) -> None:
    with RouteSocket() as host:
        host.delete_unreachable(network)


def _stop_forwarding() -> None:
    uplink.set_forwarding(on=False)
    nftables.unload(nftables.GUARD)


def _of_processes(run: Path) -> Iterator[Leftover]:
    """What the driver `process` leaves: guests' sockets and records, and cgroups."""
    files = sorted(run.glob("dm-*"))
    alive = {file.stem for file in files if (record := records.read(file.with_suffix(".json"))) and _lives(record)}
    if run.is_dir():
        for directory in (found for mount in _cgroup2_mounts() for found in mount.rglob(process.cgroup_name(run))):
            for machine in sorted(path for path in directory.iterdir() if path.is_dir() and path.name not in alive):
                yield Leftover("cgroup", str(machine), partial(_end_tree, machine))
            if not alive:
                yield Leftover("cgroup", str(directory), directory.rmdir)
    for file in files:
        if file.stem not in alive:
            yield Leftover("run directory", str(file), partial(file.unlink, missing_ok=True))


def _cgroup2_mounts() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]


def _end_tree(directory: Path) -> None:
    """Kill what a machine without process 1 has left running, and remove its cgroup."""
    (directory / "cgroup.kill").write_text("1")
    remove_tree(directory)
