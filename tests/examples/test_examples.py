"""The examples do what they say, run as they say."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean

import pytest

from tests.command_line import EXAMPLES, SECONDS, CommandLine
from tests.wait import wait_until

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_every_example_is_tested_and_listed() -> None:
    listed = re.findall(r"^\| \[(\w+)\.py\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == NAMES
    assert {f"test_{name}" for name in NAMES} <= set(globals())


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_how_to_run_it(name: str) -> None:
    assert f"\n    dormice worker {name}\n" in (EXAMPLES / f"{name}.py").read_text()


def test_hello(example: CommandLine) -> None:
    example.worker("hello")
    assert example.result("hello", "Ada") == "Hello, Ada!"


def test_steps(example: CommandLine) -> None:
    example.worker("steps")
    run_id = example.start("order", {"article": "tea", "cents": 450})
    run = example.one("runs", "get", run_id, "--wait")
    assert run["retry_count"] == 0, "the bank was asked again within the step"
    charged, packed = example.all("runs", "steps", run_id)
    assert [charged["step_key"], packed["step_key"]] == ["charge", "pack"]
    assert run["result"] == f"a parcel of tea, paid with receipt {charged['outputs']['number']}"


def test_children(example: CommandLine) -> None:
    example.worker("children")
    run_id = example.start("fan_out", 10)
    assert example.one("runs", "get", run_id, "--wait")["result"] == sum(number * number for number in range(10))
    children = example.all("runs", "children", run_id)
    assert {child["queue_name"] for child in children} == {"squares"}
    assert len(children) == 10


def test_sleep(example: CommandLine) -> None:
    example.worker("sleep")
    assert example.result("reminder", {"text": "tea is ready", "seconds": 0.01}) == "tea is ready (after 0 s)"


def test_event(example: CommandLine) -> None:
    example.worker("event")
    run_id = example.start("ship", 42)
    example.dormice("events", "publish", "orders/42/paid", "--data", '{"cents": 450}')
    run = example.one("runs", "get", run_id, "--wait")
    assert run["result"] == "order 42 is shipped: 450 cents were paid"


def test_approval(example: CommandLine) -> None:
    example.worker("approval")
    assert example.result("refund", 500) == "refunded 500 cents"
    for approved, result in ((True, "refunded 5000 cents"), (False, "refused")):
        run_id = example.start("refund", 5000)
        example.waits(run_id)
        with example.live.client() as api:
            assert "Refund 5000 cents?" in api.get(f"/approve/{run_id}/approve").text
        example.dormice("runs", "resume", run_id, "approve", "--data", f'{{"approved": {str(approved).lower()}}}')
        assert example.one("runs", "get", run_id, "--wait")["result"] == result


def test_schedule(example: CommandLine) -> None:
    example.worker("schedule")
    [schedule] = wait_until(lambda: example.all("schedules", "list"), SECONDS, "a schedule")
    assert (schedule["workflow_id"], schedule["status"]) == ("report", "active")
    [run] = wait_until(lambda: example.all("runs", "list", "--workflow", "report"), 90, "a minute has begun")
    done = example.one("runs", "get", run["id"], "--wait")
    assert re.fullmatch(r"report of \d\d:\d\d", done["result"])
    assert example.one("schedules", "pause", schedule["id"])["status"] == "paused"


def test_trigger(example: CommandLine) -> None:
    example.worker("trigger")
    for celsius in (21.5, 22.5):
        example.dormice("events", "publish", "measurements", "--data", f'{{"celsius": {celsius}}}')

    def averages() -> list[float]:
        runs = [example.one("runs", "get", run["id"], "--wait") for run in example.all("runs", "list")]
        measured = sum(len(run["payload"]["events"]) for run in runs)
        return [run["result"] for run in runs] if measured == 2 else []

    assert mean(wait_until(averages, SECONDS, "both events")) == 22.0


def test_machine(example: CommandLine) -> None:
    example.worker("machine")
    with example.live.client() as api:
        machine_id = api.create_machine()
        result = example.result("build", machine_id)
        assert result["exit codes"] == [0, 3]
        execution = api.get(f"/v1/machines/{machine_id}/executions/{result['make']}/output/stdout")
        assert execution.content == b"1\n"


def test_cancel(example: CommandLine, tmp_path: Path) -> None:
    example.worker("cancel")
    room = tmp_path / "room-7"
    run_id = example.start("rent", str(room))
    wait_until(room.exists, SECONDS, "taken")
    assert example.one("runs", "cancel", run_id, "--wait")["status"] == "cancelled"
    assert not room.exists()
