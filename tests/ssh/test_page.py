"""The commands by which the page makes a session by hand let somebody in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.live import Live

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ssh.md"


def test_a_session_made_by_hand_lets_in(ssh_live: Live, machine: str, tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^By hand.*?```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    script = re.sub("^# ", "", block, flags=re.MULTILINE).replace("http://127.0.0.1:7433", ssh_live.base_url)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", f"{script.rstrip()} echo inside"],
        cwd=tmp_path,
        env={**os.environ, "KEY": ssh_live.api_key, "MACHINE": machine},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "inside\n"), done.stderr
