"""Says what holds the event loop of a worker: nothing else goes on then, and soon the server gives its runs to others."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("dormice.workflows")

LATE_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_MOST_FRAMES = 8
_OURS = str(Path(__file__).parent)

Holder = Callable[[asyncio.Task[object] | None], str]
"""Says whose a task is. It is called on another thread, while the event loop stands still."""


@contextmanager
def watched(holder: Holder) -> Iterator[None]:
    """Have a thread see every second whether the running event loop answers, and log what holds it."""
    ended = threading.Event()
    arguments = (asyncio.get_running_loop(), threading.get_ident(), holder, ended)
    threading.Thread(target=_watch, args=arguments, name="stall-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(loop: asyncio.AbstractEventLoop, thread_id: int, holder: Holder, ended: threading.Event) -> None:
    while not ended.wait(_PAUSE_SECONDS):
        answered = threading.Event()
        try:
            loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # it is closed
            return
        if not answered.wait(LATE_SECONDS):
            log.warning(
                "%s has held the event loop for more than %.0f s, and no other run of this worker goes on: await what takes long, "
                "or give it to ctx.step as a plain function, which is run on a thread\n%s",
                holder(asyncio.current_task(loop)),
                LATE_SECONDS,
                _place(thread_id),
            )
            while not (answered.wait(_PAUSE_SECONDS) or ended.is_set()):
                pass


def _place(thread_id: int) -> str:
    """Where the thread is: its innermost calls, from the user's function on."""
    stack = traceback.extract_stack(sys._current_frames().get(thread_id))  # noqa: SLF001 - documented, for debuggers
    user = next((index for index in range(len(stack), 0, -1) if stack[index - 1].filename.startswith(_OURS)), 0)
    return "".join(traceback.format_list(stack[user:][-_MOST_FRAMES:] or stack[-1:])).rstrip()
