"""The benchmark's own parts that measure workflows, with a client that needs no peer."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bench.figures import Result
from bench.peers.driven_peer import DrivenPeer, wait_ready
from bench.peers.package_cache import Packages
from bench.peers.processes import disk_of, memory_of, process
from bench.peers.sqlite_file import written_size
from bench.peers.workflow_peer import Unavailable

from tests.wait import wait_until

CLIENT = """
import asyncio, os, pathlib, time
from bench.peers.programs import shapes
from bench.peers.programs.load import serve
from bench.peers.programs.steps import STEPS, step

async def run():
    if pathlib.Path("die").exists():
        os.write(2, b"out of memory")
        os._exit(3)
    if pathlib.Path("fail").exists():
        raise ValueError("no such workflow")
    steps = STEPS[:2] if pathlib.Path("forget").exists() else STEPS
    return [step(number) for number in steps]

async def fan_out(children):
    return sum(range(children)) - pathlib.Path("forget").exists()

async def steps(count):
    return [step(number) for number in range(count - pathlib.Path("forget").exists())]

async def sleeper(due):
    async def woken():
        await asyncio.sleep(due - time.time())
        return time.time()
    return woken()

print("not an answer", flush=True)
shapes.SLACK = 0.05
asleep = None if pathlib.Path("sleepless").exists() else sleeper
asyncio.run(serve(run, shapes.Shapes(fan_out=fan_out, steps=steps, sleeper=asleep)))
"""


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[DrivenPeer]:
    with process("client", [sys.executable, "-c", CLIENT], tmp_path, piped=True) as child:
        wait_ready(child)
        yield DrivenPeer(child, child, [], lambda: 0)


def test_a_closed_loop_counts_every_workflow_and_its_processor_time(driven: DrivenPeer) -> None:
    did = driven.throughput(in_flight=3, seconds=0.05)
    assert did.runs >= 3
    assert did.seconds >= 0.05
    assert did.rate == did.runs / did.seconds
    assert did.cpu >= 0


def test_an_open_loop_submits_at_its_rate_whatever_happens(driven: DrivenPeer) -> None:
    took = driven.latencies(rate=200, seconds=0.1)
    assert len(took.first_step) == len(took.end) == 20
    assert all(0 <= first <= end for first, end in zip(sorted(took.first_step), sorted(took.end), strict=True))


@pytest.mark.parametrize(("file", "why"), [("fail", "ValueError: no such workflow"), ("forget", "not the three steps")])
def test_a_workflow_that_goes_wrong_is_no_figure(driven: DrivenPeer, tmp_path: Path, file: str, why: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(Unavailable, match=why):
        driven.throughput(in_flight=2, seconds=0.05)
    (tmp_path / file).unlink()
    assert driven.throughput(in_flight=2, seconds=0.05).runs >= 2


def test_a_shape_is_measured_from_its_submission_on(driven: DrivenPeer) -> None:
    (took,) = driven.shape("fan_out", 10, seconds=1).seconds
    *steps, end = driven.shape("one_run", 10, seconds=1).seconds
    assert took >= 0
    assert [*steps, end] == sorted([*steps, end])
    assert len(steps) == 10
    assert len(driven.shape("many_runs", 10, seconds=1).seconds) == 10


def test_sleepers_are_due_within_one_second_and_are_never_early(driven: DrivenPeer) -> None:
    late = driven.shape("sleepers", 40, seconds=5).seconds
    assert len(late) == 40
    assert all(seconds >= 0 for seconds in late)


@pytest.mark.parametrize("shape", ["fan_out", "one_run", "many_runs"])
def test_a_shape_that_is_not_whole_is_no_figure(driven: DrivenPeer, tmp_path: Path, shape: str) -> None:
    (tmp_path / "forget").touch()
    with pytest.raises(Unavailable, match=r"10 children have returned 44|not the 10? steps"):
        driven.shape(shape, 10, seconds=1)


def test_a_shape_that_a_system_has_not_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "sleepless").touch()
    with process("client", [sys.executable, "-c", CLIENT], tmp_path, piped=True) as child:
        wait_ready(child)
        with pytest.raises(Unavailable, match="not measured of this system"):
            DrivenPeer(child, child, [], lambda: 0).shape("sleepers", 10, seconds=1)


def test_a_client_that_ends_is_told_of_with_what_it_said_last(driven: DrivenPeer, tmp_path: Path) -> None:
    (tmp_path / "die").touch()
    with pytest.raises(Unavailable, match="the client has ended: out of memory"):
        driven.throughput(in_flight=1, seconds=0.05)
    with pytest.raises(Unavailable, match="the client has ended"):
        driven.throughput(in_flight=1, seconds=0.05)


def test_a_client_that_does_not_get_ready_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.driven_peer.READY_SECONDS", 0.05)
    with (
        process(
            "client", ["sh", "-c", "echo 'waiting for a database' >&2; exec sleep 1000"], tmp_path, piped=True
        ) as child,
        pytest.raises(Unavailable, match="the client is not ready"),
    ):
        wait_ready(child)


def test_a_process_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! > child; wait"
    with process("parent", ["sh", "-c", script], tmp_path) as child:
        child.wait_ready(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().endswith("\n"))
        started = int((tmp_path / "child").read_text())
        both = memory_of([child.process.pid])
        assert 0 < memory_of([started]) < both
    wait_until(lambda: memory_of([started]) == 0, 10, "the kernel ends what was killed")
    assert child.process.poll() is not None


def test_a_process_that_ends_before_it_is_ready_is_told_of_with_what_it_said(tmp_path: Path) -> None:
    with (
        process("server", ["sh", "-c", "echo 'no such option'; exit 2"], tmp_path) as child,
        pytest.raises(Unavailable, match="server is not ready: no such option"),
    ):
        child.wait_ready(lambda: False)


def test_packages_that_are_there_are_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.package_cache.CACHE", tmp_path)
    packages = Packages("peer", pypi=["dbos==3.4.0"])
    packages.directory.mkdir()
    (packages.directory / "installed").write_text("dbos==3.4.0")
    packages.install()
    assert [file.name for file in packages.directory.iterdir()] == ["installed"]


def test_disk_is_counted_in_whole_blocks_of_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x")
    (tmp_path / "two").write_bytes(b"x" * 4097)
    (tmp_path / "none").touch()
    assert disk_of(tmp_path) - disk_of(tmp_path / "none") >= 3 * 4096


def test_a_database_counts_with_what_is_only_in_its_log(tmp_path: Path) -> None:
    file = tmp_path / "peer.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("CREATE TABLE step (result BLOB)")
        connection.execute("INSERT INTO step VALUES (zeroblob(100000))")
        connection.commit()
        assert file.stat().st_size < 100_000 <= written_size(file)


def test_ratios_are_those_to_the_first_row_of_a_section() -> None:
    result = Result("name", "title")
    result.section("throughput")
    result.add("us", "/s", [100.0])
    result.add("them", "/s", [25.0])
    result.section("latency")
    result.add("us", "ms", [4.0])
    result.add("them", "ms", [12.0])
    lines: list[str] = []
    result.show(lines.append)
    assert [line.split()[-1] for line in lines if "them" in line] == ["0.25", "3.00"]
    assert [row["section"] for row in result.document()["rows"]] == ["throughput"] * 2 + ["latency"] * 2
