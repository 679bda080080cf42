"""`dormice gc` where nothing ever ran, and where something cannot be removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Dormice


@pytest.fixture(name="options")
def _options(tmp_path: Path) -> list[str]:
    places = {"data-dir": tmp_path / "data", "run-dir": tmp_path / "run", "image-dir": tmp_path / "images"}
    return ["--instance", "lkcli", *(word for name, path in places.items() for word in (f"--{name}", str(path)))]


def test_where_nothing_ever_ran_there_is_nothing(dormice: Dormice, options: list[str]) -> None:
    done = dormice("gc", *options)
    assert (done.returncode, done.stdout) == (0, b"0 removed, 0 MiB\n")


def test_a_dry_run_only_says_what_the_next_one_removes(dormice: Dormice, options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "data/node/disks/pool/1-abc"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    done = dormice("gc", "--dry-run", "--json", *options)
    assert (done.returncode, file.exists()) == (0, True)
    said = json.loads(done.stdout)
    assert (said["kind"], said["what"], said["removed"]) == ("temporary file", str(file), False)
    assert dormice("gc", *options).returncode == 0
    assert not file.exists()


def test_what_cannot_be_removed_is_told_and_is_the_exit_code(
    dormice: Dormice, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "data/node/disks/pool/1-abc").mkdir(parents=True)
    done = dormice("gc", *options)
    assert done.returncode == 1
    assert done.stdout.startswith(b"failed  temporary file:")
    assert b"0 removed, 0 MiB; 1 failed" in done.stdout


def test_a_setting_that_is_wrong_is_refused(dormice: Dormice) -> None:
    done = dormice("gc", "--network", "everything")
    assert done.returncode == 2
    assert done.stderr.startswith(b"dormice gc: network:")
