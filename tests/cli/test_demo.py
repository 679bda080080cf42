"""`dormice demo` as a new user runs it. Needs the guest's binary (`make guest`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Dormice


def assert_shown(text: str) -> None:
    for each in ("Linux", "line 3, to stdout", "line 3, to stderr", "status        succeeded", "in all"):
        assert each in text
    assert "delete to destroyed" in text


def test_the_demo_shows_it_all_and_leaves_nothing(dormice: Dormice) -> None:
    done = dormice("demo", "--driver", "process")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_shown(done.stdout.decode())
    assert not list(Path("/tmp").glob("dormice-demo-*"))


@pytest.mark.machines
def test_the_demo_on_a_real_machine_leaves_nothing(dormice: Dormice) -> None:
    done = dormice("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_shown(done.stdout.decode())
    left = [Path("/run/demo"), Path("/sys/fs/cgroup/demo"), *Path("/sys/fs/cgroup").glob("*/demo")]
    assert not [path for path in left if path.exists()]


def test_a_demo_that_cannot_start_says_why(dormice: Dormice) -> None:
    done = dormice("demo", "--driver", "process", DORMICE_GUEST="/nowhere/guest")
    assert done.returncode == 1
    assert b"The demo failed: " in done.stdout
    assert b"/nowhere/guest" in done.stdout
    assert not list(Path("/tmp").glob("dormice-demo-*"))
