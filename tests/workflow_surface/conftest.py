"""A Dormice in local mode, and projects of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartLive
from tests.live import Live
from tests.workflow_surface.surface import Project, Worker, worker_of


@pytest.fixture(scope="session", name="local_live")
def _local_live(start_live: StartLive) -> Iterator[Live]:
    """The Dormice of this session that needs no keys on the workflow surface."""
    with start_live("process", DORMICE_LOCAL_MODE="true") as live:
        yield live


@pytest.fixture(name="project")
def _project(local_live: Live) -> Iterator[Project]:
    """A project of its own, with a deployment."""
    with Project(local_live) as project:
        project.deploy()
        yield project


@pytest.fixture(name="worker")
def _worker(project: Project) -> Iterator[Worker]:
    """A worker of the project."""
    with worker_of(project) as worker:
        yield worker
