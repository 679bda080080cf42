"""Servers and workers that die just when a run asks or publishes: it is asked, and published, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dormice.crash_points import VARIABLE, CrashPoint
from dormice.workflows import Workflows
from tests.conftest import StartLive
from tests.live import Live
from tests.wait import wait_until
from tests.workflows import asking, telling
from tests.workflows.conftest import LOCAL, SECONDS, StartWorker
from tests.workflows.flows import Place
from tests.workflows.test_telling import of_topic

Arm = Callable[..., Callable[[], bool]]
LOST_MS = 6_000


@pytest.fixture(scope="module", name="points")
def _points(directory: Callable[[], Path]) -> Path:
    """Where the server, which is no root, looks for the points at which it dies."""
    path = directory()
    path.chmod(0o777)
    return path


@pytest.fixture(scope="module", name="live")
def _live(start_live: StartLive, points: Path) -> Iterator[Live]:
    extra = {LOCAL: "true", "DORMICE_LIMIT_WORKER_LOST_MS": str(LOST_MS), VARIABLE: str(points)}
    with start_live("process", **extra) as live:
        yield live


@pytest.fixture(name="arm")
def _arm(points: Path) -> Iterator[Arm]:
    """Have the server die at the first of these points that it comes to, once; what is returned says whether it has."""

    def arm(*names: CrashPoint) -> Callable[[], bool]:
        files = [points / name for name in names]
        for file in files:
            file.touch()

        def struck() -> bool:
            if all(file.exists() for file in files):
                return False
            for file in files:
                file.unlink(missing_ok=True)
            return True

        return struck

    yield arm
    for file in points.iterdir():
        file.unlink()


@pytest.mark.parametrize("killed", [False, True], ids=["its answer is lost", "its worker dies too"])
def test_a_question_is_asked_once(
    workflows: Workflows, start_worker: StartWorker, live: Live, arm: Arm, *, killed: bool
) -> None:
    first = start_worker(target="tests.workflows.asking")
    struck = arm(CrashPoint.EVENT_PUBLISHED, CrashPoint.WAIT_COMMITTED)
    run_id = workflows.start(asking.asks, "please")
    wait_until(struck, SECONDS, "asked, and nobody was told so")
    if killed:
        first.kill()
        first.wait()
    live.wait_ready()
    if killed:
        start_worker(target="tests.workflows.asking")
    wait_until(lambda: workflows.get(run_id).status == "waiting", SECONDS, "waiting")
    with live.client() as api:
        answer = {"step_key": "ask", "data": {"yes": True}}
        api.post(f"/api/v1/executions/{run_id}/resume", json=answer).raise_for_status()
    assert workflows.wait(run_id, timeout=SECONDS).result is True
    told = [event["event_type"] for event in of_topic(live, f"workflow/asks/{run_id}")]
    assert told == ["suspend_ask", "resume_ask"]


@pytest.mark.parametrize("killed", [False, True], ids=["its answer is lost", "its worker dies too"])
def test_an_event_is_published_once(
    workflows: Workflows, start_worker: StartWorker, live: Live, arm: Arm, place: Place, *, killed: bool
) -> None:
    first = start_worker(target="tests.workflows.telling")
    struck = arm(CrashPoint.EVENT_PUBLISHED, CrashPoint.STEP_COMMITTED)
    run_id = workflows.start(telling.publishes, place)
    wait_until(struck, SECONDS, "published, and nobody was told so")
    if killed:
        first.kill()
        first.wait()
    live.wait_ready()
    if killed:
        start_worker(target="tests.workflows.telling")
    assert workflows.wait(run_id, timeout=SECONDS).result == 1
    assert [event["data"] for event in of_topic(live, f"told{place.directory}")] == [{"n": 1}]
