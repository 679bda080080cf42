"""The configuration of a machine's container: what it grants, and what it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from dormice.node import oci, seccomp

BUNDLE = oci.Bundle(
    hostname="dm-x",
    boot_id="boot",
    memory_mib=512,
    rootfs=Path("/run/dormice/dm-x/rootfs"),
    guest=Path("/run/dormice/guest/dormice-guest"),
    userns=Path("/proc/1/fd/9"),
    cgroup="/dormice/uid-1/runtime",
    owner=1_000_000,
)
POWERFUL = {
    "CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
    "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
}  # fmt: skip


def test_no_powerful_capability_is_granted_but_the_one_that_process_1_drops() -> None:
    capabilities = oci.configuration(BUNDLE)["process"]["capabilities"]
    assert set(capabilities) == {"bounding", "effective", "permitted"}
    for granted in capabilities.values():
        assert POWERFUL & set(granted) == {"CAP_SYS_ADMIN"}


def test_a_machine_gets_namespaces_of_its_own_and_the_node_s_choice_of_user_network_and_cgroup() -> None:
    namespaces = oci.configuration(BUNDLE)["linux"]["namespaces"]
    assert {n["type"] for n in namespaces if "path" not in n} == {"pid", "mount", "ipc", "uts"}
    assert [n for n in namespaces if "path" in n] == [{"type": "user", "path": "/proc/1/fd/9"}]


def test_nothing_of_the_host_is_bound_but_the_guest_and_the_processors() -> None:
    binds = {m["source"]: m for m in oci.configuration(BUNDLE)["mounts"] if m["type"] == "bind"}
    assert set(binds) == {"/run/dormice/guest/dormice-guest", "/sys/devices/system/cpu"}
    assert all("ro" in bind["options"] for bind in binds.values())
    assert all(m["type"] != "sysfs" for m in oci.configuration(BUNDLE)["mounts"])


def test_calls_are_either_allowed_or_refused() -> None:
    assert not seccomp.ALLOWED & seccomp.REFUSED
    assert (
        not {"mount", "unshare", "setns", "keyctl", "bpf", "io_uring_setup", "userfaultfd", "io_setup"}
        & seccomp.ALLOWED
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_an_unknown_call_is_answered_as_an_old_kernel_would(machine: str) -> None:
    profile = seccomp.profile(machine)
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert len(profile["architectures"]) == 1


def test_a_runtime_is_found_in_order_of_preference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="crun or runc"):
        oci.OciRuntime.find(tmp_path)
    for name in ("runc", "crun"):
        (tmp_path / name).touch(mode=0o755)
        found = oci.OciRuntime.find(tmp_path)
        assert Path(found.program).name == name
        found.close()
