"""Limits on every arrangement of cgroups: told apart by text, written to files, and bound on the host at hand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dormice.node.cgroups import Cgroups, Hierarchies, Limits, discover, hybrid_mount

V1 = """\
30 22 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
"""
HYBRID = V1 + "35 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
WITH_DISKS = HYBRID + "36 30 0:32 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"
V2 = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
DEBIAN_V2 = "31 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
DEBIAN_V1 = """\
31 22 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,size=4096k,nr_inodes=1024,mode=755,inode64
32 31 0:27 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
36 31 0:31 / /sys/fs/cgroup/pids rw shared:15 - cgroup cgroup rw,pids
38 31 0:33 / /sys/fs/cgroup/net_cls,net_prio rw shared:17 - cgroup cgroup rw,net_cls,net_prio
41 31 0:36 / /sys/fs/cgroup/memory rw shared:20 - cgroup cgroup rw,memory
44 31 0:39 / /sys/fs/cgroup/blkio rw shared:23 - cgroup cgroup rw,blkio
46 31 0:41 / /sys/fs/cgroup/cpu,cpuacct rw shared:25 - cgroup cgroup rw,cpu,cpuacct
"""
DEBIAN_HYBRID = DEBIAN_V1 + "47 31 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
LIMITS = Limits(vcpu=1.5, memory_mib=512, pids=100)


def unified(tmp_path: Path, controllers: str) -> Path:
    (tmp_path / "cgroup.controllers").write_text(controllers)
    return tmp_path


def test_a_host_of_v1_is_recognised(tmp_path: Path) -> None:
    found = discover(unified(tmp_path, ""), V1)
    assert {name: str(path.name) for name, path in found.v1.items()} == {
        "cpu": "cpu,cpuacct",
        "memory": "memory",
        "pids": "pids",
    }
    assert {path.name for path in found.others} == {"devices"}
    assert hybrid_mount(V1) is None


def test_a_hybrid_host_is_recognised(tmp_path: Path) -> None:
    assert set(discover(unified(tmp_path, "hugetlb"), HYBRID).v1) == {"cpu", "memory", "pids"}
    assert hybrid_mount(HYBRID) == Path("/sys/fs/cgroup/unified")


def test_disks_are_bounded_by_whichever_controller_the_host_has(tmp_path: Path) -> None:
    found = discover(unified(tmp_path, "hugetlb"), WITH_DISKS)
    assert set(found.v1) == {"cpu", "memory", "pids", "blkio"}
    assert not found.disk_on_v2
    on_v2 = Cgroups(Hierarchies(tmp_path, {}, disk_on_v2=True), "dormice")
    on_v1 = Cgroups(Hierarchies(tmp_path, {"blkio": tmp_path}), "dormice")
    on_neither = Cgroups(Hierarchies(tmp_path, {}), "dormice")
    machine = tmp_path / "dormice/m"
    machine.mkdir(parents=True)
    files = {
        name: machine / name for name in ("io.max", "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device")
    }
    for file in files.values():
        file.touch()
    on_neither.limit_disk("m", os.makedev(7, 3), 1000)
    assert {file.read_text() for file in files.values()} == {""}
    on_v1.limit_disk("m", os.makedev(7, 3), 1000)
    assert [file.read_text() for file in files.values()] == ["", "7:3 1000", "7:3 1000"]
    on_v2.limit_disk("m", os.makedev(7, 3), 1000)
    assert files["io.max"].read_text() == "7:3 rbps=1000 wbps=1000"
    files["io.max"].write_text("")
    on_v2.limit_disk("m", os.makedev(7, 3), 0)
    assert files["io.max"].read_text() == "7:3 rbps=max wbps=max"


def test_a_host_of_v2_is_recognised(tmp_path: Path) -> None:
    assert discover(unified(tmp_path, "cpu io memory pids"), V2) == Hierarchies(tmp_path, {}, disk_on_v2=True)
    assert hybrid_mount(V2) is None


def test_debian_12_under_systemd_is_recognised_however_it_was_started(tmp_path: Path) -> None:
    assert discover(unified(tmp_path, "cpuset cpu io memory hugetlb pids rdma misc"), DEBIAN_V2) == Hierarchies(
        tmp_path, {}, disk_on_v2=True
    )
    v1 = {name: Path("/sys/fs/cgroup") / name for name in ("memory", "pids", "blkio")}
    v1["cpu"] = Path("/sys/fs/cgroup/cpu,cpuacct")
    others = frozenset({Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/net_cls,net_prio")})
    for mountinfo in (DEBIAN_V1, DEBIAN_HYBRID):
        assert discover(unified(tmp_path, ""), mountinfo) == Hierarchies(tmp_path, v1, others=others)
    assert [hybrid_mount(text) for text in (DEBIAN_V2, DEBIAN_V1, DEBIAN_HYBRID)] == [
        None,
        None,
        Path("/sys/fs/cgroup/unified"),
    ]


def test_a_host_without_a_controller_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no cgroup controller: memory, pids"):
        discover(unified(tmp_path, "cpu"), "")


def test_on_v2_limits_are_written_and_controllers_handed_down(tmp_path: Path) -> None:
    """On plain files, which take what is written: the kernel's part is tested on the host at hand."""
    cgroups = Cgroups(Hierarchies(tmp_path, {}), "dormice")
    cgroups.open()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "dormice/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    machine = tmp_path / "dormice/m"
    machine.mkdir()
    for name in ("cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max"):
        (machine / name).touch()
    cgroups.apply("m", LIMITS)
    written = {file.name: file.read_text() for file in machine.iterdir()}
    assert written == {
        "cpu.max": "150000 100000",
        "cpu.weight": "150",
        "memory.max": str(512 << 20),
        "memory.swap.max": "0",
        "pids.max": "100",
    }
    (machine / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\n")
    assert cgroups.oom_kills("m") == 3
    assert cgroups.entrances("m") == [machine / "cgroup.procs"]


def test_a_machines_processes_are_killed_and_its_directories_removed(real_cgroups: Cgroups) -> None:
    real_cgroups.create("m", 12345)
    real_cgroups.apply("m", LIMITS)
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        for entrance in real_cgroups.entrances("m"):
            entrance.write_text(str(sleeper.pid))
        assert real_cgroups.populated("m")
        assert real_cgroups.names() == {"m"}
        real_cgroups.kill("m")
        assert sleeper.wait(10) == -9
    real_cgroups.remove("m")
    assert real_cgroups.names() == set()
    assert not real_cgroups.populated("m")
    assert real_cgroups.oom_kills("m") == 0


def test_limits_can_be_raised_and_lowered(real_cgroups: Cgroups) -> None:
    real_cgroups.create("m", 0)
    for memory in (512, 1024, 256):
        real_cgroups.apply("m", Limits(vcpu=0.25, memory_mib=memory, pids=10))
    real_cgroups.remove("m")


def test_the_machines_root_may_make_children_and_no_limits(real_cgroups: Cgroups) -> None:
    real_cgroups.create("m", 12345)
    fd = real_cgroups.open_delegated("m")
    owned = {entry.name for entry in os.scandir(fd) if entry.stat().st_uid == 12345 and entry.is_file()}
    assert os.fstat(fd).st_uid == 12345
    os.close(fd)
    assert owned == {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
    real_cgroups.remove("m")


def test_children_that_a_machine_left_are_removed_with_it(real_cgroups: Cgroups) -> None:
    real_cgroups.create("m", 0)
    fd = real_cgroups.open_delegated("m")
    for child in ("init/deeper", "exec-1", "exec-1/deeper"):
        os.mkdir(child, dir_fd=fd)
    os.close(fd)
    real_cgroups.remove("m")
    assert real_cgroups.names() == set()


def test_removing_what_lives_fails_in_bounded_time(real_cgroups: Cgroups) -> None:
    real_cgroups.create("m", 0)
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        real_cgroups.entrances("m")[0].write_text(str(sleeper.pid))
        with pytest.raises(OSError, match="processes remain"):
            real_cgroups.remove("m", timeout=0.01)
        sleeper.kill()
    real_cgroups.remove("m")
