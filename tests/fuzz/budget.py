"""How long fuzzing takes: one round of examples in CI, as many rounds as fit by `make fuzz MINUTES=n`.

A round is determined by its seed. A failure names the seed; `DORMICE_FUZZ_SEED=n pytest TEST` runs that round again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

SECONDS = float(os.environ.get("DORMICE_FUZZ_SECONDS", "0"))
"""For each test, 0 for one round."""
FIRST_SEED = int(os.environ.get("DORMICE_FUZZ_SEED", "1"))


def rounds() -> Iterator[int]:
    """Yield the seed of each round that there is time for."""
    until = time.monotonic() + SECONDS
    for number in count(FIRST_SEED):
        yield number
        if time.monotonic() >= until:
            return


@contextmanager
def replayable(number: int) -> Iterator[None]:
    """Say in a failure how to see it again."""
    try:
        yield
    except Exception as error:
        error.add_note(f"to see it again: DORMICE_FUZZ_SEED={number}")
        raise


def chosen(examples: int, steps: int = 50) -> settings:
    """Return Hypothesis' settings for a round."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def fuzzed(examples: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Make a test of what Hypothesis' `given` has made."""

    def decorate(check: Callable[[], None]) -> Callable[[], None]:
        bounded = chosen(examples)(check)

        def test() -> None:
            for number in rounds():
                with replayable(number):
                    seed(number)(bounded)()

        test.__doc__ = check.__doc__
        return test

    return decorate


def fuzz_machine(machine: type[RuleBasedStateMachine], examples: int, steps: int = 50) -> None:
    """Run a state machine."""
    for number in rounds():
        with replayable(number):
            run_state_machine_as_test(seed(number)(machine), settings=chosen(examples, steps))
