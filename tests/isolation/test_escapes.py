"""Ways out that others have found, each tried for real by root inside a machine."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from uuid import uuid4

import pytest
from tests.node.machine_lab import SMALL, Lab, Shell, machine, needs_machines, new_machine_id, shell

from dormice.node.machines import ContainerRuntime
from dormice.node.runtime import Running

pytestmark = needs_machines

_DEVICES = {"full", "null", "random", "tty", "urandom", "zero"}
_LINKS = {"core", "fd", "stderr", "stdin", "stdout", "ptmx"}
_DIRECTORIES = {".dormice", "mqueue", "pts", "shm"}


@pytest.mark.parametrize(
    "file",
    [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/net/core/rmem_max",
        "/proc/sys/user/max_net_namespaces",
        "/proc/sys/vm/drop_caches",
        "/proc/1/mem",
        "/proc/1/uid_map",
        "/proc/1/attr/current",
        "/proc/1/cgroup",
        "/proc/bus/pci/devices",
        "/proc/irq/default_smp_affinity",
        "/proc/fs/ext4",
        "/proc/dynamic_debug/control",
        "/proc/pressure/memory",
        "/proc/mtrr",
        "/sys/kernel/uevent_helper",
        "/sys/devices/system/cpu/cpu0/online",
        "/sys/fs/cgroup/release_agent",
        "/dev/mem",
        "/dev/kmsg",
    ],
)
async def test_no_file_of_the_kernel_takes_an_order(inside: Shell, file: str) -> None:
    script = f"import os; os.write(os.open('{file}', os.O_WRONLY), b'1')"
    said = (await inside.run(f'python3 -c "{script}"')).stderr
    assert re.search(
        r"Read-only file system|Permission denied|No such file|not permitted|Is a directory|Invalid arg", said
    ), said


async def test_the_only_devices_are_harmless(inside: Shell) -> None:
    found = (await inside.run("find / -xdev -type b -o -xdev -type c; find /dev -type b -o -type c")).stdout.split()
    assert {Path(name).name for name in found if not name.startswith("/dev/pts/")} <= {*_DEVICES, "ptmx", "console"}
    assert set((await inside.run("ls -A /dev")).stdout.split()) <= _DEVICES | _LINKS | _DIRECTORIES | {"console"}


async def test_no_cgroup_can_be_reached(inside: Shell) -> None:
    assert (await inside.run("find / -name 'cgroup.*' -not -path '/proc/*' 2>/dev/null")).stdout == ""
    for kind in ("cgroup", "cgroup2"):
        assert "ermission denied" in (await inside.run(f"mkdir -p /mnt/c; mount -t {kind} none /mnt/c")).said


@pytest.mark.parametrize(
    "trick",
    [
        "mknod /root/whiteout c 0 0",
        "python3 -c \"import os; os.setxattr('/root', 'trusted.overlay.opaque', b'y')\"",
        "python3 -c \"import os; os.setxattr('/root', 'trusted.overlay.redirect', b'/../../etc')\"",
        "mount -t overlay overlay -o lowerdir=/,upperdir=/tmp,workdir=/var/tmp /mnt",
        "mount --bind / /mnt",
        "mount -o remount,rw /proc/sys",
        "mount -t proc proc /mnt",
        "mount -t sysfs sysfs /mnt",
        "umount /proc/sys",
        "pivot_root / /mnt",
        "nsenter -t 1 -m true",
        "losetup -f /root/x",
        "swapon /root/x",
        "chattr +i /root/x",
        "chrt -f 1 true",
        "ionice -c 1 true",
        "prlimit --nofile=99999999 true",
        "prlimit --core=1 true",
        "prlimit --pid 1 --nofile=1:1",
        "ip link add v type veth",
        "ip route add 192.0.2.0/24 dev lo",
        "ip addr add 192.0.2.77/32 dev lo",
        "ip link set lo down",
        "echo -1000 > /proc/self/oom_score_adj",
        "kill -CONT -1 && kill -9 1 && ! kill -0 1",
    ],
)
async def test_a_trick_of_root_fails(inside: Shell, trick: str) -> None:
    assert (await inside.run(f"touch /root/x; {trick}")).code not in (0, 127)  # 127: the image lacks the program
    assert (await inside.run("echo alive")).stdout == "alive\n"


async def test_out_of_a_chroot_there_is_only_the_machine(inside: Shell) -> None:
    script = """
        import os
        os.makedirs("/root/jail", exist_ok=True)
        top = os.open("/", os.O_RDONLY)
        os.chroot("/root/jail")
        os.fchdir(top)
        for _ in range(64): os.chdir("..")
        os.chroot(".")
        print(open("/etc/hostname").read())"""
    assert (await _python(inside, script)) == (await inside.run("hostname")).stdout + "\n"


async def test_process_1_shows_and_gives_nothing(inside: Shell) -> None:
    for name in ("auxv", "cwd", "environ", "exe", "fd/3", "fdinfo", "map_files", "maps", "mem", "ns/net", "root/etc"):
        look = await inside.run(f"ls -l /proc/1/{name}/ && cat /proc/1/{name}")
        assert "ermission denied" in look.stderr or "Not a directory" in look.stderr, name
        assert look.stdout in ("", "total 0\n"), name
    read = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        here = ctypes.create_string_buffer(8)
        local, remote = Vector(ctypes.addressof(here), 8), Vector(0x400000, 8)
        results = [libc.process_vm_readv(1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)]
        results += [libc.process_vm_writev(1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)]
        results += [libc.ptrace(request, 1, 0, 0) for request in (16, 0x4206)]  # ATTACH, SEIZE
        pidfd = os.pidfd_open(1)
        results += [libc.syscall(438, pidfd, 3, 0), libc.syscall(308, pidfd, 0x20000)]  # pidfd_getfd, setns
        print(set(results))"""
    assert await _python(inside, read) == "{-1}\n"


async def test_a_command_inherits_its_three_streams_and_no_terminal(inside: Shell) -> None:
    script = """
        import fcntl, os, stat
        fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1]  # the last is of the listing
        print(fds, [stat.S_ISFIFO(os.fstat(fd).st_mode) or os.readlink(f"/proc/self/fd/{fd}") for fd in fds])
        for fd in fds:
            try: fcntl.ioctl(fd, 0x5412, b"x")  # TIOCSTI
            except OSError as e: print(e.strerror)
        try: os.open("/dev/tty", os.O_RDWR)
        except OSError as e: print(e.strerror)"""
    said = (await inside.run(f"exec python3 -c {shlex.quote(_dedent(script))}")).stdout.splitlines()
    assert said[0] in ("[0, 1, 2] [True, True, True]", "[0, 1, 2] ['/dev/null', True, True]")
    assert set(said[1:4]) == {"Inappropriate ioctl for device"}
    assert said[4] == "No such device or address"


async def test_abstract_sockets_of_host_and_neighbour_are_not_there(runtime: ContainerRuntime) -> None:
    name = f"walls-{uuid4().hex}"
    listen = f"import socket, time; s = socket.socket(1); s.bind('\\0{name}-b'); s.listen(); print(1); time.sleep(60)"
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(f"\0{name}-a")
        host.listen()
        async with machine(runtime) as (_, neighbour), machine(runtime) as (_, inside):
            await neighbour.start(f'python3 -c "{listen}"')
            await neighbour.run(f"until grep -q {name} /proc/net/unix; do :; done")
            for end in ("a", "b"):
                script = f"import socket\ntry: socket.socket(1).connect('\\0{name}-{end}')\n"
                assert await _python(inside, script + "except OSError as e: print(e.errno)") == "111\n"


async def test_a_file_with_the_bit_of_root_is_nobodys_on_the_host(started: tuple[Running, Shell]) -> None:
    running, inside = started
    await inside.run("cp /bin/sh /root/rooted; chmod 6755 /root/rooted; ln /root/rooted /root/linked")
    seen = _root_from_the_host(running).joinpath("root/rooted").stat()
    assert min(seen.st_uid, seen.st_gid) >= 1_500_000_000
    assert _mounts_on_the_host(running.machine_id) == []


_BENT = {
    "the nameserver's file is a link": "ln -sf {outside}/resolv.conf /etc/resolv.conf",
    "it is a link to itself": "ln -sf resolv.conf /etc/resolv.conf",
    "it is a directory": "rm /etc/resolv.conf; mkdir /etc/resolv.conf",
    "it is a pipe": "rm /etc/resolv.conf; mkfifo /etc/resolv.conf",
    "its directory is a link": "mv /etc /etc.old; ln -s {outside} /etc",
    "its directory is a file": "mv /etc /etc.old; touch /etc",
    "its directory is gone": "mv /etc /etc.old",
    "it has another name as well": "ln /etc/resolv.conf /root/also; rm /etc/resolv.conf; ln -s {outside}/x /etc/resolv.conf",
    "mount points are links": "rm -rf /mnt /srv; ln -s {outside} /mnt; ln -s {outside} /srv; mv /sys /sys.old; ln -s {outside} /sys",
    "names of the overlay": "mkdir -p /upper /work /disk/upper; ln -s {outside} /image; ln -s {outside} /rootfs",
}


@pytest.mark.parametrize("name", _BENT)
async def test_a_node_that_comes_back_is_not_led_astray_by_what_root_bent(lab: Lab, tmp_path: Path, name: str) -> None:
    """By another node: the one that made the disk does not write on it again."""
    machine_id, outside = new_machine_id(), tmp_path / "outside"
    outside.mkdir()
    (outside / "resolv.conf").write_text("# Dormice writes this file at every start; without this line it is yours.\nx")
    async with lab.opened() as runtime, machine(runtime, machine_id=machine_id) as (_, inside):
        await inside.run(_BENT[name].format(outside=outside))
    async with lab.opened() as runtime:
        running = await runtime.start(machine_id, uuid4(), SMALL)
        async with shell(running) as inside:
            assert (await inside.run("echo alive")).stdout == "alive\n"
        await runtime.destroy(machine_id)
    assert [path.name for path in outside.iterdir()] == ["resolv.conf"]
    assert (outside / "resolv.conf").read_text().endswith("\nx")


def _root_from_the_host(running: Running) -> Path:
    pid = re.search(r"^Pid:\t(\d+)", Path(f"/proc/self/fdinfo/{running.pidfd}").read_text(), re.MULTILINE)
    assert pid
    return Path(f"/proc/{pid[1]}/root")


def _mounts_on_the_host(machine_id: str) -> list[str]:
    """Of the machine's disk and root, in the namespace in which everybody else on the host works."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if f"/{machine_id}/" in point]


async def _python(inside: Shell, script: str) -> str:
    result = await inside.run(f"python3 -c {shlex.quote(_dedent(script))}")
    assert result.stdout, result.stderr
    return result.stdout


def _dedent(script: str) -> str:
    return script.replace("\n        ", "\n").strip()
