"""Events over HTTP: where a stream and a page go on."""

from __future__ import annotations

import json

import pytest

from tests.workflow_surface.surface import Project


@pytest.mark.parametrize("position", ["9" * 30, "9" * 5_000, "x"])
def test_a_stream_cannot_go_on_where_no_event_can_be(project: Project, position: str) -> None:
    headers = {"Last-Event-ID": position}
    with project.stream("GET", "/api/v1/events/stream", params={"topic": "t"}, headers=headers) as answer:
        assert answer.status_code == 422
        assert "cursor" in answer.read().decode()


@pytest.mark.parametrize("asked", [{}, {"last_sequence_id": "0"}, {"last_timestamp": "2000-01-01T00:00:00Z"}])
def test_a_stream_goes_on_after_the_event_that_its_reader_had_last(project: Project, asked: dict[str, str]) -> None:
    """As a browser does it: by the `id:` of that event, whatever the URL asked for at first."""
    for data in ("first", "second"):
        project.publish("t", "told", data)
    with project.stream("GET", "/api/v1/events/stream", params={"topic": "t", **asked}) as answer:
        lines = answer.iter_lines()
        last, first = next(lines), json.loads(next(lines).removeprefix("data: "))
    assert (first["data"], last) == ("first", f"id: {first['sequence_id']}")
    headers = {"Last-Event-ID": last.removeprefix("id: ")}
    with project.stream("GET", "/api/v1/events/stream", params={"topic": "t", **asked}, headers=headers) as answer:
        lines = answer.iter_lines()
        last, second = next(lines), json.loads(next(lines).removeprefix("data: "))
    assert (second["data"], last) == ("second", f"id: {second['sequence_id']}")


@pytest.mark.parametrize(("sort", "wanted"), [("asc", [0, 1, 2, 3, 4]), ("desc", [4, 3, 2, 1, 0])])
def test_pages_of_events_are_gone_on_from_in_either_order(project: Project, sort: str, wanted: list[int]) -> None:
    for data in range(5):
        project.publish("t", "told", data)
        project.publish("other", "told", data)
    found: list[int] = []
    query: dict[str, str | int] = {"topic": "t", "sort": sort, "limit": 2}
    for has_more in (True, True, False):
        page = project.ok("GET", "/api/v1/events", params=query)
        assert page["has_more"] is has_more
        found += [event["data"] for event in page["events"]]
        query["last_sequence_id"] = page["next_sequence_id"]
    assert found == wanted
