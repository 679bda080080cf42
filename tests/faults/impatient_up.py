"""`dormice up` that does not wait longer and longer before it starts a child again: `python -m tests.faults.impatient_up`."""

from __future__ import annotations

import sys

from dormice import supervisor
from dormice.cli.main import run

if __name__ == "__main__":
    supervisor.LAST_BACKOFF_SECONDS = 0.05
    sys.exit(run(["up"]))
