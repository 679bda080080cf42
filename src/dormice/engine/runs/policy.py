"""The numbers that the engine of runs goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicy:
    """Times in the unit of the name."""

    crashes: int = 5
    """Workers that may be lost with a run before it fails."""
    silent_push_ms: int = 10_000
    """How long nothing may be heard of a run whose push had no answer before its worker is asked."""
    restart_ms: int = 3_000
    """The same, after a start of the server."""
    worker_silent_ms: int = 60_000
    """A worker that was not heard of for so long is given nothing more; if nobody listens at its address then, it is lost."""
    worker_lost_ms: int = 90_000
    """And after so long, it is lost, and its runs are put back."""
    late_tick_ms: int = 30_000
    """A tick of a schedule that is taken later than this was missed: what becomes of it then is for the schedule to say."""
    caught_up_ticks: int = 100
    """Ticks that were missed in a row of which something may become, the last ones."""
    schedules_per_project: int = 100_000
    triggers_per_project: int = 10_000
    pull_lost_ms: int = 10_000
    """A worker that fetches its work, and is not heard of for so long, is lost; it lets go of its runs before that by itself."""
    cancel_again_ms: int = 5_000
    cancel_given_up_ms: int = 120_000
    """How long a worker may take to end a run before the run counts as cancelled (contract, section 2.5)."""
