"""Sessions are told by the runs of agents that they are made of."""

from __future__ import annotations

from typing import Any

from tests.live import Live
from tests.workflow_surface.surface import Project, Worker


def ended(worker: Worker, session: str, asked: Any, agent: str = "agent") -> str:
    run = worker.running(agent, session_id=session, payload={"input": asked})
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    worker.complete(run, {"result": "said", "usage": usage})
    return run


def sessions(project: Project, **which: Any) -> list[dict[str, Any]]:
    return list(project.ok("GET", "/api/v1/sessions", params=which)["sessions"])


def test_sessions_are_listed_by_their_last_runs(project: Project, worker: Worker) -> None:
    project.define("agent", "agent")
    project.define("other", "agent")
    first = ended(worker, "s1", "hello " * 100)
    second = ended(worker, "s2", [{"role": "user", "content": "a"}, {"role": "user", "content": [{"text": "last"}]}])
    third = worker.running("other", session_id="s1", payload=None)
    worker.running("plain", session_id="s3")
    worker.running("agent", session_id="s4", parent_execution_id=third)
    found = sessions(project)
    assert [(one["session_id"], one["execution_id"]) for one in found] == [("s1", third), ("s2", second)]
    assert (found[0]["execution_count"], found[0]["status"], found[0]["user_message_preview"]) == (2, "running", None)
    assert (found[1]["total_tokens"], found[1]["user_message_preview"]) == (7, "last")
    assert [one["execution_id"] for one in sessions(project, agent_id="agent")] == [second, first]
    assert sessions(project, agent_id="agent")[1]["user_message_preview"] == ("hello " * 100)[:200]
    assert [one["execution_id"] for one in sessions(project, status="completed")] == [second]
    assert [one["execution_id"] for one in sessions(project, limit=1, offset=1)] == [second]
    assert sessions(project, agent_id="plain") == sessions(project, end_time="2001-01-01T00:00:00Z") == []
    assert project.get("/api/v1/sessions", params={"status": "x"}).status_code == 400


def test_a_run_of_an_agent_is_told_with_its_tools_and_questions(project: Project, worker: Worker) -> None:
    project.define("agent", "agent")
    project.define("tool", "tool")
    run = worker.running("agent", payload={"input": "do it"})
    tool = worker.running("tool", parent_execution_id=run, step_key="call", wait_for_subworkflow=True)
    topic = f"workflow/agent/{run}"
    project.suspend(tool, "ask", {"_form": {}}, topic=topic)
    told = project.ok("GET", f"/api/v1/sessions/{run}")
    assert [(one["step_key"], one["status"], one["resolved_at"]) for one in told["approvals"]] == [
        ("ask", "pending", None)
    ]
    assert project.post(f"/api/v1/approvals/{run}/ask/submit", json={"data": {"yes": 1}}).status_code == 200
    project.in_status(tool, "running")
    worker.complete(tool, 1)
    project.in_status(run, "running")
    worker.complete(run, {"result": "done", "usage": {"total_tokens": 9}})
    told = project.ok("GET", f"/api/v1/sessions/{run}")
    assert [entry["entry_type"] for entry in told["timeline"]] == [
        "user_message",
        "tool_call",
        "approval_request",
        "approval_response",
        "assistant_message",
    ]
    assert told["timeline"][1]["data"]["tool_id"] == "tool"
    [approval] = told["approvals"]
    assert (approval["status"], approval["data"]) == (
        "resolved",
        {
            "request": {
                "_form": {},
            },
            "response": {"yes": 1},
        },
    )
    assert (told["tool_call_count"], told["approval_count"], told["total_tokens"]) == (1, 1, 9)
    assert (told["payload"], told["result"]["result"], told["status"]) == ({"input": "do it"}, "done", "completed")
    assert told["duration_ms"] >= 0


def test_what_is_no_session_of_the_project_is_not_found(project: Project, worker: Worker, local_live: Live) -> None:
    project.define("agent", "agent")
    run = worker.running("agent")
    plain = worker.running("plain")
    assert project.get(f"/api/v1/sessions/{plain}").status_code == 404
    with Project(local_live) as other:
        other.deploy()
        other.define("agent", "agent")
        assert other.get(f"/api/v1/sessions/{run}").status_code == 404
        assert sessions(other) == []
