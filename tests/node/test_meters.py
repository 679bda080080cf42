"""What the node reads of a machine's use and memory, on every arrangement of cgroups, and when it tells of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from dormice.node import records
from dormice.node.cgroups import Cgroups, Hierarchies, Limits
from dormice.node.gauge import Gauge
from dormice.node.meters import CgroupMeter, ProcessMeter
from dormice.node.records import ProcessIdentity
from dormice.node.runtime import MachineSpec, Memory, Running, Runtime
from dormice.protocol import node as wire

SPEC = MachineSpec(1, 256, 1)
SELF = records.identify(os.getpid()) or ProcessIdentity(1, 1, "")
MIB = 1 << 20
BOOT = uuid4()


def write(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_dot_", ".")).write_text(text)


def on_v2(tmp_path: Path) -> CgroupMeter:
    machine = tmp_path / "dormice/m"
    stat = (
        f"anon {100 * MIB}\nfile {90 * MIB}\ninactive_file {60 * MIB}\nactive_file {20 * MIB}\nslab_reclaimable {MIB}\n"
    )
    write(machine, cpu_dot_stat="usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    write(machine, memory_dot_current=f"{230 * MIB}\n", memory_dot_stat=stat)
    return Cgroups(Hierarchies(tmp_path, {}), "dormice").meter("m", SELF, SPEC)


def on_hybrid(tmp_path: Path) -> CgroupMeter:
    unified, memory = tmp_path / "unified", tmp_path / "memory"
    stat = f"inactive_file 0\ntotal_rss {100 * MIB}\ntotal_inactive_file {61 * MIB}\ntotal_active_file {20 * MIB}\n"
    write(unified / "dormice/m", cpu_dot_stat="usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    write(
        memory / "dormice/m",
        memory_dot_usage_in_bytes=f"{230 * MIB}\n",
        memory_dot_stat=stat,
    )
    return Cgroups(Hierarchies(unified, {"memory": memory}), "dormice").meter("m", SELF, SPEC)


@pytest.mark.parametrize("made", [on_v2, on_hybrid])
def test_use_and_memory_are_read_from_whichever_cgroup_has_them(made: object, tmp_path: Path) -> None:
    meter: CgroupMeter = made(tmp_path)  # type: ignore[operator]
    assert meter.used()[1] == 1_500_000
    assert meter.memory(above=0.85) == Memory(230 * MIB, 81 * MIB, 256 * MIB)
    assert meter.memory(above=0.9) is None


def test_a_boot_is_as_old_as_its_process_whoever_asks() -> None:
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        identity = records.identify(sleeper.pid)
        assert identity is not None
        first = ProcessMeter(identity, SPEC, None).used()[0]
        again = ProcessMeter(identity, SPEC, None).used()[0]
        sleeper.kill()
    assert 0 <= first <= again < 5_000_000
    assert records.age_us(SELF) > first


def test_the_hosts_kernel_counts(real_cgroups: Cgroups) -> None:
    real_cgroups.create("m", 0)
    real_cgroups.apply("m", Limits(vcpu=1, memory_mib=64, pids=10))
    hold = "import sys, time; held = b'x' * (40 << 20); t = time.process_time\nwhile t() < 0.2: pass\nprint(1, flush=True); time.sleep(1000)"
    meter = real_cgroups.meter("m", SELF, MachineSpec(1, 64, 1))
    assert meter.used()[1] == 0
    entrances = [str(path) for path in real_cgroups.entrances("m")]
    script = "".join(f"echo 0 > {path}; " for path in entrances) + 'exec python3 -c "$0"'
    with subprocess.Popen(["sh", "-c", script, hold], stdout=subprocess.PIPE) as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"1\n"
        used, memory = meter.used()[1], meter.memory(above=0.5)
        hog.kill()
    real_cgroups.remove("m")
    assert 190_000 < used < 5_000_000
    assert memory is not None
    assert memory.limit == 64 * MIB
    assert 40 * MIB < memory.used - memory.reclaimable < 64 * MIB


class Told:
    """A runtime of one machine, whose figures a test sets."""

    isolated = True

    def __init__(self) -> None:
        self.spec = SPEC
        self.kills = 0
        self.memory_now = Memory(0, 0, 256 * MIB)
        self.gone = False

    def meter(self, machine_id: str) -> Told:
        del machine_id
        return self

    def oom_kills(self, machine_id: str) -> int:
        del machine_id
        return self.kills

    def used(self) -> tuple[int, int]:
        if self.gone:
            raise FileNotFoundError
        return 7, 3

    def memory(self, *, above: float) -> Memory | None:
        return self.memory_now if self.memory_now.used > above * self.memory_now.limit else None


def look(gauge: Gauge, boot: UUID = BOOT) -> list[str]:
    """What is told now, in words."""
    words = []
    for message in gauge.look(Running("m", boot, Path("/"), -1)):
        match message:
            case wire.MachineUsed():
                words.append("used")
            case wire.MachineShort():
                words.append(f"short {message.memory_mib}" if message.short else "enough")
    return words


def gauge_of(told: Told) -> Gauge:
    runtime: Runtime = told  # type: ignore[assignment] # as much of one as a gauge asks
    return Gauge(runtime)


def test_use_is_told_at_first_and_then_now_and_then() -> None:
    gauge = gauge_of(Told())
    assert [look(gauge), look(gauge), look(gauge, uuid4())] == [["used"], [], ["used"]]


def test_a_machine_is_short_by_what_cannot_be_taken_from_it() -> None:
    told = Told()
    gauge = gauge_of(told)
    look(gauge)
    told.memory_now = Memory(250 * MIB, 100 * MIB, 256 * MIB)
    assert look(gauge) == []
    told.memory_now = Memory(250 * MIB, 10 * MIB, 256 * MIB)
    assert [look(gauge), look(gauge)] == [["short 256"], []]
    told.memory_now = Memory(350 * MIB, 10 * MIB, 384 * MIB)
    assert look(gauge) == ["short 384"]
    told.memory_now = Memory(100 * MIB, 10 * MIB, 384 * MIB)
    assert [look(gauge), look(gauge)] == [["enough"], []]


def test_a_machine_in_which_the_oom_killer_struck_is_short_once() -> None:
    told = Told()
    told.kills = 3  # of before this node looked
    gauge = gauge_of(told)
    assert look(gauge) == ["used"]
    told.kills = 4
    assert [look(gauge), look(gauge)] == [["short 256"], ["enough"]]


def test_what_has_been_cleared_away_is_not_told_of() -> None:
    told = Told()
    told.gone = True
    gauge = gauge_of(told)
    assert look(gauge) == []
    assert list(gauge.last(Running("m", BOOT, Path("/"), -1))) == []
