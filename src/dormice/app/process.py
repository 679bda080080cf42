"""What a server and a node have in common as processes."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dormice import lifeline
from dormice.config import SettingsError
from dormice.node.runtime import RuntimeFailure
from dormice.store.interface import StoreUnavailable

GARBAGE_OBJECTS = 50_000
"""How many new objects before the collector looks for cycles among them: a request makes hundreds, and no cycle."""


class Ended(Exception):
    """Raised inside the TaskGroup to end every service: an orderly stop."""


@contextmanager
def one_failure() -> Iterator[None]:
    """Raise what an operator can act on as itself, out of the groups of the tasks it ended."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, SettingsError | RuntimeFailure | StoreUnavailable):
            raise cause from None
        raise


def settle_garbage() -> None:
    """Spare the collector what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 50)


def on_stop(act: Callable[[], None]) -> None:
    """Call `act` on SIGTERM, on SIGINT, and when the supervisor is gone."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act)
    if (fd := lifeline.take()) is not None:

        def gone() -> None:
            loop.remove_reader(fd)
            act()

        loop.add_reader(fd, gone)
