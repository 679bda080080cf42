"""Holding a mounted file system still, so that what is on its disk is whole and clean, whoever dies meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormice.node.runtime import RuntimeFailure

MOST_SECONDS = 30
"""A file system is thawed after so long, whatever becomes of its copy."""
_WATCHDOG = (
    'fsfreeze --freeze "$0" || exit 1; echo; timeout "$1" head --bytes=1; late=$?; fsfreeze --unfreeze "$0"; exit $late'
)
"""Thaws when its input ends, which it does with the process that has the other end, and after MOST_SECONDS in any case."""


@contextmanager
def frozen(directory: Path, *, seconds: int = MOST_SECONDS) -> Iterator[None]:
    """Nothing is written to the file system in this block, and its journal is empty. Those who write wait.

    Raises RuntimeFailure when it cannot be frozen, or was thawed before the block was done: then a copy made in it is worth nothing.
    """
    command = ["/bin/sh", "-c", _WATCHDOG, str(directory), str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as watchdog:
        lifeline, voice = watchdog.stdin, watchdog.stdout
        if lifeline is None or voice is None:
            raise RuntimeError("a watchdog without pipes")
        try:
            if said := voice.readline().strip():
                why = said.decode(errors="replace")
                raise RuntimeFailure("SNAPSHOT_FAILED", f"the disk cannot be held still: {why}", retryable=True)
            yield
        finally:
            lifeline.close()
            thawed_in_time = watchdog.wait() == 0
    if not thawed_in_time:
        words = f"the disk takes longer than {seconds} s to copy: put the machine to sleep first"
        raise RuntimeFailure("SNAPSHOT_FAILED", words)


def thaw(directory: Path) -> None:
    """Let a file system go on that a watchdog may have died over. One that is not frozen is no error."""
    subprocess.run(
        ["fsfreeze", "--unfreeze", str(directory)], check=False, stdin=subprocess.DEVNULL, capture_output=True
    )
