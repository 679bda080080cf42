"""What root inside a machine cannot do, and what it can."""

from __future__ import annotations

import errno
import re
import socket
import textwrap
from pathlib import Path
from uuid import uuid4

import pytest
from tests.node.machine_lab import SMALL, Lab, Shell, machine, needs_machines, new_machine_id, shell

from dormice.node.machines import ContainerRuntime
from dormice.node.runtime import Running

pytestmark = needs_machines

_CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
result = libc.syscall({number}, {arguments})
if result == 0 and {number} in (56, 57):
    os._exit(0)
print(0 if result >= 0 else ctypes.get_errno())
"""
_X86_64 = {
    "add_key": (248, "b'user', b'x', b'y', 1, -2"),
    "bpf": (321, "5, 0, 0"),
    "clone(CLONE_NEWUSER)": (56, "0x10000011, 0, 0, 0, 0"),
    "clone(CLONE_NEWNET)": (56, "0x40000011, 0, 0, 0, 0"),
    "delete_module": (176, "b'x', 0"),
    "fsopen": (430, "b'ext4', 0"),
    "fsmount": (432, "0, 0, 0"),
    "io_uring_setup": (425, "8, ctypes.create_string_buffer(120)"),
    "kexec_load": (246, "0, 0, 0, 0"),
    "keyctl": (250, "0, -3, 1"),
    "mount": (165, "b'none', b'/mnt', b'tmpfs', 0, 0"),
    "mount_setattr": (442, "-100, b'/', 0, ctypes.create_string_buffer(32), 32"),
    "move_mount": (429, "-100, b'/', -100, b'/mnt', 0"),
    "open_by_handle_at": (304, "-100, ctypes.create_string_buffer(64), 0"),
    "open_tree": (428, "-100, b'/', 1"),
    "perf_event_open": (298, "ctypes.create_string_buffer(128), 0, -1, -1, 0"),
    "pidfd_getfd": (438, "0, 0, 0"),
    "pivot_root": (155, "b'/', b'/mnt'"),
    "reboot": (169, "0xfee1dead, 672274793, 0, 0"),
    "request_key": (249, "b'user', b'x', 0, 0"),
    "sethostname": (170, "b'x', 1"),
    "setns": (308, "os.open('/proc/self/ns/net', 0), 0"),
    "settimeofday": (164, "ctypes.create_string_buffer(16), 0"),
    "swapon": (167, "b'/x', 0"),
    "syslog": (103, "3, ctypes.create_string_buffer(64), 64"),
    "umount2": (166, "b'/proc', 2"),
    "unshare(CLONE_NEWUSER)": (272, "0x10000000"),
    "unshare(CLONE_NEWNS)": (272, "0x20000"),
    "userfaultfd": (323, "1"),
}


@pytest.mark.parametrize("name", _X86_64)
async def test_a_powerful_call_is_refused(inside: Shell, name: str) -> None:
    number, arguments = _X86_64[name]
    result = await _python(inside, _CALL.format(number=number, arguments=arguments))
    assert int(result) == errno.EPERM


@pytest.mark.parametrize(
    ("name", "number"), [("clone3", 435), ("io_setup", 206), ("mbind", 237), ("one that no kernel has", 999)]
)
async def test_a_call_that_libraries_can_do_without_is_unknown(inside: Shell, name: str, number: int) -> None:
    del name
    assert int(await _python(inside, _CALL.format(number=number, arguments="0, 0"))) == errno.ENOSYS


async def test_the_first_machine_of_a_node_has_the_same_filter_as_the_later_ones(runtime: ContainerRuntime) -> None:
    for _ in range(2):
        async with machine(runtime) as (_, inside):
            for name in ("bpf", "keyctl", "unshare(CLONE_NEWUSER)", "userfaultfd"):
                number, arguments = _X86_64[name]
                assert int(await _python(inside, _CALL.format(number=number, arguments=arguments))) == errno.EPERM
            assert int(await _python(inside, _CALL.format(number=999, arguments="0"))) == errno.ENOSYS


@pytest.mark.parametrize("family", ["AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_CAN", "AF_BLUETOOTH"])
async def test_a_socket_family_of_the_kernel_or_the_host_is_unknown(inside: Shell, family: str) -> None:
    script = f"import socket\ntry: socket.socket(socket.{family}, socket.SOCK_DGRAM if 0 else socket.SOCK_RAW)\n"
    assert int(await _python(inside, script + "except OSError as e: print(e.errno)")) == errno.EAFNOSUPPORT


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("echo 1 > /proc/sys/kernel/panic", "Read-only file system"),
        ("echo 1 > /proc/sys/user/max_user_namespaces", "Read-only file system"),
        ("mknod /root/disk b 8 0 && cat /root/disk", "Operation not permitted"),
        ("mknod /root/memory c 1 1", "Operation not permitted"),
        ("chmod 000 /dev/null", "Operation not permitted"),
        ("chown 0 /dev/null", "Operation not permitted"),
        ("echo x > /dev/.dormice/guest", "Read-only file system"),
        ("rm /dev/.dormice/guest", "busy"),
        ("touch /sys/x", "Read-only file system"),
        ("cat /proc/1/environ", "Permission denied"),
        ("ls -l /proc/1/root/", "Permission denied"),
        ("cat /proc/1/mem", "Permission denied"),
        ("cat /proc/1/fd/0", "Permission denied"),
        ("dmesg", "Operation not permitted"),
        ("date -s 2001-01-01", "Operation not permitted"),
        ("nice -n -5 true", "Permission denied"),
        ("unshare -r true", "Operation not permitted"),
        ("hostname other", "must be root"),
    ],
)
async def test_root_is_told_no(inside: Shell, command: str, complaint: str) -> None:
    assert complaint in (await inside.run(command)).said


async def test_process_1_cannot_be_traced_or_killed(inside: Shell) -> None:
    assert int(await _python(inside, _CALL.format(number=101, arguments="16, 1, 0, 0"))) == errno.EPERM
    assert int(await _python(inside, _CALL.format(number=310, arguments="1, 0, 0, 0, 0, 0"))) in (0, errno.EPERM)
    assert (await inside.run("kill -9 1; kill -STOP 1; echo alive")).stdout == "alive\n"


_FORGED = {
    "sigqueue without a sender": """
        import ctypes, struct
        about = struct.pack("<6i", 15, 0, -1, 0, 0, 0) + bytes(104)
        print(ctypes.CDLL(None).syscall(129, 1, 15, about))""",
    "a signal of a file's owner": """
        import fcntl, os, socket
        ours, theirs = socket.socketpair()
        fcntl.fcntl(ours, fcntl.F_SETOWN, 1)
        fcntl.fcntl(ours, 10, 15)  # F_SETSIG
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
        print(theirs.send(b"x") - 1)""",
}


@pytest.mark.parametrize("name", _FORGED)
async def test_process_1_is_not_stopped_by_a_signal_that_hides_its_sender(inside: Shell, name: str) -> None:
    assert await _python(inside, textwrap.dedent(_FORGED[name])) == "0\n"
    assert (await inside.run("echo alive")).stdout == "alive\n"  # refused by a guest that is stopping


@pytest.mark.parametrize("protocol", [2, 9, 12, 15, 16, 21, 22, 23, 99])
async def test_netlink_talks_of_the_machines_own_network_only(inside: Shell, protocol: int) -> None:
    script = f"import socket\ntry: socket.socket(16, 3, {protocol})\nexcept OSError as e: print(e.errno)"
    assert int(await _python(inside, script)) == errno.EPROTONOSUPPORT


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("protocol", [33, 46, 115, 132, 136, 256, 262])
async def test_no_socket_makes_the_host_load_a_protocol(inside: Shell, family: int, protocol: int) -> None:
    script = "import socket\nfor kind in range(1, 7):\n"
    script += f"    try: socket.socket({int(family)}, kind, {protocol})\n    except OSError as e: print(e.errno)"
    assert set((await _python(inside, script)).split()) == {str(errno.EPROTONOSUPPORT)}


@pytest.mark.parametrize(
    ("name", "number", "arguments"),
    [
        ("mmap", 9, "0, 1 << 21, 3, 0x40022, -1, 0"),
        ("memfd_create", 319, "b'x', 4"),
        ("shmget", 29, "0, 1 << 21, 0o5600"),
    ],
)
async def test_the_huge_pages_of_the_host_are_not_for_machines(
    inside: Shell, name: str, number: int, arguments: str
) -> None:
    del name
    assert int(await _python(inside, _CALL.format(number=number, arguments=arguments))) == errno.ENOMEM


async def test_secrets_of_the_kernel_are_masked(inside: Shell) -> None:
    masked = "/proc/cmdline /proc/kcore /proc/keys /proc/kallsyms /proc/timer_list /proc/interrupts"
    assert (await inside.run(f"cat {masked}")).stdout == ""
    assert (await inside.run("ls /sys /sys/devices/system")).stdout.split() == [
        "/sys:", "devices", "/sys/devices/system:", "cpu",
    ]  # fmt: skip


async def test_no_path_of_the_host_shows(lab: Lab, inside: Shell) -> None:
    seen = (await inside.run("cat /proc/self/mountinfo /proc/self/cgroup /proc/mounts; env")).stdout
    for path in (lab.data, lab.run, Path.cwd(), lab.cgroup_parent, "uid-"):
        assert str(path) not in seen


async def test_only_the_machines_own_processes_and_sockets_show(inside: Shell) -> None:
    names = (await inside.run("cat /proc/[0-9]*/comm")).stdout.split()
    assert {"cat", "guest"} <= set(names) <= {"bash", "cat", "guest"}
    assert (await inside.run("ls /proc/self/fd | wc -l")).stdout.strip() == "4"  # three streams and the listing
    assert "guest.sock" not in (await inside.run("cat /proc/net/unix")).stdout


async def test_the_machine_has_no_power_over_its_network(inside: Shell) -> None:
    assert (await inside.run("ip link set lo mtu 1000")).code != 0
    assert (
        int(await _python(inside, "import socket\ntry: socket.socket(2, 3, 1)\nexcept OSError as e: print(e.errno)"))
        == 1
    )


async def test_root_inside_is_a_user_that_nobody_on_the_host_is(started: tuple[Running, Shell]) -> None:
    running, inside = started
    first, on_host, count = map(int, (await inside.run("cat /proc/self/uid_map")).stdout.split())
    assert (first, count) == (0, 65_536)
    assert on_host >= 1_500_000_000
    assert _owner_on_host(running.pidfd) == on_host


async def test_two_machines_share_no_user(runtime: ContainerRuntime) -> None:
    async with machine(runtime) as (_, one), machine(runtime) as (_, other):
        ranges = [(await inside.run("cat /proc/self/uid_map")).stdout.split() for inside in (one, other)]
    assert ranges[0][1] != ranges[1][1]


async def test_root_can_do_what_packages_need(inside: Shell) -> None:
    script = """
        set -e
        touch /root/f && chown 1234:4321 /root/f && stat -c %u:%g /root/f
        mkfifo /root/fifo
        mkdir -p /srv/jail/usr && cp -a /usr/bin /usr/lib /srv/jail/usr/ 2>/dev/null || true
        su nobody -s /bin/bash -c 'id -un'
        cp /usr/bin/id /usr/local/bin/rootid && chmod u+s /usr/local/bin/rootid
        su nobody -s /bin/bash -c '/usr/local/bin/rootid -u'
        python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 80)); print("bound")'
        mv /usr/share/doc /usr/share/papers && ls -d /usr/share/papers
        sed -i 's/localhost/localhost here/' /etc/hosts && grep -c here /etc/hosts
        script -qc 'tty' /dev/null 2>/dev/null || python3 -c 'import pty; pty.spawn(["tty"])'
        cp /bin/echo /usr/local/bin/ping
        python3 -c "import os, struct; os.setxattr('/usr/local/bin/ping', 'security.capability', struct.pack('<5I', 0x2000001, 1 << 13, 0, 0, 0))"
        /usr/local/bin/ping pinged
    """
    result = await inside.run(script)
    said = result.stdout.split()
    assert said[:6] == ["1234:4321", "nobody", "0", "bound", "/usr/share/papers", "2"], result.said
    assert any(word.startswith("/dev/pts/") for word in said)
    assert said[-1] == "pinged"


async def test_commands_have_no_capability_beyond_the_list(inside: Shell) -> None:
    numbers = {
        "CHOWN": 0,
        "DAC_OVERRIDE": 1,
        "FOWNER": 3,
        "FSETID": 4,
        "KILL": 5,
        "SETGID": 6,
        "SETUID": 7,
        "SETPCAP": 8,
    }
    numbers |= {"NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_CHROOT": 18, "AUDIT_WRITE": 29, "SETFCAP": 31}
    listed = sum(1 << number for number in numbers.values())
    status = (await inside.run("grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status")).stdout
    sets = dict(line.split() for line in status.splitlines())
    assert {int(value, 16) for value in sets.values()} == {0, listed}
    assert int(sets["CapBnd:"], 16) == listed


async def test_a_debugger_works_on_its_own_children(inside: Shell) -> None:
    assert int(await _python(inside, _CALL.format(number=101, arguments="0, 0, 0, 0"))) == 0


async def test_paths_that_root_bent_lead_nowhere_outside(lab: Lab, runtime: ContainerRuntime, tmp_path: Path) -> None:
    machine_id = new_machine_id()
    outside = tmp_path / "outside"
    outside.mkdir()
    bend = f"""
        mv /dev /dev.old; rm -rf /dev; rm -rf /mnt && ln -s {outside} /mnt
        mv /etc /etc.old && mkdir /etc && ln -s {outside}/resolv.conf /etc/resolv.conf
    """
    async with machine(runtime, machine_id=machine_id) as (_, inside):
        await inside.run(bend)
    running = await runtime.start(machine_id, uuid4(), SMALL)
    async with shell(running) as inside:
        assert (await inside.run("echo alive")).stdout == "alive\n"
    await runtime.destroy(machine_id)
    assert list(outside.iterdir()) == []


def _owner_on_host(pidfd: int) -> int:
    pid = re.search(r"^Pid:\t(\d+)", Path(f"/proc/self/fdinfo/{pidfd}").read_text(), re.MULTILINE)
    assert pid
    uid = re.search(r"^Uid:\t(\d+)", Path(f"/proc/{pid[1]}/status").read_text(), re.MULTILINE)
    assert uid
    return int(uid[1])


async def _python(inside: Shell, script: str) -> str:
    quoted = script.replace("'", "'\\''")
    result = await inside.run(f"python3 -c '{quoted}'")
    assert result.stdout, result.stderr
    return result.stdout
