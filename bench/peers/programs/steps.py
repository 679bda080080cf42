"""The workflow that every system runs: three steps, each of which returns a small dict."""

from __future__ import annotations

import time

STEPS = (1, 2, 3)

Step = dict[str, float]


def step(number: int) -> Step:
    """Return the step's number and when it ran, on the clock that all processes of a host share."""
    return {"step": number, "at": time.monotonic()}
