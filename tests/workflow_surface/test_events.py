"""Events over HTTP: where a stream goes on."""

from __future__ import annotations

import pytest

from tests.workflow_surface.surface import Project


@pytest.mark.parametrize("position", ["9" * 30, "9" * 5_000, "x"])
def test_a_stream_cannot_go_on_where_no_event_can_be(project: Project, position: str) -> None:
    headers = {"Last-Event-ID": position}
    with project.stream("GET", "/api/v1/events/stream", params={"topic": "t"}, headers=headers) as answer:
        assert answer.status_code == 422
        assert "cursor" in answer.read().decode()


def test_a_stream_goes_on_after_the_event_that_its_reader_had_last(project: Project) -> None:
    for data in ("first", "second"):
        project.publish("t", "told", data)
    first = project.ok("GET", "/api/v1/events", params={"topic": "t"})["events"][0]["sequence_id"]
    headers = {"Last-Event-ID": str(first)}
    with project.stream("GET", "/api/v1/events/stream", params={"topic": "t"}, headers=headers) as answer:
        assert '"second"' in next(answer.iter_lines())
