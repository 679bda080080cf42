"""What many tests share: a running Dormice, with bare processes for machines or with real ones."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from shutil import rmtree

import pytest

from tests.live import IMAGE_DIR, Api, Live, running

DRIVER = os.environ.get("DORMICE_TEST_DRIVER", "process")
"""`container` runs on real machines what otherwise is run on bare processes."""
GUEST = Path(__file__).resolve().parents[1] / "guest" / "build" / "dormice-guest"
StartLive = Callable[..., AbstractContextManager[Live]]


def pytest_configure() -> None:
    """Take signals again that a shell has this ignore in the background, or nohup: the programs that tests start would ignore them, too."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that were given more time than others: the worker that met one last would be waited for."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(scope="session", name="directory")
def _directory() -> Iterator[Callable[[], Path]]:
    """Make directories that others may look into: the server does after it has given up root."""
    parent = Path(tempfile.mkdtemp(prefix="dormice-test-"))
    parent.chmod(0o755)
    yield lambda: Path(tempfile.mkdtemp(dir=parent))
    rmtree(parent)


@pytest.fixture(scope="session", name="start_live")
def _start_live(directory: Callable[[], Path]) -> StartLive:
    """Start a Dormice of one's own: `with start_live(DORMICE_LIMIT_…="…") as live`."""
    if not GUEST.exists():
        pytest.fail("no guest: run `make guest`")

    def start(driver: str = DRIVER, **extra: str) -> AbstractContextManager[Live]:
        path = directory()
        path.chmod(0o755)
        return running(path, driver, **extra)

    return start


@pytest.fixture(scope="session", name="live")
def _live(start_live: StartLive) -> Iterator[Live]:
    """The Dormice of this session, whose machines are bare processes: quick, needs no root, isolates nothing."""
    with start_live(DORMICE_SSH_LISTEN="127.0.0.1:0") as live:
        yield live


@pytest.fixture(scope="session", name="api")
def _api(live: Live) -> Iterator[Api]:
    """A client of `live`."""
    with live.client() as api:
        yield api


@pytest.fixture(scope="session", name="machine")
def _machine(api: Api) -> str:
    """A running machine of `live` that tests share: put nothing to sleep, leave no process behind."""
    return api.create_machine(autosleep="never")


@pytest.fixture(scope="session", name="container_live")
def _container_live(start_live: StartLive) -> Iterator[Live]:
    """The Dormice of this session whose machines are real. Its tests are marked `machines`."""
    if os.geteuid() != 0:
        pytest.skip("real machines need root")
    if not (IMAGE_DIR / "default").exists():
        pytest.fail(f"no default image in {IMAGE_DIR}: run `make image`")
    with ExitStack() as stack:
        yield stack.enter_context(partial(start_live, "container", DORMICE_SSH_LISTEN="127.0.0.1:0")())


@pytest.fixture(scope="session", name="container_api")
def _container_api(container_live: Live) -> Iterator[Api]:
    """A client of `container_live`."""
    with container_live.client() as api:
        yield api


@pytest.fixture(scope="session", name="container_machine")
def _container_machine(container_api: Api) -> str:
    """A running machine of `container_live` that tests share."""
    return container_api.create_machine(autosleep="never")
