"""What a run asks is answered once, by whoever has its id: over HTTP, or on our page without a script."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.live import Live
from tests.workflow_surface.surface import Project, Worker

FORM = {
    "_form": {
        "title": "Approve <script>alert(1)</script>",
        "description": 'It wants "this" & that.',
        "fields": [
            {"key": "approved", "type": "boolean", "label": "Approve?", "required": True},
            {"key": "reason", "type": "textarea", "label": "Why", "required": True},
            {"name": "amount", "type": "number", "label": "How much", "default": 5},
            {"key": "size", "type": "select", "label": "Size", "options": [{"label": "Small", "value": 1}, "big"]},
            {"key": "loud", "type": "boolean", "label": "Loud", "default": True},
            {"key": "<b>", "type": "text", "label": "</label><img src=x onerror=alert(1)>", "default": '"><i>'},
        ],
        "context": {"command": "rm -rf <x>"},
    },
    "_approval_url": "http://x/",
}


class Page(HTMLParser):
    """The form of a page, as a browser without scripts would send it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []
        self._select = ""
        self._textarea = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        got = {name: value or "" for name, value in attrs}
        assert not [name for name in got if name.startswith("on") or name == "style"]
        if tag == "input" and (got["type"] != "checkbox" or "checked" in got):
            self.fields[got["name"]] = got.get("value", "on")
        self._textarea = got["name"] if tag == "textarea" else ""
        if tag == "textarea":
            self.fields[got["name"]] = ""
        if tag == "select":
            self._select = got["name"]
            self.fields[self._select] = ""
        if tag == "option" and "selected" in got:
            self.fields[self._select] = got["value"]
        if tag == "button":
            self.buttons.append(got.get("value", ""))

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.fields[self._textarea] += data.removeprefix("\n")


@pytest.fixture(name="visitor")
def _visitor(local_live: Live) -> Iterator[httpx.Client]:
    """Somebody without a key and without a project."""
    with httpx.Client(base_url=local_live.base_url, trust_env=False, timeout=30) as visitor:
        yield visitor


def topic(run: str, workflow: str = "w") -> str:
    return f"workflow/{workflow}/{run}"


def asking(worker: Worker, key: str = "ask", data: Any = FORM, **fields: Any) -> str:
    """Return a run that is suspended."""
    run = worker.running()
    worker.project.suspend(run, key, data, topic=topic(run), **fields)
    worker.project.in_status(run, "waiting")
    return run


def answer_of(project: Project, run: str, key: str = "ask") -> Any:
    """What the run was given."""
    return project.ok("GET", f"/internal/executions/{run}/steps/{key}")["outputs"]["data"]


def test_a_question_is_read_and_answered_without_a_key(project: Project, worker: Worker, visitor: httpx.Client) -> None:
    run = asking(worker, data={"what": "?"})
    path = f"/api/v1/approvals/{run}/ask"
    assert visitor.get(path).json() == {
        "execution_id": run,
        "step_key": "ask",
        "status": "waiting",
        "data": {"what": "?"},
    }
    answered = visitor.post(f"{path}/submit", json={"data": {"approved": True}})
    assert (answered.status_code, answered.content) == (200, b"")
    project.in_status(run, "running")
    assert answer_of(project, run) == {"approved": True}
    assert visitor.get(path).json()["data"] is None


def test_a_second_answer_is_refused_and_changes_nothing(
    project: Project, worker: Worker, visitor: httpx.Client
) -> None:
    run = asking(worker)
    path = f"/api/v1/approvals/{run}/ask/submit"
    assert visitor.post(path, json={"data": 1}).status_code == 200
    again = visitor.post(path, json={"data": 2})
    assert (again.status_code, again.json()["error_type"]) == (409, "CONFLICT")
    assert "already" in again.json()["error"]
    assert answer_of(project, run) == 1


def test_of_answers_at_the_same_time_one_counts(project: Project, worker: Worker, local_live: Live) -> None:
    run = asking(worker)
    statuses: list[int] = []

    def answer(number: int) -> None:
        url = f"{local_live.base_url}/api/v1/approvals/{run}/ask/submit"
        statuses.append(httpx.post(url, json={"data": number}, trust_env=False, timeout=30).status_code)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7
    events = project.ok("GET", "/api/v1/events", params={"topic": topic(run)})["events"]
    assert [event["event_type"] for event in events].count("resume_ask") == 1


def test_an_answer_that_comes_before_the_wait_is_not_lost(
    project: Project, worker: Worker, visitor: httpx.Client
) -> None:
    run = worker.running()
    project.suspend(run, "ask", {"what": "?"}, topic=topic(run), wait=False)
    path = f"/api/v1/approvals/{run}/ask"
    assert visitor.get(path).json()["data"] == {"what": "?"}
    assert visitor.post(f"{path}/submit", json={"data": "early"}).status_code == 200
    assert visitor.post(f"{path}/submit", json={"data": "late"}).status_code == 409
    body = {"step_key": "ask", "wait_type": "suspend", "wait_topic": topic(run)}
    project.ok("POST", f"/internal/executions/{run}/wait", json=body)
    assert answer_of(project, run) == "early"


def test_a_run_below_asks_under_the_id_of_the_root(project: Project, worker: Worker, visitor: httpx.Client) -> None:
    root = worker.running()
    body = {"parent_execution_id": root, "step_key": "child", "wait_for_subworkflow": True}
    child = worker.running("tool", **body)
    project.suspend(child, "ask", {"what": "?"}, topic=topic(root))
    project.in_status(child, "waiting")
    assert visitor.get(f"/api/v1/approvals/{root}/ask").json()["data"] == {"what": "?"}
    assert visitor.post(f"/api/v1/approvals/{root}/ask/submit", json={"data": {"ok": 1}}).status_code == 200
    project.in_status(child, "running")
    assert answer_of(project, child) == {"ok": 1}


def asking_below(worker: Worker, root: str, data: Any) -> str:
    """Return a run below another one that is suspended at a step which others have too."""
    child = worker.running("tool", parent_execution_id=root)
    worker.project.suspend(child, "ask", data, topic=topic(root))
    worker.project.in_status(child, "waiting")
    return child


def test_each_of_several_runs_below_is_asked_and_answered_by_its_own_id(
    project: Project, worker: Worker, visitor: httpx.Client
) -> None:
    root = worker.running()
    first, second = asking_below(worker, root, {"n": 1}), asking_below(worker, root, {"n": 2})
    assert visitor.get(f"/api/v1/approvals/{root}/ask").json()["data"] == {"n": 2}
    url = f"/api/v1/approvals/{first}/ask"
    record = {"execution_id": first, "step_key": "ask", "status": "waiting", "data": {"n": 1}}
    assert visitor.get(url).json() == record
    assert visitor.post(f"{url}/submit", json={"data": "to the first"}).status_code == 200
    assert visitor.post(f"{url}/submit", json={"data": "again"}).status_code == 409
    project.in_status(first, "running")
    assert (project.run(second)["status"], answer_of(project, first)) == ("waiting", "to the first")
    path = f"/api/v1/executions/{second}/resume"
    assert project.ok("POST", path, json={"step_key": "ask", "data": "to the second"})["id"] == second
    assert answer_of(project, second) == "to the second"


def test_the_page_answers_the_question_that_it_shows(project: Project, worker: Worker, visitor: httpx.Client) -> None:
    root = worker.running()
    first, second = asking_below(worker, root, {"n": 1}), asking_below(worker, root, {"n": 2})
    url = f"/approve/{root}/ask"
    shown = {**Page(visitor.get(url).text).fields, "answer": '"yes"'}
    assert visitor.post(url, data=shown).status_code == 200
    assert (answer_of(project, second), project.run(first)["status"]) == ("yes", "waiting")
    assert visitor.post(url, data=shown).status_code == 409
    assert project.run(first)["status"] == "waiting"
    own = f"/approve/{first}/ask"
    assert visitor.post(own, data={**Page(visitor.get(own).text).fields, "answer": '"no"'}).status_code == 200
    assert answer_of(project, first) == "no"


@pytest.mark.parametrize("key", ["a/b", "a b", "a?b=c", "ä:ö", "submit", "a/submit"])
def test_step_keys_of_any_kind(project: Project, worker: Worker, visitor: httpx.Client, key: str) -> None:
    run = asking(worker, key=key, data={"what": key})
    assert visitor.get(f"/api/v1/approvals/{run}/{key}").json()["data"] == {"what": key}
    page = visitor.get(f"/approve/{run}/{key}")
    assert "Answer, as JSON" in page.text
    fields = {**Page(page.text).fields, "answer": '{"is": 1}'}
    assert visitor.post(f"/approve/{run}/{key}", data=fields).status_code == 200
    steps = project.ok("GET", f"/internal/executions/{run}/steps")["steps"]
    assert [(step["step_key"], step["outputs"]["data"]) for step in steps] == [(key, {"is": 1})]


def test_the_answer_to_a_key_with_a_query_is_submitted(worker: Worker, visitor: httpx.Client) -> None:
    run = asking(worker, key="a?b")
    assert visitor.post(f"/api/v1/approvals/{run}/a?b/submit", json={"data": 1}).status_code == 200


def test_a_wait_whose_time_is_over_takes_no_answer(project: Project, worker: Worker, visitor: httpx.Client) -> None:
    run = worker.running()
    project.suspend(run, "ask", {"what": "?"}, topic=topic(run), expires_at="2020-01-01T00:00:00Z")
    project.in_status(run, "running")
    assert visitor.get(f"/api/v1/approvals/{run}/ask").json()["data"] is None
    late = visitor.post(f"/api/v1/approvals/{run}/ask/submit", json={"data": 1})
    assert (late.status_code, "time is over" in late.json()["error"]) == (409, True)
    assert "time for the answer is over" in visitor.get(f"/approve/{run}/ask").text


def test_who_has_no_id_gets_nothing(project: Project, visitor: httpx.Client) -> None:
    queued = project.start()
    assert visitor.get(f"/api/v1/approvals/{uuid4()}/ask").status_code == 404
    assert visitor.get("/api/v1/approvals/none/ask").status_code == 400
    assert visitor.get(f"/approve/{uuid4()}/ask").status_code == 404
    assert visitor.get("/approve/none/ask").status_code == 400
    assert visitor.get(f"/api/v1/approvals/{queued}/ask").json()["status"] == "queued"
    assert visitor.post(f"/api/v1/approvals/{queued}/ask/submit", json={"data": 1}).status_code == 409
    assert visitor.post(f"/api/v1/approvals/{queued}/ask", json={"data": 1}).status_code == 404
    assert visitor.post(f"/api/v1/approvals/{queued}/ask/submit", json={}).status_code == 422
    assert visitor.post(f"/api/v1/approvals/{queued}/ask/submit", content=b"x").status_code == 400
    assert visitor.get(f"/approve/{queued}/{'k' * 5000}").status_code == 400


def test_the_page_is_a_form_that_needs_no_script(worker: Worker, visitor: httpx.Client) -> None:
    run = asking(worker)
    page = visitor.get(f"/approve/{run}/ask")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    form = Page(page.text)
    assert not {"script", "img", "i", "b", "iframe", "link"} & set(form.tags)
    assert "Approve <script>alert(1)</script>" in unescape(page.text)
    assert "rm -rf <x>" in unescape(page.text)
    assert form.buttons == ["approve", "reject"]
    assert form.fields == {
        "question": form.fields["question"],
        "f1": "",
        "f2": "5",
        "f3": "",
        "f4": "on",
        "f5": '"><i>',
    }


def test_the_step_key_of_the_url_gets_into_no_page(worker: Worker, visitor: httpx.Client) -> None:
    run = worker.running()
    for url in (f"/approve/{run}/<script>alert(1)</script>", f"/approve/{run}/x?<script>", "/approve/<script>/x"):
        assert "<script" not in visitor.get(url).text


def test_the_page_approves_with_values_of_the_right_types(
    project: Project, worker: Worker, visitor: httpx.Client
) -> None:
    run = asking(worker)
    url = f"/approve/{run}/ask"
    fields = Page(visitor.get(url).text).fields
    sent = visitor.post(url, data={**fields, "f1": "bécause\n", "f2": "2.5", "f3": "0", "decision": "approve"})
    assert (sent.status_code, "has reached the run" in sent.text) == (200, True)
    assert answer_of(project, run) == {
        "approved": True,
        "reason": "bécause\n",
        "amount": 2.5,
        "size": 1,
        "loud": True,
        "<b>": '"><i>',
    }
    again = visitor.post(url, data={**fields, "f1": "x", "decision": "reject"})
    assert (again.status_code, "answered already" in again.text) == (409, True)
    assert "answered already" in visitor.get(url).text


def test_to_reject_needs_no_other_field(project: Project, worker: Worker, visitor: httpx.Client) -> None:
    run = asking(worker)
    url = f"/approve/{run}/ask"
    fields = Page(visitor.get(url).text).fields
    del fields["f4"]
    assert visitor.post(url, data={**fields, "decision": "reject"}).status_code == 200
    assert answer_of(project, run) == {"approved": False, "amount": 5, "loud": False, "<b>": '"><i>'}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"decision": "perhaps"}, "Approve or reject"),
        ({"f1": ""}, "required"),
        ({"f2": "many"}, "number"),
        ({"f2": "nan"}, "number"),
        ({"f2": "1e999"}, "number"),
        ({"f3": "9"}, "options"),
    ],
)
def test_a_bad_answer_is_shown_again_with_what_is_wrong(
    worker: Worker, visitor: httpx.Client, change: dict[str, str], word: str
) -> None:
    run = asking(worker)
    url = f"/approve/{run}/ask"
    fields = {**Page(visitor.get(url).text).fields, "f1": "<reason>", "decision": "approve", **change}
    refused = visitor.post(url, data=fields)
    assert (refused.status_code, word in refused.text) == (422, True)
    if "f1" not in change:
        assert Page(refused.text).fields["f1"] == "<reason>"
    assert visitor.get(f"/api/v1/approvals/{run}/ask").json()["status"] == "waiting"


def test_a_form_of_an_earlier_question_is_not_taken_for_this_one(worker: Worker, visitor: httpx.Client) -> None:
    run = asking(worker)
    url = f"/approve/{run}/ask"
    fields = Page(visitor.get(url).text).fields
    stale = visitor.post(url, data={**fields, "question": "999999", "f1": "x", "decision": "approve"})
    assert (stale.status_code, "asked again" in stale.text) == (409, True)
    assert visitor.post(url, json={}).status_code == 400
    assert (
        visitor.post(url, content="&".join(f"a{n}=1" for n in range(2000)), headers=dict([FORM_TYPE])).status_code
        == 400
    )


FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        7,
        {"_form": None},
        {"_form": {"fields": "x"}},
        {"_form": {"fields": [None, {}, {"key": 7}, {"key": "x", "type": 9, "options": 3, "label": []}]}},
        {"_form": {"fields": [{"key": "s", "type": "select", "options": [None, 1, {"label": "l"}, {}]}]}},
        {"_form": {"title": 9, "description": [], "context": "\ufffd", "fields": []}},
        {"plain": {"deep": [[[[1]]]]}},
        {"_form": {"context": "\x00\x07", "fields": [{"key": "\x00", "type": "text", "default": "\x00"}]}},
    ],
)
def test_a_page_is_made_of_any_data(worker: Worker, visitor: httpx.Client, data: Any) -> None:
    run = worker.running()
    project = worker.project
    project.suspend(run, "ask", data, topic=topic(run))
    page = visitor.get(f"/approve/{run}/ask")
    assert (page.status_code, "<form" in page.text) == (200, True)
    assert re.search("<title>.+</title>", page.text)


@pytest.mark.parametrize("answer", ["", "{", "NaN", '"\\ud800"', "[" * 5000])
def test_an_answer_that_is_no_json_is_refused(worker: Worker, visitor: httpx.Client, answer: str) -> None:
    run = asking(worker, data={"what": "?"})
    url = f"/approve/{run}/ask"
    refused = visitor.post(url, data={**Page(visitor.get(url).text).fields, "answer": answer})
    assert (refused.status_code, "must be JSON" in refused.text) == (422, True)
    assert visitor.get(f"/api/v1/approvals/{run}/ask").json()["status"] == "waiting"


def test_local_mode_lets_no_page_of_elsewhere_in(worker: Worker, visitor: httpx.Client) -> None:
    run = asking(worker)
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert visitor.get(f"/api/v1/approvals/{run}/ask", headers=headers).status_code == 403
        assert visitor.post(f"/approve/{run}/ask", headers=headers, data={"a": "b"}).status_code == 403


def test_a_run_is_resumed_by_its_own_id(project: Project, worker: Worker, local_live: Live) -> None:
    run = asking(worker)
    with Project(local_live) as other:
        path = f"/api/v1/executions/{run}/resume"
        assert other.post(path, json={"step_key": "ask", "data": 1}).status_code == 404
    assert project.post(path, json={"step_key": "other", "data": 1}).status_code == 409
    record = project.ok("POST", path, json={"step_key": "ask", "data": {"n": 1}})
    assert record["id"] == run
    assert answer_of(project, run) == {"n": 1}
    again = project.post(path, json={"step_key": "ask", "data": 2})
    assert (again.status_code, again.json()["error_type"]) == (409, "CONFLICT")
