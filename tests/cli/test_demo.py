"""`dormice demo` as a new user runs it. Needs the guest's binary (`make guest`)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dormice.cli.demo import IMAGE_DIR
from tests.cli.conftest import COMMAND, Dormice
from tests.shares import one_at_a_time


@pytest.fixture(autouse=True, name="alone")
def _alone() -> Iterator[None]:
    """A host has one demo at a time, and these tests look for what any of them has left."""
    with one_at_a_time("demo"):
        yield


def registered() -> list[str]:
    """What of demos is written down in the directory of the images."""
    return [text for file in Path(IMAGE_DIR, ".users").glob("*.json") if "dormice-demo-" in (text := file.read_text())]


def assert_shown(text: str) -> None:
    for each in ("Linux", "line 3, to stdout", "line 3, to stderr", "status        succeeded", "in all"):
        assert each in text
    assert "delete to destroyed" in text


def test_the_demo_shows_it_all_and_leaves_nothing(dormice: Dormice) -> None:
    done = dormice("demo", "--driver", "process")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_shown(done.stdout.decode())
    assert not list(Path("/tmp").glob("dormice-demo-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_the_demo_runs_on_a_small_disk(environment: dict[str, str]) -> None:
    on_small_disk = 'mount -t tmpfs -o size=6g none "$TMPDIR" && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", on_small_disk, "sh", *COMMAND, "demo", "--driver", "process"],
        env={**environment, "TMPDIR": "/mnt"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.machines
def test_the_demo_on_a_real_machine_leaves_nothing(dormice: Dormice) -> None:
    done = dormice("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_shown(done.stdout.decode())
    left = [Path("/run/demo"), Path("/sys/fs/cgroup/demo"), *Path("/sys/fs/cgroup").glob("*/demo")]
    assert not [path for path in left if path.exists()]
    assert not registered()


def interrupted(number: int, environment: dict[str, str], *words: str) -> int:
    """The exit code of a demo that gets a signal while its script runs on the machine."""
    with subprocess.Popen([*COMMAND, "demo", *words], env=environment, stdout=subprocess.PIPE) as demo:
        assert demo.stdout
        for line in demo.stdout:
            if b"line 1, to stdout" in line:
                demo.send_signal(number)
        return demo.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(environment: dict[str, str], number: int) -> None:
    assert interrupted(number, environment, "--driver", "process") == 128 + number
    assert not list(Path("/tmp").glob("dormice-demo-*"))


@pytest.mark.machines
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_machine(environment: dict[str, str], number: int) -> None:
    assert interrupted(number, environment) == 128 + number
    assert "dormice-demo-" not in Path("/proc/mounts").read_text()
    left = [Path("/run/demo"), Path("/sys/fs/cgroup/demo"), *Path("/sys/fs/cgroup").glob("*/demo")]
    assert not [path for path in left if path.exists()]
    assert not registered()


def test_a_demo_that_cannot_start_says_why(dormice: Dormice) -> None:
    done = dormice("demo", "--driver", "process", DORMICE_GUEST="/nowhere/guest")
    assert done.returncode == 1
    assert b"The demo failed: " in done.stdout
    assert b"/nowhere/guest" in done.stdout
    assert not list(Path("/tmp").glob("dormice-demo-*"))
