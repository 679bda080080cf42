"""Process 1 of a machine under libFuzzer, ASan and UBSan: its decoder, and whole sessions (guest/fuzz/)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from dormice.domain.execution import Stream
from dormice.protocol import guest
from tests.fuzz.budget import FIRST_SEED, SECONDS, replayable
from tests.shares import one_at_a_time

SOURCES = Path(__file__).parents[2] / "guest"
ID = bytes(range(1, 17))
FRAMES: tuple[guest.NodeFrame, ...] = (
    guest.Hello(1),
    guest.Start(execution=ID, boot_id=UUID(int=7).bytes, argv=("/bin/echo", "a b", ""), env={"PATH": "/bin", "A": "="}, cwd="/root", kept_limit=1 << 20),
    guest.Stdin(ID, 0, b"input", eof=True),
    guest.Ack(ID, Stream.STDERR, 65_536),
    guest.Cancel(ID, 500),
    guest.Forget(ID),
    guest.Stop(2_000),
    guest.Ping(1 << 63),
    guest.Poweroff(),
)  # fmt: skip
RUNS = {"frames": 1_000_000, "session": 6_000}


@pytest.fixture(name="fuzzers", scope="module")
def _fuzzers() -> Path:
    with one_at_a_time("fuzzers"):
        subprocess.run(["make", "--silent", "-C", SOURCES, "fuzzers"], check=True)
    return SOURCES / "build" / "fuzz"


@pytest.mark.parametrize("target", RUNS)
def test_the_guest_survives(target: str, fuzzers: Path, tmp_path: Path) -> None:
    found = SOURCES / "build" / f"corpus-{target}" if SECONDS else tmp_path / "found"
    seeds = tmp_path / "seeds"
    for directory in (found, seeds):
        directory.mkdir(exist_ok=True)
    for frame in FRAMES:
        (seeds / type(frame).__name__).write_bytes(guest.encode(frame))
    (seeds / "all").write_bytes(b"".join(map(guest.encode, FRAMES)))
    limit = f"-max_total_time={SECONDS:.0f}" if SECONDS else f"-runs={RUNS[target]}"
    command: list[str | Path] = [
        *(
            fuzzers / target,
            limit,
            f"-seed={FIRST_SEED}",
            "-max_len=4096",
            "-timeout=20",
            f"-artifact_prefix={SOURCES}/build/",
        ),
        *(found, SOURCES / "fuzz" / "corpus" / target, *([seeds] if target == "frames" else [])),
    ]
    with replayable(FIRST_SEED):
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd=tmp_path, env=os.environ
        )
        assert done.returncode == 0, done.stderr[-6_000:]
