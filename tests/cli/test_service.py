"""`dormice up`, `server` and `node` as far as they get with settings that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Dormice


@pytest.mark.parametrize("role", ["up", "server", "node"])
def test_a_setting_that_is_wrong_is_one_line(dormice: Dormice, tmp_path: Path, role: str) -> None:
    done = dormice(role, "--data-dir", str(tmp_path / "data"), "--listen", "nowhere")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert done.stderr.startswith(b"dormice: listen is 'nowhere'")
    assert not (tmp_path / "data").exists()
