"""`dormice up`: one server and one node as children, restarted with back-off, ended together."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

from dormice import lifeline
from dormice.config import MISCONFIGURED, Settings

log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.2
LAST_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A child that lived so long is restarted as if it had never failed."""
FIRST_SECONDS = 10.0
"""Within this a role that is started for the first time finds out that it cannot work as it is set."""
STOP_SECONDS = 60.0


@dataclass(eq=False, slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff: float = FIRST_BACKOFF_SECONDS
    start_at: float = field(default_factory=time.monotonic)
    starts: int = 0


def supervise(settings: Settings) -> int:
    """Run both until SIGTERM or SIGINT, or until its own parent's lifeline ends, then end both. Returns the exit code."""
    pipe, holder = os.pipe()
    stop, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    children = [_Child("server"), _Child("node")]
    selector = selectors.DefaultSelector()
    selector.register(stop, selectors.EVENT_READ)
    if (own := lifeline.take()) is not None:
        selector.register(own, selectors.EVENT_READ)
    try:
        while True:
            for child in children:
                if _ended(child) and _misconfigured(child):
                    return MISCONFIGURED
                _start(child, settings, pipe)
            due = min((c.start_at - time.monotonic() for c in children if c.process is None), default=None)
            ready = {key.fd for key, _ in selector.select(timeout=None if due is None else max(due, 0))}
            if ready - {stop}:
                return 0
            if ready:
                numbers = os.read(stop, 512)
                if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                    return 0
    finally:
        # The server first: the node goes on carrying its last acknowledgements.
        for child in children:
            _end(child)
        os.close(holder)


def _ended(child: _Child) -> bool:
    return child.process is not None and child.process.poll() is not None


def _misconfigured(child: _Child) -> bool:
    """Take note of a child's end. Returns whether it is of no use to start it again: it has said why.

    What worked before is worth trying again: a port or a range of addresses may be taken for a moment only.
    """
    process, child.process = child.process, None
    code = process.returncode if process is not None else 0
    lived = time.monotonic() - child.started_at
    if code == MISCONFIGURED and child.starts == 1 and lived < FIRST_SECONDS:
        return True
    if lived > STEADY_SECONDS:
        child.backoff = FIRST_BACKOFF_SECONDS
    log.error("%s ended with code %d, starts again in %.1f s", child.role, code, child.backoff)
    _back_off(child)
    return False


def _back_off(child: _Child) -> None:
    child.start_at = time.monotonic() + child.backoff
    child.backoff = min(child.backoff * 2, LAST_BACKOFF_SECONDS)


def _start(child: _Child, settings: Settings, pipe: int) -> None:
    """Start a child that is due. When the host has no room for a process, later."""
    now = time.monotonic()
    if child.process is not None or child.start_at > now:
        return
    try:
        child.process = subprocess.Popen(
            # Safe path: what lies in the directory that root happens to be in is not to be imported.
            [sys.executable, "-P", "-m", "dormice.cli", child.role],
            env={**os.environ, **settings.environment(), lifeline.VARIABLE: str(pipe)},
            stdin=subprocess.DEVNULL,
            pass_fds=(pipe,),
            start_new_session=True,
        )
    except OSError as error:
        log.error("%s cannot be started, tried again in %.1f s: %s", child.role, child.backoff, error)  # noqa: TRY400 - no trace needed
        _back_off(child)
    else:
        child.started_at = now
        child.starts += 1


def _end(child: _Child) -> None:
    process = child.process
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        log.error("%s did not stop within %.0f s and is killed", child.role, STOP_SECONDS)  # noqa: TRY400 - no trace needed
        process.kill()
        process.wait()
