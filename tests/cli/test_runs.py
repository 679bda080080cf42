"""The commands about workflows as processes, against a real server with real workers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.command_line import COMMAND, SECONDS, CommandLine
from tests.conftest import StartLive
from tests.live import Live
from tests.wait import wait_until


@pytest.fixture(scope="module", name="local_live")
def _local_live(start_live: StartLive) -> Iterator[Live]:
    with start_live("process", DORMICE_LOCAL_MODE="true") as live:
        yield live


@pytest.fixture(name="cli")
def _cli(local_live: Live) -> Iterator[CommandLine]:
    cli = CommandLine(local_live)
    yield cli
    cli.stop()


def refused(done: subprocess.CompletedProcess[str], *, code: int = 1) -> str:
    """Return the one line that says no."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.count("\n") == 1
    return done.stderr


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


def test_a_run_is_started_waited_for_and_shown(cli: CommandLine) -> None:
    cli.worker("hello")
    done = cli.run("runs", "start", "hello", "--payload", "-", "--wait", "--json", stdin='"Ada"')
    run = json.loads(done.stdout)
    assert (run["status"], run["result"], done.returncode) == ("completed", "Hello, Ada!", 0)
    rows = dict(line.split(maxsplit=1) for line in cli.dormice("runs", "get", run["id"]).splitlines())
    assert (rows["status"], rows["result"]) == ("completed", "Hello, Ada!")
    assert "error" not in rows


def test_what_start_is_told_is_what_the_run_has(cli: CommandLine) -> None:
    cli.worker("event")
    options = ["--queue", "q", "--concurrency-key", "k", "--priority", "3", "--session", "s", "--user", "u"]
    words = ["runs", "start", "ship", "--payload", "1", "--run-timeout", "90", "--idempotency-key", "once", *options]
    first, again = (cli.one(*words)["execution_id"] for _ in range(2))
    assert first == again
    run = cli.one("runs", "get", first)
    given = ("queue_name", "concurrency_key", "session_id", "user_id", "run_timeout_seconds", "deployment_id")
    assert [run[name] for name in given] == ["q", "k", "s", "u", 90, "default"]
    [listed] = cli.all("runs", "list", "--queue", "q", "--session", "s", "--user", "u", "--workflow", "ship", "--roots")
    assert (listed["id"], listed["priority"]) == (first, 3)
    assert cli.all("runs", "list", "--user", "another") == []
    refusal = refused(cli.run("runs", "start", "ship", "--payload", "2", "--idempotency-key", "once"))
    assert refusal.startswith("dormice: CONFLICT: ")


def test_a_run_that_fails_says_why_and_exits_with_one(cli: CommandLine) -> None:
    cli.worker("hello")
    done = cli.run("runs", "start", "unknown", "--wait", "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, "failed")
    assert done.stderr.endswith(" has failed: this worker has no workflow 'unknown'\n")
    assert table(cli.dormice("runs", "list", "--status", "failed,cancelled"))[0][1:3] == ["unknown", "failed"]


@pytest.mark.parametrize("payload", ["Ada", "{", ""])
def test_a_payload_that_is_no_json_is_refused_before_any_request(cli: CommandLine, payload: str) -> None:
    assert "must be JSON" in refused(cli.run("runs", "start", "hello", "--payload", payload), code=2)


@pytest.mark.parametrize("words", [["get", ""], ["get", "x", "--project", ""], ["start", "x\n"], ["rerun"], []])
def test_words_that_cannot_be_sent_are_wrong_usage(cli: CommandLine, words: list[str]) -> None:
    assert refused(cli.run("runs", *words), code=2).endswith("--help\n")


def test_what_the_server_refuses_is_told_to_people_and_programs(cli: CommandLine) -> None:
    unknown = str(uuid4())
    assert refused(cli.run("runs", "get", unknown)) == "dormice: NOT_FOUND: no such execution\n"
    told = json.loads(refused(cli.run("runs", "get", unknown, "--json")))["error"]
    assert (told["code"], told["message"], told["status"]) == ("NOT_FOUND", "no such execution", 404)
    for words in (["cancel", unknown], ["steps", unknown], ["events", unknown], ["rerun", unknown]):
        assert refused(cli.run("runs", *words)).startswith("dormice: NOT_FOUND: ")
    assert "status must be one or more of" in refused(cli.run("runs", "list", "--status", "asleep"))
    assert "X-Project-ID must be a UUID" in refused(cli.run("runs", "list", "--project", "mine"))


def test_a_server_in_local_mode_needs_no_key(cli: CommandLine) -> None:
    nowhere = {"DORMICE_API_KEY": "", "DORMICE_DATA_DIR": "/nonexistent"}
    assert cli.run("runs", "list", **nowhere).stdout.startswith("RUN ID")
    unreachable = cli.run("runs", "list", DORMICE_BASE_URL="http://127.0.0.1:9")
    assert "dormice up" in refused(unreachable, code=3)


def test_a_server_with_keys_wants_one_that_may_use_the_project(live: Live) -> None:
    cli = CommandLine(live)
    assert refused(cli.run("runs", "list", DORMICE_API_KEY="x" * 32)).startswith("dormice: UNAUTHORIZED: ")
    keyless = cli.run("runs", "list", DORMICE_API_KEY="", DORMICE_DATA_DIR="/nonexistent")
    assert refused(keyless).endswith("; look at DORMICE_API_KEY\n")
    assert "project" in refused(cli.run("runs", "list"))
    assert cli.run("runs", "list", DORMICE_PROJECT_ID="").stdout.startswith("RUN ID")


def test_runs_are_of_a_project(cli: CommandLine, local_live: Live) -> None:
    cli.worker("event")
    run_id = cli.start("ship", 1)
    other = CommandLine(local_live)
    assert other.all("runs", "list") == []
    assert [run["id"] for run in other.all("runs", "list", "--project", cli.project_id)] == [run_id]
    assert refused(other.run("runs", "cancel", run_id)).startswith("dormice: NOT_FOUND: ")


def test_lists_go_on_over_pages(cli: CommandLine) -> None:
    cli.worker("event")
    made = [cli.start("ship", number) for number in range(3)]
    assert [run["id"] for run in cli.all("runs", "list", "--limit", "2")] == made[::-1]
    assert [run["id"] for run in cli.all("runs", "list", "--max-items", "1")] == made[-1:]
    first = cli.one("runs", "get", made[1])["created_at"]
    assert [run["id"] for run in cli.all("runs", "list", "--since", first)] == made[:0:-1]
    assert [run["id"] for run in cli.all("runs", "list", "--until", first)] == made[:1]


def test_a_run_is_run_again_from_a_step(cli: CommandLine) -> None:
    cli.worker("steps")
    run_id = cli.start("order", {"article": "tea", "cents": 1})
    cli.one("runs", "get", run_id, "--wait")
    again = cli.one("runs", "rerun", run_id, "--from-step", "pack", "--wait")
    assert again["id"] != run_id
    charged, packed = cli.all("runs", "steps", again["id"])
    assert charged["outputs"] == cli.all("runs", "steps", run_id)[0]["outputs"]
    assert packed["outputs"] == "a parcel of tea"
    assert table(cli.dormice("runs", "steps", run_id))[1][1:] == ["pack", "done", "-", '"a', "parcel", "of", 'tea"']
    assert "from_step" in refused(cli.run("runs", "rerun", run_id, "--from-step", "unknown"))


def test_children_are_listed_below_their_parent(cli: CommandLine) -> None:
    cli.worker("children")
    parent = cli.start("fan_out", 2)
    cli.one("runs", "get", parent, "--wait")
    children = cli.all("runs", "children", parent, "--limit", "1")
    assert sorted(child["step_key"] for child in children) == ["square 0", "square 1"]
    assert cli.all("runs", "list", "--parent", parent) == children
    assert [run["id"] for run in cli.all("runs", "list", "--roots")] == [parent]


def test_commands_of_a_run_are_listed_with_its_children(cli: CommandLine) -> None:
    cli.worker("machine")
    with cli.live.client() as api:
        machine_id = api.create_machine()
    run = cli.one("runs", "get", cli.start("build", machine_id), "--wait")
    commands = cli.all("runs", "children", run["id"])
    assert [(one["step_key"], one["machine_id"]) for one in commands] == [("look", machine_id), ("make", machine_id)]
    assert commands[1]["execution_id"] == run["result"]["make"]
    assert run["result"]["make"] in cli.dormice("runs", "children", run["id"])


def test_a_run_without_a_worker_says_what_it_waits_for(cli: CommandLine) -> None:
    cli.worker("hello")
    cli.stop()
    run_id = cli.start("hello", "Ada")
    why = cli.one("runs", "why-queued", run_id)
    assert (why["reason"], why["workers"], why["position"]) == ("no_worker", 0, 0)
    waiting = subprocess.Popen(
        [*COMMAND, "runs", "get", run_id, "--wait", "--json"],
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == (
        f"dormice: {run_id} waits for a worker of deployment default: dormice worker runs one\n"
    )
    cli.worker("hello")
    assert json.loads(waiting.communicate(timeout=SECONDS)[0])["result"] == "Hello, Ada!"


def test_events_are_published_listed_and_followed_over_a_crash_of_the_server(cli: CommandLine) -> None:
    publish = ["events", "publish", "doors", "--data"]
    first = cli.one(*publish, '{"open": true}', "--type", "front")["sequence_ids"][0]
    following = subprocess.Popen(
        [*COMMAND, "events", "list", "doors", "--follow", "--json"],
        env=cli.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    told = json.loads(following.stdout.readline())
    assert (told["sequence_id"], told["event_type"], told["data"]) == (first, "front", {"open": True})
    cli.live.kill("server")
    cli.live.wait_ready()
    second = cli.one(*publish, '"shut"')["sequence_ids"][0]
    assert json.loads(following.stdout.readline())["sequence_id"] == second
    following.terminate()
    following.communicate()
    assert [event["sequence_id"] for event in cli.all("events", "list", "doors")] == [first, second]
    [row] = table(cli.dormice("events", "list", "doors", "--after", str(first)))
    assert (row[0], row[2:]) == (str(second), ["-", '"shut"'])


def test_the_events_of_a_run_are_followed_to_its_end(cli: CommandLine) -> None:
    cli.worker("approval")
    run_id = cli.start("refund", 5000)
    cli.waits(run_id)
    following = subprocess.Popen(
        [*COMMAND, "runs", "events", run_id, "--follow", "--json"],
        env=cli.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["event_type"] == "suspend_approve"
    assert cli.one("runs", "resume", run_id, "approve", "--data", '{"approved": true}')["id"] == run_id
    rest = following.communicate(timeout=SECONDS)[0].splitlines()
    assert [json.loads(line)["event_type"] for line in rest] == ["resume_approve"]
    assert following.returncode == 0
    assert len(cli.all("runs", "events", run_id)) == len(cli.all("runs", "events", run_id, "--follow")) == 2
    assert "answered already" in refused(cli.run("runs", "resume", run_id, "approve"))


def test_a_run_is_cancelled(cli: CommandLine) -> None:
    cli.worker("event")
    run_id = cli.start("ship", 7)
    run = cli.one("runs", "cancel", run_id, "--wait")
    assert (run["status"], run["cancelled_by"]) == ("cancelled", "manual")
    assert refused(cli.run("runs", "cancel", run_id)) == "dormice: BAD_REQUEST: the execution has ended\n"


def test_schedules_are_made_changed_paused_and_deleted(cli: CommandLine) -> None:
    cli.worker("schedule")
    words = ["schedules", "create", "report", "0 8 1 1 *", "--timezone", "Europe/Vienna", "--key", "yearly"]
    made = cli.one(*words, "--catch-up", "one", "--overlap")
    given = ("workflow_id", "cron", "timezone", "key", "catch_up", "overlap", "status")
    assert [made[name] for name in given] == ["report", "0 8 1 1 *", "Europe/Vienna", "yearly", "one", True, "active"]
    assert len(made["upcoming"]) == 3
    changed = cli.one(*words, "--no-overlap")
    assert (changed["id"], changed["overlap"], changed["catch_up"]) == (made["id"], False, "one")
    assert table(cli.dormice("schedules", "list", "--key", "yearly"))[0][:3] == [made["id"], "report", "yearly"]
    assert cli.all("schedules", "list", "--key", "another") == []
    assert cli.one("schedules", "pause", made["id"])["status"] == "paused"
    assert cli.one("schedules", "resume", made["id"])["status"] == "active"
    assert cli.one("schedules", "get", made["id"])["key"] == "yearly"
    assert cli.all("schedules", "ticks", made["id"], "--limit", "5") == []
    assert cli.dormice("schedules", "delete", made["id"]) == ""
    assert cli.all("schedules", "list", "--key", "yearly") == []
    assert refused(cli.run("schedules", "get", made["id"])) == "dormice: NOT_FOUND: no such schedule\n"
    assert "cron" in refused(cli.run("schedules", "create", "report", "60 * * * *"))


def test_workers_and_what_they_offer_are_listed(cli: CommandLine) -> None:
    cli.worker("trigger")
    [worker] = cli.all("workers", "list")
    assert (worker["status"], worker["mode"], worker["deployment_id"]) == ("online", "pull", "default")
    row = table(cli.dormice("workers", "list"))[0]
    assert row[:7] == [worker["id"], "online", "default", "pull", "0", "of", "100"]
    assert table(cli.dormice("workflows", "list"))[0][:3] == ["average", "default", "yes"]
    cli.stop()
    wait_until(lambda: not [one for one in cli.all("workers", "list") if one["status"] == "online"], SECONDS, "gone")


def test_an_option_that_is_none_is_refused_in_the_name_of_the_command(cli: CommandLine) -> None:
    said = refused(cli.run("runs", "rerun", "RUN", "--from", "step"), code=2)
    assert said == "dormice runs rerun: unrecognized arguments: --from step; see dormice runs rerun --help\n"
